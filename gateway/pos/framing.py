"""The frame around a message: length, TPDU, header. Pure, standard library only.

2 bytes   length of what follows, big-endian, at most 1,500
5 bytes   TPDU: 60, destination (2), source (2); an answer has the two swapped
6 bytes   header: version 1, suite, key epoch (2, big-endian), flags 0, reserved 0
...       ISO 8583 message: MTI, bitmap, data elements, DE64 last

Whether there is a TPDU, and whether the header is bytes or 12 hexadecimal digits, is the dialect's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from gateway.iso8583 import wire
from gateway.iso8583.dialect import BCD_TPDU, Dialect
from gateway.iso8583.spec import Suite

MAX_LENGTH = 1500
LENGTH_BYTES = 2
TPDU_BYTES = 5
HEADER_BYTES = 6
#: Where the header starts within a frame's content of the dialect bcd-tpdu (others:
#: Dialect.header_start, .message_start); the MAC covers everything from here to DE63.
HEADER_START = TPDU_BYTES
MESSAGE_START = TPDU_BYTES + HEADER_BYTES
VERSION = 1
TPDU_ID = 0x60


class FrameFlaw(StrEnum):
    """Why a connection is closed without an answer; also a metric's label."""

    EMPTY = "empty"
    OVER_MAXIMUM = "over_maximum"
    TOO_SHORT = "too_short"
    TPDU = "tpdu"
    VERSION = "version"
    SUITE = "suite"
    TRUNCATED = "truncated"
    SLOW = "slow"


class FrameError(ValueError):
    """The byte stream isn't one of frames; what follows can't be read either."""

    def __init__(self, flaw: FrameFlaw) -> None:
        super().__init__(flaw.value)
        self.flaw = flaw


@dataclass(frozen=True, slots=True)
class Header:
    """TPDU and header of one frame. `epoch` names the working keys (0: the static ones).

    `tpdu` is empty in a dialect without one.
    """

    tpdu: bytes
    suite: Suite
    epoch: int
    flags: int = 0
    reserved: int = 0
    dialect: Dialect = BCD_TPDU
    _bytes: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        six = bytes((VERSION, self.suite, *divmod(self.epoch, 256), self.flags, self.reserved))
        dialect = self.dialect
        object.__setattr__(self, "_bytes", wire.write_bytes(six, dialect.hex_header, dialect))

    def answer(self) -> Header:
        """The header of the answer: the TPDU's addresses swapped, the same suite and epoch."""
        tpdu = self.tpdu
        swapped = tpdu[:1] + tpdu[3:5] + tpdu[1:3]
        return Header(swapped, self.suite, self.epoch, dialect=self.dialect)

    def bytes_without_tpdu(self) -> bytes:
        """The header as it stands on the wire, which the MAC covers."""
        return self._bytes


def parse_header(content: bytes, dialect: Dialect = BCD_TPDU) -> Header:
    """TPDU and header of a frame's content. FrameError if the rest can't be read by this spec."""
    return parse_headers(content, dialect)[0]


def parse_headers(content: bytes, dialect: Dialect = BCD_TPDU) -> tuple[Header, Header]:
    """The same, and the header of the answer."""
    start = dialect.message_start
    if len(content) <= start:
        raise FrameError(FrameFlaw.TOO_SHORT)
    return _headers(content[:start], dialect)


@lru_cache(maxsize=1024)  # bounded: the peer picks addresses; a terminal's are always the same
def _headers(start: bytes, dialect: Dialect) -> tuple[Header, Header]:
    if dialect.tpdu and start[0] != TPDU_ID:
        raise FrameError(FrameFlaw.TPDU)
    six = wire.read_bytes(start[dialect.header_start :], dialect.hex_header, dialect)
    if six is None or six[0] != VERSION:
        raise FrameError(FrameFlaw.VERSION)
    _, suite, high, low, flags, reserved = six
    try:
        known = Suite(suite)
    except ValueError:
        raise FrameError(FrameFlaw.SUITE) from None
    tpdu = start[: dialect.header_start]
    header = Header(tpdu, known, high << 8 | low, flags, reserved, dialect)
    return header, header.answer()


def frame(header: Header, message: bytes) -> bytes:
    """A whole frame, length included. ValueError if it is over the maximum."""
    length = header.dialect.message_start + len(message)
    if length > MAX_LENGTH:
        raise ValueError("the message doesn't fit into a frame")
    head = length.to_bytes(LENGTH_BYTES, "big") + header.tpdu + header.bytes_without_tpdu()
    return head + message


class FrameReader:
    """Cuts a byte stream into frames, wherever the network cut it."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and isn't complete."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> tuple[list[bytes], FrameFlaw | None]:
        """The contents (without length) of the frames that are complete now, in order.

        With a flaw, the frames before it are valid and nothing may be fed any more. The buffer
        never holds more than one frame beyond the data just fed.
        """
        if not self._buffer and len(data) > LENGTH_BYTES:
            length = data[0] << 8 | data[1]
            if len(data) == LENGTH_BYTES + length <= LENGTH_BYTES + MAX_LENGTH:
                return [data[LENGTH_BYTES:]], None  # one whole frame: what mostly arrives
        buffer = self._buffer + data if self._buffer else data
        frames: list[bytes] = []
        position, end = 0, len(buffer)
        while end - position >= LENGTH_BYTES:
            length = buffer[position] << 8 | buffer[position + 1]
            if length == 0 or length > MAX_LENGTH:
                self._buffer = b""
                return frames, FrameFlaw.EMPTY if length == 0 else FrameFlaw.OVER_MAXIMUM
            start = position + LENGTH_BYTES
            if end - start < length:
                break
            position = start + length
            frames.append(buffer[start:position])
        self._buffer = buffer[position:]
        return frames, None
