"""The drawing of a proof: every step up the tree, for every shape of log."""

from __future__ import annotations

import pytest

from console.proof_path import climb, draw
from console.views.proofs import BROKEN_LINK, canonical
from nodes.anchoring.bundle import HEADER
from nodes.anchoring.verifier import Reason
from nodes.crypto.merkle import inclusion_path, leaf_hash, root_from_inclusion, root_of


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 9, 33, 100])
def test_each_step_is_the_root_of_what_it_covers(size: int) -> None:
    hashes = [leaf_hash(bytes([number])) for number in range(size)]
    for index in range(size):
        path = tuple(inclusion_path(index, hashes))
        rungs = climb(index, size, hashes[index], path)
        assert len(rungs) == len(path)
        for rung in rungs:
            first, end = rung.covers
            assert rung.result == root_of(hashes[first:end]).hex()
            assert rung.sibling == root_of(hashes[rung.beside[0] : rung.beside[1]]).hex()
            assert (rung.side == "left") == (rung.beside[1] <= index)
        top = rungs[-1].result if rungs else hashes[index].hex()
        root = root_from_inclusion(index, size, hashes[index], path)
        assert root is not None
        assert top == root.hex() == root_of(hashes).hex()


def test_a_path_that_is_too_short_is_drawn_as_far_as_it_goes() -> None:
    hashes = [leaf_hash(bytes([number])) for number in range(9)]
    path = tuple(inclusion_path(3, hashes))
    assert len(climb(3, 9, hashes[3], path[:2])) == 2
    assert climb(9, 9, hashes[3], path) == ()


def test_what_is_no_bundle_says_why() -> None:
    assert HEADER in draw(b"nothing of the kind").trouble
    assert draw(b"").leaf_hash is None


def test_a_pasted_text_is_the_files_bytes_again() -> None:
    text = f"{HEADER}\nextra e30=\nindex 0\n\nnote\n"
    assert canonical("\r\n " + text.replace("\n", "\r\n") + "\r\n\r\n") == text.encode()
    assert canonical(" \r\n") == b""


def test_every_refusal_but_of_the_file_itself_has_its_link_on_the_drawing() -> None:
    assert set(Reason) - set(BROKEN_LINK) == {Reason.MALFORMED}
