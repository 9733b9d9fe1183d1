"""A leaf of a member's log with its proof, as the contracts take it."""

from __future__ import annotations

from dataclasses import dataclass

LEAF_BYTES = 320


@dataclass(frozen=True, slots=True)
class Evidence:
    """A leaf and the way to a root that its member anchored.

    leaf: the 320 bytes of nodes/anchoring/leaf.py. index: its place in the log, from 0.
    anchor_seq: the number of an anchor whose tree holds it. path: the RFC 9162 inclusion proof in
    that tree, 32 bytes a node, from the leaf's sibling upward.
    """

    leaf: bytes
    index: int
    anchor_seq: int
    path: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if len(self.leaf) != LEAF_BYTES:
            raise ValueError(f"a leaf has {LEAF_BYTES} bytes, not {len(self.leaf)}")

    def arguments(self) -> tuple[list[bytes], int, int, list[bytes]]:
        """The contract's struct: the leaf's ten words, index, anchor, path."""
        words = [self.leaf[at : at + 32] for at in range(0, LEAF_BYTES, 32)]
        return words, self.index, self.anchor_seq, list(self.path)
