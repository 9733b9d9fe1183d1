"""Cards, terminals and a session of the POS link, for tests without sockets."""

from __future__ import annotations

import hashlib

from gateway.iso8583.codec import Message, decode
from gateway.pos import framing
from gateway.pos.session import Session
from gateway.pos.translate import FINGERPRINT_KEY, FINGERPRINT_LABEL, Policy
from gateway.terminal_keys.model import TerminalRecord
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY, KeyRing, tmk_name
from nodes.crypto.hsm import SoftwareHsm
from sandbox.terminal import Card, Terminal

#: A moment inside the terminals' year: 2026-11-22 08:00:00 UTC.
NOW_MS = 1_795_334_400_000
MERCHANT = "HARBOR000000001"
DEADLINE_MS = 15_000
PERIOD_S = 86_400


def luhn(prefix: str, length: int = 16) -> str:
    """A card number with a right check digit that begins with `prefix`."""
    body = prefix.ljust(length - 1, "0")
    total = 0
    for position, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if position % 2 == 0 else 1)
        total += value // 10 + value % 10
    return f"{body}{-total % 10}"


CARD = Card(luhn("622300100001234"), "2812", "120")
PIN = "481516"


def secret(name: str) -> bytes:
    """16 bytes that follow from a name: keys of tests."""
    return hashlib.sha256(b"test key " + name.encode()).digest()[:16]


def tmk(terminal_id: str) -> bytes:
    """A test terminal's master key."""
    return secret(tmk_name(terminal_id))


def record(terminal_id: str = "POS00001", *, static_keys: bool = True) -> TerminalRecord:
    return TerminalRecord(terminal_id, MERCHANT, static_keys=static_keys)


def make_hsm(*records: TerminalRecord) -> SoftwareHsm:
    """The gateway's HSM with its own keys and the terminals' master keys."""
    names = [MASTER_KEY, ZONE_KEY, *(tmk_name(r.terminal_id) for r in records)]
    hsm = SoftwareHsm({name: secret(name) for name in names})
    hsm.derive(MASTER_KEY, FINGERPRINT_LABEL, FINGERPRINT_KEY)
    return hsm


def make_session(*records: TerminalRecord, period_s: int = PERIOD_S) -> Session:
    """A session that knows these terminals (by default one with static keys)."""
    known = records or (record(),)
    hsm = make_hsm(*known)
    policy = Policy(frozenset({"CNY"}), 10_000_000_000, DEADLINE_MS)
    return Session(hsm, KeyRing(hsm, known, period_s), policy)


def terminal(terminal_id: str = "POS00001", port: int = 0) -> Terminal:
    """The simulated terminal to one of `record`."""
    return Terminal(terminal_id, MERCHANT, tmk(terminal_id), "127.0.0.1", port)


def content(frame: bytes) -> bytes:
    """A frame without its length: what Session.receive takes."""
    return frame[framing.LENGTH_BYTES :]


def message_of(frame: bytes) -> Message:
    """The message in a frame."""
    return decode(frame[framing.LENGTH_BYTES + framing.MESSAGE_START :])
