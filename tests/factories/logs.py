"""Merkle logs for tests, straight from RFC 9162's definitions: slow, and independent of the code
under test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

#: The eight test leaves of RFC 6962 implementations, and the public root over them (evidence.md).
PUBLIC_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
PUBLIC_ROOT = bytes.fromhex("5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328")


def leaf_hashes(count: int, seed: bytes = b"leaf") -> list[bytes]:
    """`count` leaf hashes that differ from those of any other seed."""
    return [
        hashlib.sha256(b"\0" + seed + number.to_bytes(8, "big")).digest() for number in range(count)
    ]


def tree_hash(hashes: Sequence[bytes]) -> bytes:
    """MTH, RFC 9162, section 2.1.1."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = _largest_power_below(len(hashes))
    return hashlib.sha256(b"\x01" + tree_hash(hashes[:k]) + tree_hash(hashes[k:])).digest()


def consistency_proof(old_size: int, hashes: Sequence[bytes]) -> list[bytes]:
    """PROOF(m, D[n]), RFC 9162, section 2.1.4.1, for 0 < m < n."""
    return _subproof(old_size, hashes, True)


def _subproof(m: int, hashes: Sequence[bytes], complete: bool) -> list[bytes]:
    n = len(hashes)
    if m == n:
        return [] if complete else [tree_hash(hashes)]
    k = _largest_power_below(n)
    if m <= k:
        return [*_subproof(m, hashes[:k], complete), tree_hash(hashes[k:])]
    return [*_subproof(m - k, hashes[k:], False), tree_hash(hashes[:k])]


def _largest_power_below(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k
