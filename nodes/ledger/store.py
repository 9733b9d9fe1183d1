"""SQL that writes the ledger: accounts, transactions, transfers. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import psycopg

from nodes.ledger.model import AccountKey, TransactionRecord

Connection = psycopg.Connection[Any]

#: Column and array type, in the order of TransactionRecord's fields.
_COLUMNS: dict[str, str] = {
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
    "original_txid": "bytea",
    "transmitted_ms": "bigint",
    "decided_ms": "bigint",
    "salt_fin": "bytea",
    "salt_pii": "bytea",
    "card_token_leaf": "bytea",
    "salt_private": "bytea",
    "commitment": "bytea",
}
_INSERT_TRANSACTIONS = (
    f"INSERT INTO transactions ({', '.join(_COLUMNS)}) SELECT * FROM unnest("
    + ", ".join(f"%b::{kind}[]" for kind in _COLUMNS.values())
    + ") RETURNING txid, side, transaction_id"
)
_INSERT_TRANSFERS = """
    INSERT INTO transfers (
        transaction_id, line, debit_account, credit_account, amount, currency, balance_after
    )
    SELECT * FROM unnest(
        %b::bigint[], %b::smallint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::text[],
        %b::bigint[]
    )
"""


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


def record_transactions(
    connection: Connection, records: Sequence[TransactionRecord]
) -> dict[tuple[bytes, str], int]:
    """Append transactions with their transfers; their ids by (txid, side).

    Raises psycopg.errors.UniqueViolation if one is recorded already: then nothing of the
    caller's transaction stands.
    """
    if not records:
        return {}
    columns = [[getattr(record, name) for record in records] for name in _COLUMNS]
    rows = connection.execute(_INSERT_TRANSACTIONS, columns, prepare=True).fetchall()
    numbers = {(bytes(txid), side): number for txid, side, number in rows}
    lines = [
        (
            numbers[record.txid, record.side],
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
    if lines:
        connection.execute(
            _INSERT_TRANSFERS, [list(column) for column in zip(*lines, strict=True)], prepare=True
        )
    return numbers


def write_balances(connection: Connection, balances: dict[int, int]) -> None:
    """Set cardholder balances (account id -> minor units); the accounts' rows must be locked.

    The constraint no_overdraft stands behind whatever decided. RuntimeError if a row lacks.
    """
    if not balances:
        return
    ordered = sorted(balances)
    done = connection.execute(
        "UPDATE accounts SET balance = new.balance, version = version + 1"
        " FROM unnest(%b::bigint[], %b::bigint[]) AS new (account_id, balance)"
        " WHERE accounts.account_id = new.account_id AND accounts.kind = 'cardholder'",
        (ordered, [balances[number] for number in ordered]),
        prepare=True,
    )
    if done.rowcount != len(ordered):
        raise RuntimeError(f"{len(ordered)} balances to write, {done.rowcount} written")
