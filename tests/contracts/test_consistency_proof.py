"""The contract's RFC 9162 check and nodes/crypto/merkle.py agree on everything."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes.crypto.merkle import verify_consistency
from tests.contracts.conftest import Contracts
from tests.factories.logs import (
    PUBLIC_LEAVES,
    PUBLIC_ROOT,
    consistency_proof,
    leaf_hashes,
    tree_hash,
)

LIMIT = 2**64

Case = tuple[int, int, bytes, bytes, list[bytes]]


def both(contracts: Contracts, case: Case) -> tuple[bool, bool]:
    return contracts.anchors.is_consistent(*case), verify_consistency(*case)


def test_the_public_tree(contracts: Contracts) -> None:
    hashes = [sha256(b"\0" + leaf).digest() for leaf in PUBLIC_LEAVES]
    assert tree_hash(hashes) == PUBLIC_ROOT
    for size in range(1, 8):
        proof = consistency_proof(size, hashes)
        case = (size, 8, tree_hash(hashes[:size]), PUBLIC_ROOT, proof)
        assert both(contracts, case) == (True, True)


def test_every_pair_of_small_sizes(contracts: Contracts) -> None:
    hashes = leaf_hashes(17)
    roots = [tree_hash(hashes[:size]) for size in range(18)]
    for new in range(1, 18):
        for old in range(1, new + 1):
            proof = consistency_proof(old, hashes[:new]) if old < new else []
            assert both(contracts, (old, new, roots[old], roots[new], proof)) == (True, True)


@pytest.mark.parametrize(
    ("size1", "size2", "length"),
    [(0, 0, 0), (0, 1, 0), (0, 5, 1), (2, 1, 1), (3, 3, 1), (LIMIT - 1, LIMIT - 1, 0)],
)
def test_the_edges(contracts: Contracts, size1: int, size2: int, length: int) -> None:
    root = tree_hash(leaf_hashes(3))
    onchain, offchain = both(contracts, (size1, size2, root, root, [root] * length))
    assert onchain == offchain
    assert onchain is (size1 == size2 == LIMIT - 1)


@st.composite
def valid(draw: st.DrawFn) -> Case:
    new = draw(st.integers(2, 300))
    old = draw(st.integers(1, new - 1))
    hashes = leaf_hashes(new, draw(st.binary(max_size=2)))
    return (old, new, tree_hash(hashes[:old]), tree_hash(hashes), consistency_proof(old, hashes))


@st.composite
def altered(draw: st.DrawFn) -> Case:
    """A valid case with one thing changed; now and then it stays valid."""
    size1, size2, root1, root2, proof = draw(valid())
    change: Any = draw(st.sampled_from(["size1", "size2", "root1", "root2", "node", "drop", "add"]))
    flipped = bytes([1 << draw(st.integers(0, 7))]) + bytes(31)
    if change == "size1":
        size1 = draw(st.integers(0, size2 + 2))
    elif change == "size2":
        size2 = draw(st.one_of(st.integers(0, size2 + 300), st.integers(0, LIMIT - 1)))
    elif change == "root1":
        root1 = _xor(root1, flipped)
    elif change == "root2":
        root2 = _xor(root2, flipped)
    elif change == "add":
        proof = [*proof, flipped]
    elif proof:
        place = draw(st.integers(0, len(proof) - 1))
        replaced = [_xor(proof[place], flipped)] if change == "node" else []
        proof = [*proof[:place], *replaced, *proof[place + 1 :]]
    return (size1, size2, root1, root2, proof)


@st.composite
def arbitrary(draw: st.DrawFn) -> Case:
    """Anything at all, mostly with few distinct nodes so that comparisons come out equal."""
    node = st.sampled_from([bytes(32), b"\1" * 32, tree_hash(leaf_hashes(2))])
    size = st.one_of(st.integers(0, 20), st.integers(0, LIMIT - 1))
    return (draw(size), draw(size), draw(node), draw(node), draw(st.lists(node, max_size=70)))


SETTINGS = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@SETTINGS
@given(case=valid())
def test_both_accept_what_is_right(contracts: Contracts, case: Case) -> None:
    assert both(contracts, case) == (True, True)


@SETTINGS
@given(case=altered())
def test_both_agree_on_what_was_altered(contracts: Contracts, case: Case) -> None:
    onchain, offchain = both(contracts, case)
    assert onchain == offchain


@SETTINGS
@given(case=arbitrary())
def test_both_agree_on_anything(contracts: Contracts, case: Case) -> None:
    onchain, offchain = both(contracts, case)
    assert onchain == offchain


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
