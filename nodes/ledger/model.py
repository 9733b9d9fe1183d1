"""What the ledger records: accounts, and transactions with their transfers.

Every account is a liability: a credit raises its balance, a debit lowers it. A transfer moves an
amount from one account to another, so postings sum to zero by construction (invariant 1).
"""

from __future__ import annotations

from datetime import date
from typing import Literal

import msgspec

AccountKind = Literal[
    "cardholder",
    "funding",
    "settlement",
    "merchant",
    "receivable",
    "adjustment",
    "clearing",
    "offline_reserved",
]
Side = Literal["issuer", "acquirer", "merchant"]


class AccountKey(msgspec.Struct, frozen=True):
    """Names an account: kind, owner (account reference, member id or merchant id), currency."""

    kind: AccountKind
    owner: str
    currency: str


class Transfer(msgspec.Struct, frozen=True):
    """An amount (minor units, positive) from one account to another."""

    debit_account: int
    credit_account: int
    amount: int
    #: The cardholder's balance after it, where one of the two accounts is a cardholder's.
    balance_after: int | None = None


def shard_of(account_id: int | None, txid: bytes) -> int:
    """By what a transaction and all that belongs to it are sharded: the card account, or where no
    account takes part the first 8 bytes of the txid (SQL: coalesce(account_id, shard_of(txid)))."""
    return account_id if account_id is not None else int.from_bytes(txid[:8], "big", signed=True)


class TransactionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `transactions` and its transfers, as it is written; columns as in the schema."""

    #: From store.take_transaction_ids, in the same database transaction.
    transaction_id: int
    txid: bytes
    side: Side
    network_ref: bytes
    acquirer: str
    issuer: str
    kind: str
    outcome: str
    amount: int
    currency: str
    approval_code: str | None
    merchant_id: str
    merchant_name: str
    mcc: str
    country: str
    terminal_id: str
    terminal_seq: int
    pair_seq: int
    business_date: date
    batch: str
    stan: str
    rrn: str
    entry_mode: str
    pan_masked: str | None
    card_token: bytes | None
    account_id: int | None
    account_version: int | None
    original_txid: bytes | None
    transmitted_ms: int
    decided_ms: int
    salt_fin: bytes
    salt_pii: bytes | None
    card_token_leaf: bytes | None
    salt_private: bytes
    commitment: bytes
    transfers: tuple[Transfer, ...] = ()
