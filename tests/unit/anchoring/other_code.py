"""Leaves once more, from docs/evidence.md alone: hmac and hashlib, nothing of the product."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

_P_COLUMNS = [
    "salt_private",
    "transaction_id",
    "network_ref",
    "acquirer",
    "issuer",
    "approval_code",
    "merchant_name",
    "mcc",
    "country",
    "business_date",
    "batch",
    "stan",
    "rrn",
    "entry_mode",
    "pan_masked",
    "card_token",
    "account_id",
    "account_version",
    "decided_ms",
    "salt_fin",
    "salt_pii",
    "card_token_leaf",
    "recorded_at",
    "xact",
]
_TRANSFER = ("line", "debit_account", "credit_account", "amount", "currency", "balance_after")
_KINDS = {"purchase": 1, "balance_inquiry": 2, "refund": 3, "reversal": 4, "load": 5}
_OUTCOMES = {"approved": 0, "insufficient_funds": 25, "pin_wrong": 21}


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def word(value: int | str | bytes | None) -> bytes:
    if isinstance(value, int):
        return value.to_bytes(32, "big")
    raw = value.encode("ascii") if isinstance(value, str) else value or b""
    return raw + bytes(32 - len(raw))


def field_salt(salt: bytes, txid: bytes, number: int) -> bytes:
    return hmac.new(salt, txid + number.to_bytes(4, "big"), hashlib.sha256).digest()


def root(hashes: Sequence[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    half = len(hashes) // 2  # eight leaves: the tree is full
    return sha256(b"\x01", root(hashes[:half]), root(hashes[half:]))


def commitment(row: Mapping[str, Any]) -> bytes:
    """C."""
    words = [
        word(row["amount"]),
        word(row["currency"]),
        word(_KINDS[row["kind"]]),
        word(row["transmitted_ms"]),
        word(row["merchant_id"]),
        word(_OUTCOMES[row["outcome"]]),
        word(row["original_txid"]),
    ]
    fields = [
        sha256(b"\0", word(n), field_salt(row["salt_fin"], row["txid"], n), value)
        for n, value in enumerate(words, start=1)
    ]
    own = row["card_token_leaf"]
    if row["salt_pii"] is not None:
        salt = field_salt(row["salt_pii"], row["txid"], 8)
        own = sha256(b"\0", word(8), salt, word(row["card_token"]))
    return root([*fields, own])


def private_commitment(row: Mapping[str, Any], transfers: Sequence[Mapping[str, Any]]) -> bytes:
    """P."""
    marks = {column: row[column] for column in _P_COLUMNS}
    salt, pan = row["salt_pii"], row["pan_masked"]
    if salt is not None:
        marks["card_token"] = None
        marks["salt_pii"] = sha256(b"countersign/salt-pii/1", salt)
        if pan is not None:
            message = b"countersign/person/1" + row["txid"] + pan.encode()
            marks["pan_masked"] = hmac.new(salt, message, hashlib.sha256).digest()
    values = [*marks.values(), len(transfers)]
    for transfer in transfers:
        values += [transfer[column] for column in _TRANSFER]
    return private_hash(values)


def private_hash(values: Sequence[Any]) -> bytes:
    """SHA-256 over a label and the values as a MessagePack array of 16 to 65,535 or up to 15."""
    many = len(values) > 15
    head = b"\xdc" + len(values).to_bytes(2, "big") if many else bytes([0x90 + len(values)])
    return sha256(b"countersign/private/2", head, *map(_packed, values))


def _packed(value: int | str | bytes | None) -> bytes:
    """One value by the formats of the MessagePack specification; numbers not negative."""
    if value is None:
        return b"\xc0"
    if isinstance(value, int):
        if value < 128:
            return bytes([value])
        size = next(n for n in (1, 2, 4, 8) if value < 256**n)
        return bytes([0xCB + size.bit_length()]) + value.to_bytes(size, "big")
    if isinstance(value, bytes):
        return b"\xc4" + bytes([len(value)]) + value
    text = value.encode()
    return (bytes([0xA0 + len(text)]) if len(text) < 32 else b"\xd9" + bytes([len(text)])) + text


def leaf(member_id: str, row: Mapping[str, Any], transfers: Sequence[Mapping[str, Any]]) -> bytes:
    """The 320 bytes."""
    pair = bytes(32)
    if row["pair_seq"]:
        pair = sha256(b"countersign/pair/1", word(row["acquirer"]), word(row["issuer"]))
    return b"".join(
        (
            word(1),
            word(("issuer", "acquirer", "merchant").index(row["side"]) + 1),
            word(member_id),
            row["txid"],
            commitment(row),
            private_commitment(row, transfers),
            pair,
            word(row["pair_seq"]),
            word(row["terminal_id"]),
            word(row["terminal_seq"]),
        )
    )
