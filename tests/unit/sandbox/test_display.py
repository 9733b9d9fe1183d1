"""What the virtual POS shows of a frame holds no card number, track, expiry or PIN block."""

from __future__ import annotations

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.iso8583.dialect import DIALECTS
from gateway.iso8583.spec import Suite
from gateway.terminal_keys.model import KeyManagement
from nodes.crypto.offline_record import RecordChain, sign_as_card
from sandbox.secure_module import TerminalKeys
from sandbox.terminal import PURCHASE, Card, Terminal
from sandbox.terminals.display import shown, shown_call, shown_record

PAN = "6223001000000007"


@pytest.mark.parametrize("dialect", ["bcd-tpdu", "ascii", "ebcdic"])
@pytest.mark.parametrize("track", [None, f"{PAN}D3112201123456789"])
@pytest.mark.parametrize("suite", list(Suite))
def test_card_data_is_covered(dialect: str, track: str | None, suite: Suite) -> None:
    keys = TerminalKeys(suite, KeyManagement.TMK, bytes(range(16)))
    pos = Terminal("T0000001", "M" * 15, b"", "", 0, keys=keys, dialect=DIALECTS[dialect])
    message = pos.request("0200", PURCHASE, Card(PAN, "3112"), 1250, "4711", track=track)
    frame = pos.seal(message, epoch=0)
    found = shown(frame, pos.dialect, suite)
    assert found["mti"] == "0200"
    values = {field["number"]: field["value"] for field in found["fields"]}
    assert values[4] == "000000001250"
    assert set(values[52]) == {"•"}
    text = found["hex"].lower() + repr(values).lower()
    block = message.binary[52].hex()
    for digits in (PAN, PAN[6:], "3112201"):
        for written in (digits, digits.encode().hex(), digits.encode("cp037").hex()):
            assert written not in text
    for written in (block, block.encode().hex(), block.upper().encode().hex()):
        assert written not in text
    assert len(found["hex"]) == 2 * len(frame)
    assert PAN[:6] in repr(values)


def test_a_call_s_single_use_code_is_covered_and_its_answer_s_code_is_not() -> None:
    asked = httpx.Request(
        "POST",
        "http://127.0.0.1:1/v1/orders/A/payments",
        headers={"Idempotency-Key": "one"},
        json={"code": "hQVDUFYwMWEY"},
    )
    answer = httpx.Response(200, json={"approved": True, "code": "00"}, request=asked)
    sent, answered = shown_call(answer)
    assert "hQVDUFYwMWEY" not in repr(sent)
    assert sent["hex"].startswith("POST /v1/orders/A/payments HTTP/1.1\n")
    assert "Idempotency-Key: one" in sent["hex"]
    values = {field["name"]: field["value"] for field in answered["fields"]}
    assert values == {"approved": "true", "code": "00"}


def test_a_kept_record_is_shown_by_its_parts() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    chain = RecordChain("T0000001", 7)
    record = chain.append(
        card_key_id=bytes(8),
        atc=3,
        amount=735,
        currency="CNY",
        nonce=bytes(8),
        at_ms=1_795_400_000_000,
        sign=lambda message: sign_as_card(key, message),
    )
    found = shown_record(record)
    values = {field["name"]: field["value"] for field in found["fields"]}
    assert (values["Epoch"], values["Number"], values["Amount"]) == ("7", "1", "735")
    assert bytes.fromhex(found["hex"]) == record
