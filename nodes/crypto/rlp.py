"""RLP, Ethereum's encoding of nested lists of bytes (Yellow Paper, appendix B).

Pure, standard library only. Reading is strict: what is read has one encoding, the bytes given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Item: TypeAlias = bytes | Sequence["Item"]

#: Deeper than any block, receipt or transaction.
_MAX_DEPTH = 16


class RlpMalformed(ValueError):
    """The bytes are not the RLP of anything, or not the shortest one."""


def number(value: int) -> bytes:
    """A whole number as RLP holds it: big-endian without leading zeros, 0 as nothing."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def encode(item: Item) -> bytes:
    """The RLP of bytes or of a list."""
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _head(len(item), 0x80) + item
    body = b"".join(encode(part) for part in item)
    return _head(len(body), 0xC0) + body


def _head(length: int, offset: int) -> bytes:
    if length < 56:
        return bytes([offset + length])
    size = number(length)
    return bytes([offset + 55 + len(size)]) + size


def decode(raw: bytes) -> Item:
    """The one item that the bytes encode. RlpMalformed."""
    item, end = _read(raw, 0, 0)
    if end != len(raw):
        raise RlpMalformed("bytes follow the item")
    return item


def _read(raw: bytes, at: int, depth: int) -> tuple[Item, int]:
    if at >= len(raw):
        raise RlpMalformed("cut off")
    first = raw[at]
    if first < 0x80:
        return raw[at : at + 1], at + 1
    offset = 0x80 if first < 0xC0 else 0xC0
    start, length = at + 1, first - offset
    if length > 55:
        size = raw[start : start + length - 55]
        start += length - 55
        length = int.from_bytes(size, "big")
        if length < 56 or size[0] == 0:
            raise RlpMalformed("a length is not in its shortest form")
    end = start + length
    if end > len(raw):
        raise RlpMalformed("cut off")
    if offset == 0x80:
        if length == 1 and raw[start] < 0x80:
            raise RlpMalformed("a byte is not in its shortest form")
        return raw[start:end], end
    if depth >= _MAX_DEPTH:
        raise RlpMalformed("too deep")
    items: list[Item] = []
    while start < end:
        item, start = _read(raw[:end], start, depth + 1)
        items.append(item)
    return items, end
