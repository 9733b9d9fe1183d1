"""`/v1/adjustments`: corrections by hand, made by one and checked by another. For issuers."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query

from nodes.api.auth import Principal, operator, reader
from nodes.api.dependencies import (
    Cursor,
    IdempotencyKey,
    Limit,
    OptionalKey,
    TheNode,
    hex_or_none,
    refused,
    require_currency,
    require_role,
)
from nodes.api.issuing_schemas import AdjustmentItem, NewAdjustment
from nodes.api.node import ApiNode
from nodes.api.once import under
from nodes.api.reads import cursor_of, number_of_cursor, snapshot
from nodes.api.schemas import Nothing, Page
from nodes.authorization import queries
from nodes.authorization.operations.adjusting import (
    AdjustmentOutcome,
    approve_adjustment,
    propose_adjustment,
    reject_adjustment,
)
from nodes.authorization.state import Reason
from nodes.clock import to_datetime

router = APIRouter(prefix="/v1/adjustments", tags=["adjustments"])

Operator = Annotated[Principal, Depends(operator)]
AdjustmentId = Annotated[int, Path(ge=1, lt=1 << 62)]
_STATUS_OF = {
    AdjustmentOutcome.KEY_REUSED: 409,
    AdjustmentOutcome.ADJUSTMENT_UNKNOWN: 404,
    AdjustmentOutcome.ACCOUNT_UNKNOWN: 404,
    AdjustmentOutcome.ADJUSTMENT_DECIDED: 409,
    AdjustmentOutcome.MAKER_IS_CHECKER: 403,
    AdjustmentOutcome.OVER_DISPUTED: 409,
    AdjustmentOutcome.INSUFFICIENT_FUNDS: 409,
}


@router.get("", dependencies=[Depends(reader)])
def list_adjustments(
    node: TheNode,
    state: Literal["proposed", "posted", "rejected"] | None = None,
    account_id: Annotated[int | None, Query(ge=1, lt=1 << 62)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[AdjustmentItem]:
    """Adjustments, the newest first."""
    with snapshot(node.engine) as connection:
        rows = queries.find_adjustments(
            connection,
            limit=limit + 1,
            before=number_of_cursor(cursor),
            state=state,
            account_id=account_id,
        )
    items = [_item(row) for row in rows[:limit]]
    return Page(items=items, next=cursor_of(items[-1].adjustment_id) if len(rows) > limit else None)


@router.get("/{adjustment_id}", dependencies=[Depends(reader)])
def get_adjustment(node: TheNode, adjustment_id: AdjustmentId) -> AdjustmentItem:
    """One adjustment."""
    return _shown(node, adjustment_id)


@router.post("", status_code=201)
def propose(
    node: TheNode, caller: Operator, body: NewAdjustment, idempotency_key: IdempotencyKey
) -> AdjustmentItem:
    """Propose a correction, once for each Idempotency-Key; nothing is posted before somebody else
    approves it."""
    require_role(node, "issuer")
    require_currency(body.currency)
    result = propose_adjustment(
        node.engine,
        node.settings.member_id,
        account_id=body.account_id,
        amount=body.amount,
        currency=body.currency,
        reason=body.reason,
        made_by=caller.name,
        idempotency_key=idempotency_key,
        now=to_datetime(node.clock.now_ms()),
        disputed=None if body.disputed is None else bytes.fromhex(body.disputed),
    )
    _require_done(result.outcome, result.reason)
    return _shown(node, result.adjustment_id or 0)


@router.post("/{adjustment_id}/approve")
def approve(
    node: TheNode,
    caller: Operator,
    adjustment_id: AdjustmentId,
    idempotency_key: IdempotencyKey,
    body: Nothing,
) -> AdjustmentItem:
    """Post a proposed correction. 403 for whoever made it; 409 if funds lack: it stays proposed."""
    require_role(node, "issuer")
    result = approve_adjustment(
        node.engine,
        node.settings.member_id,
        adjustment_id,
        checked_by=caller.name,
        idempotency_key=idempotency_key,
        now=to_datetime(node.clock.now_ms()),
        time_zone=node.settings.business_time_zone,
    )
    _require_done(result.outcome, result.reason)
    return _shown(node, adjustment_id)


@router.post("/{adjustment_id}/reject")
def reject(
    node: TheNode,
    caller: Operator,
    adjustment_id: AdjustmentId,
    body: Nothing,
    idempotency_key: OptionalKey = None,
) -> AdjustmentItem:
    """Reject a proposed correction. 403 for whoever made it."""
    require_role(node, "issuer")
    _require_done(
        reject_adjustment(
            node.engine,
            adjustment_id,
            checked_by=caller.name,
            now=to_datetime(node.clock.now_ms()),
            under=under(node, idempotency_key),
        )
    )
    return _shown(node, adjustment_id)


def _require_done(outcome: AdjustmentOutcome, reason: Reason | None = None) -> None:
    if outcome is not AdjustmentOutcome.DONE:
        raise refused(_STATUS_OF.get(outcome, 422), outcome.value, reason)


def _shown(node: ApiNode, adjustment_id: int) -> AdjustmentItem:
    with snapshot(node.engine) as connection:
        row = queries.adjustment(connection, adjustment_id)
    if row is None:
        raise refused(404, AdjustmentOutcome.ADJUSTMENT_UNKNOWN.value)
    return _item(row)


def _item(row: queries.Row) -> AdjustmentItem:
    named = {name: hex_or_none(row[name]) for name in ("txid", "disputed")}
    return AdjustmentItem(**(dict(row) | named))
