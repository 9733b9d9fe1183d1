"""The leaf is Solidity's abi.encode, one way and back."""

from dataclasses import replace

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from nodes import ids
from nodes.anchoring.leaf import LEAF_BYTES, Leaf, LeafKind, decode_leaf, encode_leaf

LEAF = Leaf(
    kind=LeafKind.ACQUIRER,
    member_id="meridian",
    txid=b"t" * 32,
    commitment=b"c" * 32,
    private_commitment=b"p" * 32,
    pair_id=ids.pair_id("meridian", "aurora"),
    pair_seq=7,
    terminal_id="T0000001",
    terminal_seq=3,
)
words = st.binary(min_size=32, max_size=32)
leaves = st.builds(
    Leaf,
    kind=st.sampled_from(LeafKind),
    member_id=st.from_regex(r"[a-z][a-z0-9-]{1,30}", fullmatch=True),
    txid=words,
    commitment=words,
    private_commitment=words,
    pair_id=words,
    pair_seq=st.integers(0, 2**256 - 1),
    terminal_id=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=32),
    terminal_seq=st.integers(0, 2**256 - 1),
)


def test_it_is_what_solidity_encodes() -> None:
    types = ["uint256", "uint256", *["bytes32"] * 5, "uint256", "bytes32", "uint256"]
    values = [1, 2, b"meridian", LEAF.txid, LEAF.commitment, LEAF.private_commitment]
    values += [LEAF.pair_id, 7, b"T0000001", 3]
    assert encode_leaf(LEAF) == encode(types, values)


@given(leaves)
def test_encoding_and_decoding_are_inverse(leaf: Leaf) -> None:
    raw = encode_leaf(leaf)
    assert len(raw) == LEAF_BYTES
    assert decode_leaf(raw) == leaf


@given(st.integers(0, LEAF_BYTES * 8 - 1))
def test_each_bit_belongs_to_exactly_one_meaning(bit: int) -> None:
    raw = bytearray(encode_leaf(LEAF))
    raw[bit // 8] ^= 1 << bit % 8
    try:
        assert encode_leaf(decode_leaf(bytes(raw))) == raw
        assert decode_leaf(bytes(raw)) != LEAF
    except ValueError:
        pass


@pytest.mark.parametrize(
    "change",
    [
        {"txid": b"t" * 31},
        {"pair_seq": -1},
        {"terminal_seq": 1 << 256},
        {"member_id": "Meridian"},
        {"terminal_id": "T 1"},
        {"terminal_id": "T" * 33},
        {"terminal_id": "Ü0000001"},
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        encode_leaf(replace(LEAF, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("raw", [b"", bytes(319), bytes(320), bytes(321)])
def test_what_is_no_leaf_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        decode_leaf(raw)
