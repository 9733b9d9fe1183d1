"""SQL that writes the ledger: accounts, transactions, transfers. Callers own the transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import psycopg

from nodes.db.writes import Writes, append_columns, append_rows
from nodes.ledger.model import AccountKey, TransactionRecord, shard_of

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
if TransactionRecord.__struct_fields__ != (*_COLUMNS, "transfers"):
    raise RuntimeError("a transaction's columns aren't its record's fields")
_SHARD = {"shard": "bigint"}
_TRANSACTIONS = _COLUMNS | _SHARD
_TRANSFERS: dict[str, str] = {
    "transaction_id": "bigint",
    "line": "smallint",
    "debit_account": "bigint",
    "credit_account": "bigint",
    "amount": "bigint",
    "currency": "text",
    "balance_after": "bigint",
    **_SHARD,
}
#: The increment of the sequence transaction_ids, which numbers the writers.
_IDS_A_CALL = 1000
#: 2020-01-01, in milliseconds since 1970.
_IDS_SINCE_MS = 1_577_836_800_000
_COUNTING = 6
_A_MILLISECOND = 1 << _COUNTING


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


class TransactionIds:
    """Ids of transactions for one writer: in the order of time, without asking the database.

    Milliseconds since 2020, 16 bits of the writer's number, six that count; who needs more in a
    millisecond borrows from the next. A writer is a connection or an engine: numbers come round
    after 65,536 of them, and a new one would have to meet the millisecond of one that still writes.
    """

    def __init__(self, writer: int) -> None:
        self._writer = (writer & 0xFFFF) << _COUNTING
        self._ms = 0
        self._count = 0

    def take(self, count: int) -> list[int]:
        """The next ids, ascending; those not used are never given again."""
        now = time.time_ns() // 1_000_000 - _IDS_SINCE_MS
        if now > self._ms:
            self._ms, self._count = now, 0
        taken: list[int] = []
        while len(taken) < count:
            first = self._ms << 22 | self._writer | self._count
            room = min(_A_MILLISECOND - self._count, count - len(taken))
            taken += range(first, first + room)
            self._count += room
            if self._count == _A_MILLISECOND:
                self._ms, self._count = self._ms + 1, 0
        return taken


def first_id_at(ms: int) -> int:
    """Ids that are given out at this moment (milliseconds since 1970) or later aren't smaller."""
    return max(0, ms - _IDS_SINCE_MS) << 22


_WRITERS: WeakKeyDictionary[Connection, TransactionIds] = WeakKeyDictionary()


def open_transaction_ids(connection: Connection) -> TransactionIds:
    """Ids for a new writer."""
    row = connection.execute("SELECT nextval('transaction_ids')", prepare=True).fetchone()
    if row is None:
        raise RuntimeError("a sequence gave nothing")
    return TransactionIds(row[0] // _IDS_A_CALL)


def transaction_ids_of(connection: Connection) -> TransactionIds:
    """The ids of this connection as a writer: its number is asked for once."""
    known = _WRITERS.get(connection)
    if known is None:
        known = _WRITERS[connection] = open_transaction_ids(connection)
    return known


def take_transaction_ids(connection: Connection, count: int) -> list[int]:
    """Ids for `count` transactions, ascending; those not used are never given again."""
    return transaction_ids_of(connection).take(count)


def record_transactions(into: Connection | Writes, records: Sequence[TransactionRecord]) -> None:
    """Append transactions with their transfers.

    Raises psycopg.errors.UniqueViolation if one is recorded already: then nothing of the
    caller's transaction stands.
    """
    if not records:
        return
    *columns, _ = zip(*map(msgspec.structs.astuple, records), strict=True)
    shards = [shard_of(record.account_id, record.txid) for record in records]
    append_columns(into, "transactions", _TRANSACTIONS, [*columns, shards])
    lines = [
        (
            record.transaction_id,
            line,
            t.debit_account,
            t.credit_account,
            t.amount,
            record.currency,
            t.balance_after,
            shard,
        )
        for record, shard in zip(records, shards, strict=True)
        for line, t in enumerate(record.transfers, start=1)
    ]
    append_rows(into, "transfers", _TRANSFERS, lines)
