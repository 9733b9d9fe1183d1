"""The RFC 9162 Merkle tree over SHA-256, as pure functions of the standard library.

Leaf hashes are SHA-256(0x00 || leaf), inner nodes SHA-256(0x01 || left || right)
(RFC 9162, section 2.1.1). Inclusion proofs: section 2.1.3, consistency proofs: section 2.1.4.
Proofs bind neither size nor root: both come from the chain or from a signed checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256(0x00 || leaf)."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """The Merkle tree hash over leaf hashes (32 bytes each), in order."""
    if not leaf_hashes:
        return EMPTY_ROOT
    level = list(leaf_hashes)
    sha256 = hashlib.sha256
    while len(level) > 1:
        odd = level[-1:] if len(level) & 1 else []
        pairs = iter(level[: len(level) - len(odd)])
        level = [
            sha256(b"\x01" + left + right).digest()
            for left, right in zip(pairs, pairs, strict=True)
        ]
        level += odd
    return level[0]


def root_from_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes | None:
    """The root that an inclusion proof of leaf hash `leaf` leads to (RFC 9162, 2.1.3.2).

    None if the proof has not the length that (index, size) asks for or index is out of range.
    """
    if not 0 <= index < size:
        return None
    fn, sn, current = index, size - 1, leaf
    for sibling in path:
        if sn == 0 or len(sibling) != 32:
            return None
        if fn & 1 or fn == sn:
            current = node_hash(sibling, current)
            while not fn & 1 and fn != 0:
                fn >>= 1
                sn >>= 1
        else:
            current = node_hash(current, sibling)
        fn >>= 1
        sn >>= 1
    return current if sn == 0 else None


def verify_inclusion(
    index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes
) -> bool:
    """Whether `path` proves leaf hash `leaf` at `index` in the tree of `size` leaves and `root`."""
    return root_from_inclusion(index, size, leaf, path) == root


def verify_consistency(
    size1: int, size2: int, root1: bytes, root2: bytes, path: Sequence[bytes]
) -> bool:
    """Whether `path` proves that the tree (size2, root2) extends (size1, root1).

    RFC 9162, section 2.1.4.2. size1 must be at least 1; equal sizes need an empty path.
    """
    if not 1 <= size1 <= size2 or any(len(node) != 32 for node in path):
        return False
    if size1 == size2:
        return not path and root1 == root2
    nodes = [root1, *path] if size1 & (size1 - 1) == 0 else list(path)
    if not nodes:
        return False
    fn, sn = size1 - 1, size2 - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    fr = sr = nodes[0]
    for node in nodes[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr = node_hash(node, fr)
            sr = node_hash(node, sr)
            while not fn & 1 and fn != 0:
                fn >>= 1
                sn >>= 1
        else:
            sr = node_hash(sr, node)
        fn >>= 1
        sn >>= 1
    return sn == 0 and fr == root1 and sr == root2


def _split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_path(index: int, leaf_hashes: Sequence[bytes]) -> list[bytes]:
    """PATH(index, leaves) of RFC 9162, 2.1.3.1, for trees that are small enough to be in memory."""
    size = len(leaf_hashes)
    if not 0 <= index < size:
        raise IndexError(f"no leaf {index} in a tree of {size}")
    if size == 1:
        return []
    k = _split(size)
    if index < k:
        return [*inclusion_path(index, leaf_hashes[:k]), root_of(leaf_hashes[k:])]
    return [*inclusion_path(index - k, leaf_hashes[k:]), root_of(leaf_hashes[:k])]
