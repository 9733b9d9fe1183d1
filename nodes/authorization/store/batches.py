"""SQL of terminals' batches: their lines in the books, closes, and findings of uploads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from nodes.authorization.model import Kind
from nodes.authorization.rules.batches import Action, Finding, Item, Line
from nodes.authorization.services import CurrencyTotals

Connection = psycopg.Connection[Any]

#: Kinds that a batch's totals may count.
_COUNTED = ["purchase", "capture", "advice", "refund", "top_up", "void"]
_PAGE = 5_000


class StoredClose(msgspec.Struct, frozen=True):
    """A batch close as it was answered: "equal", "differs" or "adjusted"."""

    close_id: int
    batch: str
    fingerprint: bytes
    outcome: str
    reported: tuple[CurrencyTotals, ...]
    booked: tuple[CurrencyTotals, ...]


class StoredFinding(msgspec.Struct, frozen=True):
    """An item of an upload that was compared already."""

    item: Item
    fingerprint: bytes
    finding: str
    txid: bytes | None


class Unclosed(msgspec.Struct, frozen=True):
    """A line of a batch with what a reversal of it needs; `queued` is one that isn't done."""

    line: Line
    gross: int
    queued: bytes | None


_ROLL = """
WITH taken AS MATERIALIZED (
    SELECT xact, transaction_id, terminal_id, batch, side = 'acquirer' AND outcome = 'approved'
        AND kind = ANY(%s) AS counts
    FROM transactions WHERE (xact, transaction_id) > (%s::text::xid8, %s)
        AND xact < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY xact, transaction_id LIMIT %s),
lines AS (INSERT INTO terminal_batch_lines (terminal_id, batch, transaction_id)
    SELECT terminal_id, batch, transaction_id FROM taken WHERE counts ON CONFLICT DO NOTHING),
moved AS (UPDATE terminal_batch_scan SET last_xact = n.xact, last_transaction_id = n.transaction_id
    FROM (SELECT xact, transaction_id FROM taken ORDER BY 1 DESC, 2 DESC LIMIT 1) AS n)
SELECT count(*) FROM taken
"""


def roll_lines(connection: Connection) -> int:
    """Take committed transactions into their batches, below the horizon of running ones; how many
    were looked at. One caller at a time."""
    with connection.transaction():
        # In a statement of its own: the next one must see what an earlier caller has done.
        place = connection.execute(
            "SELECT last_xact::text, last_transaction_id FROM terminal_batch_scan FOR UPDATE"
        ).fetchone()
        if place is None:
            return 0
        row = connection.execute(_ROLL, (_COUNTED, *place, _PAGE)).fetchone()
    return int(row[0]) if row else 0


_UNCLOSED = """
WITH place AS (SELECT last_xact, last_transaction_id FROM terminal_batch_scan),
lines AS (
    SELECT transaction_id FROM terminal_batch_lines
    WHERE terminal_id = %(terminal)s AND batch = %(batch)s AND close_id IS NULL
    UNION SELECT t.transaction_id FROM transactions AS t, place
    WHERE (t.xact, t.transaction_id) > (place.last_xact, place.last_transaction_id)
        AND t.side = 'acquirer' AND t.outcome = 'approved' AND t.kind = ANY(%(kinds)s)
        AND t.terminal_id = %(terminal)s AND t.batch = %(batch)s AND NOT EXISTS (
            SELECT FROM terminal_batch_lines AS x
            WHERE x.transaction_id = t.transaction_id AND x.close_id IS NOT NULL))
SELECT t.transaction_id, t.txid, t.kind, t.amount, t.currency, t.stan, t.business_date::text,
    coalesce((SELECT sum(r.amount) FROM transactions AS r WHERE r.original_txid = t.txid
        AND r.side = 'acquirer' AND r.kind = 'reversal' AND r.outcome = 'approved'), 0)::bigint,
    (SELECT q.request FROM reversal_queue AS q WHERE q.original_txid = t.txid
        AND q.done_ms IS NULL),
    (SELECT o.kind FROM transactions AS o WHERE o.txid = t.original_txid AND o.side = 'acquirer')
FROM lines JOIN transactions AS t USING (transaction_id)
WHERE NOT EXISTS (SELECT FROM forward_queue AS f WHERE f.txid = t.txid AND f.close_id IS NOT NULL)
ORDER BY t.transaction_id
"""
#: Voids of what moved no money count nothing.
_MOVED = ("purchase", "capture", "advice")


def unclosed_lines(connection: Connection, terminal_id: str, batch: str) -> list[Unclosed]:
    """What the books have of a batch and no close has, reversals taken off as far as they are
    known to the issuer."""
    named = {"terminal": terminal_id, "batch": batch, "kinds": _COUNTED}
    found: list[Unclosed] = []
    for (number, txid, kind, amount, currency, stan, day, undone, queued,
         of_kind) in connection.execute(_UNCLOSED, named):  # fmt: skip
        if kind == "void" and of_kind not in _MOVED:
            continue
        line = Line(txid, Kind(kind), amount - undone, currency, stan, day, number)
        found.append(Unclosed(line, amount, queued))
    return found


def undone_forwards(connection: Connection, terminal_id: str, batch: str) -> list[bytes]:
    """Advices and completions of a batch that wait for their issuers (their Pendings), and what of
    them is reversed already."""
    rows = connection.execute(
        "SELECT f.request FROM forward_queue AS f WHERE f.terminal_id = %s AND f.batch = %s"
        " AND f.done_ms IS NULL AND f.close_id IS NULL"
        " AND NOT EXISTS (SELECT FROM reversal_queue AS q"
        " WHERE q.original_txid = f.txid) ORDER BY f.place",
        (terminal_id, batch),
    ).fetchall()
    return [row[0] for row in rows]


_CLOSE = "close_id, batch, fingerprint, outcome, reported::text, booked::text"


def close_under(
    connection: Connection, terminal_id: str, day: date, batch: str, stan: str
) -> StoredClose | None:
    """What was answered to a close under this number."""
    row = connection.execute(
        f"SELECT {_CLOSE} FROM batch_closes WHERE terminal_id = %s AND business_date = %s"
        " AND batch = %s AND stan = %s",
        (terminal_id, day, batch, stan),
    ).fetchone()
    return None if row is None else _stored(row)


def closes_of(connection: Connection, terminal_id: str, batch: str) -> list[StoredClose]:
    """Closes of a batch, the oldest first."""
    rows = connection.execute(
        f"SELECT {_CLOSE} FROM batch_closes WHERE terminal_id = %s AND batch = %s"
        " ORDER BY close_id",
        (terminal_id, batch),
    ).fetchall()
    return [_stored(row) for row in rows]


def _stored(row: Sequence[Any]) -> StoredClose:
    decode = msgspec.json.Decoder(tuple[CurrencyTotals, ...]).decode
    return StoredClose(row[0], row[1], row[2], row[3], decode(row[4]), decode(row[5]))


def insert_close(
    connection: Connection,
    *,
    terminal_id: str,
    batch: str,
    day: date,
    stan: str,
    fingerprint: bytes,
    outcome: str,
    reported: tuple[CurrencyTotals, ...],
    booked: tuple[CurrencyTotals, ...],
    at_ms: int,
) -> int:
    """Store a close; its id."""
    row = connection.execute(
        "INSERT INTO batch_closes (terminal_id, batch, business_date, stan, fingerprint, outcome,"
        " reported, booked, at_ms) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING close_id",
        (
            terminal_id,
            batch,
            day,
            stan,
            fingerprint,
            outcome,
            Jsonb(msgspec.to_builtins(reported)),
            Jsonb(msgspec.to_builtins(booked)),
            at_ms,
        ),
    ).fetchone()
    assert row is not None
    return int(row[0])


def mark_closed(
    connection: Connection, terminal_id: str, batch: str, numbers: Sequence[int], close_id: int
) -> None:
    """These transactions are in this close, and in no other."""
    connection.execute(
        "INSERT INTO terminal_batch_lines (terminal_id, batch, transaction_id, close_id)"
        " SELECT %s, %s, number, %s FROM unnest(%s::bigint[]) AS number"
        " ON CONFLICT (transaction_id) DO UPDATE SET close_id = excluded.close_id"
        " WHERE terminal_batch_lines.close_id IS NULL",
        (terminal_id, batch, close_id, list(numbers)),
    )


def mark_forwards_closed(connection: Connection, txids: Sequence[bytes], close_id: int) -> None:
    """These still wait for their issuers, and are counted in this close."""
    connection.execute(
        "UPDATE forward_queue SET close_id = %s WHERE txid = ANY(%b) AND close_id IS NULL",
        (close_id, list(txids)),
    )


def findings_of(connection: Connection, close_id: int) -> dict[tuple[str, str], StoredFinding]:
    """Items of an upload by (STAN, business date)."""
    rows = connection.execute(
        "SELECT kind, amount, currency, stan, business_date::text, fingerprint, finding, txid"
        " FROM batch_findings WHERE close_id = %s",
        (close_id,),
    ).fetchall()
    return {
        (row[3], row[4]): StoredFinding(Item(Kind(row[0]), *row[1:5]), *row[5:]) for row in rows
    }


def insert_finding(
    connection: Connection,
    close_id: int,
    item: Item,
    finding: Finding,
    action: Action,
    *,
    booked: int,
    adjusted: int,
    txid: bytes | None,
    fingerprint: bytes,
    at_ms: int,
) -> None:
    """Store what an item came to; UniqueViolation if it was compared before."""
    connection.execute(
        "INSERT INTO batch_findings (close_id, stan, business_date, kind, amount, currency, booked,"
        " finding, action, adjusted, txid, fingerprint, at_ms)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            close_id,
            item.stan,
            item.business_date,
            item.kind.value,
            item.amount,
            item.currency,
            booked,
            finding.value,
            action.value,
            adjusted,
            txid,
            fingerprint,
            at_ms,
        ),
    )
