"""C, the commitment that both institutions compute alike.

C is an RFC 9162 root over ordered field leaves `abi.encode(fieldId, fieldSalt, value)`
(docs/evidence.md). `fieldSalt = HMAC-SHA256(salt, txid || uint32(fieldId))` is
block fieldId of PBKDF2 with one iteration (RFC 8018, 5.2): so one call gives the salts of fields 1
to n. C is on the authorization path: its tree is written out. Standard library only: auditors run
this.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import pbkdf2_hmac, sha256
from struct import Struct
from typing import NamedTuple

from nodes.crypto.merkle import leaf_hash, root_of


class SharedField(IntEnum):
    """The ordered fields of C. 1-7 are salted with salt_fin, 8 with salt_pii."""

    AMOUNT = 1  # uint256, minor units: approved, or as requested where declined
    CURRENCY = 2  # ISO 4217 alphabetic code in ASCII, padded on the right
    KIND = 3  # uint256, Kind.word
    TIME = 4  # uint256, transmitted_ms
    MERCHANT = 5  # DE42 in ASCII, padded on the right
    OUTCOME = 6  # uint256, Outcome.word
    ORIGINAL = 7  # txid of the original, or zero
    CARD_TOKEN = 8  # 16 bytes, padded on the right; zero where no card was found


class SharedFacts(NamedTuple):
    """What C commits to; texts and hashes of at most 32 bytes, numbers not negative."""

    amount: int
    currency: bytes
    kind: int
    time_ms: int
    merchant: bytes
    outcome: int
    original: bytes
    card_token: bytes

    def words(self) -> tuple[bytes, ...]:
        """The eight values in the order of SharedField, 32 bytes each."""
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


#: Field numbers end below this.
FIELD_LIMIT = 16
_LEAF = b"\x00"
_NODE = b"\x01"
#: What the hash of a field of C begins with: the leaf prefix and the field's word.
_SHARED_PREFIXES = tuple(_LEAF + uint_word(number) for number in range(9))
_, _P1, _P2, _P3, _P4, _P5, _P6, _P7, _P8 = _SHARED_PREFIXES
_SPLIT = tuple(Struct("32s" * count).unpack for count in range(FIELD_LIMIT))
_FIELD_8 = (8).to_bytes(4, "big")


def field_salts(salt: bytes, txid: bytes, count: int) -> tuple[bytes, ...]:
    """The salts of the fields 1 to `count`, which is below FIELD_LIMIT."""
    return _SPLIT[count](pbkdf2_hmac("sha256", salt, txid, 1, 32 * count))


def field_salt(salt: bytes, txid: bytes, field_id: int) -> bytes:
    """The salt of one field; disclosing it opens that field alone."""
    return hmac.digest(salt, txid + field_id.to_bytes(4, "big"), "sha256")


def field_leaf(field_id: int, salt_of_field: bytes, value: bytes) -> bytes:
    """The hash of one field's leaf of C: SHA-256(0x00 || fieldId || fieldSalt || value)."""
    if len(value) != 32 or len(salt_of_field) != 32:
        raise ValueError("field salt and value are 32-byte words")
    return leaf_hash(uint_word(field_id) + salt_of_field + value)


def shared_field_leaves(
    txid: bytes, facts: SharedFacts, salt_fin: bytes, salt_pii: bytes
) -> list[bytes]:
    """The eight field leaf hashes of C."""
    amount, currency, kind, time_ms, merchant, outcome, original, card_token = facts
    if len(currency) > 32 or len(merchant) > 32 or len(original) > 32 or len(card_token) > 32:
        raise ValueError("a value of C is a word of 32 bytes")
    s = pbkdf2_hmac("sha256", salt_fin, txid, 1, 224)
    own = hmac.digest(salt_pii, txid + _FIELD_8, "sha256")
    return [
        sha256(_P1 + s[:32] + amount.to_bytes(32, "big")).digest(),
        sha256(_P2 + s[32:64] + currency.ljust(32, b"\0")).digest(),
        sha256(_P3 + s[64:96] + kind.to_bytes(32, "big")).digest(),
        sha256(_P4 + s[96:128] + time_ms.to_bytes(32, "big")).digest(),
        sha256(_P5 + s[128:160] + merchant.ljust(32, b"\0")).digest(),
        sha256(_P6 + s[160:192] + outcome.to_bytes(32, "big")).digest(),
        sha256(_P7 + s[192:] + original.ljust(32, b"\0")).digest(),
        sha256(_P8 + own + card_token.ljust(32, b"\0")).digest(),
    ]


def shared_root(leaves: Sequence[bytes]) -> bytes:
    """C over its eight field leaf hashes."""
    a, b, c, d, e, f, g, h = leaves
    left = sha256(_NODE + sha256(_NODE + a + b).digest() + sha256(_NODE + c + d).digest()).digest()
    right = sha256(_NODE + sha256(_NODE + e + f).digest() + sha256(_NODE + g + h).digest()).digest()
    return sha256(_NODE + left + right).digest()


def shared_commitment(txid: bytes, facts: SharedFacts, salt_fin: bytes, salt_pii: bytes) -> bytes:
    """C: the same 32 bytes in the books of acquirer, issuer and merchant."""
    return shared_root(shared_field_leaves(txid, facts, salt_fin, salt_pii))


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
