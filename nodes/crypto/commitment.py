"""The commitments: C, which both institutions compute alike, and P, a party's own columns.

Both are RFC 9162 roots over ordered field leaves `abi.encode(fieldId, fieldSalt, value)` with
`fieldSalt = HMAC-SHA256(salt, txid || uint256(fieldId))` (evidence.md, Identity and leaves).
Values are 32-byte words. Standard library only: auditors run this.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from nodes.crypto.merkle import leaf_hash, root_of


class SharedField(IntEnum):
    """The ordered fields of C. 1-7 are salted with salt_fin, 8 with salt_pii."""

    AMOUNT = 1  # uint256, minor units: as requested
    CURRENCY = 2  # ISO 4217 alphabetic code in ASCII, padded on the right
    KIND = 3  # uint256, Kind.word
    TIME = 4  # uint256, transmitted_ms
    MERCHANT = 5  # DE42 in ASCII, padded on the right
    OUTCOME = 6  # uint256, Outcome.word
    ORIGINAL = 7  # txid of the original, or zero
    CARD_TOKEN = 8  # 16 bytes, padded on the right; zero where no card was found


@dataclass(frozen=True, slots=True)
class SharedFacts:
    """What C commits to, as 32-byte words in the order of SharedField."""

    amount: int
    currency: bytes
    kind: int
    time_ms: int
    merchant: bytes
    outcome: int
    original: bytes
    card_token: bytes

    def words(self) -> tuple[bytes, ...]:
        """The eight values, 32 bytes each."""
        return (
            uint_word(self.amount),
            self.currency.ljust(32, b"\0"),
            uint_word(self.kind),
            uint_word(self.time_ms),
            self.merchant.ljust(32, b"\0"),
            uint_word(self.outcome),
            self.original.ljust(32, b"\0"),
            self.card_token.ljust(32, b"\0"),
        )


def uint_word(value: int) -> bytes:
    """A Solidity uint256; OverflowError if negative or too large."""
    return value.to_bytes(32, "big")


_FIELD_WORDS = [uint_word(number) for number in range(128)]


# HMAC's pads (RFC 2104) as translations of key bytes.
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))


def field_salts(salt: bytes, txid: bytes, field_ids: Iterable[int]) -> list[bytes]:
    """The salts of several fields.

    HMAC-SHA256 written out: `hmac.digest` sets OpenSSL up anew for each call, which is three times
    slower than the hashing, and this is done some forty times a transaction.
    """
    if len(salt) > 64:
        return [hmac.digest(salt, txid + _FIELD_WORDS[number], "sha256") for number in field_ids]
    key = salt.ljust(64, b"\0")
    inner, outer = key.translate(_INNER_PAD) + txid, key.translate(_OUTER_PAD)
    sha256 = hashlib.sha256
    return [
        sha256(outer + sha256(inner + _FIELD_WORDS[number]).digest()).digest()
        for number in field_ids
    ]


def field_salt(salt: bytes, txid: bytes, field_id: int) -> bytes:
    """The salt of one field; disclosing it opens that field alone."""
    return field_salts(salt, txid, (field_id,))[0]


def field_leaf(field_id: int, salt_of_field: bytes, value: bytes) -> bytes:
    """The hash of one field's leaf: SHA-256(0x00 || fieldId || fieldSalt || value)."""
    if len(value) != 32 or len(salt_of_field) != 32:
        raise ValueError("field salt and value are 32-byte words")
    return leaf_hash(_FIELD_WORDS[field_id] + salt_of_field + value)


def shared_field_leaves(
    txid: bytes, facts: SharedFacts, salt_fin: bytes, salt_pii: bytes
) -> list[bytes]:
    """The eight field leaf hashes of C."""
    salts = field_salts(salt_fin, txid, range(1, SharedField.CARD_TOKEN))
    salts += field_salts(salt_pii, txid, (SharedField.CARD_TOKEN,))
    return [
        field_leaf(number, salt, value)
        for number, (salt, value) in enumerate(zip(salts, facts.words(), strict=True), start=1)
    ]


def shared_commitment(txid: bytes, facts: SharedFacts, salt_fin: bytes, salt_pii: bytes) -> bytes:
    """C: the same 32 bytes in the books of acquirer, issuer and merchant."""
    return root_of(shared_field_leaves(txid, facts, salt_fin, salt_pii))


def private_field_leaves(txid: bytes, salt: bytes, values: Sequence[bytes]) -> list[bytes]:
    """The field leaf hashes of P over a party's own columns, numbered from 1."""
    salts = field_salts(salt, txid, range(1, len(values) + 1))
    return [
        field_leaf(number, own, value)
        for number, (own, value) in enumerate(zip(salts, values, strict=True), start=1)
    ]


def private_commitment(txid: bytes, salt: bytes, values: Sequence[bytes]) -> bytes:
    """P: the root over a party's own columns."""
    return root_of(private_field_leaves(txid, salt, values))


@dataclass(frozen=True, slots=True)
class Opening:
    """Some of C's fields disclosed (field salt and value), the others as bare leaf hashes."""

    disclosed: Mapping[int, tuple[bytes, bytes]]
    hidden: Mapping[int, bytes]

    def commitment(self) -> bytes | None:
        """The C that the opening leads to; None if a field lacks or stands twice."""
        leaves: list[bytes] = []
        for number in SharedField:
            opened, hidden = self.disclosed.get(number), self.hidden.get(number)
            if (opened is None) == (hidden is None):
                return None
            leaves.append(hidden if opened is None else field_leaf(number, *opened))  # type: ignore[arg-type]
        return root_of(leaves)
