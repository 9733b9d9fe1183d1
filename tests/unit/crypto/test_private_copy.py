"""P's copy: written as MessagePack says, read back, and silent about persons."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.crypto.private_copy import (
    Mark,
    person_mark,
    private_commitment,
    private_copy,
    private_marks,
    salt_mark,
)

marks = st.one_of(
    st.none(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=300), st.binary(max_size=300)
)


@pytest.mark.parametrize(
    ("mark", "written"),
    [
        (None, "c0"),
        (7, "07"),
        (127, "7f"),
        (128, "cc80"),
        (65_536, "ce00010000"),
        (2**32, "cf0000000100000000"),
        (-1, "ff"),
        (-200, "d1ff38"),
        ("CNY", "a3434e59"),
        ("x" * 32, "d920" + "78" * 32),
        (b"\x01\x02", "c4020102"),
    ],
)
def test_each_mark_has_the_shortest_form_of_messagepack(mark: Mark, written: str) -> None:
    """Formats: the MessagePack specification, section "Formats"."""
    assert private_copy([mark]).hex() == "91" + written


@given(st.lists(marks, max_size=40))
def test_a_copy_is_read_as_it_was_written(values: list[Mark]) -> None:
    copy = private_copy(values)
    assert private_marks(copy) == tuple(values)
    assert private_commitment(copy) == hashlib.sha256(b"countersign/private/2" + copy).digest()


@given(st.lists(marks, max_size=6), st.lists(marks, max_size=6))
def test_two_rows_have_one_copy_only_if_they_are_one(first: list[Mark], second: list[Mark]) -> None:
    same = [*map(type, first)] == [*map(type, second)] and first == second
    assert (private_copy(first) == private_copy(second)) == same


@pytest.mark.parametrize("copy", [b"", b"\xc1", b"\x92\x01", b"\x81\x01\x02", b"\x91\xa1\xff"])
def test_what_is_no_copy_has_no_marks(copy: bytes) -> None:
    assert private_marks(copy) == ()


def test_what_tells_of_a_person_is_hidden_by_the_persons_salt() -> None:
    salt, txid, pan = b"p" * 32, b"t" * 32, b"622888******0001"
    mark = person_mark(salt, txid, pan)
    assert mark != person_mark(b"q" * 32, txid, pan)
    assert mark != person_mark(salt, b"u" * 32, pan)
    assert mark != person_mark(salt, txid, b"622888******0002")
    assert salt_mark(salt) == hashlib.sha256(b"countersign/salt-pii/1" + salt).digest()
