"""Frames that no terminal should send, drawn from a seed.

Driven by the message spec, the routes, the suites and the dialects: what is added to those is
fuzzed, too.

Two kinds: those whose MAC can't be right, which mustn't change anything; and senseless messages
under a good MAC, which may be recorded and mustn't do any harm.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gateway.iso8583.codec import Message
from gateway.iso8583.dialect import Dialect
from gateway.iso8583.spec import SPECS, Content, Element, Suite
from gateway.pos.framing import LENGTH_BYTES, MAX_LENGTH
from gateway.pos.translate import ROUTES
from sandbox.terminal import SIGN_ON, Card, Reply, Terminal

#: What is answered may differ after these: whoever asks again may be luckier.
PASSING = ("91", "96")


@dataclass
class Planted:
    """Card data that went into frames: none of it may stand in a log."""

    pans: set[str] = field(default_factory=set)
    tracks: set[str] = field(default_factory=set)
    pins: set[str] = field(default_factory=set)
    blocks: set[bytes] = field(default_factory=set)


@dataclass
class Sender:
    """A terminal with its keys, and frames of its own to make others of."""

    terminal: Terminal
    dialect: Dialect
    bases: list[bytes] = field(default_factory=list)
    #: Just before it signed on, ms since 1970; None: it doesn't.
    signed_on_ms: int | None = None


def make_message(
    source: random.Random, terminal: Terminal, card: Card, pin: str, planted: Planted
) -> Message:
    """A message of a route drawn from ROUTES, with what it needs."""
    # All but the sign-on: it would give the terminal other keys.
    routes = [(mti, key) for mti, keys in ROUTES.items() for key in keys if key != SIGN_ON]
    mti, key = source.choice(routes)
    code, _, condition = key.partition("/")
    track2 = source.random() < 0.3
    message = terminal.request(
        mti,
        code,
        card,
        source.randrange(0, 100_000),
        pin if source.random() < 0.6 else None,
        track2=track2,
        condition=condition or "00",
        original=f"{source.randrange(10**12):012d}" if source.random() < 0.5 else None,
    )
    planted.pans.add(card.pan)
    planted.pins.add(pin)
    if 35 in message.text:
        planted.tracks.add(message.text[35])
    if 52 in message.binary:
        planted.blocks.add(bytes(message.binary[52]))
    return message


# -- whose MAC can't be right


Mutation = Callable[[random.Random, Sender, bytes], bytes]


def _noise(source: random.Random, sender: Sender, base: bytes) -> bytes:
    return source.randbytes(source.randint(1, 300))


def _noise_in_frame(source: random.Random, sender: Sender, base: bytes) -> bytes:
    start = LENGTH_BYTES + sender.dialect.message_start
    return _measured(base[:start] + source.randbytes(source.randint(1, 200)))


def _bits(source: random.Random, sender: Sender, base: bytes) -> bytes:
    """Bits of what the MAC covers, or of the MAC."""
    raw = bytearray(base)
    first = LENGTH_BYTES + sender.dialect.header_start
    for place in source.sample(range(first, len(raw)), source.randint(1, 8)):
        raw[place] ^= 1 << source.randrange(8)
    return bytes(raw)


def _length(source: random.Random, sender: Sender, base: bytes) -> bytes:
    other = source.choice([0, 1, MAX_LENGTH, MAX_LENGTH + 1, 0xFFFF, source.randrange(0xFFFF)])
    if other == len(base) - LENGTH_BYTES:
        other = 0
    return other.to_bytes(LENGTH_BYTES, "big") + base[LENGTH_BYTES:]


def _bitmap(source: random.Random, sender: Sender, base: bytes) -> bytes:
    raw = bytearray(base)
    width = 16 if sender.dialect.hex_bytes else 8
    start = LENGTH_BYTES + sender.dialect.message_start + _mti_width(sender.dialect)
    for place in source.sample(range(start, start + width), source.randint(1, 3)):
        raw[place] ^= 1 << source.randrange(8)
    return bytes(raw)


def _mti_width(dialect: Dialect) -> int:
    return 2 if dialect.name == "bcd-tpdu" else 4


def _cut(source: random.Random, sender: Sender, base: bytes) -> bytes:
    return _measured(base[: source.randint(LENGTH_BYTES + 1, len(base) - 1)])


def _spliced(source: random.Random, sender: Sender, base: bytes) -> bytes:
    other = source.choice(sender.bases)
    first = LENGTH_BYTES + sender.dialect.header_start + 1
    head, tail = source.randint(first, len(base) - 1), source.randint(first, len(other) - 1)
    spliced = _measured(base[:head] + other[tail:])
    return _bits(source, sender, base) if spliced in sender.bases else spliced


def _header(source: random.Random, sender: Sender, base: bytes) -> bytes:
    """Another version, suite, epoch or flag."""
    raw = bytearray(base)
    place = LENGTH_BYTES + sender.dialect.header_start + source.randrange(6)
    raw[place] = source.choice([value for value in range(256) if value != raw[place]])
    return bytes(raw)


def _charset(source: random.Random, sender: Sender, base: bytes) -> bytes:
    """Bytes that are no digit, no letter, no nibble of a number."""
    raw = bytearray(base)
    first = LENGTH_BYTES + sender.dialect.message_start
    for place in source.sample(range(first, len(raw)), source.randint(1, 6)):
        raw[place] = source.choice(
            [b for b in (0x00, 0x0A, 0x1B, 0x7F, 0xAA, 0xFF, 0xDD, 0xBE) if b != raw[place]]
        )
    return bytes(raw)


def _mac(source: random.Random, sender: Sender, base: bytes) -> bytes:
    width = sender.dialect.mac_width
    other = (
        bytes(source.randbytes(1).hex()[0].encode() * width)
        if sender.dialect.hex_bytes
        else (source.randbytes(width))
    )
    return base[:-width] + other if other != base[-width:] else _bits(source, sender, base)


def _measured(content: bytes) -> bytes:
    """With the length put right."""
    length = len(content) - LENGTH_BYTES
    return length.to_bytes(LENGTH_BYTES, "big") + content[LENGTH_BYTES:]


MUTATIONS: dict[str, Mutation] = {
    "noise": _noise,
    "noise in a frame": _noise_in_frame,
    "bits": _bits,
    "length": _length,
    "bitmap": _bitmap,
    "cut": _cut,
    "spliced": _spliced,
    "header": _header,
    "charset": _charset,
    "wrong MAC": _mac,
}


def unauthentic(source: random.Random, senders: list[Sender]) -> Iterator[tuple[Sender, bytes]]:
    """Without end: a sender and a frame with no good MAC, the mutations in turn."""
    while True:
        for mutation in MUTATIONS.values():
            sender = source.choice(senders)
            yield sender, mutation(source, sender, source.choice(sender.bases))


# -- senseless under a good MAC


def senseless(
    source: random.Random, sender: Sender, card: Card, pin: str, planted: Planted
) -> bytes:
    """A message with elements taken out, put in or given any value that the spec has a form for."""
    terminal = sender.terminal
    while True:
        message = make_message(source, terminal, card, pin, planted)
        for _ in range(source.randint(1, 3)):
            _disturb(source, message, terminal.module.suite)
        # Another terminal's name, or none, is another's key.
        message.text[41] = terminal.terminal_id
        try:
            return terminal.seal(message)
        except (ValueError, KeyError):
            continue


def _disturb(source: random.Random, message: Message, suite: Suite) -> None:
    elements = [element for number, element in SPECS[suite].items() if number not in (41, 62, 64)]
    element = source.choice(elements)
    number = element.number
    way = source.randrange(3)
    if way == 0:
        message.text.pop(number, None)
        message.binary.pop(number, None)
    elif element.content is Content.B:
        message.binary[number] = source.randbytes(_size(source, element))
    else:
        message.text[number] = _value(source, element)


def _size(source: random.Random, element: Element) -> int:
    return source.choice(
        [element.minimum, element.maximum, source.randint(element.minimum, element.maximum)]
    )


def _value(source: random.Random, element: Element) -> str:
    alphabet = {
        Content.N: "0123456789",
        Content.Z: "0123456789",
        Content.AN: "ABZaz09 ",
        Content.ANS: "".join(map(chr, range(0x20, 0x7F))),
    }[element.content]
    value = "".join(source.choice(alphabet) for _ in range(_size(source, element)))
    if element.content is Content.Z and len(value) > 14:
        value = value[:13] + "D" + value[14:]
    return value


def otherwise(terminal: Terminal, frame: bytes, first: bytes, reply: Reply) -> str:
    """How a frame was answered at first, and how now: types, codes, elements; no values."""
    before = terminal.module.verify(frame, first, terminal.dialect)
    return (
        f"{before.mti} {before.text.get(3, '')}: {before.text.get(39)} with"
        f" {sorted([*before.text, *before.binary])}, then {reply.code} with"
        f" {sorted([*reply.fields, *reply.binary])}"
    )
