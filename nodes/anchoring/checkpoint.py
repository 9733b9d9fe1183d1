"""Checkpoints (c2sp.org/tlog-checkpoint): the signed size and root of a member's log.

Text of the note: origin, size, base64 root, a line each. No extension lines: the specification
advises against them. What else a sealing fixes (when, and its totals) stands in `meta_hash`,
which the chain records with the root. Standard library only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from nodes import ids

_ORIGIN = re.compile(r"countersign/(0|[1-9][0-9]{0,19})/(0x[0-9a-f]{40})/([a-z][a-z0-9-]{1,30})\Z")
_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\Z")


class CheckpointInvalid(ValueError):
    """The text is no checkpoint of this network."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose log on which chain: `countersign/<chainId>/<anchor registry>/<memberId>`."""

    chain_id: int
    anchor_registry: str  # 0x and 40 lower-case hex digits
    member_id: str

    def __str__(self) -> str:
        return f"countersign/{self.chain_id}/{self.anchor_registry.lower()}/{self.member_id}"

    @classmethod
    def parse(cls, text: str) -> Origin:
        """CheckpointInvalid unless `str` of the result is `text`."""
        match = _ORIGIN.match(text)
        if not match:
            raise CheckpointInvalid("not an origin of this network")
        return cls(int(match[1]), match[2], match[3])


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: `size` leaves under `root`."""

    origin: Origin
    size: int
    root: bytes

    def text(self) -> str:
        """The note's text."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a note's text. CheckpointInvalid unless encoding it again gives the same text."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise CheckpointInvalid("a checkpoint has three lines")
    if not _SIZE.match(lines[1]):
        raise CheckpointInvalid("the size is no canonical decimal")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except (binascii.Error, ValueError):
        raise CheckpointInvalid("the root is not base64") from None
    checkpoint = Checkpoint(Origin.parse(lines[0]), int(lines[1]), root)
    if len(root) != 32 or checkpoint.text() != text:
        raise CheckpointInvalid("not the canonical form of a checkpoint")
    return checkpoint


@dataclass(frozen=True, slots=True, order=True)
class Totals:
    """A batch's sums in one currency; amounts in minor units.

    `approved_amount` adds the requested amounts of all approved rows, of whatever kind.
    """

    currency: str
    approved_count: int
    approved_amount: int
    declined_count: int


def totals_hash(totals: Iterable[Totals]) -> bytes:
    """SHA-256 over the totals as 32-byte words, by currency in alphabetic order."""
    words = b"".join(
        ids.ascii_word(row.currency)
        + row.approved_count.to_bytes(32, "big")
        + row.approved_amount.to_bytes(32, "big")
        + row.declined_count.to_bytes(32, "big")
        for row in sorted(totals)
    )
    return hashlib.sha256(b"countersign/totals/1" + words).digest()


def meta_hash(note: str, sealed_us: int, totals_digest: bytes) -> bytes:
    """The anchor's metaHash: it binds the signed note, the moment of sealing and the totals.

    SHA-256("countersign/batch/1" || SHA-256(note) || uint256 microseconds since 1970 || totals).
    """
    return hashlib.sha256(
        b"countersign/batch/1"
        + hashlib.sha256(note.encode()).digest()
        + sealed_us.to_bytes(32, "big")
        + totals_digest
    ).digest()
