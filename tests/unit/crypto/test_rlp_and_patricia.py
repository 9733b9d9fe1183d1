"""RLP and the tries of a block: as the libraries that the embedded chain is made of have them."""

from __future__ import annotations

import random
from typing import Any

import pytest
import rlp as library
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trie import HexaryTrie

from nodes.crypto import rlp
from nodes.crypto.patricia import trie_proof, value_at

ITEMS: Any = st.recursive(st.binary(max_size=80), lambda parts: st.lists(parts, max_size=5))


@pytest.mark.parametrize(
    ("item", "encoded"),
    [
        # Examples of ethereum.org, developers/docs/data-structures-and-encoding/rlp.
        (b"dog", "83646f67"),
        ([b"cat", b"dog"], "c88363617483646f67"),
        (b"", "80"),
        ([], "c0"),
        (b"\x0f", "0f"),
        (b"\x04\x00", "820400"),
        ([[], [[]], [[], [[]]]], "c7c0c1c0c3c0c1c0"),
        (
            b"Lorem ipsum dolor sit amet, consectetur adipisicing elit",
            "b838" + b"Lorem ipsum dolor sit amet, consectetur adipisicing elit".hex(),
        ),
    ],
)
def test_the_published_examples(item: rlp.Item, encoded: str) -> None:
    assert rlp.encode(item).hex() == encoded
    assert rlp.decode(bytes.fromhex(encoded)) == item


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ITEMS)
def test_writing_and_reading_agree_with_the_library(item: Any) -> None:
    raw = rlp.encode(item)
    assert raw == library.encode(item)
    assert rlp.decode(raw) == item


@settings(deadline=None)
@given(st.binary(max_size=12))
def test_what_the_library_refuses_is_refused(raw: bytes) -> None:
    try:
        expected = library.decode(raw, strict=True)
    except library.exceptions.DecodingError:
        with pytest.raises(rlp.RlpMalformed):
            rlp.decode(raw)
    else:
        assert rlp.decode(raw) == expected


@pytest.mark.parametrize(
    "raw", ["", "8100", "b80100", "b90001", "83646f", "c88363617483646f", "00" * 2, "c1" * 40]
)
def test_each_item_has_one_encoding(raw: str) -> None:
    with pytest.raises(rlp.RlpMalformed):
        rlp.decode(bytes.fromhex(raw))


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 127, 128, 129, 300])
@pytest.mark.parametrize("longest", [4, 900])
def test_a_proof_shows_its_value_and_no_other(count: int, longest: int) -> None:
    source = random.Random(f"{count} {longest}")
    values = [source.randbytes(source.randint(1, longest)) for _ in range(count)]
    trie = HexaryTrie({})
    for place, value in enumerate(values):
        trie[library.encode(place)] = value
    for place in {0, 1 % count, count // 2, count - 1, min(count - 1, 128)}:
        root, nodes = trie_proof(values, place)
        assert root == trie.root_hash
        assert value_at(root, place, nodes) == values[place]
        assert value_at(root, count, nodes) is None
        assert value_at(root, place, nodes[:-1]) is None
        assert value_at(root, place, (*nodes, b"\x80")) is None
        for n, node in enumerate(nodes):
            at = source.randrange(len(node))
            hurt = node[:at] + bytes([node[at] ^ 1 << source.randrange(8)]) + node[at + 1 :]
            assert value_at(root, place, (*nodes[:n], hurt, *nodes[n + 1 :])) is None
