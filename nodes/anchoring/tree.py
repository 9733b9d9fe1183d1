"""The growing RFC 9162 tree over stored subtree hashes: appends and proofs in O(log n) look-ups.

A complete subtree of 2**level leaves that begins at leaf index * 2**level is named
`(level, index)`; level 0 are the leaf hashes. Stored once complete, it never changes. Every
node of an RFC 9162 proof is the hash of a range of leaves, which is one complete subtree or, at
the right edge, a few. Pure functions of the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import repeat

from nodes.crypto.merkle import EMPTY_ROOT, node_hash

#: What the hash of an inner node begins with (RFC 9162, 2.1.1).
_NODE = b"\x01"
Coordinate = tuple[int, int]
Range = tuple[int, int]


def subtrees(first: int, end: int) -> list[Coordinate]:
    """The complete subtrees that make up the leaves [first, end), left to right.

    `first` must be aligned as RFC 9162 splits trees: a multiple of the largest power of two that
    is not larger than the range. All ranges of this module are.
    """
    found: list[Coordinate] = []
    while first < end:
        level = (end - first).bit_length() - 1
        if first & ((1 << level) - 1):
            raise ValueError(f"leaves {first} to {end} are no range of an RFC 9162 tree")
        found.append((level, first >> level))
        first += 1 << level
    return found


def peaks(size: int) -> list[Coordinate]:
    """The complete subtrees of a tree of `size` leaves, largest first."""
    return subtrees(0, size)


def bag(hashes: Sequence[bytes]) -> bytes:
    """The root over the hashes of a range's complete subtrees (left to right)."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


@dataclass(slots=True)
class Frontier:
    """The right edge of a growing tree: its size and the hashes of its peaks, largest first."""

    size: int = 0
    hashes: list[bytes] = field(default_factory=list)

    def append(self, leaf_hash: bytes) -> list[tuple[int, int, bytes]]:
        """Add one leaf; the inner nodes (level, index, hash) that this completes, lowest first."""
        return self.extend((leaf_hash,))

    def extend(self, leaf_hashes: Iterable[bytes]) -> list[tuple[int, int, bytes]]:
        """Add leaves in order; all inner nodes that this completes, level by level.

        A whole level in one comprehension: it takes hardly longer than the hashes themselves.
        """
        completed: list[tuple[int, int, bytes]] = []
        row, level, size = list(leaf_hashes), 0, self.size
        self.size += len(row)
        old, kept = self.hashes, []
        while row:
            first = size >> level  # the index, on this level, of the row's first subtree
            if first & 1:
                row.insert(0, old.pop())  # the lowest peak: it gets its right sibling now
                first -= 1
            parents = [
                sha256(_NODE + left + right).digest()
                for left, right in zip(row[::2], row[1::2], strict=False)
            ]
            if len(row) & 1:
                kept.append(row[-1])
            level += 1
            start = first >> 1
            completed += zip(
                repeat(level), range(start, start + len(parents)), parents, strict=False
            )
            row = parents
        self.hashes = old + kept[::-1]
        return completed

    def root(self) -> bytes:
        """The Merkle tree hash of the leaves so far."""
        return bag(self.hashes)


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The leaf ranges whose hashes are PATH(index, size) of RFC 9162, 2.1.3.1, in its order."""
    if not 0 <= index < size:
        raise IndexError(f"no leaf {index} in a tree of {size}")
    ranges: list[Range] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    return ranges[::-1]


def consistency_ranges(first: int, second: int) -> list[Range]:
    """The leaf ranges whose hashes are PROOF(first, second) of RFC 9162, 2.1.4.1, in its order."""
    if not 1 <= first <= second:
        raise IndexError(f"no consistency proof from {first} to {second} leaves")
    if first == second:
        return []
    ranges: list[Range] = []
    low, high, whole = 0, second, True
    while first != high:
        middle = low + _split(high - low)
        if first <= middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low, whole = middle, False
    if not whole:
        ranges.append((low, high))
    return ranges[::-1]


def coordinates(ranges: Iterable[Range]) -> list[Coordinate]:
    """All stored hashes that the ranges ask for."""
    return [place for first, end in ranges for place in subtrees(first, end)]


def resolve(ranges: Iterable[Range], stored: Callable[[Coordinate], bytes]) -> list[bytes]:
    """The proof nodes: each range's hash from its stored subtrees."""
    return [bag([stored(place) for place in subtrees(first, end)]) for first, end in ranges]


def _split(size: int) -> int:
    """The largest power of two smaller than `size` (at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)
