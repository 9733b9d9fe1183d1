"""RFC 9162 trees straight from its definitions: what a forger computes, by other code than ours."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any


def merkle_root(hashes: Sequence[bytes]) -> bytes:
    """MTH over leaf hashes (RFC 9162, section 2.1.1)."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = _below(len(hashes))
    return hashlib.sha256(b"\x01" + merkle_root(hashes[:k]) + merkle_root(hashes[k:])).digest()


def consistency_path(old_size: int, hashes: Sequence[bytes]) -> list[bytes]:
    """PROOF(m, D[n]) (RFC 9162, section 2.1.4.1), for 0 < m < n."""
    return _subproof(old_size, hashes, True)


def node_rows(hashes: Sequence[bytes]) -> list[tuple[int, int, bytes]]:
    """(level, index, hash) of each complete subtree above the leaves."""
    found: list[tuple[int, int, bytes]] = []
    level, row = 1, list(hashes)
    while len(row) > 1:
        row = [
            hashlib.sha256(b"\x01" + row[n] + row[n + 1]).digest()
            for n in range(0, len(row) - 1, 2)
        ]
        found += [(level, index, node) for index, node in enumerate(row)]
        level += 1
    return found


def interior(record: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether these values differ from the record's."""
    return any(record[name] != value for name, value in values.items())


def _subproof(m: int, hashes: Sequence[bytes], complete: bool) -> list[bytes]:
    n = len(hashes)
    if m == n:
        return [] if complete else [merkle_root(hashes)]
    k = _below(n)
    if m <= k:
        return [*_subproof(m, hashes[:k], complete), merkle_root(hashes[k:])]
    return [*_subproof(m - k, hashes[k:], False), merkle_root(hashes[:k])]


def _below(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k
