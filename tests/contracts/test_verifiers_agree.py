"""The contract says of every vector what the command and the page say, as far as it can see.

It sees leaf, index, anchor and path (an answer to a claim); note, fields and block are the
verifiers' alone. tests/browser/test_verify_page.py holds the page to the same vectors.
"""

from __future__ import annotations

import base64
import functools
import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nodes.anchoring.bundle import Bundle, BundleMalformed, parse_bundle
from nodes.anchoring.leaf import LeafKind, decode_leaf
from nodes.anchoring.verifier import Reason, verify
from nodes.chain.challenges import claim_id_of
from nodes.crypto.merkle import EMPTY_ROOT, leaf_hash, root_from_inclusion
from nodes.ids import member_from_word
from tests.contracts.machine import Evm
from tests.contracts.omitting import ANSWER_S, CLAIM_S, MERGE_S, Omitting
from tests.contracts.world import STRANGER, World
from tests.factories.bundle_vectors import PATH
from tests.unit.anchoring.chain_view import MEMBER, make_log
from tests.unit.anchoring.lies import BUNDLES, EVENT_VIEW, EVENTS

DOCUMENT = json.loads(PATH.read_text(encoding="ascii"))
REFUSALS = {
    "LeafMalformed": Reason.LEAF_MALFORMED,
    "NotAnchored": Reason.NOT_ANCHORED,
    "NotIncluded": Reason.NOT_INCLUDED,
}


@functools.cache
def anchored(size: int, root: bytes) -> Omitting:
    """A chain on which aurora has anchored one tree, of that size and root."""
    evm = Evm(31_337)
    world = World.found(evm)
    anchors = evm.deploy("AnchorRegistry", STRANGER.address, world.registry.address, bytes(20))
    windows = (ANSWER_S, CLAIM_S, MERGE_S)
    registry = evm.deploy("OmissionRegistry", STRANGER.address, anchors.address, *windows)
    found = Omitting(world, anchors, registry, {})
    found.rotate(MEMBER, f"{MEMBER}-promise-0")
    arguments = (1, size, EMPTY_ROOT, root, [], evm.block_hash(), bytes(32))
    anchors.must(world.operator(MEMBER).address, "anchor", *arguments)
    evm.pass_time(CLAIM_S // 2)
    return found


def by_contract(bundle: Bundle, size: int, root: bytes) -> Reason | None:
    """What the contract says of a leaf and its path; None if it takes them."""
    chain = anchored(size, root).fork()
    leaf = bundle.leaf
    made = chain.claim(leaf[96:128], leaf[128:160], MEMBER)
    assert made.ok, made
    words = [leaf[at : at + 32] for at in range(0, 320, 32)]
    claim = claim_id_of(MEMBER, leaf[96:128], leaf[128:160])
    answer = chain.answer(claim, (words, bundle.index, bundle.evidence.seq, list(bundle.path)))
    return None if answer.ok else REFUSALS[answer.refusal]


def by_verifier(bundle: Bundle, size: int, root: bytes) -> Reason | None:
    """The same part of the judgement by the verifier's own functions."""
    words = [bundle.leaf[at : at + 32] for at in range(0, 320, 32)]
    kind = int.from_bytes(words[1], "big")
    if int.from_bytes(words[0], "big") != 1 or kind not in set(LeafKind):
        return Reason.LEAF_MALFORMED
    if bundle.evidence.seq != 1:
        return Reason.NOT_ANCHORED
    found = root_from_inclusion(bundle.index, size, leaf_hash(bundle.leaf), bundle.path)
    return None if found == root else Reason.NOT_INCLUDED


def cases() -> list[Any]:
    """The vectors that are bundles of a leaf of aurora, with the anchor to judge them by."""
    found = []
    for case in DOCUMENT["cases"]:
        try:
            bundle = parse_bundle(base64.b64decode(case["bundle"]))
        except BundleMalformed:
            continue
        if bundle.texts is not None:
            continue  # an event: the contract takes transactions only, as a test says
        held = DOCUMENT["roots"][case["roots"]]["members"].get(MEMBER, {}).get("anchors", [])
        if not held or bundle.leaf[64:96].rstrip(b"\0") != MEMBER.encode():
            continue
        reason = case["reason"] and Reason(case["reason"])
        anchor = held[0]["size"], bytes.fromhex(held[0]["root"])
        found.append(pytest.param(bundle, anchor, reason, id=case["name"]))
    return found


@pytest.mark.parametrize(("bundle", "anchor", "reason"), cases())
def test_the_contract_agrees_on_every_vector(
    bundle: Bundle, anchor: tuple[int, bytes], reason: Reason | None
) -> None:
    said = by_contract(bundle, *anchor)
    assert said == by_verifier(bundle, *anchor)
    if reason is None or reason in REFUSALS.values():
        assert said == reason


def test_most_vectors_are_seen_by_the_contract() -> None:
    assert len(cases()) >= 45


def altered(rng: random.Random, bundle: Bundle) -> Bundle:
    """One thing of what the contract sees, changed."""

    def path(change: Callable[[list[bytes]], None]) -> Bundle:
        nodes = list(bundle.path)
        change(nodes)
        return replace(bundle, path=tuple(nodes))

    place, bit = rng.randrange(len(bundle.path)), 1 << rng.randrange(8)
    flipped = bytearray(bundle.path[place])
    flipped[rng.randrange(32)] ^= bit
    leaf = bytearray(bundle.leaf)
    # Neither member, txid nor C: by those the claim is made.
    leaf[rng.choice([*range(64), *range(160, 320)])] ^= bit
    return rng.choice(
        [
            replace(bundle, index=rng.randrange(10)),
            replace(bundle, leaf=bytes(leaf)),
            path(lambda nodes: nodes.__setitem__(place, bytes(flipped))),
            path(lambda nodes: nodes.pop(place)),
            path(lambda nodes: nodes.insert(place, rng.randbytes(32))),
            path(lambda nodes: nodes.reverse()),
        ]
    )


def test_the_contract_agrees_on_fuzzed_proofs() -> None:
    rng = random.Random(20_261_122)
    _, view = make_log(5)
    anchor = view.anchors[MEMBER, 1]
    said = []
    for _ in range(150):
        bundle = altered(rng, parse_bundle(rng.choice(BUNDLES)))
        said.append(by_contract(bundle, anchor.size, anchor.root))
        assert said[-1] == by_verifier(bundle, anchor.size, anchor.root), bundle
    assert {None, Reason.NOT_INCLUDED, Reason.LEAF_MALFORMED} <= set(said)


def test_the_contract_takes_no_event_for_a_transaction() -> None:
    anchor = EVENT_VIEW.anchors[MEMBER, 1]
    for raw in EVENTS:
        assert verify(raw, EVENT_VIEW).ok
        assert by_contract(parse_bundle(raw), anchor.size, anchor.root) is Reason.LEAF_MALFORMED


def test_what_the_contract_takes_is_a_leaf() -> None:
    bundle = parse_bundle(BUNDLES[0])
    assert decode_leaf(bundle.leaf).member_id == MEMBER == member_from_word(bundle.leaf[64:96])
