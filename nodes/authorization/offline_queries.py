"""Reads of offline records, alarms, the hotlist and batch closes, for the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

Row = Mapping[str, Any]


def chains(
    connection: Connection, *, limit: int, after: str | None, terminal_id: str | None
) -> list[Row]:
    """Terminals' chains as far as the acquirer has them: by terminal and epoch how many records,
    up to which, and how many are lacking below it or don't follow on the one before."""
    rows = connection.execute(
        text(
            "SELECT terminal_id, epoch, count(*) AS records, max(seq) AS last_seq,"
            " max(seq) - count(*) AS lacking, count(*) FILTER (WHERE follows = seq - 1"
            " AND previous <> last_hash) AS broken, sum(amount)::bigint AS amount, currency,"
            " terminal_id || '/' || lpad(epoch::text, 10, '0') AS place"
            " FROM (SELECT *, lag(seq) OVER w AS follows, lag(record_hash) OVER w AS last_hash"
            "  FROM offline_records WHERE side = 'acquirer'"
            "  AND (CAST(:terminal AS text) IS NULL OR terminal_id = :terminal)"
            "  WINDOW w AS (PARTITION BY terminal_id, epoch ORDER BY seq)) AS r"
            " GROUP BY terminal_id, epoch, currency"
            " HAVING CAST(:after AS text) IS NULL"
            " OR terminal_id || '/' || lpad(epoch::text, 10, '0') > :after"
            " ORDER BY place LIMIT :limit"
        ),
        {"terminal": terminal_id, "after": after, "limit": limit},
    )
    return [dict(row) for row in rows.mappings()]


def gaps(
    connection: Connection, terminal_id: str, epoch: int, *, limit: int, after: int | None = None
) -> list[Row]:
    """What is lacking in one chain: (first, last) missing seq, in order; `after`: behind it."""
    rows = connection.execute(
        text(
            "SELECT follows + 1 AS first, seq - 1 AS last FROM (SELECT seq,"
            " lag(seq, 1, 0::bigint) OVER (ORDER BY seq) AS follows FROM offline_records"
            " WHERE side = 'acquirer' AND terminal_id = :terminal AND epoch = :epoch) AS r"
            " WHERE seq > follows + 1 AND follows >= :after ORDER BY seq LIMIT :limit"
        ),
        {"terminal": terminal_id, "epoch": epoch, "limit": limit, "after": after or 0},
    )
    return [dict(row) for row in rows.mappings()]


def alarms(
    connection: Connection, *, limit: int, before: int | None, kind: str | None
) -> list[Row]:
    """Alarms, the newest first."""
    rows = connection.execute(
        text(
            "SELECT alarm_id, kind, side, terminal_id, epoch, seq, encode(card_key_id, 'hex')"
            " AS card_key_id, atc, encode(txid, 'hex') AS txid, detail, at_ms FROM offline_alarms"
            " WHERE (CAST(:before AS bigint) IS NULL OR alarm_id < :before)"
            " AND (CAST(:kind AS text) IS NULL OR kind = :kind)"
            " ORDER BY alarm_id DESC LIMIT :limit"
        ),
        {"before": before, "kind": kind, "limit": limit},
    )
    return [dict(row) for row in rows.mappings()]


def batch_closes(
    connection: Connection, *, limit: int, before: int | None, terminal_id: str | None
) -> list[Row]:
    """Batch closes, the newest first, with how many transactions each has."""
    rows = connection.execute(
        text(
            "SELECT c.close_id, c.terminal_id, c.batch, c.business_date, c.stan, c.outcome,"
            " c.reported, c.booked, c.at_ms, (SELECT count(*) FROM terminal_batch_lines AS l"
            " WHERE l.close_id = c.close_id AND l.terminal_id = c.terminal_id"
            " AND l.batch = c.batch) + (SELECT count(*) FROM forward_queue AS f"
            " WHERE f.close_id = c.close_id) AS transactions FROM batch_closes AS c"
            " WHERE (CAST(:before AS bigint) IS NULL OR c.close_id < :before)"
            " AND (CAST(:terminal AS text) IS NULL OR c.terminal_id = :terminal)"
            " ORDER BY c.close_id DESC LIMIT :limit"
        ),
        {"before": before, "terminal": terminal_id, "limit": limit},
    )
    return [dict(row) for row in rows.mappings()]


def findings(
    connection: Connection, close_id: int, *, limit: int, after: int | None = None
) -> list[Row]:
    """What the upload of a batch came to, in the order of the items."""
    rows = connection.execute(
        text(
            "SELECT finding_id, stan, business_date, kind, amount, booked, currency, finding,"
            " action, adjusted, encode(txid, 'hex') AS txid, at_ms FROM batch_findings"
            " WHERE close_id = :close AND finding_id > :after ORDER BY finding_id LIMIT :limit"
        ),
        {"close": close_id, "after": after or 0, "limit": limit},
    )
    return [dict(row) for row in rows.mappings()]
