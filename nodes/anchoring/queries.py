"""Reads of the log: rows to seal, proofs, batches. Nothing here writes.

Each function takes a psycopg connection or an SQLAlchemy one, and reads within its transaction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy

from nodes.anchoring import tree
from nodes.anchoring.checkpoint import Totals
from nodes.anchoring.model import (
    ROW_COLUMNS,
    START,
    TRANSFER_COLUMNS,
    AnchorState,
    Batch,
    LedgerRow,
    Position,
    Submission,
    Value,
)
from nodes.anchoring.rules import words_of
from nodes.anchoring.store import Connection, driver

AnyConnection = sqlalchemy.Connection | Connection

# Whatever an owner could write into a column has a value here: infinite dates, years before 1.
EXPRESSIONS = {
    "business_date": "CASE WHEN isfinite({t}business_date) AND {t}business_date > '0001-01-01'"
    " THEN to_char({t}business_date, 'YYYY-MM-DD') ELSE {t}business_date::text END",
    "recorded_at": "CASE WHEN isfinite({t}recorded_at)"
    " THEN (extract(epoch FROM {t}recorded_at) * 1000000)::bigint END",
    "xact": "{t}xact::text",
}


def _columns(table: str) -> str:
    return ", ".join(
        EXPRESSIONS.get(column, "{t}" + column).format(t=f"{table}.") for column in ROW_COLUMNS
    )


_ROWS = f"SELECT {_columns('t')} FROM transactions AS t "
_TRANSFERS = (
    f"SELECT transaction_id, {', '.join(TRANSFER_COLUMNS)} FROM transfers"
    " WHERE transaction_id = ANY(%s::bigint[]) ORDER BY transaction_id, line"
)
_BATCHES = (
    "SELECT seq, first_index, size, prev_root, root, checkpoint, consistency, last_xact::text,"
    " last_transaction_id, CASE WHEN isfinite(sealed_at)"
    " THEN (extract(epoch FROM sealed_at) * 1000000)::bigint ELSE -1 END FROM batches "
)
_SUBMISSIONS = (
    "SELECT seq, state, nonce, tx_hash, raw_tx, block_number, block_hash FROM anchor_submissions "
)


# -- rows


def rows_to_seal(connection: AnyConnection, position: Position, limit: int) -> list[LedgerRow]:
    """Committed rows after `position`, in (xact, transaction_id) order.

    Only rows below the horizon of running transactions: none can still appear before them.
    """
    return _ledger_rows(
        driver(connection),
        "WHERE (t.xact, t.transaction_id) > (%s::text::xid8, %s)"
        " AND t.xact < pg_snapshot_xmin(pg_current_snapshot())"
        " ORDER BY t.xact, t.transaction_id LIMIT %s",
        (str(position.xact), position.transaction_id, limit),
    )


def sealing_pressure(connection: AnyConnection, recent: int) -> tuple[float, float]:
    """How long the oldest row has waited to be sealed, in seconds (-1: none waits), and how long
    ago the newest row but `recent` was recorded (infinite: there are fewer)."""
    position = sealed_position(last_batch(connection))
    age = "extract(epoch FROM clock_timestamp() - recorded_at)::float FROM transactions"
    row = (
        driver(connection)
        .execute(
            f"SELECT (SELECT {age} WHERE (xact, transaction_id) > (%s::text::xid8, %s)"
            " ORDER BY xact, transaction_id LIMIT 1),"
            f" (SELECT {age} ORDER BY xact DESC, transaction_id DESC OFFSET %s LIMIT 1)",
            (str(position.xact), position.transaction_id, recent),
        )
        .fetchone()
    )
    oldest, newest = row or (None, None)
    return (-1.0 if oldest is None else oldest, math.inf if newest is None else newest)


def rows_after(connection: AnyConnection, position: Position, limit: int) -> list[LedgerRow]:
    """All visible rows after `position`, in the same order, whether they may be sealed or not."""
    return _ledger_rows(
        driver(connection),
        "WHERE (t.xact, t.transaction_id) > (%s::text::xid8, %s)"
        " ORDER BY t.xact, t.transaction_id LIMIT %s",
        (str(position.xact), position.transaction_id, limit),
    )


def rows_by_id(connection: AnyConnection, transaction_ids: Sequence[int]) -> dict[int, LedgerRow]:
    """Rows with their transfers, by transaction_id."""
    rows = _ledger_rows(
        driver(connection), "WHERE t.transaction_id = ANY(%s::bigint[])", (list(transaction_ids),)
    )
    return {row.transaction_id: row for row in rows}


def rows_by_txid(connection: AnyConnection, txids: Sequence[bytes]) -> list[LedgerRow]:
    """Rows with their transfers, of all sides."""
    return _ledger_rows(driver(connection), "WHERE t.txid = ANY(%s::bytea[])", (list(txids),))


def _ledger_rows(
    connection: Connection, condition: str, parameters: tuple[object, ...]
) -> list[LedgerRow]:
    cursor = connection.cursor(binary=True)
    records = cursor.execute(_ROWS + condition, parameters).fetchall()
    transfers: dict[int, tuple[Mapping[str, Value], ...]] = {}
    numbers = ([record[0] for record in records],)
    for number, *record in cursor.execute(_TRANSFERS, numbers).fetchall():
        # Most transactions have one: to append is the exception.
        one = dict(zip(TRANSFER_COLUMNS, record, strict=True))
        transfers[number] = (*transfers[number], one) if number in transfers else (one,)
    found = []
    for record in records:
        values = dict(zip(ROW_COLUMNS, record, strict=True))
        values["xact"] = int(values["xact"])
        found.append(LedgerRow(values, transfers.get(record[0], ())))
    return found


def transfers_of(connection: AnyConnection, transaction_id: int) -> tuple[Mapping[str, Value], ...]:
    """The transfers that stand under a transaction's number, by line."""
    records = driver(connection).execute(_TRANSFERS, ([transaction_id],))
    return tuple(dict(zip(TRANSFER_COLUMNS, record, strict=True)) for _, *record in records)


# -- the tree


def hashes(
    connection: AnyConnection, coordinates: Iterable[tree.Coordinate]
) -> dict[tree.Coordinate, bytes]:
    """Stored subtree hashes. LookupError if one is missing."""
    wanted = set(coordinates)
    leaves = [index for level, index in wanted if level == 0]
    inner = [place for place in wanted if place[0] > 0]
    found: dict[tree.Coordinate, bytes] = {
        (level, index): stored
        for level, index, stored in driver(connection).execute(
            "SELECT 0, log_index, leaf_hash FROM log_leaves WHERE log_index = ANY(%s::bigint[])"
            " UNION ALL SELECT level, node_index, hash FROM log_nodes JOIN"
            " unnest(%s::smallint[], %s::bigint[]) AS wanted (level, node_index)"
            " USING (level, node_index)",
            (leaves, [place[0] for place in inner], [place[1] for place in inner]),
        )
    }
    missing = wanted - found.keys()
    if missing:
        raise LookupError(f"the log lacks subtree {min(missing)}")
    return found


def frontier(connection: AnyConnection, size: int) -> tree.Frontier:
    """The right edge of the tree at `size` leaves."""
    places = tree.peaks(size)
    stored = hashes(connection, places)
    return tree.Frontier(size, [stored[place] for place in places])


def inclusion_proof(connection: AnyConnection, index: int, size: int) -> list[bytes]:
    """RFC 9162 inclusion proof of leaf `index` in the tree of the first `size` leaves.

    IndexError if there is no such leaf in such a tree.
    """
    return leaf_and_proof(connection, index, size)[1]


def leaf_and_proof(connection: AnyConnection, index: int, size: int) -> tuple[bytes, list[bytes]]:
    """A leaf's hash with its inclusion proof, in one round trip and O(log n) rows."""
    ranges = tree.inclusion_ranges(index, size)
    stored = hashes(connection, [(0, index), *tree.coordinates(ranges)])
    return stored[0, index], tree.resolve(ranges, stored.__getitem__)


def consistency_proof(connection: AnyConnection, first: int, second: int) -> list[bytes]:
    """RFC 9162 consistency proof between two sizes; IndexError unless 1 <= first <= second."""
    ranges = tree.consistency_ranges(first, second)
    return tree.resolve(ranges, hashes(connection, tree.coordinates(ranges)).__getitem__)


def log_size(connection: AnyConnection) -> int:
    """How many leaves are sealed."""
    row = driver(connection).execute("SELECT max(size) FROM batches").fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def log_entries(
    connection: AnyConnection, start: int, end: int
) -> list[tuple[int, bytes, bytes, int]]:
    """Leaves [start, end) as (log_index, leaf, leaf_hash, batch_seq)."""
    return [
        tuple(row)
        for row in driver(connection).execute(
            "SELECT log_index, leaf, leaf_hash, batch_seq FROM log_leaves"
            " WHERE log_index >= %s AND log_index < %s ORDER BY log_index",
            (start, end),
        )
    ]


# -- batches


def last_batch(connection: AnyConnection) -> Batch | None:
    """The newest batch, without totals."""
    row = driver(connection).execute(_BATCHES + "ORDER BY seq DESC LIMIT 1").fetchone()
    return None if row is None else _batch(row)


def batches(connection: AnyConnection, first_seq: int, count: int) -> list[Batch]:
    """Batches with totals from `first_seq` on, by seq."""
    link = driver(connection)
    rows = link.execute(
        _BATCHES + "WHERE seq >= %s ORDER BY seq LIMIT %s", (first_seq, count)
    ).fetchall()
    totals = batch_totals(link, [row[0] for row in rows])
    return [_batch(row, totals.get(row[0], ())) for row in rows]


def batch(connection: AnyConnection, seq: int) -> Batch | None:
    """One batch with totals."""
    found = batches(connection, seq, 1)
    return found[0] if found and found[0].seq == seq else None


def batch_totals(connection: AnyConnection, seqs: Sequence[int]) -> dict[int, tuple[Totals, ...]]:
    """Each batch's totals, by currency."""
    found: dict[int, list[Totals]] = {}
    for seq, *row in driver(connection).execute(
        "SELECT seq, currency, approved_count, approved_amount, declined_count FROM batch_totals"
        " WHERE seq = ANY(%s::bigint[]) ORDER BY seq, currency",
        (list(seqs),),
    ):
        found.setdefault(seq, []).append(Totals(*row))
    return {seq: tuple(rows) for seq, rows in found.items()}


def _batch(row: Sequence[Any], totals: tuple[Totals, ...] = ()) -> Batch:
    return Batch(
        seq=row[0],
        first_index=row[1],
        size=row[2],
        prev_root=row[3],
        root=row[4],
        note=row[5],
        consistency=tuple(words_of(row[6])),
        position=Position(int(row[7]), row[8]),
        sealed_us=row[9],
        totals=totals,
    )


def sealed_position(newest: Batch | None) -> Position:
    """Where the next sealing goes on."""
    return START if newest is None else newest.position


# -- anchoring


def submissions(
    connection: AnyConnection, state: AnchorState, limit: int = 1000
) -> list[Submission]:
    """Submissions in one state, by seq."""
    return [
        _submission(row)
        for row in driver(connection).execute(
            _SUBMISSIONS + "WHERE state = %s ORDER BY seq LIMIT %s", (state.value, limit)
        )
    ]


def submission(connection: AnyConnection, seq: int) -> Submission | None:
    """The submission of a batch; None while it is only sealed."""
    row = driver(connection).execute(_SUBMISSIONS + "WHERE seq = %s", (seq,)).fetchone()
    return None if row is None else _submission(row)


def _submission(row: Sequence[Any]) -> Submission:
    return Submission(row[0], AnchorState(row[1]), *row[2:])


def last_anchored_seq(connection: AnyConnection) -> int:
    """The newest batch that is anchored, 0 if none."""
    row = (
        driver(connection)
        .execute("SELECT max(seq) FROM anchor_submissions WHERE state = 'ANCHORED'")
        .fetchone()
    )
    return int(row[0]) if row and row[0] is not None else 0


def is_all_anchored(connection: AnyConnection) -> bool:
    """Whether the newest batch is anchored, or there is none: then all are, for they follow each
    other on the chain."""
    row = (
        driver(connection)
        .execute(
            "SELECT coalesce((SELECT max(seq) FROM batches) ="
            " (SELECT max(seq) FROM anchor_submissions WHERE state = 'ANCHORED'),"
            " NOT EXISTS (SELECT FROM batches))"
        )
        .fetchone()
    )
    return bool(row and row[0])


def outbox_nonces(connection: AnyConnection) -> list[int]:
    """Nonces that other transactions of the same key have taken, on their way (chain_outbox)."""
    rows = driver(connection).execute("SELECT nonce FROM chain_outbox WHERE state = 'SUBMITTED'")
    return [row[0] for row in rows]


def unsubmitted_batches(connection: AnyConnection, limit: int) -> list[Batch]:
    """Sealed batches without a submission, by seq."""
    return [
        _batch(row)
        for row in driver(connection).execute(
            _BATCHES + "WHERE NOT EXISTS (SELECT FROM anchor_submissions AS a"
            " WHERE a.seq = batches.seq) ORDER BY seq LIMIT %s",
            (limit,),
        )
    ]


@dataclass(frozen=True, slots=True)
class LogStatus:
    """How far the log is. Sizes are leaves; `oldest_unanchored` is the moment of sealing."""

    size: int
    sealed_seq: int
    anchored_seq: int
    anchored_size: int
    unsealed: int
    oldest_unsealed: datetime | None
    oldest_unanchored: datetime | None


def log_status(connection: AnyConnection) -> LogStatus:
    """Sizes, sequence numbers and lag of the log, in O(what is not anchored yet)."""
    link = driver(connection)
    newest = last_batch(link)
    position = sealed_position(newest)
    anchored = last_anchored_seq(link)
    anchored_batch = batch(link, anchored) if anchored else None
    waiting = link.execute(
        "SELECT count(*), min(recorded_at) FROM transactions"
        " WHERE (xact, transaction_id) > (%s::text::xid8, %s)",
        (str(position.xact), position.transaction_id),
    ).fetchone()
    pending = link.execute(
        "SELECT min(sealed_at) FROM batches WHERE seq > %s", (anchored,)
    ).fetchone()
    return LogStatus(
        size=newest.size if newest else 0,
        sealed_seq=newest.seq if newest else 0,
        anchored_seq=anchored,
        anchored_size=anchored_batch.size if anchored_batch else 0,
        unsealed=waiting[0] if waiting else 0,
        oldest_unsealed=waiting[1] if waiting else None,
        oldest_unanchored=pending[0] if pending else None,
    )


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Where a transaction stands in the log."""

    log_index: int | None
    batch_seq: int | None
    state: AnchorState


def log_places(connection: AnyConnection, transaction_ids: Sequence[int]) -> dict[int, LogPlace]:
    """Each transaction's place and state; those that are not sealed are UNSEALED."""
    found = {number: LogPlace(None, None, AnchorState.UNSEALED) for number in transaction_ids}
    for number, index, seq, state in driver(connection).execute(
        "SELECT l.transaction_id, l.log_index, l.batch_seq, coalesce(a.state, 'SEALED')"
        " FROM log_leaves AS l LEFT JOIN anchor_submissions AS a ON a.seq = l.batch_seq"
        " WHERE l.transaction_id = ANY(%s::bigint[])",
        (list(transaction_ids),),
    ):
        found[number] = LogPlace(index, seq, AnchorState(state))
    return found


def latest_checkpoint(connection: AnyConnection) -> str | None:
    """The signed note of the newest anchored batch."""
    row = (
        driver(connection)
        .execute(
            "SELECT checkpoint FROM batches WHERE seq ="
            " (SELECT max(seq) FROM anchor_submissions WHERE state = 'ANCHORED')"
        )
        .fetchone()
    )
    return None if row is None else str(row[0])


def chain_binding(connection: AnyConnection) -> dict[str, Any] | None:
    """The chain that this database belongs to; None before the first start."""
    names = (
        "chain_id",
        "genesis_hash",
        "member_registry",
        "anchor_registry",
        "code_hash",
        "member_id",
    )
    row = driver(connection).execute(f"SELECT {', '.join(names)} FROM chain_binding").fetchone()
    return None if row is None else dict(zip(names, row, strict=True))
