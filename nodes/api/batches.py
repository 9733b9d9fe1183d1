"""`/v1/batches`: the sealed intervals of the log and their anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from sqlalchemy import Connection, RowMapping, text

from nodes.anchoring import queries as anchoring
from nodes.anchoring.model import AnchorState
from nodes.api.auth import reader
from nodes.api.dependencies import Cursor, Limit, TheNode, hex_or_none, items_of
from nodes.api.problems import Problem
from nodes.api.reads import cursor_of, number_of_cursor, snapshot
from nodes.api.schemas import BatchDetail, BatchItem, Page, TransactionItem
from nodes.ledger.queries import transactions_by_id

router = APIRouter(prefix="/v1/batches", tags=["log"], dependencies=[Depends(reader)])

Seq = Annotated[int, Path(ge=1, lt=1 << 63)]

_BATCHES = """
    SELECT b.seq, b.first_index, b.size, b.leaf_count, b.prev_root, b.root, b.sealed_at,
           coalesce(a.state, 'SEALED') AS state, a.tx_hash, a.submitted_at, a.block_number,
           a.block_hash, a.anchored_at, a.gas_used
    FROM batches b LEFT JOIN anchor_submissions a USING (seq)
"""


def batch_rows(connection: Connection, seqs: Sequence[int]) -> list[Mapping[str, Any]]:
    """Batches with their submissions, in the order of `seqs`; those that exist."""
    rows = connection.execute(
        text(_BATCHES + " WHERE b.seq = ANY(:seqs) ORDER BY b.seq"), {"seqs": list(seqs)}
    )
    return [_row(row) for row in rows.mappings()]


def _row(row: RowMapping) -> dict[str, Any]:
    return dict(row) | {"state": AnchorState(row["state"])}


@router.get("")
def list_batches(node: TheNode, limit: Limit = 50, cursor: Cursor = None) -> Page[BatchItem]:
    """Batches, the newest first."""
    before = number_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        rows = [
            _row(row)
            for row in connection.execute(
                text(
                    _BATCHES + " WHERE CAST(:before AS bigint) IS NULL OR b.seq < :before"
                    " ORDER BY b.seq DESC LIMIT :limit"
                ),
                {"before": before, "limit": limit + 1},
            ).mappings()
        ]
        items = _items(connection, rows[:limit])
    return Page(items=items, next=cursor_of(rows[limit - 1]["seq"]) if len(rows) > limit else None)


def _items(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[BatchItem]:
    totals = anchoring.batch_totals(connection, [row["seq"] for row in rows])
    return [BatchItem(**_members(row, totals.get(row["seq"], ()))) for row in rows]


def _members(row: Mapping[str, Any], totals: Sequence[Any]) -> dict[str, Any]:
    return dict(row) | {
        "prev_root": row["prev_root"].hex(),
        "root": row["root"].hex(),
        "tx_hash": hex_or_none(row["tx_hash"]),
        "block_hash": hex_or_none(row["block_hash"]),
        "totals": [
            {
                "currency": entry.currency,
                "approved_count": entry.approved_count,
                "approved_amount": entry.approved_amount,
                "declined_count": entry.declined_count,
            }
            for entry in totals
        ],
    }


@router.get("/{seq}")
def get_batch(node: TheNode, seq: Seq) -> BatchDetail:
    """One batch with its checkpoint (C2SP signed note) and consistency proof."""
    with snapshot(node.engine) as connection:
        rows = batch_rows(connection, [seq])
        batch = anchoring.batch(connection, seq)
    if not rows or batch is None:
        raise _unknown()
    return BatchDetail(
        **_members(rows[0], batch.totals),
        checkpoint=batch.note,
        consistency=[node_hash.hex() for node_hash in batch.consistency],
    )


@router.get("/{seq}/transactions")
def list_batch_transactions(
    node: TheNode, seq: Seq, limit: Limit = 50, cursor: Cursor = None
) -> Page[TransactionItem]:
    """A batch's transactions in the order of the log."""
    after = number_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        batch = anchoring.batch(connection, seq)
        if batch is None:
            raise _unknown()
        first = batch.first_index if after is None else max(after + 1, batch.first_index)
        last = min(first + limit, batch.size)
        places = connection.execute(
            text(
                "SELECT log_index, transaction_id FROM log_leaves"
                " WHERE log_index >= :first AND log_index < :last AND leaf_kind <= 3"
                " ORDER BY log_index"
            ),
            {"first": first, "last": last},
        ).all()
        rows = transactions_by_id(connection, [place.transaction_id for place in places])
        items = items_of(connection, [rows[place.transaction_id] for place in places])
    return Page(items=items, next=cursor_of(last - 1) if last < batch.size else None)


def _unknown() -> Problem:
    return Problem(404, "batch-unknown", "The log has no such batch.")
