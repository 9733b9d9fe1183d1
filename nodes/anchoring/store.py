"""All SQL of the log that writes, and the one transaction around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import psycopg
import sqlalchemy

from nodes.anchoring.model import Batch, LedgerRow, RowEvidence, Submission
from nodes.db.copy import copy_rows, copying

Connection = psycopg.Connection[Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(microseconds: int) -> datetime:
    """An aware datetime of microseconds since 1970, exactly."""
    return _EPOCH + timedelta(microseconds=microseconds)


@contextmanager
def transaction(
    engine: sqlalchemy.Engine, isolation_level: str | None = None
) -> Iterator[Connection]:
    """One database transaction, as a psycopg connection: committed at the end, or not at all."""
    with engine.connect() as connection:
        if isolation_level:
            connection = connection.execution_options(isolation_level=cast(Any, isolation_level))
        with connection.begin():
            yield driver(connection)


def driver(connection: sqlalchemy.Connection | Connection) -> Connection:
    """The psycopg connection of an SQLAlchemy one (within its transaction), or itself."""
    if isinstance(connection, psycopg.Connection):
        return connection
    return cast(Connection, connection.connection.driver_connection)


def try_lock(connection: Connection, name: str) -> bool:
    """Take a lock of this database by name until the transaction ends; False if it is taken."""
    row = connection.execute(
        "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", (f"countersign/{name}",)
    ).fetchone()
    return bool(row and row[0])


_LEAVES = {
    "log_index": "bigint",
    "batch_seq": "bigint",
    "leaf_kind": "smallint",
    "transaction_id": "bigint",
    "txid": "bytea",
    "leaf": "bytea",
    "leaf_hash": "bytea",
    "shared_leaves": "bytea",
    "private_copy": "bytea",
}
_NODES = {"level": "smallint", "node_index": "bigint", "hash": "bytea"}


@contextmanager
def inserting_leaves(
    connection: Connection, batch_seq: int, first_index: int
) -> Iterator[Callable[[Sequence[LedgerRow], Sequence[RowEvidence]], None]]:
    """A batch's leaves, in log order from its first index, some at a time."""
    with copying(connection, "log_leaves", _LEAVES) as append:
        next_index = first_index

        def insert(rows: Sequence[LedgerRow], evidence: Sequence[RowEvidence]) -> None:
            nonlocal next_index
            index, next_index = next_index, next_index + len(rows)
            append(
                [
                    range(index, next_index),
                    [batch_seq] * len(rows),
                    [entry.leaf.kind for entry in evidence],
                    [row.values["transaction_id"] for row in rows],
                    [entry.leaf.txid for entry in evidence],
                    [entry.encoded for entry in evidence],
                    [entry.leaf_hash for entry in evidence],
                    [entry.shared_leaves for entry in evidence],
                    [entry.private_copy for entry in evidence],
                ]
            )

        yield insert


def insert_nodes(connection: Connection, nodes: Sequence[tuple[int, int, bytes]]) -> None:
    """Subtree hashes that became complete: (level, index, hash)."""
    copy_rows(connection, "log_nodes", _NODES, nodes)


def insert_batch(connection: Connection, batch: Batch) -> None:
    """The batch with its totals."""
    connection.execute(
        "INSERT INTO batches (seq, first_index, size, leaf_count, prev_root, root, checkpoint,"
        " consistency, last_xact, last_transaction_id, sealed_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s::text::xid8, %s, %s)",
        (
            batch.seq,
            batch.first_index,
            batch.size,
            batch.leaf_count,
            batch.prev_root,
            batch.root,
            batch.note,
            b"".join(batch.consistency),
            str(batch.position.xact),
            batch.position.transaction_id,
            moment(batch.sealed_us),
        ),
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO batch_totals (seq, currency, approved_count, approved_amount,"
            " declined_count) VALUES (%s, %s, %s, %s, %s)",
            [
                (
                    batch.seq,
                    row.currency,
                    row.approved_count,
                    row.approved_amount,
                    row.declined_count,
                )
                for row in batch.totals
            ],
        )


def roll_up_balances(connection: Connection, moved: Mapping[int, int]) -> None:
    """Add what sealed transfers moved to the balances of their accounts, of whatever kind.

    `moved`: by account, in minor units. Those balances are written here alone, so that no purchase
    waits for a shared row. Rows are met in the order of their ids: nobody else locks them, but a
    test or a person might.
    """
    accounts = sorted(moved)
    connection.execute(
        "UPDATE accounts SET balance = accounts.balance + moved.amount"
        " FROM unnest(%b::bigint[], %b::bigint[]) AS moved (account_id, amount)"
        " WHERE accounts.account_id = moved.account_id",
        (accounts, [moved[account] for account in accounts]),
    )


def insert_submission(connection: Connection, submission: Submission, at: datetime) -> None:
    """Remember a signed transaction before it is broadcast; it replaces one that failed."""
    connection.execute(
        "INSERT INTO anchor_submissions (seq, state, nonce, tx_hash, raw_tx, submitted_at)"
        " VALUES (%s, 'SUBMITTED', %s, %s, %s, %s) ON CONFLICT (seq) DO UPDATE SET"
        " nonce = excluded.nonce, tx_hash = excluded.tx_hash, raw_tx = excluded.raw_tx,"
        " submitted_at = excluded.submitted_at, broadcasts = 0"
        " WHERE anchor_submissions.state = 'SUBMITTED'",
        (submission.seq, submission.nonce, submission.tx_hash, submission.raw, at),
    )


def count_broadcast(connection: Connection, seq: int) -> None:
    """One more broadcast of a submission."""
    connection.execute(
        "UPDATE anchor_submissions SET broadcasts = broadcasts + 1 WHERE seq = %s", (seq,)
    )


def mark_anchored(
    connection: Connection,
    seq: int,
    *,
    tx_hash: bytes,
    block_number: int,
    block_hash: bytes,
    gas_used: int,
    at: datetime,
) -> None:
    """The batch's anchor is final. `tx_hash` is the transaction that did it."""
    connection.execute(
        "UPDATE anchor_submissions SET state = 'ANCHORED', tx_hash = %s, block_number = %s,"
        " block_hash = %s, gas_used = %s, anchored_at = %s WHERE seq = %s",
        (tx_hash, block_number, block_hash, gas_used, at, seq),
    )


def reopen_anchors(connection: Connection, after_seq: int) -> int:
    """Anchors beyond `after_seq` that the chain no longer has are to be sent again; how many."""
    done = connection.execute(
        "UPDATE anchor_submissions SET state = 'SUBMITTED', block_number = NULL,"
        " block_hash = NULL, gas_used = NULL, anchored_at = NULL"
        " WHERE seq > %s AND state = 'ANCHORED'",
        (after_seq,),
    )
    return done.rowcount


def bind_chain(
    connection: Connection,
    *,
    chain_id: int,
    genesis_hash: bytes,
    member_registry: str,
    anchor_registry: str,
    code_hash: bytes,
    member_id: str,
) -> None:
    """Remember the chain that this database belongs to; a second call changes nothing."""
    connection.execute(
        "INSERT INTO chain_binding (chain_id, genesis_hash, member_registry, anchor_registry,"
        " code_hash, member_id) VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (chain_id, genesis_hash, member_registry, anchor_registry, code_hash, member_id),
    )


def lock_feed_cursor(connection: Connection, acquirer: str) -> int:
    """The merchant's place in an acquirer's feed, locked; -1 before the first entry."""
    connection.execute(
        "INSERT INTO feed_cursors (acquirer) VALUES (%s) ON CONFLICT DO NOTHING", (acquirer,)
    )
    row = connection.execute(
        "SELECT last_log_index FROM feed_cursors WHERE acquirer = %s FOR UPDATE", (acquirer,)
    ).fetchone()
    return int(row[0]) if row else -1


def move_feed_cursor(connection: Connection, acquirer: str, log_index: int) -> None:
    """The last entry that is recorded; never moves back."""
    connection.execute(
        "UPDATE feed_cursors SET last_log_index = %s WHERE acquirer = %s AND last_log_index < %s",
        (log_index, acquirer, log_index),
    )
