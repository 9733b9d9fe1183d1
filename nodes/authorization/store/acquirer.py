"""The acquirer's own tables: open batches, answers, retrieval references, store-and-forward.

A key is answered once: the primary key of authorization_answers decides who was first. Callers
that lose get psycopg.errors.UniqueViolation, read what stands, and tell that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import msgspec
import psycopg

from nodes.authorization.model import Kind
from nodes.db.copy import copy_rows
from nodes.ledger.store import ids_of_blocks

Connection = psycopg.Connection[Any]
#: An idempotency key and the business date that it contains: together they find a request's row.
DatedKey = tuple[bytes, date]
#: The increment of the sequence transaction_ids.
_IDS_A_CALL = 1000


class FoundOriginal(msgspec.Struct, frozen=True):
    """An approved transaction in the acquirer's books that a follow-up names."""

    txid: bytes
    kind: Kind
    amount: int


class OverdueBatch(msgspec.Struct, frozen=True):
    """What a process left open: the keys of a batch, some of them perhaps without an answer."""

    open_batch_id: int
    keys: list[DatedKey]


class QueuedReversal(msgspec.Struct, frozen=True):
    """A reversal that the issuer must acknowledge; `request` is its Pending (accepting.py)."""

    original_txid: bytes
    issuer: str
    reason: str
    request: bytes
    next_attempt_ms: int
    attempts: int = 0


_ANSWERS = {"idempotency_key": "bytea", "business_date": "date", "answer": "bytea"}


def insert_answers(connection: Connection, answers: Mapping[bytes, tuple[date, bytes]]) -> None:
    """Give requests their answers, by key; UniqueViolation if one has got another meanwhile."""
    # In the order of the keys: two batches with the same keys wait for each other in one direction.
    rows = [(key, *answers[key]) for key in sorted(answers)]
    copy_rows(connection, "authorization_answers", _ANSWERS, rows)


def insert_open_batch(
    connection: Connection,
    deadline_ms: int,
    keys: Sequence[DatedKey],
    last_seqs: Mapping[str, int],
) -> int:
    """Note requests that wait for their issuers until `deadline_ms`; the number of the note.

    Sets the locked terminals' last sequence numbers with it: an idle path feels each statement.
    """
    row = connection.execute(
        "WITH counted AS (UPDATE terminals SET last_seq = new.last_seq"
        " FROM unnest(%s::text[], %b::bigint[]) AS new (terminal_id, last_seq)"
        " WHERE terminals.terminal_id = new.terminal_id RETURNING 1)"
        " INSERT INTO open_batches (deadline_ms, keys, dates) VALUES (%s, %b, %b)"
        " RETURNING open_batch_id, (SELECT count(*) FROM counted)",
        (
            list(last_seqs),
            list(last_seqs.values()),
            deadline_ms,
            [key for key, _ in keys],
            [day for _, day in keys],
        ),
        prepare=True,
    ).fetchone()
    if row is None or row[1] != len(last_seqs):
        raise RuntimeError("a locked terminal has gone")
    number: int = row[0]
    return number


def delete_open_batches(connection: Connection, numbers: Sequence[int]) -> None:
    """Forget batches of which every request has its answer."""
    if numbers:
        connection.execute(
            "DELETE FROM open_batches WHERE open_batch_id = ANY(%b)", (list(numbers),), prepare=True
        )


def take_ids_and_forget(connection: Connection, count: int, numbers: Sequence[int]) -> list[int]:
    """Ids for `count` transactions (as ledger.store.take_transaction_ids), and in the same
    statement delete_open_batches: an idle path feels each one.
    """
    rows = connection.execute(
        "WITH gone AS (DELETE FROM open_batches WHERE open_batch_id = ANY(%b))"
        " SELECT nextval('transaction_ids') FROM generate_series(1, %s)",
        (list(numbers), -(-count // _IDS_A_CALL)),
        prepare=True,
    ).fetchall()
    return ids_of_blocks([row[0] for row in rows], count)


def take_overdue_batches(connection: Connection, before_ms: int, limit: int) -> list[OverdueBatch]:
    """Batches whose last deadline was before, deleted: who else wants them waits for the commit."""
    rows = connection.execute(
        "DELETE FROM open_batches WHERE open_batch_id IN (SELECT open_batch_id FROM open_batches"
        " WHERE deadline_ms < %s ORDER BY open_batch_id LIMIT %s)"
        " RETURNING open_batch_id, keys, dates",
        (before_ms, limit),
    ).fetchall()
    return [
        OverdueBatch(number, list(zip(keys, dates, strict=True))) for number, keys, dates in rows
    ]


def recorded(connection: Connection, txids: Sequence[bytes]) -> set[bytes]:
    """Those transactions that stand in the acquirer's books."""
    if not txids:
        return set()
    rows = connection.execute(
        "SELECT txid FROM transactions WHERE txid = ANY(%b) AND side = 'acquirer'",
        (list(txids),),
        prepare=True,
    ).fetchall()
    return {row[0] for row in rows}


def next_rrns(connection: Connection, count: int) -> list[str]:
    """Retrieval reference numbers (DE37), 12 digits each; those not used are never given again."""
    row = connection.execute(
        "SELECT array_agg(nextval('retrieval_references')) FROM generate_series(1, %s)",
        (count,),
        prepare=True,
    ).fetchone()
    if row is None:
        raise RuntimeError("an aggregate gave no row")
    return [f"{number:012d}" for number in row[0] or ()]


def approved_originals(
    connection: Connection, wanted: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], list[FoundOriginal]]:
    """Approved payments and authorizations by (merchant_id, rrn)."""
    found: dict[tuple[str, str], list[FoundOriginal]] = {}
    if not wanted:
        return found
    named = sorted(set(wanted))
    # The list of kinds is that of the index transactions_by_rrn.
    rows = connection.execute(
        "SELECT t.merchant_id, t.rrn, t.txid, t.kind, t.amount FROM transactions t"
        " JOIN unnest(%s::text[], %s::text[]) AS w (merchant_id, rrn) USING (merchant_id, rrn)"
        " WHERE t.side = 'acquirer' AND t.outcome = 'approved'"
        " AND t.kind IN ('purchase', 'authorization', 'capture', 'advice')",
        ([merchant for merchant, _ in named], [rrn for _, rrn in named]),
        prepare=True,
    ).fetchall()
    for merchant_id, rrn, txid, kind, amount in rows:
        original = FoundOriginal(txid, Kind(kind), amount)
        found.setdefault((merchant_id, rrn), []).append(original)
    return found


# --- store-and-forward ---------------------------------------------------------------------------


def queue_reversals(connection: Connection, rows: Sequence[QueuedReversal]) -> None:
    """Take reversals into the queue; one an original, the first stays."""
    if not rows:
        return
    connection.execute(
        "INSERT INTO reversal_queue (original_txid, issuer, reason, request, next_attempt_ms)"
        " SELECT * FROM unnest(%b::bytea[], %s::text[], %s::text[], %b::bytea[], %b::bigint[])"
        " ORDER BY 1 ON CONFLICT DO NOTHING",
        (
            [row.original_txid for row in rows],
            [row.issuer for row in rows],
            [row.reason for row in rows],
            [row.request for row in rows],
            [row.next_attempt_ms for row in rows],
        ),
        prepare=True,
    )


def queued_originals(connection: Connection, txids: Sequence[bytes]) -> set[bytes]:
    """Those originals for which a reversal was ever queued."""
    if not txids:
        return set()
    rows = connection.execute(
        "SELECT original_txid FROM reversal_queue WHERE original_txid = ANY(%b)", (list(txids),)
    ).fetchall()
    return {row[0] for row in rows}


def take_due_reversals(
    connection: Connection, now_ms: int, first_pause_ms: int, longest_pause_ms: int, limit: int
) -> list[QueuedReversal]:
    """Due reversals, put off at once so that no second worker takes them: each time twice as far,
    up to the longest pause.
    """
    rows = connection.execute(
        "UPDATE reversal_queue SET attempts = attempts + 1, next_attempt_ms = %s::bigint"
        " + least(%s::bigint << least(attempts + 1, 10), %s::bigint)"
        " WHERE original_txid IN (SELECT original_txid FROM reversal_queue"
        "  WHERE done_ms IS NULL AND next_attempt_ms <= %s ORDER BY next_attempt_ms LIMIT %s"
        "  FOR UPDATE SKIP LOCKED)"
        " RETURNING original_txid, issuer, reason, request, next_attempt_ms, attempts",
        (now_ms, first_pause_ms, longest_pause_ms, now_ms, limit),
    ).fetchall()
    return [QueuedReversal(*row) for row in rows]


def finish_reversals(connection: Connection, txids: Sequence[bytes], done_ms: int) -> None:
    """The issuer has acknowledged the reversals of these originals."""
    if txids:
        connection.execute(
            "UPDATE reversal_queue SET done_ms = %s"
            " WHERE original_txid = ANY(%b) AND done_ms IS NULL",
            (done_ms, list(txids)),
        )
