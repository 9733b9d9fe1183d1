"""BER-TLV (ISO/IEC 8825-1 as EMV 4.3 Book 3, Annex B, restricts it): bytes to a list and back.

A list, because tags may repeat (templates 61 of a consumer's QR code do). Bounded: a document has
at most 64 elements and three levels, so hostile input ends in TlvMalformed after little work.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

MAX_ELEMENTS = 64
MAX_DEPTH = 3
#: A length of more than two bytes fits no message here.
_MAX_LENGTH_BYTES = 2
_CONSTRUCTED = 0x20


class TlvMalformed(ValueError):
    """The bytes are no TLV; the text says why, without quoting them."""


class Tlv(NamedTuple):
    """One element. `tag` in hex, upper case; `value` as it stands, also of a template."""

    tag: str
    value: bytes

    @property
    def constructed(self) -> bool:
        """Whether the value is itself TLV."""
        return bool(int(self.tag[:2], 16) & _CONSTRUCTED)


def decode(data: bytes) -> list[Tlv]:
    """The elements of one level, in order; TlvMalformed if the bytes aren't all used by them."""
    found: list[Tlv] = []
    place, end = 0, len(data)
    while place < end:
        tag_end = _tag_end(data, place)
        length, start = _length(data, tag_end)
        if start + length > end:
            raise TlvMalformed("a value is cut off")
        found.append(Tlv(data[place:tag_end].hex().upper(), data[start : start + length]))
        if len(found) > MAX_ELEMENTS:
            raise TlvMalformed(f"more than {MAX_ELEMENTS} elements")
        place = start + length
    return found


def decode_deep(data: bytes, depth: int = MAX_DEPTH) -> list[Tlv]:
    """Primitive elements in order, with those inside templates in their place."""
    found: list[Tlv] = []
    for element in decode(data):
        if element.constructed:
            if depth <= 1:
                raise TlvMalformed("templates are nested too deep")
            found += decode_deep(element.value, depth - 1)
        else:
            found.append(element)
        if len(found) > MAX_ELEMENTS:
            raise TlvMalformed(f"more than {MAX_ELEMENTS} elements")
    return found


def unique(elements: Iterable[Tlv]) -> dict[str, bytes]:
    """Values by tag; TlvMalformed if a tag is there twice."""
    found: dict[str, bytes] = {}
    for element in elements:
        if element.tag in found:
            raise TlvMalformed(f"tag {element.tag} is there twice")
        found[element.tag] = element.value
    return found


def encode(elements: Iterable[tuple[str, bytes]]) -> bytes:
    """Elements of one level as bytes, with the shortest lengths. ValueError for a bad tag."""
    parts: list[bytes] = []
    for tag, value in elements:
        name = bytes.fromhex(tag)
        if not name or _tag_end(name, 0) != len(name):
            raise ValueError(f"{tag} is no tag")
        parts.append(name + _encoded_length(len(value)) + value)
    return b"".join(parts)


def _tag_end(data: bytes, place: int) -> int:
    first = data[place]
    place += 1
    if first & 0x1F != 0x1F:
        return place
    # EMV has tags of one and two bytes; three are read, too.
    for _ in range(2):
        if place >= len(data):
            break
        more = data[place] & 0x80
        place += 1
        if not more:
            return place
    raise TlvMalformed("a tag is cut off or too long")


def _length(data: bytes, place: int) -> tuple[int, int]:
    if place >= len(data):
        raise TlvMalformed("a length is missing")
    first = data[place]
    place += 1
    if first < 0x80:
        return first, place
    count = first & 0x7F
    if not 1 <= count <= _MAX_LENGTH_BYTES or place + count > len(data):
        raise TlvMalformed("a length is cut off, indefinite or too long")
    return int.from_bytes(data[place : place + count], "big"), place + count


def _encoded_length(length: int) -> bytes:
    if length < 0x80:
        return bytes((length,))
    if length < 0x100:
        return bytes((0x81, length))
    if length < 0x10000:
        return b"\x82" + length.to_bytes(2, "big")
    raise ValueError("a value has at most 65,535 bytes")
