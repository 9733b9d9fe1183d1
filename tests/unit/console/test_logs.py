"""A node's checkpoint beside the chain's anchor."""

from __future__ import annotations

from dataclasses import replace

import pytest

from console.logs import Agreement, Told, judge, sampled
from nodes.anchoring.checkpoint import Checkpoint, Origin
from nodes.anchoring.note import NoteSigner
from nodes.chain.anchors import Anchor

ORIGIN = Origin(7, "0x" + "ab" * 20, "aurora")
SIGNER = NoteSigner(bytes(range(32)))
HEAD = Anchor(4, 40, b"p" * 32, b"r" * 32, b"m" * 32, 12, b"h" * 32, b"t" * 32, 1_790_000_000)
OLDER = replace(HEAD, seq=3, size=30, root=b"o" * 32)


def note(size: int, root: bytes, origin: Origin = ORIGIN, signer: NoteSigner = SIGNER) -> Told:
    checkpoint = Checkpoint(origin, size, root)
    return Told(signer.sign(str(origin), checkpoint.text()).encode())


def test_the_newest_anchor_signed_by_the_members_key_agrees() -> None:
    told = note(40, HEAD.root)
    assert judge(told, [ORIGIN], HEAD, HEAD, SIGNER.public_key) is Agreement.EQUAL


def test_an_older_anchor_is_behind_only_with_its_own_root() -> None:
    key = SIGNER.public_key
    assert judge(note(30, OLDER.root), [ORIGIN], HEAD, OLDER, key) is Agreement.BEHIND
    assert judge(note(30, b"x" * 32), [ORIGIN], HEAD, OLDER, key) is Agreement.DIFFERENT
    # A size between two anchors was never anchored.
    assert judge(note(29, OLDER.root), [ORIGIN], HEAD, OLDER, key) is Agreement.DIFFERENT


@pytest.mark.parametrize(
    ("told", "head", "key", "found"),
    [
        (Told(None), HEAD, SIGNER.public_key, Agreement.AWAY),
        (Told(""), None, None, Agreement.NOTHING),
        (Told(""), HEAD, SIGNER.public_key, Agreement.BEHIND),
        (Told("nonsense"), HEAD, SIGNER.public_key, Agreement.MALFORMED),
        (note(40, HEAD.root), None, None, Agreement.AHEAD),
        (note(41, HEAD.root), HEAD, SIGNER.public_key, Agreement.AHEAD),
        (note(40, HEAD.root), HEAD, None, Agreement.UNSIGNED),
        (note(40, HEAD.root), HEAD, bytes(32), Agreement.UNSIGNED),
        (
            note(40, HEAD.root, replace(ORIGIN, member_id="meridian")),
            HEAD,
            SIGNER.public_key,
            Agreement.MALFORMED,
        ),
        (
            note(40, HEAD.root, replace(ORIGIN, chain_id=8)),
            HEAD,
            SIGNER.public_key,
            Agreement.MALFORMED,
        ),
    ],
)
def test_everything_else_has_its_name(
    told: Told, head: Anchor | None, key: bytes | None, found: Agreement
) -> None:
    assert judge(told, [ORIGIN], head, head, key) is found


def test_a_checkpoint_of_a_version_before_the_move_is_of_this_log() -> None:
    newer = replace(ORIGIN, anchor_registry="0x" + "cd" * 20)
    told, key = note(40, HEAD.root), SIGNER.public_key
    assert judge(told, [newer, ORIGIN], HEAD, HEAD, key) is Agreement.EQUAL
    assert judge(told, [newer], HEAD, HEAD, key) is Agreement.MALFORMED


def test_growth_is_read_at_few_anchors_which_stay_the_same_as_the_log_grows() -> None:
    assert sampled(5, None) == [1, 2, 3, 4, 5]
    for head in (20, 500, 100_000):
        points = sampled(head, None)
        assert points[0] == 1
        assert points[-1] == head
        assert len(points) <= 20
        assert len(set(points) & set(sampled(head + 1, None))) >= len(points) - 1
    assert sampled(1000, 50)[0] == 951
