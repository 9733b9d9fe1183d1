"""The message spec: which data elements there are, as data. How they stand on the wire is the
dialect's part (gateway.iso8583.dialect).

ISO 8583:1987. docs/iso8583.md prints this table for people, docs/iso8583-*.json for stock
`pyiso8583` (gateway.iso8583.published); tests compare all of them. Pure data, standard library
only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum


class Content(StrEnum):
    """What an element's characters may be (ISO 8583:1987, 4.2)."""

    N = "n"  # decimal digits
    Z = "z"  # track 2: decimal digits and one D
    AN = "an"  # A-Z a-z 0-9 and space
    ANS = "ans"  # the characters from space to ~
    B = "b"  # bytes


#: The characters of the elements that are sent as characters.
CHARACTERS: Mapping[Content, bytes] = {
    Content.AN: b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ",
    Content.ANS: bytes(range(0x20, 0x7F)),
}


class Suite(IntEnum):
    """The suite byte of the header: it picks the algorithms, and with them the spec.

    SM: SM2, SM3, SM4. AES: ISO 9564 format 4, AES-CMAC. LEGACY: 3DES, ISO 9564 formats 0 and 3,
    ISO/IEC 9797-1 MAC algorithm 3.
    """

    SM = 1
    AES = 2
    LEGACY = 3


@dataclass(frozen=True, slots=True)
class Element:
    """One data element. `maximum` and `minimum` count digits (n, z), characters or bytes (b)."""

    number: int
    name: str
    content: Content
    maximum: int
    minimum: int
    #: Bytes of the length prefix in BCD: 0 fixed, 1 LLVAR, 2 LLLVAR.
    prefix: int = 0
    #: Whether the element is one of digits, which BCD packs two a byte.
    nibbles: bool = field(init=False)
    #: Bytes of a fixed element in BCD; 0 of a variable one.
    width: int = field(init=False)

    def __post_init__(self) -> None:
        nibbles = self.content in (Content.N, Content.Z)
        width = (self.maximum + 1) // 2 if nibbles else self.maximum
        object.__setattr__(self, "nibbles", nibbles)
        object.__setattr__(self, "width", 0 if self.prefix else width)


def _fixed(number: int, name: str, content: Content, length: int) -> Element:
    return Element(number, name, content, length, length)


def _ll(number: int, name: str, content: Content, minimum: int, maximum: int) -> Element:
    return Element(number, name, content, maximum, minimum, prefix=1)


def _lll(number: int, name: str, content: Content, minimum: int, maximum: int) -> Element:
    return Element(number, name, content, maximum, minimum, prefix=2)


#: Elements that every suite shares.
_SHARED = (
    _ll(2, "Primary account number", Content.N, 1, 19),
    _fixed(3, "Processing code", Content.N, 6),
    _fixed(4, "Amount, transaction (minor units)", Content.N, 12),
    _fixed(7, "Transmission date and time (MMDDhhmmss, UTC)", Content.N, 10),
    _fixed(11, "System trace audit number", Content.N, 6),
    _fixed(12, "Time, local (hhmmss)", Content.N, 6),
    _fixed(13, "Date, local: the business date (MMDD)", Content.N, 4),
    _fixed(14, "Date, expiration (YYMM)", Content.N, 4),
    _fixed(22, "Point of service entry mode", Content.N, 3),
    _fixed(23, "Card sequence number", Content.N, 3),
    _fixed(25, "Point of service condition code", Content.N, 2),
    _fixed(26, "PIN capture code", Content.N, 2),
    _ll(32, "Acquiring institution identification", Content.N, 1, 11),
    _ll(35, "Track 2 data", Content.Z, 1, 37),
    _fixed(37, "Retrieval reference number", Content.AN, 12),
    _fixed(38, "Authorization identification response", Content.AN, 6),
    _fixed(39, "Response code", Content.AN, 2),
    _fixed(41, "Card acceptor terminal identification", Content.ANS, 8),
    _fixed(42, "Card acceptor identification", Content.ANS, 15),
    _fixed(49, "Currency code, transaction (ISO 4217 numeric)", Content.N, 3),
    _fixed(53, "Security related control information", Content.N, 16),
    _lll(54, "Additional amounts", Content.AN, 20, 120),
    _lll(55, "Integrated circuit card data", Content.B, 1, 255),
    _lll(56, "Downloaded data", Content.B, 1, 999),
    _lll(57, "Offline record", Content.B, 1, 255),
    _lll(60, "Batch number and processing flags", Content.N, 6, 8),
    _lll(62, "Key material and cover", Content.B, 1, 999),
    _lll(63, "Totals, or what is asked for", Content.ANS, 1, 255),
    _fixed(64, "Message authentication code", Content.B, 8),
)

#: DE52 is as long as a block of the suite's cipher.
_PIN_BLOCK_LENGTH = {Suite.SM: 16, Suite.AES: 16, Suite.LEGACY: 8}

#: Elements that a request may carry; the others of the spec stand in answers only.
REQUEST_ELEMENTS = frozenset(
    {2, 3, 4, 7, 11, 12, 13, 14, 22, 23, 25, 26, 32, 35, 37, 41, 42, 49, 52, 53, 55, 60, 62, 64}
    | {57, 63}
)
#: Elements of a request that its answer repeats.
ECHOED_ELEMENTS = (7, 11, 37, 41, 42)


def _elements(suite: Suite) -> Mapping[int, Element]:
    pin = _fixed(52, "PIN block", Content.B, _PIN_BLOCK_LENGTH[suite])
    return {element.number: element for element in sorted((*_SHARED, pin), key=lambda e: e.number)}


#: The spec of each suite: element number -> element, in order.
SPECS: Mapping[Suite, Mapping[int, Element]] = {suite: _elements(suite) for suite in Suite}
