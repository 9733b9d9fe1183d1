"""`/v1/disputes`: what cardholders dispute of their payments. For issuers.

While a dispute is open no merchant refunds or voids its payment. The issuer gives back by an
adjustment that names the payment (maker and checker), or drops the dispute here.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from sqlalchemy import Connection

from nodes.api.auth import Principal, operator, reader
from nodes.api.dependencies import (
    Cursor,
    IdempotencyKey,
    Limit,
    OptionalKey,
    TheNode,
    refused,
    require_role,
)
from nodes.api.issuing_schemas import DisputeClosing, DisputeItem, NewDispute
from nodes.api.node import ApiNode
from nodes.api.once import under
from nodes.api.reads import cursor_of, number_of_cursor, snapshot
from nodes.api.schemas import Hex32, Page
from nodes.authorization import queries
from nodes.authorization.operations.disputing import (
    DisputeOutcome,
    close_dispute,
    open_dispute,
)
from nodes.authorization.state import Reason
from nodes.clock import to_datetime

router = APIRouter(prefix="/v1/disputes", tags=["disputes"])

Operator = Annotated[Principal, Depends(operator)]
DisputeId = Annotated[int, Path(ge=1, lt=1 << 62)]
_NOT_FOUND = frozenset({DisputeOutcome.DISPUTE_UNKNOWN, DisputeOutcome.PAYMENT_UNKNOWN})


@router.get("", dependencies=[Depends(reader)])
def list_disputes(
    node: TheNode,
    account_id: Annotated[int | None, Query(ge=1, lt=1 << 62)] = None,
    txid: Hex32 | None = None,
    is_open: Annotated[
        bool | None, Query(alias="open", description="true: only open ones; false: only closed.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[DisputeItem]:
    """Disputes, the newest first."""
    with snapshot(node.engine) as connection:
        rows = queries.find_disputes(
            connection,
            limit=limit + 1,
            before=number_of_cursor(cursor),
            account_id=account_id,
            txid=bytes.fromhex(txid) if txid is not None else None,
            is_open=is_open,
        )
        items = _items(connection, rows[:limit])
    return Page(items=items, next=cursor_of(items[-1].dispute_id) if len(rows) > limit else None)


@router.get("/{dispute_id}", dependencies=[Depends(reader)])
def get_dispute(node: TheNode, dispute_id: DisputeId) -> DisputeItem:
    """One dispute."""
    return _shown(node, dispute_id)


@router.post("", status_code=201)
def dispute(
    node: TheNode, caller: Operator, body: NewDispute, idempotency_key: IdempotencyKey
) -> DisputeItem:
    """A cardholder disputes a payment, once for each Idempotency-Key. No money moves; from the
    answer on, refunds and voids of the payment are refused."""
    require_role(node, "issuer")
    result = open_dispute(
        node.engine,
        node.settings.member_id,
        txid=bytes.fromhex(body.txid),
        amount=body.amount,
        reason=body.reason,
        opened_by=caller.name,
        idempotency_key=idempotency_key,
        now=to_datetime(node.clock.now_ms()),
    )
    _require_done(result.outcome, result.reason)
    return _shown(node, result.dispute_id or 0)


@router.post("/{dispute_id}/close")
def close(
    node: TheNode,
    caller: Operator,
    dispute_id: DisputeId,
    body: DisputeClosing,
    idempotency_key: OptionalKey = None,
) -> DisputeItem:
    """Drop a dispute: nothing (more) is given back, and the payment can be refunded again."""
    require_role(node, "issuer")
    _require_done(
        close_dispute(
            node.engine,
            dispute_id,
            closed_by=caller.name,
            reason=body.reason,
            now=to_datetime(node.clock.now_ms()),
            under=under(node, idempotency_key),
        )
    )
    return _shown(node, dispute_id)


def _require_done(outcome: DisputeOutcome, reason: Reason | None = None) -> None:
    if outcome is not DisputeOutcome.DONE:
        raise refused(404 if outcome in _NOT_FOUND else 409, outcome.value, reason)


def _shown(node: ApiNode, dispute_id: int) -> DisputeItem:
    with snapshot(node.engine) as connection:
        rows = queries.find_disputes(connection, limit=1, dispute_id=dispute_id)
        items = _items(connection, rows)
    if not items:
        raise refused(404, DisputeOutcome.DISPUTE_UNKNOWN.value)
    return items[0]


def _items(connection: Connection, rows: list[queries.Row]) -> list[DisputeItem]:
    """With what is still disputed, as the accounts' last versions say."""
    states = queries.snapshots(connection, [row["account_id"] for row in rows])
    left = {one.txid: one.amount for state in states.values() for one in state.disputed if one.paid}
    return [
        DisputeItem(
            **{name: value for name, value in row.items() if name not in ("txid", "ended_as")},
            txid=row["txid"].hex(),
            state=row["ended_as"] or "open",
            disputed=left.get(row["txid"], 0) if row["closed_at"] is None else 0,
        )
        for row in rows
    ]
