"""A log leaf: ten 32-byte words, the bytes of Solidity's `abi.encode` over static types.

    abi.encode(uint256 version, uint256 kind, bytes32 memberId, bytes32 txid, bytes32 C, bytes32 P,
               bytes32 pairId, uint256 pairSeq, bytes32 terminalId, uint256 terminalSeq)

Static words only, so each leaf has exactly one encoding (evidence.md, Identity and leaves).
Standard library only: auditors run this.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from nodes import ids

VERSION = 1
LEAF_BYTES = 320
#: The words by name, in order: what a bundle and the documentation call them.
WORD_NAMES = (
    "version",
    "kind",
    "member_id",
    "txid",
    "commitment",
    "private_commitment",
    "pair_id",
    "pair_seq",
    "terminal_id",
    "terminal_seq",
)
ZERO_WORD = bytes(32)


class LeafKind(IntEnum):
    """What a leaf is evidence of: a transaction in the books of one of the parties."""

    ISSUER = 1
    ACQUIRER = 2
    MERCHANT = 3

    @property
    def side(self) -> str:
        """The column `transactions.side` of such a row."""
        return self.name.lower()


class EventKind(IntEnum):
    """What else is an entry of the log: events of a member's own business (nodes.anchoring.events).

    In their leaves txid is the event's reference, terminal_seq its number; there is no pair and no
    terminal.
    """

    CARD = 4
    MERCHANT = 5
    SETTLEMENT = 6
    KEY = 7
    AUDIT = 8

    @property
    def side(self) -> str:
        """The column `events.kind` of such a row."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Leaf:
    """One entry of a member's log. Byte strings are 32 bytes; counters are not negative."""

    kind: LeafKind | EventKind
    member_id: str
    txid: bytes
    commitment: bytes  # C, equal in the books of all parties
    private_commitment: bytes  # P, over this party's own columns
    pair_id: bytes  # zero where pair_seq is 0: the issuer took no part
    pair_seq: int
    terminal_id: str  # ASCII, at most 32 characters; empty in a load
    terminal_seq: int


def event_ref(member_id: str, event_id: int) -> bytes:
    """An event's identity in its member's log (32 bytes)."""
    return hashlib.sha256(
        b"countersign/event/1" + ids.member_word(member_id) + event_id.to_bytes(8, "big")
    ).digest()


def is_event(leaf: Leaf) -> bool:
    """Whether a leaf has the form of an event's: its kind and reference, no pair, no terminal."""
    return (
        isinstance(leaf.kind, EventKind)
        and 0 < leaf.terminal_seq < 1 << 63
        and leaf.txid == event_ref(leaf.member_id, leaf.terminal_seq)
        and (leaf.pair_id, leaf.pair_seq, leaf.terminal_id) == (ZERO_WORD, 0, "")
    )


_VERSION_WORD = VERSION.to_bytes(32, "big")
_KINDS: dict[int, LeafKind | EventKind] = {
    **{int(kind): kind for kind in LeafKind},
    **{int(kind): kind for kind in EventKind},
}
_KIND_WORDS = {kind: number.to_bytes(32, "big") for number, kind in _KINDS.items()}
_member_word = lru_cache(maxsize=256)(ids.member_word)


@lru_cache(maxsize=4096)
def _terminal_word(terminal_id: str) -> bytes:
    if not all(" " < character <= "~" for character in terminal_id):
        raise ValueError("a terminal id is printable ASCII without spaces")
    return ids.ascii_word(terminal_id)


def encode_leaf(leaf: Leaf) -> bytes:
    """The 320 bytes that are hashed into the log. ValueError if a field doesn't fit its word."""
    hashes = leaf.txid + leaf.commitment + leaf.private_commitment + leaf.pair_id
    if not len(leaf.txid) == len(leaf.commitment) == len(leaf.private_commitment) == 32 or (
        len(hashes) != 128
    ):
        raise ValueError("hashes in a leaf are 32 bytes")
    if leaf.pair_seq < 0 or leaf.terminal_seq < 0:
        raise ValueError("counters in a leaf are not negative")
    try:
        return (
            _VERSION_WORD
            + _KIND_WORDS[leaf.kind]
            + _member_word(leaf.member_id)
            + hashes
            + leaf.pair_seq.to_bytes(32, "big")
            + _terminal_word(leaf.terminal_id)
            + leaf.terminal_seq.to_bytes(32, "big")
        )
    except OverflowError:
        raise ValueError("a counter is too large for its word") from None


def decode_leaf(raw: bytes) -> Leaf:
    """The leaf that 320 bytes stand for.

    ValueError unless `encode_leaf` gives exactly these bytes again.
    """
    if len(raw) != LEAF_BYTES:
        raise ValueError(f"a leaf has {LEAF_BYTES} bytes, not {len(raw)}")
    words = [raw[start : start + 32] for start in range(0, LEAF_BYTES, 32)]
    if int.from_bytes(words[0], "big") != VERSION:
        raise ValueError("unknown leaf version")
    kind = _KINDS.get(int.from_bytes(words[1], "big"))
    if kind is None:
        raise ValueError("unknown leaf kind")
    leaf = Leaf(
        kind=kind,
        member_id=ids.member_from_word(words[2]),
        txid=words[3],
        commitment=words[4],
        private_commitment=words[5],
        pair_id=words[6],
        pair_seq=int.from_bytes(words[7], "big"),
        terminal_id=words[8].rstrip(b"\0").decode("ascii"),
        terminal_seq=int.from_bytes(words[9], "big"),
    )
    if encode_leaf(leaf) != raw:
        raise ValueError("not the canonical encoding of a leaf")
    return leaf
