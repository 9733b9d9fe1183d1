"""C and P: what they bind, and that one field can be opened alone."""

import hashlib
import hmac

import pytest

from nodes.crypto.commitment import (
    Opening,
    SharedFacts,
    SharedField,
    field_leaf,
    field_salt,
    field_salts,
    shared_commitment,
    shared_field_leaves,
    uint_word,
)
from nodes.crypto.merkle import leaf_hash, root_of

TXID, FIN, PII = b"t" * 32, b"f" * 32, b"p" * 32
FACTS = SharedFacts(
    amount=12_345,
    currency=b"CNY",
    kind=1,
    time_ms=1_800_000_000_000,
    merchant=b"HARBOR000000001",
    outcome=0,
    original=b"",
    card_token=b"c" * 16,
)


def test_a_field_leaf_is_the_abi_encoding_hashed_as_a_leaf() -> None:
    salt = hmac.new(FIN, TXID + b"\0\0\0\x01", hashlib.sha256).digest()
    expected = hashlib.sha256(b"\x00" + uint_word(1) + salt + uint_word(12_345)).digest()
    assert shared_field_leaves(TXID, FACTS, FIN, PII)[0] == expected


def test_every_fact_salt_and_the_txid_change_the_commitment() -> None:
    whole = shared_commitment(TXID, FACTS, FIN, PII)
    altered = [
        shared_commitment(TXID, FACTS._replace(**change), FIN, PII)
        for change in (
            {"amount": 12_346},
            {"currency": b"USD"},
            {"kind": 3},
            {"time_ms": 1_800_000_000_001},
            {"merchant": b"HARBOR000000002"},
            {"outcome": 25},
            {"original": b"o" * 32},
            {"card_token": b"d" * 16},
        )
    ]
    altered += [
        shared_commitment(b"u" * 32, FACTS, FIN, PII),
        shared_commitment(TXID, FACTS, b"g" * 32, PII),
        shared_commitment(TXID, FACTS, FIN, b"q" * 32),
    ]
    assert len({whole, *altered}) == 12


def test_only_the_card_token_is_under_salt_pii() -> None:
    one = shared_field_leaves(TXID, FACTS, FIN, PII)
    other = shared_field_leaves(TXID, FACTS, FIN, b"q" * 32)
    assert [number for number in SharedField if one[number - 1] != other[number - 1]] == [
        SharedField.CARD_TOKEN
    ]


@pytest.mark.parametrize("hidden", [set(), {8}, {1, 8}, set(range(1, 9))])
def test_an_opening_leads_to_c_whatever_it_hides(hidden: set[int]) -> None:
    leaves = shared_field_leaves(TXID, FACTS, FIN, PII)
    salts = {n: field_salt(PII if n == 8 else FIN, TXID, n) for n in range(1, 9)}
    words = FACTS.words()
    opening = Opening(
        {n: (salts[n], words[n - 1]) for n in range(1, 9) if n not in hidden},
        {n: leaves[n - 1] for n in hidden},
    )
    assert opening.commitment() == shared_commitment(TXID, FACTS, FIN, PII)


def test_an_opening_that_lacks_or_doubles_a_field_leads_nowhere() -> None:
    leaves = shared_field_leaves(TXID, FACTS, FIN, PII)
    hidden = {n: leaves[n - 1] for n in range(1, 9)}
    assert Opening({}, {n: h for n, h in hidden.items() if n != 3}).commitment() is None
    assert Opening({3: (bytes(32), bytes(32))}, hidden).commitment() is None


@pytest.mark.parametrize(("salt", "value"), [(b"", bytes(32)), (bytes(32), bytes(31))])
def test_a_field_of_another_length_is_refused(salt: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match="32-byte words"):
        field_leaf(1, salt, value)


@pytest.mark.parametrize("value", [-1, 1 << 256])
def test_a_number_that_is_no_uint256_is_refused(value: int) -> None:
    with pytest.raises(OverflowError):
        uint_word(value)


@pytest.mark.parametrize("length", [0, 1, 32, 63, 64, 65, 200])
def test_a_field_salt_is_hmac_sha256_for_keys_of_any_length(length: int) -> None:
    """RFC 2104: also for what only a tampered database could hold."""
    key = bytes(range(length % 256)) if length <= 256 else b""
    assert list(field_salts(key, TXID, 9)) == [field_salt(key, TXID, n) for n in range(1, 10)]
    for number in (1, 8, 127):
        message = TXID + number.to_bytes(4, "big")
        assert field_salt(key, TXID, number) == hmac.new(key, message, hashlib.sha256).digest()


def test_c_by_other_code() -> None:
    """RFC 2104 and RFC 9162 by their letter, over the words of docs/evidence.md."""
    leaves = []
    for number, word in enumerate(FACTS.words(), start=1):
        key = PII if number == 8 else FIN
        salt = hmac.new(key, TXID + number.to_bytes(4, "big"), hashlib.sha256).digest()
        leaves.append(leaf_hash(uint_word(number) + salt + word))
    assert shared_field_leaves(TXID, FACTS, FIN, PII) == leaves
    assert shared_commitment(TXID, FACTS, FIN, PII) == root_of(leaves)
