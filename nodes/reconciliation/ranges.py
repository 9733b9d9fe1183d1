"""Ranges of txids and their fingerprints: how two sorted lists find where they differ.

A range is all txids that begin with a prefix of bits (of the first 64). Its fingerprint is the
first 16 bytes of SHA-256("countersign/range/1" || the items in it, in order). Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from hashlib import sha256
from itertools import pairwise
from typing import NamedTuple

from nodes.clearing.model import ITEM_SIZE, DayItems, Item

FINGERPRINT_SIZE = 16
#: Bits of a txid that ranges are made of: below them items are listed.
PREFIX_BITS = 64
_LABEL = sha256(b"countersign/range/1")


class Range(NamedTuple):
    """The txids whose first `bits` bits are the number `prefix`."""

    prefix: int
    bits: int

    @property
    def low(self) -> int:
        return self.prefix << (PREFIX_BITS - self.bits)

    @property
    def high(self) -> int:
        """The first 64-bit prefix after the range."""
        return (self.prefix + 1) << (PREFIX_BITS - self.bits)

    def split(self, fan: int) -> list[Range]:
        """Its 2^fan equal parts, in order."""
        first, bits = self.prefix << fan, self.bits + fan
        return [Range(first + place, bits) for place in range(1 << fan)]

    @property
    def valid(self) -> bool:
        return 0 <= self.bits <= PREFIX_BITS and 0 <= self.prefix < (1 << self.bits)


WHOLE = Range(0, 0)


class RangeIndex:
    """A close's items with what is asked about ranges of them."""

    def __init__(self, items: DayItems) -> None:
        self.items = items
        self._places = range(len(items))
        self._view = memoryview(items.blob)

    def place(self, prefix: int) -> int:
        """How many items are below a 64-bit prefix."""
        blob = self.items.blob
        return bisect_left(
            self._places,
            prefix,
            key=lambda at: int.from_bytes(blob[at * ITEM_SIZE : at * ITEM_SIZE + 8], "big"),
        )

    def bounds(self, asked: Range) -> tuple[int, int]:
        """The first item of a range and the first after it, by their places."""
        return self.place(asked.low), self.place(asked.high)

    def fingerprint(self, first: int, last: int) -> bytes:
        """The fingerprint of the items from place `first` up to `last`."""
        hasher = _LABEL.copy()
        hasher.update(self._view[first * ITEM_SIZE : last * ITEM_SIZE])
        return hasher.digest()[:FINGERPRINT_SIZE]

    def parts(self, asked: Range, fan: int) -> list[tuple[bytes, int]]:
        """Fingerprint and number of items of each of a range's 2^fan parts."""
        edges = [self.place(part.low) for part in asked.split(fan)] + [self.place(asked.high)]
        return [(self.fingerprint(first, last), last - first) for first, last in pairwise(edges)]

    def within(self, asked: Range) -> list[Item]:
        """A range's items."""
        first, last = self.bounds(asked)
        return [self.items[place] for place in range(first, last)]

    def copies(self, txid: bytes) -> int:
        """How many items have this txid."""
        at = self.place(int.from_bytes(txid[:8], "big"))
        count = 0
        while at < len(self.items) and self.items[at].txid[:8] == txid[:8]:
            count += self.items[at].txid == txid
            at += 1
        return count


def digest(item: Item) -> bytes:
    """What stands for an item while nobody knows yet whether it is broken."""
    packed = item.txid + item.commitment + item.effect.to_bytes(8, "big", signed=True)
    return sha256(packed).digest()[:FINGERPRINT_SIZE]


def unmatched(items: list[Item], digests: list[bytes]) -> tuple[list[Item], list[int]]:
    """Items without their digest among `digests`, and the places of digests without an item.

    Equal ones are matched one by one.
    """
    left = Counter(digests)
    alone: list[Item] = []
    for item in items:
        name = digest(item)
        if left[name] > 0:
            left[name] -= 1
        else:
            alone.append(item)
    places: list[int] = []
    for place, name in enumerate(digests):
        if left[name] > 0:
            left[name] -= 1
            places.append(place)
    return alone, places
