"""SQL of events: what is to be sealed, and its leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nodes.anchoring.events import EVENT_COLUMNS, EventRow
from nodes.anchoring.model import Batch, RowEvidence
from nodes.anchoring.queries import AnyConnection
from nodes.anchoring.store import Connection, driver
from nodes.db.copy import copy_columns
from nodes.db.events import record_event

_COLUMNS = ", ".join(
    f"e.{column}::text" if column == "xact" else f"e.{column}" for column in EVENT_COLUMNS
)
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


def events_to_seal(connection: AnyConnection, limit: int) -> list[EventRow]:
    """Committed events after the last sealed one, in (xact, event_id) order, below the horizon of
    running transactions: none can still appear before them."""
    return event_rows(
        connection,
        "WHERE e.xact < pg_snapshot_xmin(pg_current_snapshot()) AND (e.xact, e.event_id) > ("
        " SELECT coalesce(max(s.xact::text), '0')::xid8, coalesce(max(s.event_id), 0)"
        " FROM (SELECT transaction_id FROM log_leaves WHERE leaf_kind > 3"
        " ORDER BY log_index DESC LIMIT 1) AS l JOIN events AS s ON s.event_id = -l.transaction_id)"
        " ORDER BY e.xact, e.event_id LIMIT %s",
        (limit,),
    )


def events_by_id(connection: AnyConnection, event_ids: Sequence[int]) -> dict[int, EventRow]:
    """Events by their numbers."""
    rows = event_rows(connection, "WHERE e.event_id = ANY(%s::bigint[])", (list(event_ids),))
    return {int(str(row["event_id"])): row for row in rows}


def event_rows(
    connection: AnyConnection, condition: str, parameters: tuple[object, ...] | dict[str, object]
) -> list[EventRow]:
    """Events (`e`) that a condition selects."""
    found = driver(connection).execute(
        f"SELECT {_COLUMNS} FROM events AS e {condition}", parameters
    )
    return [
        dict(zip(EVENT_COLUMNS, (*record[:-1], int(record[-1])), strict=True)) for record in found
    ]


def insert_event_leaves(
    connection: Connection, batch: Batch, rows: Sequence[EventRow], evidence: Sequence[RowEvidence]
) -> None:
    """The batch's leaves. In `log_leaves.transaction_id` an event has its number, negative."""
    columns: list[Sequence[Any]] = [
        range(batch.first_index, batch.size),
        [batch.seq] * len(rows),
        [int(entry.leaf.kind) for entry in evidence],
        [-entry.leaf.terminal_seq for entry in evidence],
        [entry.leaf.txid for entry in evidence],
        [entry.encoded for entry in evidence],
        [entry.leaf_hash for entry in evidence],
        [entry.shared_leaves for entry in evidence],
        [entry.private_copy for entry in evidence],
    ]
    copy_columns(connection, "log_leaves", _LEAVES, columns)


def record_keys(
    connection: Connection, periods: Sequence[tuple[str, bytes, int, int | None]]
) -> int:
    """Write an event for each key's beginning and end that has none yet; how many.

    `periods`: (kind of key, key, first block, last block or None) as the chain has them.
    """
    written = 0
    for kind, key, first, last in periods:
        for action, block in (("key.valid", first), ("key.retired", last)):
            if block is None:
                continue
            known = connection.execute(
                "SELECT FROM events WHERE kind = 'key' AND subject = %s AND action = %s LIMIT 1",
                (key.hex(), action),
            ).fetchone()
            if known is None:
                detail = f"{kind} key, block {block}"
                record_event(
                    connection, "key", action, subject=key.hex(), actor="chain", detail=detail
                )
                written += 1
    return written
