"""docs/dialects.md and docs/keys.md against the code, the examples by stock pyiso8583 first."""

from __future__ import annotations

import json
import re
from pathlib import Path

import iso8583
import psec
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from gateway.iso8583.dialect import DIALECTS, parse_dialect
from gateway.iso8583.spec import Suite
from gateway.pos.session import Forward, Session
from gateway.pos.translate import FINGERPRINT_KEY, FINGERPRINT_LABEL, Policy
from gateway.terminal_keys import tlv
from gateway.terminal_keys.model import KeyManagement, TerminalRecord
from gateway.terminal_keys.ring import ALGORITHMS, KeyRing, tmk_name
from nodes.authorization.model import Kind
from nodes.crypto.hsm import KeyUse, SoftwareHsm
from tests.factories.pos import CARD, MERCHANT, NOW_MS, PIN

DOCS = Path(__file__).parents[3] / "docs"
TEXT = (DOCS / "dialects.md").read_text(encoding="ascii")
FRAMES = {
    name: bytes.fromhex("".join(re.sub(r"DE\d+.*", "", line) for line in block.splitlines()))
    for name, block in re.findall(r"```hex ([a-z0-9-]+)\n(.*?)```", TEXT, re.DOTALL)
}
KEYS = {
    " ".join(name.split()): bytes.fromhex(value)
    for name, value in re.findall(r"^([A-Za-z][^\n]*?) +([0-9a-f]{32})$", TEXT, re.MULTILINE)
}
#: name -> dialect, the spec's file, the suite's name in the table of keys, the suite
EXAMPLES = {
    "purchase-ascii-sm": ("ascii", "ascii-sm", "SM", Suite.SM),
    "purchase-ebcdic-sm": ("ebcdic", "ebcdic-sm", "SM", Suite.SM),
    "purchase-bcd-tpdu-aes": ("bcd-tpdu", "bcd-tpdu-aes", "AES", Suite.AES),
    "purchase-bcd-tpdu-dukpt": ("bcd-tpdu", "bcd-tpdu-aes", "AES", Suite.AES),
    "purchase-bcd-tpdu-legacy": ("bcd-tpdu", "bcd-tpdu-legacy", "legacy", Suite.LEGACY),
    "covered-ascii-sm": ("ascii", "ascii-sm", "SM", Suite.SM),
}
STATIC = [name for name in EXAMPLES if "dukpt" not in name]


def _start(name: str) -> int:
    return {"ascii": 2 + 12, "ebcdic": 2 + 6, "bcd-tpdu": 2 + 5 + 6}[EXAMPLES[name][0]]


def _decoded(name: str) -> dict[str, str]:
    spec = json.loads((DOCS / "iso8583-specs" / f"{EXAMPLES[name][1]}.json").read_text())
    raw = FRAMES[name][_start(name) :]
    document, _ = iso8583.decode(raw, spec)
    again, _ = iso8583.encode({k: v for k, v in document.items() if k != "p"}, spec)
    assert again == raw
    return dict(document)


def _mac(suite: Suite, key: bytes, message: bytes) -> bytes:
    if suite is Suite.LEGACY:
        return psec.mac.generate_retail_mac(key[:8], key[8:], message, 2)
    state = CMAC(algorithms.SM4(key) if suite is Suite.SM else algorithms.AES(key))
    state.update(message)
    return state.finalize()[:8]


def test_every_example_is_there() -> None:
    assert FRAMES.keys() == EXAMPLES.keys()
    for frame in FRAMES.values():
        assert int.from_bytes(frame[:2], "big") == len(frame) - 2


@pytest.mark.parametrize("name", EXAMPLES)
def test_stock_pyiso8583_reads_each_example(name: str) -> None:
    document = _decoded(name)
    assert (document["t"], document["4"], document["41"]) == ("0200", "000000001250", "POS00001")
    assert ("2" in document) == (not name.startswith("covered"))


@pytest.mark.parametrize("name", STATIC)
def test_each_mac_is_over_the_bytes_on_the_wire(name: str) -> None:
    dialect, _, keys, suite = EXAMPLES[name]
    width = 16 if dialect == "ascii" else 8
    covered = FRAMES[name][7 if dialect == "bcd-tpdu" else 2 : -width]
    mac = _mac(suite, KEYS[f"MAC key, {keys}"], covered)
    assert _decoded(name)["64"] == mac.hex().upper()


def test_the_pin_blocks_open_with_what_anybody_has() -> None:
    aes = bytes.fromhex(_decoded("purchase-bcd-tpdu-aes")["52"])
    assert psec.pinblock.decipher_pinblock_iso_4(KEYS["PIN key, AES"], aes, CARD.pan) == PIN
    des = bytes.fromhex(_decoded("purchase-bcd-tpdu-legacy")["52"])
    clear = psec.des.decrypt_tdes_ecb(KEYS["PIN key, legacy"], des)
    assert psec.pinblock.decode_pinblock_iso_0(clear, CARD.pan) == PIN


def test_the_static_keys_follow_from_the_master_key() -> None:
    for suite, name in ((Suite.SM, "SM"), (Suite.AES, "AES")):
        cipher = algorithms.SM4 if suite is Suite.SM else algorithms.AES
        for use in ("MAC", "PIN"):
            state = CMAC(cipher(KEYS["TMK"]))
            state.update(f"countersign/{use.lower()}/0".encode())
            assert state.finalize() == KEYS[f"{use} key, {name}"]


def test_the_cover_opens_with_the_data_key() -> None:
    values = tlv.read(bytes.fromhex(_decoded("covered-ascii-sm")["62"])) or {}
    sealed = values[tlv.COVER]
    mode = modes.GCM(sealed[:12], sealed[-16:])
    opener = Cipher(algorithms.SM4(KEYS["data key, SM"]), mode).decryptor()
    opener.authenticate_additional_data(b"0200" + b"000001" + b"POS00001")
    plain = opener.update(sealed[12:-16]) + opener.finalize()
    assert (tlv.read(plain) or {})[35].startswith(CARD.pan.encode() + b"D2812")


@pytest.mark.parametrize("name", STATIC)
def test_the_gateway_takes_each_example(name: str) -> None:
    dialect, _, _, suite = EXAMPLES[name]
    imported = tmk_name("POS00001")
    hsm = SoftwareHsm(
        {"master": bytes(16), "zone": bytes(range(16)), imported: KEYS["TMK"]},
        {imported: ALGORITHMS[suite]},
    )
    hsm.derive("master", FINGERPRINT_LABEL, FINGERPRINT_KEY)
    record = TerminalRecord("POS00001", MERCHANT, suite, True, KeyManagement.TMK)
    policy = Policy(frozenset({"CNY"}), 10_000_000_000, 15_000)
    session = Session(hsm, KeyRing(hsm, [record], 86_400), policy)
    step = session.receive(FRAMES[name][2:], NOW_MS, DIALECTS[dialect])
    assert isinstance(step, Forward)
    request = step.request
    assert (request.kind, request.amount, request.pan) == (Kind.PURCHASE, 1250, CARD.pan)
    assert request.pin_block == hsm.seal_pin("zone", PIN, CARD.pan)


def test_the_dukpt_example_opens_with_the_initial_key() -> None:
    name = "purchase-bcd-tpdu-dukpt"
    document = _decoded(name)
    serial = (tlv.read(bytes.fromhex(document["62"])) or {})[tlv.KEY_SERIAL]
    assert serial.hex() == "4353000100000000" + "00000001"
    device = SoftwareHsm({"ik": KEYS["TMK"]}, {"ik": ALGORITHMS[Suite.AES]})
    device.derive_transaction("ik", serial, {KeyUse.MAC: "mac", KeyUse.PIN: "pin"})
    assert device.mac("mac", FRAMES[name][7:-8]).hex().upper() == document["64"]
    block = bytes.fromhex(document["52"])
    pin = psec.pinblock.decipher_pinblock_iso_4(device._secret("pin"), block, CARD.pan)
    assert pin == PIN


def test_the_table_of_dialects_names_each_that_ships() -> None:
    header = next(line for line in TEXT.splitlines() if line.startswith("| | "))
    assert {cell.strip() for cell in header.strip("|").split("|")} - {""} == set(DIALECTS)


def test_the_example_of_a_dialect_is_one() -> None:
    found = re.search(r"```json\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    assert parse_dialect(found[1], "example").name == "own"


def test_the_table_of_tags_is_the_codes() -> None:
    text = (DOCS / "keys.md").read_text(encoding="ascii")
    section = text.split("\n## DE62\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1] for line in section.splitlines() if re.match(r"\| [0-9]", line)]
    documented = {int(tag, 16) for row in rows for tag in row.split(",")}
    tags = {value for name, value in vars(tlv).items() if name.isupper()}
    assert documented == tags
