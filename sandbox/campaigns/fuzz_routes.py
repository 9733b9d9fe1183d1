"""Messages whose content has a form of its own, under a good MAC: offline records, batch totals,
uploads, sign-ons, reversals and follow-ups of what was really sent. Most are as they should be or
nearly so: these get further than senseless ones.

Each must be answered, and the same bytes the same way again; nothing may stand twice afterwards.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from gateway.iso8583.codec import Message
from gateway.pos.services import format_totals
from gateway.terminal_keys import tlv
from nodes.authorization.services import CurrencyTotals
from nodes.crypto.offline_record import RecordChain, key_id_of, public_key_of, sign_as_card
from sandbox.campaigns.fuzz_frames import PASSING, Planted, otherwise
from sandbox.terminal import PURCHASE, REFUND, SIGN_ON, VOID, Card, NoAnswer, NotAuthentic, Terminal

_CLOSE, _HOTLIST, _PARAMETERS, _TOP_UP = "920000", "990002", "990003", "210000"
#: An upload before a close asked for it: nothing is kept of that, and later it is welcome.
_NOT_YET = ("0330", "12")


class OfflineCard:
    """A card that pays offline: what its terminal reads, its key, its counter."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.public = public_key_of(self.private)
        self.atc = 0


@dataclass
class Shaper:
    """One terminal and all it has sent: a message refers to one before."""

    source: random.Random
    terminal: Terminal
    cards: list[OfflineCard]
    pin: str
    planted: Planted
    sent: list[bytes] = field(default_factory=list)
    rrns: list[str] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    told: dict[bytes, bytes] = field(default_factory=dict)
    messages: int = 0
    unanswered: int = 0
    differing: int = 0
    #: What was answered otherwise: types and codes, no values.
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chain = RecordChain(self.terminal.terminal_id, int(self.terminal.batch))

    def frame(self) -> bytes:
        """The next one."""
        while True:
            way = self.source.choice(_WAYS)
            try:
                made = way(self)
            except (ValueError, KeyError):
                continue  # no place in a frame, or nothing to refer to
            if made is not None:
                return made

    def card(self) -> OfflineCard:
        """One of the cards; what stands on it may not come into a log."""
        drawn = self.source.choice(self.cards)
        self.planted.pans.add(drawn.card.pan)
        return drawn

    def one_in(self, number: int) -> bool:
        """Whether a draw of so many is won."""
        return self.source.randrange(number) == 0


async def shape(shaper: Shaper, count: int, tick: Callable[[], None]) -> None:
    """Send so many messages, one after the other; some of them again."""
    for _ in range(count):
        frame = shaper.frame()
        await _send(shaper, frame)
        if shaper.one_in(5):
            await _send(shaper, frame)
        if shaper.sent and shaper.one_in(5):
            await _send(shaper, shaper.source.choice(shaper.sent[-50:]))
        tick()


async def _send(shaper: Shaper, frame: bytes) -> None:
    terminal = shaper.terminal
    shaper.messages += 1
    try:
        reply = await terminal.send_frame(frame)
    except (NoAnswer, NotAuthentic, OSError):
        shaper.unanswered += 1
        await terminal.connect()
        return
    shaper.codes[reply.code] += 1
    if reply.mti == "0810" or reply.code in PASSING or (reply.mti, reply.code) == _NOT_YET:
        return
    first = shaper.told.setdefault(frame, reply.response)
    if first != reply.response:
        shaper.differing += 1
        shaper.notes.append(otherwise(terminal, frame, first, reply))
    if reply.approved and 37 in reply.fields:
        shaper.rrns.append(reply.fields[37])


# -- the messages


def _purchase(shaper: Shaper) -> bytes:
    code = PURCHASE if shaper.source.random() < 0.8 else _TOP_UP
    pin = shaper.pin if code == PURCHASE else None
    mti = "0100" if code == PURCHASE and shaper.one_in(4) else "0200"
    amount = shaper.source.randrange(1, 3_000)
    frame = shaper.terminal.seal(
        shaper.terminal.request(mti, code, shaper.card().card, amount, pin)
    )
    shaper.sent.append(frame)
    return frame


def _offline(shaper: Shaper) -> bytes:
    """A record: as it should be, of a counter that was used, after a gap, or spoiled."""
    source, drawn = shaper.source, shaper.card()
    amount = source.randrange(1, 500)
    if drawn.atc and shaper.one_in(8):
        atc = source.randint(1, drawn.atc)  # a clone, or the very same payment
    else:
        drawn.atc += 1
        atc = drawn.atc
    record = b""
    for _ in range(2 if shaper.one_in(10) else 1):  # the first of two never arrives
        record = shaper.chain.append(
            card_key_id=key_id_of(drawn.public),
            atc=atc,
            amount=amount,
            currency="CNY",
            nonce=source.randbytes(8),
            at_ms=time.time_ns() // 1_000_000 - source.randrange(3_600_000),
            sign=lambda message: sign_as_card(drawn.private, message),
        )
    if shaper.one_in(3):
        record = _spoiled(source, record)
    told = amount if not shaper.one_in(8) else source.randrange(1, 100_000)
    message = shaper.terminal.request("0220", PURCHASE, drawn.card, told)
    message.text[22] = "052" if not shaper.one_in(8) else source.choice(["022", "012", "072"])
    message.binary[57] = record
    frame = shaper.terminal.seal(message)
    shaper.sent.append(frame)
    return frame


def _spoiled(source: random.Random, value: bytes) -> bytes:
    """The same with bits turned, cut, longer, or bytes at their limits."""
    raw = bytearray(value)
    way = source.randrange(4)
    if way == 0:
        return bytes(raw[: source.randrange(len(raw))]) or b"\x00"
    if way == 1:
        return bytes(raw) + source.randbytes(source.randint(1, 8))
    for _ in range(source.randint(1, 4)):
        place = source.randrange(len(raw))
        raw[place] = source.choice([0x00, 0xFF, 0x7F, 0x80, raw[place] ^ 1 << source.randrange(8)])
    return bytes(raw)


def _close(shaper: Shaper) -> bytes:
    """A batch close: totals of any size, of several currencies or the same twice, or no totals."""
    source, terminal = shaper.source, shaper.terminal
    groups = [
        CurrencyTotals(
            source.choice(["CNY", "CNY", "USD", "JPY", "XXX"]),
            source.choice([0, len(shaper.rrns), 999_999]),
            source.choice([0, 10**12 - 1, source.randrange(10**6)]),
            source.choice([0, 1, 999_999]),
            source.choice([0, source.randrange(10**6)]),
        )
        for _ in range(source.randint(1, 4))
    ]
    text = format_totals(tuple(groups))
    if shaper.one_in(3):
        place = source.randrange(len(text))
        text = text[:place] + source.choice(["", "-", " ", "9", "a"]) + text[place + 1 :]
    message = terminal._management(_CLOSE)
    message.mti = source.choice(["0500", "0500", "0501"])
    local = terminal.request("0200", PURCHASE, shaper.cards[0].card, 1).text[13]
    batch = terminal.batch if shaper.one_in(2) else f"{source.randrange(10**6):06d}"
    message.text |= {13: local, 60: batch, 63: text}
    terminal.module.protect(message)
    return terminal.seal(message)


def _upload(shaper: Shaper) -> bytes | None:
    """A 0320 of something sent: as it was, of another amount, as if it were another message."""
    if not shaper.sent:
        return None
    source, terminal = shaper.source, shaper.terminal
    sent = terminal.module.open(source.choice(shaper.sent), terminal.dialect)
    message = Message("0320", {**sent.text, 63: sent.mti}, {})
    message.text.pop(26, None)
    if 57 in sent.binary and shaper.one_in(2):
        message.binary[57] = sent.binary[57]
    if shaper.one_in(3):
        message.text[4] = f"{source.randrange(10**12):012d}"
    if shaper.one_in(4):
        message.text[63] = source.choice(["0100", "0120", "0200", "0220", "0320", "0800", "0"])
    if shaper.rrns and shaper.one_in(3):
        message.text[37] = source.choice(shaper.rrns)
    terminal.module.protect(message)
    return terminal.seal(message)


def _reversal(shaper: Shaper) -> bytes | None:
    """A reversal of something sent, in part, of more than it was, or as a repeat of none."""
    if not shaper.sent:
        return None
    source = shaper.source
    amount = None if shaper.one_in(2) else source.randrange(0, 4_000)
    message = shaper.terminal.reversal_of(source.choice(shaper.sent), amount)
    message.mti = source.choice(["0400", "0420", "0401", "0421"])
    if shaper.one_in(6):
        message.text[11] = f"{source.randrange(10**6):06d}"
    return shaper.terminal.seal(message)


def _follow_up(shaper: Shaper) -> bytes:
    """A void, refund, completion or increment, of something approved or of nothing."""
    source = shaper.source
    known = bool(shaper.rrns) and not shaper.one_in(6)
    rrn = source.choice(shaper.rrns) if known else f"{source.randrange(10**12):012d}"
    mti, code, condition = source.choice(
        [
            ("0200", VOID, "00"),
            ("0100", VOID, "00"),
            ("0200", REFUND, "00"),
            ("0220", PURCHASE, "06"),
            ("0100", PURCHASE, "60"),
        ]
    )
    message = shaper.terminal.request(
        mti,
        code,
        shaper.card().card,
        source.randrange(1, 4_000),
        condition=condition,
        original=rrn,
    )
    frame = shaper.terminal.seal(message)
    shaper.sent.append(frame)
    return frame


def _sign_on(shaper: Shaper) -> bytes | None:
    """A change of keys: as it should be, or with any of its values spoiled, gone or twice."""
    source, terminal = shaper.source, shaper.terminal
    if not terminal.module.signs_on:
        return None
    message = terminal._management(SIGN_ON)
    asked = terminal.module.sign_on(message.text[11])
    if not shaper.one_in(4):
        values = tlv.read(asked) or {}
        tag = source.choice([*values, 0x00, 0x7F])
        way = source.randrange(4)
        if way == 0:
            values.pop(tag, None)
        elif way == 1:
            values[tag] = source.randbytes(source.choice([0, 1, 16, 64, 65]))
        elif way == 2:
            asked += tlv.write({tag: values.get(tag, b"")})
        else:
            values[tlv.CLAIM] = source.randbytes(source.choice([5, 6, 7]))
        asked = asked if way == 2 else tlv.write(values)
        if shaper.one_in(4):
            asked = _spoiled(source, asked or b"\x00")
    message.binary[62] = asked
    return terminal.seal(message, epoch=0)


def _download(shaper: Shaper) -> bytes:
    source, terminal = shaper.source, shaper.terminal
    message = terminal._management(source.choice([_HOTLIST, _PARAMETERS]))
    message.text[63] = source.choice(
        ["0" * 10, "9" * 10, "abc", f"{source.randrange(10**10):010d}"]
    )
    terminal.module.protect(message)
    return terminal.seal(message)


_WAYS: list[Callable[[Shaper], bytes | None]] = [
    _purchase,
    _purchase,
    _offline,
    _offline,
    _close,
    _upload,
    _reversal,
    _reversal,
    _follow_up,
    _sign_on,
    _download,
]
