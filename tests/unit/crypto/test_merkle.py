"""The Merkle functions against published values and against definitions written another way."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.crypto import merkle
from tests.factories.logs import PUBLIC_LEAVES, PUBLIC_ROOT

HASHES = [merkle.leaf_hash(leaf) for leaf in PUBLIC_LEAVES]


def recursive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    left, right = recursive_root(leaves[:k]), recursive_root(leaves[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def recursive_proof(m: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 9162, 2.1.4.1, word for word."""
    if m == len(leaves):
        return [] if whole else [recursive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*recursive_proof(m, leaves[:k], whole), recursive_root(leaves[k:])]
    return [*recursive_proof(m - k, leaves[k:], False), recursive_root(leaves[:k])]


def test_the_published_leaves_have_the_published_root() -> None:
    assert merkle.root_of(HASHES) == PUBLIC_ROOT


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert merkle.root_of([]) == hashlib.sha256(b"").digest() == merkle.EMPTY_ROOT


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_the_root_is_the_definitions(leaves: list[bytes]) -> None:
    assert merkle.root_of([merkle.leaf_hash(leaf) for leaf in leaves]) == recursive_root(leaves)


@pytest.mark.parametrize("size", range(1, 9))
def test_every_inclusion_proof_verifies_and_no_altered_one(size: int) -> None:
    root = merkle.root_of(HASHES[:size])
    for index in range(size):
        path = merkle.inclusion_path(index, HASHES[:size])
        assert merkle.verify_inclusion(index, size, HASHES[index], path, root)
        for place in range(len(path)):
            altered = list(path)
            altered[place] = bytes([altered[place][0] ^ 1]) + altered[place][1:]
            assert not merkle.verify_inclusion(index, size, HASHES[index], altered, root)
            assert not merkle.verify_inclusion(index, size, HASHES[index], path[:place], root)
        assert not merkle.verify_inclusion(index, size, HASHES[index], [*path, bytes(32)], root)
        other = merkle.leaf_hash(b"another leaf")
        assert not merkle.verify_inclusion(index, size, other, path, root)
        for wrong in {*range(size)} - {index}:
            assert not merkle.verify_inclusion(wrong, size, HASHES[index], path, root)


@pytest.mark.parametrize(("index", "size"), [(-1, 8), (8, 8), (0, 0), (1 << 70, 8)])
def test_an_index_outside_the_tree_is_refused(index: int, size: int) -> None:
    assert merkle.root_from_inclusion(index, size, HASHES[0], []) is None


def test_a_path_of_other_than_32_byte_nodes_is_refused() -> None:
    path = merkle.inclusion_path(0, HASHES[:2])
    for wrong in (path[0][:31], path[0] + b"\0", b""):
        assert not merkle.verify_inclusion(0, 2, HASHES[0], [wrong], merkle.root_of(HASHES[:2]))


def test_an_inner_node_is_no_leaf() -> None:
    """The prefixes keep them apart: what merkletools gets wrong (evidence.md)."""
    root = merkle.root_of(HASHES[:4])
    inner = merkle.node_hash(HASHES[0], HASHES[1])
    sibling = merkle.node_hash(HASHES[2], HASHES[3])
    assert merkle.verify_inclusion(0, 2, inner, [sibling], root)  # as a hash it is a subtree ...
    forged = merkle.leaf_hash(HASHES[0] + HASHES[1])  # ... but no leaf's content hashes to it
    assert not merkle.verify_inclusion(0, 2, forged, [sibling], root)


def test_consistency_proofs_of_all_sizes_verify_and_altered_ones_do_not() -> None:
    leaves = [b"%d" % number for number in range(20)]
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    roots = [merkle.root_of(hashes[:size]) for size in range(21)]
    for second in range(1, 21):
        for first in range(1, second + 1):
            path = recursive_proof(first, leaves[:second])
            check = merkle.verify_consistency
            assert check(first, second, roots[first], roots[second], path)
            assert not check(first, second, roots[first - 1], roots[second], path)
            assert not check(first, second, roots[first], roots[second - 1], path)
            assert not check(first, second, roots[first], roots[second], [*path, bytes(32)])
            for place in range(len(path)):
                altered = [*path[:place], bytes(32), *path[place + 1 :]]
                assert not check(first, second, roots[first], roots[second], altered)
                shorter = [*path[:place], *path[place + 1 :]]
                assert not check(first, second, roots[first], roots[second], shorter)


def test_a_fork_has_no_consistency_proof() -> None:
    old = merkle.root_of(HASHES[:4])
    forked = [merkle.leaf_hash(b"rewritten"), *HASHES[1:]]
    new = merkle.root_of(forked)
    path = [merkle.root_of(forked[4:])]
    assert merkle.verify_consistency(4, 8, merkle.root_of(forked[:4]), new, path)
    assert not merkle.verify_consistency(4, 8, old, new, path)


@pytest.mark.parametrize(("first", "second"), [(0, 8), (9, 8), (-1, 8)])
def test_sizes_that_no_proof_joins_are_refused(first: int, second: int) -> None:
    assert not merkle.verify_consistency(
        first, second, merkle.EMPTY_ROOT, merkle.root_of(HASHES), []
    )
