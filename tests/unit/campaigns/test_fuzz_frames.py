"""The fuzz frames are what they are said to be, and traces of card data are seen in any form."""

from __future__ import annotations

import base64
import random
from itertools import islice
from pathlib import Path

import pytest

from gateway.iso8583 import codec
from gateway.iso8583.dialect import DIALECTS, Dialect
from gateway.iso8583.spec import Suite
from gateway.pos.framing import LENGTH_BYTES
from gateway.terminal_keys.model import KeyManagement
from sandbox.campaigns.card_traces import traces
from sandbox.campaigns.fuzz_frames import (
    MUTATIONS,
    Planted,
    Sender,
    make_message,
    senseless,
    unauthentic,
)
from sandbox.enrolled import ways
from sandbox.secure_module import TerminalKeys
from sandbox.terminal import Card, Terminal

CARD = Card("6223001079192830", "2812", "201")
PIN = "904817263554"


def sender(dialect: Dialect, suite: Suite = Suite.SM) -> Sender:
    keys = TerminalKeys(suite, KeyManagement.TMK, bytes(range(16)))
    terminal = Terminal("T0000001", "M00000000000001", b"", "", 0, keys=keys, dialect=dialect)
    source, planted = random.Random(1), Planted()
    bases = [terminal.seal(make_message(source, terminal, CARD, PIN, planted)) for _ in range(20)]
    return Sender(terminal, dialect, bases)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda d: d.name)
@pytest.mark.parametrize("suite", Suite)
def test_no_mutation_leaves_a_frame_that_the_terminal_has_signed(
    dialect: Dialect, suite: Suite
) -> None:
    """What the MAC covers, or the MAC itself, is another; or the frame's length is."""
    sending = sender(dialect, suite)
    start = LENGTH_BYTES + dialect.header_start
    signed = {frame[start:] for frame in sending.bases}
    for _, frame in islice(unauthentic(random.Random(2), [sending]), 3_000):
        length = int.from_bytes(frame[:LENGTH_BYTES], "big")
        assert frame[start:] not in signed or length != len(frame) - LENGTH_BYTES


def test_the_same_seed_draws_the_same_frames() -> None:
    sending = sender(DIALECTS["bcd-tpdu"])
    one, other = (
        [frame for _, frame in islice(unauthentic(random.Random(3), [sending]), 200)]
        for _ in range(2)
    )
    assert one == other
    assert len(set(one)) > 150
    assert len(MUTATIONS) >= 10


def test_every_way_of_a_terminal_is_there() -> None:
    assert {suite for suite, _ in ways()} == set(Suite)
    assert {management for _, management in ways()} == set(KeyManagement)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda d: d.name)
def test_senseless_messages_have_a_good_mac(dialect: Dialect) -> None:
    sending, planted = sender(dialect), Planted()
    module = sending.terminal.module
    for number in range(300):
        frame = senseless(random.Random(number), sending, CARD, PIN, planted)
        covered = frame[LENGTH_BYTES + dialect.header_start : -dialect.mac_width]
        body = frame[LENGTH_BYTES + dialect.message_start :]
        sent = codec.decode(body, Suite.SM, dialect).binary[64]
        assert module.hsm.verify_mac("mac:0", covered, sent), number
    assert planted.pans == {CARD.pan}
    assert planted.blocks


@pytest.mark.parametrize(
    "form",
    [
        CARD.pan.encode(),
        b"x" + bytes.fromhex(CARD.pan) + b"y",
        b'{"raw": "30' + CARD.pan.encode().hex().encode() + b'"}',
        CARD.pan.encode().hex().upper().encode(),
        *(base64.b64encode(b"p" * n + CARD.pan.encode() + b"tail") for n in range(4)),
        *(base64.b64encode(b"p" * n + bytes.fromhex(CARD.pan) + b"tail") for n in range(4)),
        base64.urlsafe_b64encode(b"\xff" + CARD.pan.encode() + b"\xff\xfe"),
        CARD.pan.encode("cp037"),
        b"block " + bytes(range(100, 116)).hex().encode(),
        base64.b64encode(b"??" + bytes(range(100, 116)) + b"?"),
        repr(bytes(range(100, 116))).encode(),
        f"{CARD.pan}D2812201".encode(),
        f"{CARD.pan}=2812201".encode(),
        PIN.encode(),
    ],
)
def test_card_data_in_a_log_is_seen(form: bytes, tmp_path: Path) -> None:
    planted = Planted({CARD.pan}, {f"{CARD.pan}D2812201"}, {PIN}, {bytes(range(100, 116))})
    log = tmp_path / "gateway.log"
    log.write_bytes(b'{"event": "started"}\n{"event": "' + form + b'"}\n')
    found = traces([log], planted)
    assert found
    assert CARD.pan not in "".join(found)
    log.write_bytes(b'{"event": "started", "pan": "622300******2830", "at": "2026-11-23T02:00"}\n')
    assert traces([log], planted) == []
