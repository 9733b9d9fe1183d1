"""SQL that writes the ledger: accounts, transactions, transfers. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import psycopg

from nodes.db.copy import copy_columns, copy_rows
from nodes.ledger.model import AccountKey, TransactionRecord

Connection = psycopg.Connection[Any]

#: Column and type, in the order of TransactionRecord's fields.
_COLUMNS: dict[str, str] = {
    "transaction_id": "bigint",
    "txid": "bytea",
    "side": "text",
    "network_ref": "bytea",
    "acquirer": "text",
    "issuer": "text",
    "kind": "text",
    "outcome": "text",
    "amount": "bigint",
    "currency": "text",
    "approval_code": "text",
    "merchant_id": "text",
    "merchant_name": "text",
    "mcc": "text",
    "country": "text",
    "terminal_id": "text",
    "terminal_seq": "bigint",
    "pair_seq": "bigint",
    "business_date": "date",
    "batch": "text",
    "stan": "text",
    "rrn": "text",
    "entry_mode": "text",
    "pan_masked": "text",
    "card_token": "bytea",
    "account_id": "bigint",
    "account_version": "bigint",
    "original_txid": "bytea",
    "transmitted_ms": "bigint",
    "decided_ms": "bigint",
    "salt_fin": "bytea",
    "salt_pii": "bytea",
    "card_token_leaf": "bytea",
    "salt_private": "bytea",
    "commitment": "bytea",
}
_GETTERS = [attrgetter(name) for name in _COLUMNS]
_TRANSFERS: dict[str, str] = {
    "transaction_id": "bigint",
    "line": "smallint",
    "debit_account": "bigint",
    "credit_account": "bigint",
    "amount": "bigint",
    "currency": "text",
    "balance_after": "bigint",
}
#: The sequence's increment: one call gives this many ids.
_IDS_A_CALL = 1000


def find_or_open_accounts(
    connection: Connection, keys: Iterable[AccountKey], opened_at: datetime
) -> dict[AccountKey, int]:
    """The ids of accounts, opened with a zero balance where they lack."""
    ordered = sorted(set(keys), key=lambda key: (key.kind, key.owner, key.currency))
    if not ordered:
        return {}
    columns = (
        [key.kind for key in ordered],
        [key.owner for key in ordered],
        [key.currency for key in ordered],
    )
    connection.execute(
        "INSERT INTO accounts (kind, owner, currency, opened_at)"
        " SELECT kind, owner, currency, %s FROM unnest(%s::text[], %s::text[], %s::text[])"
        " AS wanted (kind, owner, currency) ON CONFLICT DO NOTHING",
        (opened_at, *columns),
    )
    rows = connection.execute(
        "SELECT account_id, kind, owner, currency FROM accounts JOIN"
        " unnest(%s::text[], %s::text[], %s::text[]) AS wanted (kind, owner, currency)"
        " USING (kind, owner, currency)",
        columns,
    ).fetchall()
    return {AccountKey(kind, owner, currency): number for number, kind, owner, currency in rows}


def take_transaction_ids(connection: Connection, count: int) -> list[int]:
    """Ids for `count` transactions, ascending; those not used are never given again."""
    calls = -(-count // _IDS_A_CALL)
    rows = connection.execute(
        "SELECT nextval('transaction_ids') FROM generate_series(1, %s)", (calls,), prepare=True
    ).fetchall()
    return ids_of_blocks([row[0] for row in rows], count)


def ids_of_blocks(blocks: Sequence[int], count: int) -> list[int]:
    """The first `count` ids of blocks that nextval gave."""
    return [
        first + offset
        for number, first in enumerate(sorted(blocks))
        for offset in range(min(_IDS_A_CALL, count - number * _IDS_A_CALL))
    ]


def record_transactions(connection: Connection, records: Sequence[TransactionRecord]) -> None:
    """Append transactions with their transfers.

    Raises psycopg.errors.UniqueViolation if one is recorded already: then nothing of the
    caller's transaction stands.
    """
    if not records:
        return
    columns = [list(map(getter, records)) for getter in _GETTERS]
    copy_columns(connection, "transactions", _COLUMNS, columns)
    lines = [
        (
            record.transaction_id,
            line,
            t.debit_account,
            t.credit_account,
            t.amount,
            record.currency,
            t.balance_after,
        )
        for record in records
        for line, t in enumerate(record.transfers, start=1)
    ]
    copy_rows(connection, "transfers", _TRANSFERS, lines)
