"""Reads for the deep check of a ledger, within the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping

from nodes.anchoring.model import TRANSFER_COLUMNS, Position, Value
from nodes.anchoring.store import Connection


def log_end(connection: Connection) -> int:
    """One more than the highest index of a stored leaf."""
    row = connection.execute("SELECT max(log_index) FROM log_leaves").fetchone()
    return int(row[0]) + 1 if row and row[0] is not None else 0


def orphaned_transfers(
    connection: Connection,
) -> list[tuple[int, Mapping[str, Value]]]:
    """Transfers of transactions that aren't there, with the number that they state."""
    records = connection.execute(
        f"SELECT transaction_id, {', '.join(TRANSFER_COLUMNS)} FROM transfers AS f"
        " WHERE NOT EXISTS (SELECT FROM transactions AS t"
        " WHERE t.transaction_id = f.transaction_id) ORDER BY transaction_id, line"
    )
    return [
        (number, dict(zip(TRANSFER_COLUMNS, record, strict=True))) for number, *record in records
    ]


def misplaced(connection: Connection) -> list[tuple[int, int | None]]:
    """Rows whose shard isn't the one that follows from them: (transaction_id, None), and their
    transfers: (transaction_id, line)."""
    rows = connection.execute(
        "SELECT transaction_id, NULL FROM transactions WHERE shard <> coalesce(account_id,"
        " shard_of(txid)) UNION ALL SELECT f.transaction_id, f.line FROM transfers AS f"
        " JOIN transactions AS t ON t.transaction_id = f.transaction_id"
        " WHERE f.shard <> coalesce(t.account_id, shard_of(t.txid)) ORDER BY 1, 2"
    )
    return [(number, line) for number, line in rows]


def stored_leaf_count(connection: Connection, seq: int) -> int | None:
    """The column leaf_count of a batch, as it stands."""
    row = connection.execute("SELECT leaf_count FROM batches WHERE seq = %s", (seq,)).fetchone()
    return None if row is None else int(row[0])


def totals_keys(connection: Connection) -> list[tuple[int, str]]:
    """The primary keys of all batch totals."""
    records = connection.execute("SELECT seq, currency FROM batch_totals ORDER BY 1, 2")
    return [(seq, currency) for seq, currency in records]


def unlogged_rows(connection: Connection, position: Position) -> tuple[int, list[int]]:
    """Rows without a leaf: how many wait for sealing, and the numbers of those that never will.

    A row at or before the last sealed position was passed over, and one of a transaction number
    that PostgreSQL hasn't given out yet isn't PostgreSQL's: both were put there past the ledger.
    """
    condition = (
        " FROM transactions AS t WHERE NOT EXISTS (SELECT FROM log_leaves AS l"
        " WHERE l.transaction_id = t.transaction_id)"
    )
    wrong = (
        " ((t.xact, t.transaction_id) <= (%s::text::xid8, %s)"
        " OR t.xact >= pg_snapshot_xmax(pg_current_snapshot()))"
    )
    place = (str(position.xact), position.transaction_id)
    row = connection.execute(f"SELECT count(*){condition} AND NOT {wrong}", place).fetchone()
    numbers = connection.execute(
        f"SELECT t.transaction_id{condition} AND {wrong} ORDER BY 1", place
    ).fetchall()
    return (int(row[0]) if row else 0), [number for (number,) in numbers]


def erased_rows(connection: Connection, table: str) -> set[int]:
    """The rows of a table from which a recorded erasure took the person."""
    rows = connection.execute("SELECT row_id FROM erased_rows WHERE table_name = %s", (table,))
    return {row[0] for row in rows}


def unlogged_events(connection: Connection) -> list[int]:
    """Events without a leaf that come before the last sealed one: sealing takes them in order."""
    rows = connection.execute(
        "SELECT e.event_id FROM events AS e, (SELECT s.xact, s.event_id FROM log_leaves AS l"
        " JOIN events AS s ON s.event_id = -l.transaction_id WHERE l.leaf_kind > 3"
        " ORDER BY l.log_index DESC LIMIT 1) AS last"
        " WHERE (e.xact, e.event_id) < (last.xact, last.event_id) AND NOT EXISTS"
        " (SELECT FROM log_leaves AS l WHERE l.transaction_id = -e.event_id) ORDER BY e.event_id"
    )
    return [row[0] for row in rows]


def displaced(connection: Connection, limit: int) -> list[int]:
    """What leaves stand for that are numbered past the last batch's end or below 0, in the order
    of sealing: numbers of transactions, and of events (negative)."""
    rows = connection.execute(
        "SELECT l.transaction_id FROM log_leaves AS l WHERE l.log_index < 0 OR l.log_index >="
        " (SELECT coalesce(max(size), 0) FROM batches) ORDER BY abs(l.transaction_id) LIMIT %s",
        (limit,),
    )
    return [row[0] for row in rows]


def events_without_leaf(connection: Connection, limit: int) -> list[int]:
    """The oldest events without a leaf, in the order in which they would be sealed."""
    rows = connection.execute(
        "SELECT e.event_id FROM events AS e WHERE NOT EXISTS (SELECT FROM log_leaves AS l"
        " WHERE l.transaction_id = -e.event_id) ORDER BY e.xact, e.event_id LIMIT %s",
        (limit,),
    )
    return [row[0] for row in rows]


def submitted(connection: Connection) -> set[int]:
    """The batches of which it is noted that they were sent to the chain."""
    return {row[0] for row in connection.execute("SELECT seq FROM anchor_submissions")}
