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
from nodes.db.writes import Statement, Writes, append_rows, array, bigint

Connection = psycopg.Connection[Any]
#: An idempotency key and the business date that it contains: together they find a request's row.
DatedKey = tuple[bytes, date]


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


def insert_answers(writes: Writes, answers: Mapping[bytes, tuple[date, bytes]]) -> None:
    """Give requests their answers, by key; UniqueViolation if one has got another meanwhile."""
    # In the order of the keys: two batches with the same keys wait for each other in one direction.
    rows = [(key, *answers[key]) for key in sorted(answers)]
    append_rows(writes, "authorization_answers", _ANSWERS, rows)


_NOTE = Statement(
    "note open batch",
    "INSERT INTO open_batches (open_batch_id, deadline_ms, keys, dates)"
    " VALUES ($1::bigint, $2::bigint, $3::bytea[], $4::date[])",
)


def insert_open_batch(
    writes: Writes, number: int, deadline_ms: int, keys: Sequence[DatedKey]
) -> None:
    """Note requests that wait for their issuers until `deadline_ms`, under an unused number."""
    writes.call(
        _NOTE,
        bigint(number),
        bigint(deadline_ms),
        array("bytea", [key for key, _ in keys]),
        array("date", [day for _, day in keys]),
    )


_FORGET = Statement(
    "forget open batches", "DELETE FROM open_batches WHERE open_batch_id = ANY($1::bigint[])"
)


def delete_open_batches(writes: Writes, numbers: Sequence[int]) -> None:
    """Forget batches of which every request has its answer."""
    if numbers:
        writes.call(_FORGET, array("bigint", numbers))


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


_QUEUE = Statement(
    "queue reversals",
    "INSERT INTO reversal_queue (original_txid, issuer, reason, request, next_attempt_ms)"
    " SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bytea[], $5::bigint[])"
    " ORDER BY 1 ON CONFLICT DO NOTHING",
)


def queue_reversals(writes: Writes, rows: Sequence[QueuedReversal]) -> None:
    """Take reversals into the queue; one an original, the first stays."""
    if rows:
        writes.call(
            _QUEUE,
            array("bytea", [row.original_txid for row in rows]),
            array("text", [row.issuer for row in rows]),
            array("text", [row.reason for row in rows]),
            array("bytea", [row.request for row in rows]),
            array("bigint", [row.next_attempt_ms for row in rows]),
        )


def queued_originals(connection: Connection, txids: Sequence[bytes]) -> set[bytes]:
    """Those originals for which a reversal was ever queued."""
    if not txids:
        return set()
    rows = connection.execute(
        "SELECT original_txid FROM reversal_queue WHERE original_txid = ANY(%b)", (list(txids),)
    ).fetchall()
    return {row[0] for row in rows}


def queued_reversals(connection: Connection, txids: Sequence[bytes]) -> dict[bytes, bool]:
    """By original, where a reversal was ever queued: whether it still waits for its issuer."""
    if not txids:
        return {}
    return dict(
        connection.execute(
            "SELECT original_txid, done_ms IS NULL FROM reversal_queue"
            " WHERE original_txid = ANY(%b)",
            (list(txids),),
        ).fetchall()
    )


def followed_originals(connection: Connection, txids: Sequence[bytes]) -> set[bytes]:
    """Those originals that something approved names which isn't a reversal."""
    if not txids:
        return set()
    rows = connection.execute(
        "SELECT DISTINCT original_txid FROM transactions WHERE original_txid = ANY(%b)"
        " AND side = 'acquirer' AND kind <> 'reversal' AND outcome = 'approved'",
        (list(txids),),
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
        "  WHERE done_ms IS NULL AND next_attempt_ms <= %s"
        # An original that still waits for its issuer goes there first.
        "  AND NOT EXISTS (SELECT FROM forward_queue AS f WHERE f.done_ms IS NULL"
        "   AND f.txid = reversal_queue.original_txid) ORDER BY next_attempt_ms LIMIT %s"
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
