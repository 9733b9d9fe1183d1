"""Whether what a member's node says of its log is what the chain holds: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from nodes.anchoring.checkpoint import Checkpoint, CheckpointInvalid, Origin, parse_checkpoint
from nodes.anchoring.note import NoteInvalid, SignedNote, parse_note, signature_holds
from nodes.chain.anchors import Anchor

#: About how many points of a log's growth are read from the chain.
GROWTH_POINTS = 16


class Agreement(StrEnum):
    """A node's newest checkpoint beside the chain, in order of precedence."""

    AWAY = "away"  # no answer: nothing can be said
    NOTHING = "nothing"  # neither has anything
    MALFORMED = "malformed"  # no checkpoint of this log, on this chain and contract
    UNSIGNED = "unsigned"  # not signed by the member's note key
    AHEAD = "ahead"  # it states an anchor that the chain hasn't
    DIFFERENT = "different"  # another size or root than was anchored
    BEHIND = "behind"  # an older anchor, as the chain has it
    EQUAL = "equal"

    @property
    def is_trouble(self) -> bool:
        """Whether the node contradicts the chain."""
        return self in (
            Agreement.MALFORMED,
            Agreement.UNSIGNED,
            Agreement.AHEAD,
            Agreement.DIFFERENT,
        )


@dataclass(frozen=True)
class Told:
    """What a node told: its newest checkpoint, "" if nothing is anchored, None if it was away."""

    note: str | None

    def checkpoint(self) -> tuple[SignedNote, Checkpoint] | None:
        """The checkpoint, read; None if it is none."""
        try:
            note = parse_note(self.note or "")
            return note, parse_checkpoint(note.text)
        except (NoteInvalid, CheckpointInvalid):
            return None

    @property
    def size(self) -> int | None:
        """The size that it states."""
        read = self.checkpoint()
        return read[1].size if read else None


def judge(
    told: Told,
    origins: Sequence[Origin],
    head: Anchor | None,
    stated: Anchor | None,
    key: bytes | None,
) -> Agreement:
    """A node's word beside the chain's.

    `origins`: of the log by the anchor contract and by the versions before it, any of which its
    newest checkpoint may name.
    `head`: the chain's newest anchor of the member; `stated`: the first that holds the
    checkpoint's last leaf; `key`: the note key at that anchor's block.
    """
    if told.note is None:
        return Agreement.AWAY
    if not told.note:
        return Agreement.NOTHING if head is None else Agreement.BEHIND
    read = told.checkpoint()
    if read is None or read[1].origin not in origins or read[0].key_name != str(read[1].origin):
        return Agreement.MALFORMED
    note, checkpoint = read
    if head is None or checkpoint.size > head.size or stated is None:
        return Agreement.AHEAD
    if key is None or not signature_holds(note, key):
        return Agreement.UNSIGNED
    if (checkpoint.size, checkpoint.root) != (stated.size, stated.root):
        return Agreement.DIFFERENT
    return Agreement.EQUAL if stated.seq == head.seq else Agreement.BEHIND


def sampled(head: int, last: int | None, points: int = GROWTH_POINTS) -> list[int]:
    """Numbers of anchors that show a log's growth up to `head`: the first and the newest of the
    last `last` ones (None: of all), and between them multiples of a power of two, so that those
    read before serve again when the head has moved."""
    first = max(1, head - last + 1) if last else 1
    stride = 1
    while (head - first) // stride > points:
        stride *= 2
    between = range(-(-first // stride) * stride, head, stride)
    return sorted({first, head, *between})
