"""The growing tree gives the roots and proofs of RFC 9162 from stored subtrees alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.anchoring import tree
from nodes.crypto import merkle

HASHES = [merkle.leaf_hash(b"%d" % number) for number in range(130)]


class Store:
    """Keeps what a frontier completes, as log_leaves and log_nodes do; counts look-ups."""

    def __init__(self, size: int) -> None:
        self.frontier = tree.Frontier()
        self.nodes: dict[tree.Coordinate, bytes] = {}
        self.reads = 0
        for index, leaf in enumerate(HASHES[:size]):
            self.nodes[0, index] = leaf
            for level, place, node in self.frontier.append(leaf):
                assert (level, place) not in self.nodes, "a stored subtree never changes"
                self.nodes[level, place] = node

    def read(self, place: tree.Coordinate) -> bytes:
        self.reads += 1
        return self.nodes[place]


def test_the_frontier_has_the_root_of_every_size() -> None:
    frontier = tree.Frontier()
    assert frontier.root() == merkle.EMPTY_ROOT
    for size, leaf in enumerate(HASHES, start=1):
        frontier.append(leaf)
        assert frontier.root() == merkle.root_of(HASHES[:size])
        assert frontier.size == size


@given(st.integers(0, 129), st.integers(0, 129))
def test_a_frontier_restored_from_storage_goes_on_as_if_never_stopped(a: int, b: int) -> None:
    first, second = sorted((a, b))
    store = Store(second)
    restored = tree.Frontier(first, [store.nodes[place] for place in tree.peaks(first)])
    restored.extend(HASHES[first:second])
    assert restored.root() == merkle.root_of(HASHES[:second])


@given(st.integers(1, 130).flatmap(lambda size: st.tuples(st.integers(0, size - 1), st.just(size))))
def test_inclusion_proofs_are_the_rfcs_and_cost_few_reads(where: tuple[int, int]) -> None:
    index, size = where
    store = Store(130)
    path = tree.resolve(tree.inclusion_ranges(index, size), store.read)
    assert path == merkle.inclusion_path(index, HASHES[:size])
    assert store.reads <= 2 * size.bit_length()


@given(st.integers(1, 130).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_consistency_proofs_verify_and_cost_few_reads(sizes: tuple[int, int]) -> None:
    first, second = sizes
    store = Store(130)
    path = tree.resolve(tree.consistency_ranges(first, second), store.read)
    roots = [merkle.root_of(HASHES[:size]) for size in sizes]
    assert merkle.verify_consistency(first, second, roots[0], roots[1], path)
    assert store.reads <= 2 * second.bit_length()


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5)])
def test_there_is_no_inclusion_proof_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(IndexError):
        tree.inclusion_ranges(index, size)


@pytest.mark.parametrize(("first", "second"), [(0, 5), (6, 5), (-1, 5)])
def test_there_is_no_consistency_proof_between_such_sizes(first: int, second: int) -> None:
    with pytest.raises(IndexError):
        tree.consistency_ranges(first, second)


def test_a_range_that_no_tree_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no range"):
        tree.subtrees(1, 5)
