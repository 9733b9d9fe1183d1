"""docs/iso8583.md against the code, and read by somebody who has nothing else.

The first part uses stock pyiso8583, `cryptography` and the document only: what a third party has.
The second gives the documented requests to the real session and wants the documented answers.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import iso8583
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from gateway.iso8583.spec import SPECS, Content, Element, Suite
from gateway.pos.response_codes import (
    CODE_OF_OUTCOME,
    CODE_OF_REFUSAL,
    CODE_OF_SERVICE,
    PARTIALLY_APPROVED,
)
from gateway.pos.session import Forward, Reply, Session
from gateway.pos.translate import FINGERPRINT_KEY, FINGERPRINT_LABEL, ROUTES, Policy
from gateway.terminal_keys.model import TerminalRecord
from gateway.terminal_keys.ring import KeyRing
from nodes.acquiring.offline import decode_hotlist_page
from nodes.authorization.model import Kind, Outcome, TerminalAnswer
from nodes.authorization.services import (
    CurrencyTotals,
    ServiceAnswer,
    ServiceOutcome,
    ServiceRequest,
)
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.offline_record import decode_record, is_genuine
from tests.factories.pos import NOW_MS

DOCS = Path(__file__).parents[3] / "docs"
TEXT = (DOCS / "iso8583.md").read_text(encoding="ascii")
SPEC = json.loads((DOCS / "iso8583-spec.json").read_text(encoding="ascii"))
REQUEST_OF = {
    "approval": "purchase",
    "reversed": "reversal",
    "keys": "sign-on",
    "balance-answer": "balance",
    "partial-approval": "authorization",
    "batch-differs": "batch-close",
    "batch-closed": "batch-close",
    "hotlist-page": "hotlist",
}


def _frames() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, block in re.findall(r"```hex ([a-z-]+)\n(.*?)```", TEXT, re.DOTALL):
        digits = "".join(re.sub(r"DE\d.*", "", line) for line in block.splitlines())
        found[name] = bytes.fromhex(digits)
    return found


FRAMES = _frames()
KEYS = {
    " ".join(name.split()): bytes.fromhex(value)
    for name, value in re.findall(r"^([A-Z][^\n]*?) +([0-9a-f]{32})$", TEXT, re.MULTILINE)
}


def _cmac(key: bytes, message: bytes) -> bytes:
    state = CMAC(algorithms.SM4(key))
    state.update(message)
    return state.finalize()


def _sm4(key: bytes, block: bytes) -> bytes:
    return Cipher(algorithms.SM4(key), modes.ECB()).encryptor().update(block)


def _decoded(name: str) -> dict[str, str]:
    document, _ = iso8583.decode(FRAMES[name][13:], SPEC)
    return dict(document)


# What a third party can do with the document


def test_each_example_is_a_frame_that_pyiso8583_reads() -> None:
    assert len(FRAMES) == 26
    for name, frame in FRAMES.items():
        assert int.from_bytes(frame[:2], "big") == len(frame) - 2, name
        document = _decoded(name)
        assert document["41"] == "POS00001"
        again, _ = iso8583.encode({k: v for k, v in document.items() if k != "p"}, SPEC)
        assert again == frame[13:]


def test_the_epoch_0_keys_follow_from_the_master_key() -> None:
    for use in ("MAC", "PIN"):
        text = f"countersign/{use.lower()}/0".encode()
        assert _cmac(KEYS["TMK"], text) == KEYS[f"{use} key, epoch 0"]


def test_the_sign_on_answer_wraps_the_keys_of_its_epoch() -> None:
    grant = bytes.fromhex(_decoded("keys")["62"])
    assert len(grant) == 46
    assert int.from_bytes(grant[:2], "big") == 20781
    assert int.from_bytes(grant[2:6], "big") <= 86_400
    for use, start in (("MAC", 6), ("PIN", 26)):
        key = KEYS[f"{use} key, epoch 20781"]
        assert grant[start : start + 16] == _sm4(KEYS["TMK"], key)
        assert grant[start + 16 : start + 20] == _sm4(key, bytes(16))[:4]


@pytest.mark.parametrize("name", FRAMES)
def test_each_mac_is_right(name: str) -> None:
    frame = FRAMES[name]
    document = _decoded(name)
    if name == "mac-refused":
        assert "64" not in document
        return
    epoch = int.from_bytes(frame[9:11], "big")
    asked = FRAMES[REQUEST_OF[name]][-8:] if name in REQUEST_OF else b""
    mac = _cmac(KEYS[f"MAC key, epoch {epoch}"], asked + frame[7:-8])[:8]
    assert document["64"] == mac.hex().upper()


@pytest.mark.parametrize(
    ("name", "epoch"), [("purchase", 0), ("authorization", 0), ("balance", 20781)]
)
def test_each_pin_block_is_right(name: str, epoch: int) -> None:
    clear = bytes(a ^ b for a, b in zip(KEYS["PIN field"], KEYS["PAN field"], strict=True))
    block = _sm4(KEYS[f"PIN key, epoch {epoch}"], clear)
    assert bytes.fromhex(_decoded(name)["52"]) == block
    if epoch == 0:
        assert block == KEYS["PIN block, epoch 0"]
    document = _decoded(name)
    assert KEYS["PAN field"].hex()[-12:] == document["2"][-13:-1]


# The document against the code


def _session() -> Session:
    hsm = SoftwareHsm(
        {
            "master": bytes.fromhex("00112233445566778899aabbccddeeff"),
            "zone": bytes(16),
            "tmk:POS00001": KEYS["TMK"],
        }
    )
    hsm.derive("master", FINGERPRINT_LABEL, FINGERPRINT_KEY)
    record = TerminalRecord("POS00001", "HARBOR000000001", static_keys=True)
    policy = Policy(frozenset({"CNY"}), 10_000_000_000, 15_000)
    return Session(hsm, KeyRing(hsm, [record], 86_400), policy)


@pytest.mark.parametrize(
    ("name", "kind", "amount", "original", "partial_ok", "final"),
    [
        ("purchase", Kind.PURCHASE, 1250, None, False, False),
        ("authorization", Kind.AUTHORIZATION, 20_000, None, True, False),
        ("increment", Kind.INCREMENT, 5_000, "632600000004", False, False),
        ("partial-reversal", Kind.REVERSAL, 3_000, None, False, False),
        ("completion", Kind.CAPTURE, 12_000, "632600000004", False, False),
        ("void", Kind.VOID, 12_000, "632600000006", False, False),
        ("advice", Kind.ADVICE, 3_000, None, False, False),
        ("top-up", Kind.TOP_UP, 5_000, None, False, False),
        ("authorization-advice", Kind.AUTHORIZATION, 8_000, None, True, False),
        ("offline-record", Kind.ADVICE, 3_000, None, False, False),
        ("reversal-advice", Kind.REVERSAL, 1_250, None, False, False),
    ],
)
def test_the_documented_requests_mean_what_is_said(
    name: str, kind: Kind, amount: int, original: str | None, partial_ok: bool, final: bool
) -> None:
    step = _session().receive(FRAMES[name][2:], NOW_MS)
    assert isinstance(step, Forward)
    request = step.request
    assert (request.kind, request.amount, request.rrn) == (kind, amount, original)
    assert (request.partial_ok, request.final) == (partial_ok, final)


def _answered(name: str, **answer: object) -> bytes:
    session = _session()
    step = session.receive(FRAMES[name][2:], NOW_MS)
    if isinstance(step, Reply):
        return step.frame
    assert isinstance(step, Forward)
    decision = TerminalAnswer(outcome=Outcome.APPROVED, currency="CNY", **answer)  # type: ignore[arg-type]
    return session.answer(step.request, step.address, decision).frame


def test_the_gateway_gives_the_documented_answers() -> None:
    assert FRAMES["approval"] == _answered(
        "purchase", rrn="632600000001", approval_code="A1B2C3", amount=1250
    )
    assert FRAMES["reversed"] == _answered("reversal", rrn="632600000001", amount=1250)
    assert FRAMES["keys"] == _answered("sign-on")
    assert FRAMES["balance-answer"] == _answered(
        "balance", rrn="632600000003", approval_code="A1B2C4", ledger=98750, available=98750
    )
    assert FRAMES["partial-approval"] == _answered(
        "authorization", rrn="632600000004", approval_code="A1B2C5", amount=15_000
    )
    bad = bytearray(FRAMES["purchase"])
    bad[-8] ^= 1
    step = _session().receive(bytes(bad[2:]), NOW_MS)
    assert isinstance(step, Reply)
    assert step.frame == FRAMES["mac-refused"]


def _served(name: str, **answer: object) -> tuple[ServiceRequest, bytes]:
    session = _session()
    step = session.receive(FRAMES[name][2:], NOW_MS)
    assert isinstance(step, Forward)
    assert isinstance(step.request, ServiceRequest)
    given = ServiceAnswer(**answer)  # type: ignore[arg-type]
    return step.request, session.answer(step.request, step.address, given).frame


def test_the_documented_batch_close_upload_and_download() -> None:
    asked, closed = _served("batch-close", outcome=ServiceOutcome.DONE, next_batch="000002")
    assert asked.totals == (CurrencyTotals("CNY", 3, 9_250, 1, 5_000),)
    assert closed == FRAMES["batch-closed"]
    differing = (CurrencyTotals("CNY", 4, 10_500, 1, 5_000),)
    _, told = _served("batch-close", outcome=ServiceOutcome.DIFFERS, totals=differing)
    assert told == FRAMES["batch-differs"]
    uploaded, _ = _served("upload", outcome=ServiceOutcome.DONE)
    assert uploaded.item is not None
    assert (uploaded.item.kind, uploaded.item.stan) == (Kind.TOP_UP, "000009")
    data = bytes.fromhex(_decoded("hotlist-page")["56"])
    asked, page = _served("hotlist", outcome=ServiceOutcome.DONE, data=data)
    assert (asked.version, page) == (0, FRAMES["hotlist-page"])
    decoded = decode_hotlist_page(data)
    record = decode_record(bytes.fromhex(_decoded("offline-record")["57"]))
    assert decoded.entries[0] == (record.card_key_id, True)
    key = "".join(re.findall(r"^([0-9a-f]{66})\n([0-9a-f]{64})$", TEXT, re.MULTILINE)[0])
    assert is_genuine(record, bytes.fromhex(key))


def _format_of(element: Element) -> str:
    prefix = {0: "", 1: " LLVAR", 2: " LLLVAR"}[element.prefix]
    exact = element.minimum == element.maximum
    length = f"{element.maximum}" if exact else f"..{element.maximum}"
    return f"{Content(element.content).value}{length}{prefix}"


def _rows(heading: str) -> list[list[str]]:
    section = TEXT.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_the_table_of_elements_is_the_spec() -> None:
    documented = {(int(row[0]), row[1], row[2]) for row in _rows("Data elements")}
    actual = {(e.number, e.name, _format_of(e)) for e in SPECS[Suite.SM].values()}
    assert documented == actual


def test_the_table_of_messages_is_the_routes() -> None:
    documented = {(row[0], code.strip()) for row in _rows("Messages") for code in row[1].split(",")}
    assert documented == {(mti, code) for mti, routes in ROUTES.items() for code in routes}
    for row in _rows("Messages"):
        if row[0] == "0200" and row[1] != "000000":
            continue  # "as a purchase"
        named = {int(number) for number in re.findall(r"\d+", row[3].split(";")[0])}
        for code in row[1].split(", "):
            assert named == ROUTES[row[0]][code].required, row


def test_every_response_code_is_documented_and_no_other() -> None:
    documented = {row[0] for row in _rows("Response codes")}
    told = {*CODE_OF_OUTCOME.values(), *CODE_OF_REFUSAL.values(), PARTIALLY_APPROVED}
    told |= {*CODE_OF_SERVICE.values()}
    assert documented == told
