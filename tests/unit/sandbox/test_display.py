"""What the virtual POS shows of a frame holds no card number, track, expiry or PIN block."""

from __future__ import annotations

import pytest

from gateway.iso8583.dialect import DIALECTS
from gateway.iso8583.spec import Suite
from gateway.terminal_keys.model import KeyManagement
from sandbox.secure_module import TerminalKeys
from sandbox.terminal import PURCHASE, Card, Terminal
from sandbox.terminals.display import shown

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
