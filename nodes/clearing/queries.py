"""SQL that reads closes, days to close and what is on its way to the chain.

psycopg connections within a transaction. What stands in a day's books: day_queries.py; breaks and
cases: case_queries.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from nodes import clock
from nodes.authorization.model import ACQUIRERS_KINDS
from nodes.clearing.model import Close, CloseStage, DayKey, Totals
from nodes.clearing.store import Sending

Connection = psycopg.Connection[Any]
Row = dict[str, Any]

_KINDS = sorted(kind.value for kind in ACQUIRERS_KINDS)


# --- which days are to be closed ---------------------------------------------------------------


def scan(connection: Connection) -> tuple[int, int]:
    """How far rows (xact) and the chain's events (block) were looked through."""
    row = connection.execute("SELECT next_xact::text, next_block FROM close_scan").fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def days_since(
    connection: Connection, member_id: str, first: int, below: int
) -> list[tuple[DayKey, int]]:
    """Days of this member with rows that were written from `first` up to `below` (xact)."""
    rows = connection.execute(
        "SELECT acquirer, issuer, currency, business_date, max(xact)::text"
        " FROM transactions WHERE xact >= %s::text::xid8 AND xact < %s::text::xid8"
        " AND pair_seq > 0 AND acquirer <> issuer AND kind = ANY(%s)"
        " AND ((side = 'acquirer' AND acquirer = %s) OR (side = 'issuer' AND issuer = %s))"
        " GROUP BY 1, 2, 3, 4",
        (str(first), str(below), _KINDS, member_id, member_id),
    ).fetchall()
    return [(DayKey(*row[:4]), int(row[4])) for row in rows]


@dataclass(frozen=True, slots=True)
class Due:
    """A day that has something to close: its last close, and the newest row's xact."""

    key: DayKey
    last_xact: int
    opened_revision: int
    close: Close | None
    stage: CloseStage | None


def due_days(connection: Connection, until: date) -> list[Due]:
    """Days up to a date without a close, or whose last close is judged and may need another."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "SELECT d.last_xact::text AS day_xact, d.opened_revision, d.acquirer AS a,"
            f" d.issuer AS i, d.currency AS cur, d.business_date AS day, {_CLOSE}, s.stage"
            " FROM close_days AS d"
            " LEFT JOIN LATERAL (SELECT * FROM closes AS x WHERE (x.acquirer, x.issuer, x.currency,"
            " x.business_date) = (d.acquirer, d.issuer, d.currency, d.business_date)"
            " ORDER BY revision DESC LIMIT 1) AS c ON true"
            f" LEFT JOIN LATERAL ({_STAGE}) AS s ON true"
            " WHERE d.business_date <= %s AND (c.close_id IS NULL"
            " OR s.stage IN ('BROKEN', 'EXPIRED') OR (s.stage = 'CONFIRMED'"
            " AND (d.last_xact >= c.horizon OR d.opened_revision > c.revision)))"
            " ORDER BY d.business_date, d.acquirer, d.issuer, d.currency",
            (until,),
        ).fetchall()
    return [
        Due(
            DayKey(row["a"], row["i"], row["cur"], row["day"]),
            int(row["day_xact"]),
            row["opened_revision"],
            _close(row) if row["close_id"] is not None else None,
            CloseStage(row["stage"]) if row["stage"] else None,
        )
        for row in rows
    ]


# --- closes ------------------------------------------------------------------------------------

_CLOSE = (
    "c.close_id, c.acquirer, c.issuer, c.currency, c.business_date, c.revision, c.party,"
    " c.horizon::text AS horizon, c.item_count, c.debits, c.credits, c.close_root, c.totals_hash,"
    " c.blind, c.after_pair_seq, c.last_pair_seq, c.closed_at"
)
_STAGE = (
    "SELECT stage, at AS stage_at FROM close_stages WHERE close_id = c.close_id"
    " ORDER BY close_stage_rank(stage) DESC LIMIT 1"
)


def _close(row: Mapping[str, Any]) -> Close:
    return Close(
        key=DayKey(row["acquirer"], row["issuer"], row["currency"], row["business_date"]),
        revision=row["revision"],
        party=row["party"],
        horizon=int(row["horizon"]),
        totals=Totals(row["item_count"], row["debits"], row["credits"]),
        close_root=row["close_root"],
        totals_hash=row["totals_hash"],
        blind=row["blind"],
        after_pair_seq=row["after_pair_seq"],
        last_pair_seq=row["last_pair_seq"],
        closed_ms=clock.to_ms(row["closed_at"]),
        close_id=row["close_id"],
    )


@dataclass(frozen=True, slots=True)
class Staged:
    """A close with its stage."""

    close: Close
    stage: CloseStage
    since: datetime


def _staged(connection: Connection, where: str, parameters: Sequence[Any]) -> list[Staged]:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            f"SELECT {_CLOSE}, s.stage, s.stage_at FROM closes AS c"
            f" JOIN LATERAL ({_STAGE}) AS s ON true WHERE {where}",
            parameters,
        ).fetchall()
    return [Staged(_close(row), CloseStage(row["stage"]), row["stage_at"]) for row in rows]


def close_by_id(connection: Connection, close_id: int) -> Staged | None:
    """One close."""
    found = _staged(connection, "c.close_id = %s", (close_id,))
    return found[0] if found else None


def close_of(connection: Connection, key: DayKey, revision: int) -> Staged | None:
    """One revision of a day's close."""
    found = _staged(
        connection,
        "(c.acquirer, c.issuer, c.currency, c.business_date, c.revision) = (%s, %s, %s, %s, %s)",
        (*_key(key), revision),
    )
    return found[0] if found else None


def closes_in(connection: Connection, *stages: CloseStage) -> list[Staged]:
    """Closes that are at one of these stages, in the order in which they were made."""
    names = [stage.value for stage in stages]
    return _staged(connection, "s.stage = ANY(%s) ORDER BY c.close_id", (names,))


def uncompared(connection: Connection) -> list[Staged]:
    """The acquirer's judged closes that weren't compared yet."""
    return _staged(
        connection,
        "c.party = 'acquirer' AND s.stage IN ('BROKEN', 'CONFIRMED')"
        " AND NOT EXISTS (SELECT FROM comparisons AS m WHERE m.close_id = c.close_id)"
        " ORDER BY c.close_id",
        (),
    )


def newest_closes(connection: Connection) -> list[Staged]:
    """The newest revision of each close."""
    return _staged(
        connection,
        "NOT EXISTS (SELECT FROM closes AS n WHERE (n.acquirer, n.issuer, n.currency,"
        " n.business_date, n.revision) = (c.acquirer, c.issuer, c.currency, c.business_date,"
        " c.revision + 1)) ORDER BY c.business_date, c.close_id",
        (),
    )


def revealed_root(connection: Connection, close_id: int) -> bytes | None:
    """The root that the other side has revealed on the chain, once the close is judged."""
    row = connection.execute(
        "SELECT other_root FROM close_stages WHERE close_id = %s AND other_root IS NOT NULL",
        (close_id,),
    ).fetchone()
    return row[0] if row else None


def is_compared(connection: Connection, close_id: int) -> bool:
    """Whether a close was compared already."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM comparisons WHERE close_id = %s)", (close_id,)
    ).fetchone()
    return bool(row and row[0])


def earlier_revisions(connection: Connection, close: Close) -> list[Staged]:
    """The revisions before a close."""
    return _staged(
        connection,
        "(c.acquirer, c.issuer, c.currency, c.business_date) = (%s, %s, %s, %s)"
        " AND c.revision < %s ORDER BY c.revision",
        (*_key(close.key), close.revision),
    )


def find_closes(
    connection: Connection,
    *,
    limit: int,
    before: int | None = None,
    day: date | None = None,
    counterparty: str | None = None,
    stage: str | None = None,
) -> list[Row]:
    """Closes with stage and number of breaks, the newest first; without blinds."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT c.close_id, c.acquirer, c.issuer, c.currency, c.business_date, c.revision,"
            " c.party, c.item_count, c.debits, c.credits, c.close_root, c.totals_hash, c.closed_at,"
            " s.stage, s.stage_at, j.other_root,"
            " (SELECT x.state FROM settlements AS p"
            " JOIN settlement_steps AS x USING (settlement_id)"
            " WHERE p.close_id = c.close_id ORDER BY p.number DESC, x.step DESC LIMIT 1)"
            " AS settlement_state,"
            " (SELECT count(*) FROM breaks AS b WHERE b.close_id = c.close_id) AS breaks,"
            " (SELECT count(*) FROM breaks AS b WHERE b.close_id = c.close_id AND NOT EXISTS"
            " (SELECT FROM case_events AS e WHERE e.break_ref = b.break_ref"
            " AND e.step = 'closed')) AS open_breaks, m.compared_at, m.rounds, m.bytes_sent,"
            " m.bytes_received FROM closes AS c"
            f" JOIN LATERAL ({_STAGE}) AS s ON true"
            " LEFT JOIN close_stages AS j ON j.close_id = c.close_id AND j.other_root IS NOT NULL"
            " LEFT JOIN comparisons AS m ON m.close_id = c.close_id"
            " WHERE (%(before)s::bigint IS NULL OR c.close_id < %(before)s)"
            " AND (%(day)s::date IS NULL OR c.business_date = %(day)s)"
            " AND (%(other)s::text IS NULL OR %(other)s IN (c.acquirer, c.issuer))"
            " AND (%(stage)s::text IS NULL OR s.stage = %(stage)s)"
            " ORDER BY c.close_id DESC LIMIT %(limit)s",
            {"before": before, "day": day, "other": counterparty, "stage": stage, "limit": limit},
        ).fetchall()


def stages_of(connection: Connection, close_id: int) -> list[Row]:
    """A close's stages in order."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT stage, at FROM close_stages WHERE close_id = %s"
            " ORDER BY close_stage_rank(stage)",
            (close_id,),
        ).fetchall()


# --- what is on its way to the chain -----------------------------------------------------------


def sendings(connection: Connection) -> list[Sending]:
    """Signed transactions that wait for the chain, by nonce."""
    rows = connection.execute(
        "SELECT purpose, subject, nonce, tx_hash, raw_tx FROM chain_outbox"
        " WHERE state = 'SUBMITTED' ORDER BY nonce"
    ).fetchall()
    return [Sending(*row) for row in rows]


def sending_state(connection: Connection, purpose: str, subject: str) -> str | None:
    """SUBMITTED, DONE or FAILED; None if there is no such sending."""
    row = connection.execute(
        "SELECT state FROM chain_outbox WHERE (purpose, subject) = (%s, %s)", (purpose, subject)
    ).fetchone()
    return row[0] if row else None


def anchor_nonces(connection: Connection) -> list[int]:
    """Nonces that anchors on their way have taken: the key is the same."""
    rows = connection.execute(
        "SELECT nonce FROM anchor_submissions WHERE state = 'SUBMITTED'"
    ).fetchall()
    return [row[0] for row in rows]


def _key(key: DayKey) -> tuple[object, ...]:
    return key.acquirer, key.issuer, key.currency, key.business_date
