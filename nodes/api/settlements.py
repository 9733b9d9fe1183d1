"""`/v1/settlements`: statements of confirmed closes, and what people order about them.

The API holds no operator key. An action is an order, which the worker carries out within seconds;
that is why each answers 202.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any

import psycopg
from fastapi import APIRouter, Depends, Path, Query

from nodes.api.auth import Principal, admin, operator, reader
from nodes.api.dependencies import Cursor, IdempotencyKey, Limit, TheNode, hex_or_none, refused
from nodes.api.node import ApiNode
from nodes.api.problems import Problem, unavailable
from nodes.api.reads import bytes_of_hex, cursor_of, number_of_cursor
from nodes.api.schemas import Nothing, Page
from nodes.api.settlement_schemas import (
    NewDispute,
    NewResolution,
    NewSettlement,
    ResolutionToSign,
    SettlementDetail,
    SettlementDispute,
    SettlementItem,
    SettlementOrder,
    SettlementSignature,
    SettlementStep,
    VerdictName,
)
from nodes.chain.client import ChainClient
from nodes.chain.errors import ChainError
from nodes.chain.settlements import SettlementRegistry, Verdict
from nodes.clock import to_datetime
from nodes.db.engine import transaction
from nodes.settlement import queries, rules
from nodes.settlement.model import (
    NewOrder,
    Order,
    OrderAction,
    OrderOutcome,
    Settlement,
    StatementState,
)
from nodes.settlement.operations.ordering import place_order
from nodes.settlement.operations.signing import statement_of

router = APIRouter(prefix="/v1/settlements", tags=["settlement"])
orders = APIRouter(prefix="/v1/settlement-orders", tags=["settlement"])

Operator = Annotated[Principal, Depends(operator)]
Admin = Annotated[Principal, Depends(admin)]
Number = Annotated[str, Path(min_length=64, max_length=64)]
_STATUS_OF = {
    OrderOutcome.KEY_REUSED: 409,
    OrderOutcome.CLOSE_UNKNOWN: 404,
    OrderOutcome.SETTLEMENT_UNKNOWN: 404,
    OrderOutcome.ORDER_WAITING: 409,
    OrderOutcome.CLOSE_NOT_CONFIRMED: 409,
    OrderOutcome.ALREADY_SETTLED: 409,
    OrderOutcome.NOT_TO_SIGN: 409,
    OrderOutcome.BOOKS_DIFFER: 409,
    OrderOutcome.NOT_DISPUTABLE: 409,
    OrderOutcome.NOT_DISPUTED: 409,
    OrderOutcome.DEADLINE_PASSED: 422,
    OrderOutcome.EVIDENCE_NOT_ANCHORED: 422,
}


@router.get("", dependencies=[Depends(reader)])
def list_settlements(
    node: TheNode,
    business_date: date | None = None,
    counterparty: Annotated[str | None, Query(max_length=31)] = None,
    state: StatementState | None = None,
    close_id: Annotated[int | None, Query(ge=1, lt=1 << 62)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[SettlementItem]:
    """Statements, the newest first."""
    with transaction(node.engine) as connection:
        found = queries.find_settlements(
            connection,
            limit=limit + 1,
            before=number_of_cursor(cursor),
            day=business_date,
            counterparty=counterparty,
            state=state.value if state else None,
            close_id=close_id,
        )
        items = [_item(node, connection, one, by) for one, by in found[:limit]]
    more = len(found) > limit
    return Page(items=items, next=cursor_of(found[limit - 1][0].number) if more else None)


@router.get("/{settlement_id}", dependencies=[Depends(reader)])
def get_settlement(node: TheNode, settlement_id: Number) -> SettlementDetail:
    """One statement with its signatures, steps and orders."""
    number = bytes_of_hex(settlement_id, 32, "settlement-unknown")
    with transaction(node.engine) as connection:
        settlement = queries.settlement(connection, number)
        if settlement is None:
            raise Problem(404, "settlement-unknown", "There is no such statement here.")
        return _detail(node, connection, settlement)


@router.get("/{settlement_id}/resolution", dependencies=[Depends(reader)])
def get_resolution(
    node: TheNode,
    settlement_id: Number,
    verdict: VerdictName,
    reason: Annotated[str, Query(min_length=1, max_length=500)],
    deadline: datetime,
) -> ResolutionToSign:
    """What arbiters have to sign for a verdict, and who they are; asks the chain."""
    number = bytes_of_hex(settlement_id, 32, "settlement-unknown")
    if deadline.tzinfo is None:
        raise Problem(422, "schema", "The deadline needs a time zone.")
    registry = SettlementRegistry(ChainClient(node.settings.rpc_url), _registry(node))
    reason_hash = rules.resolution_reason_hash(number, verdict, reason)
    until = int(deadline.timestamp())
    try:
        digest = registry.resolution_digest(number, Verdict[verdict], reason_hash, until)
        arbiters, threshold = registry.arbiters()
    except ChainError:
        raise unavailable("chain-unavailable", "The chain can't be reached now.") from None
    return ResolutionToSign(
        digest=digest.hex(),
        reason_hash=reason_hash.hex(),
        deadline=to_datetime(until * 1000),
        arbiters=list(arbiters),
        threshold=threshold,
    )


@router.post("", status_code=202)
def propose(
    node: TheNode, caller: Operator, body: NewSettlement, idempotency_key: IdempotencyKey
) -> SettlementOrder:
    """Propose a statement of a confirmed close, with this institution's signature; once for each
    Idempotency-Key."""
    new = NewOrder(OrderAction.PROPOSE, caller.name, close_id=body.close_id)
    return _placed(node, new, idempotency_key)


@router.post("/{settlement_id}/countersign", status_code=202)
def countersign(
    node: TheNode,
    caller: Operator,
    settlement_id: Number,
    body: Nothing,
    idempotency_key: IdempotencyKey,
) -> SettlementOrder:
    """Put this institution's signature under the other's proposal. 409 if its own books don't lead
    to the same statement."""
    number = bytes_of_hex(settlement_id, 32, "settlement-unknown")
    new = NewOrder(OrderAction.COUNTERSIGN, caller.name, settlement_id=number)
    return _placed(node, new, idempotency_key)


@router.post("/{settlement_id}/dispute", status_code=202)
def dispute(
    node: TheNode,
    caller: Operator,
    settlement_id: Number,
    body: NewDispute,
    idempotency_key: IdempotencyKey,
) -> SettlementOrder:
    """Dispute a statement that both have signed, with an anchored transaction of this pair out of
    this node's log; the contract checks its proof."""
    new = NewOrder(
        OrderAction.DISPUTE,
        caller.name,
        settlement_id=bytes_of_hex(settlement_id, 32, "settlement-unknown"),
        txid=bytes.fromhex(body.txid),
        reason=body.reason,
    )
    return _placed(node, new, idempotency_key)


@router.post("/{settlement_id}/resolve", status_code=202)
def resolve(
    node: TheNode,
    caller: Admin,
    settlement_id: Number,
    body: NewResolution,
    idempotency_key: IdempotencyKey,
) -> SettlementOrder:
    """Send what arbiters have decided and signed. UPHELD: the statement stands. ANNULLED: the
    parties sign another."""
    new = NewOrder(
        OrderAction.RESOLVE,
        caller.name,
        settlement_id=bytes_of_hex(settlement_id, 32, "settlement-unknown"),
        reason=body.reason,
        verdict=body.verdict,
        deadline_s=int(body.deadline.timestamp()),
        signatures=tuple(bytes.fromhex(signature) for signature in body.signatures),
    )
    return _placed(node, new, idempotency_key)


@orders.get("", dependencies=[Depends(reader)])
def list_orders(node: TheNode, limit: Limit = 50, cursor: Cursor = None) -> Page[SettlementOrder]:
    """Orders, the newest first."""
    with transaction(node.engine) as connection:
        found = queries.find_orders(connection, limit=limit + 1, before=number_of_cursor(cursor))
    items = [_order(one) for one in found[:limit]]
    return Page(items=items, next=cursor_of(items[-1].order_id) if len(found) > limit else None)


@orders.get("/{order_id}", dependencies=[Depends(reader)])
def get_order(node: TheNode, order_id: Annotated[int, Path(ge=1, lt=1 << 62)]) -> SettlementOrder:
    """One order, and how it ended."""
    with transaction(node.engine) as connection:
        found = queries.order(connection, order_id)
    if found is None:
        raise Problem(404, "order-unknown", "There is no such order here.")
    return _order(found)


def _registry(node: ApiNode) -> str:
    address = node.settings.settlement_registry
    if address is None or node.settings.close_registry is None:
        raise Problem(404, "settlement-off", "This node settles off the chain.")
    return address


def _placed(node: ApiNode, new: NewOrder, idempotency_key: str) -> SettlementOrder:
    _registry(node)
    for attempt in range(2):
        try:
            with transaction(node.engine) as connection:
                outcome, order = place_order(
                    connection,
                    new,
                    member_id=node.settings.member_id,
                    idempotency_key=idempotency_key,
                    now=to_datetime(node.clock.now_ms()),
                )
            break
        except psycopg.errors.UniqueViolation:
            # Another call with this key was first: its order is there now.
            if attempt:
                raise
    if outcome is not OrderOutcome.DONE or order is None:
        raise refused(_STATUS_OF[outcome], outcome.value)
    return _order(order)


# --- how they are shown ------------------------------------------------------------------------


def _order(order: Order) -> SettlementOrder:
    ended = order.ended_at is not None
    return SettlementOrder(
        order_id=order.order_id,
        action=order.new.action,
        close_id=order.new.close_id,
        settlement_id=hex_or_none(order.new.settlement_id or order.made),
        state="waiting" if not ended else "refused" if order.refusal else "done",
        refusal=order.refusal,
        ordered_by=order.new.actor,
        ordered_at=order.at,
        ended_at=order.ended_at,
    )


def _item(
    node: ApiNode,
    connection: queries.Connection,
    settlement: Settlement,
    superseded_by: bytes | None,
) -> SettlementItem:
    return SettlementItem(**_members(node, connection, settlement, superseded_by))


def _members(
    node: ApiNode,
    connection: queries.Connection,
    settlement: Settlement,
    superseded_by: bytes | None,
) -> dict[str, Any]:
    close, statement = settlement.close, statement_of(settlement.close)
    about = queries.orders_of(connection, settlement.settlement_id, close.close_id)
    waiting = [order for order in about if order.ended_at is None]
    return {
        "settlement_id": settlement.settlement_id.hex(),
        "close_id": close.close_id,
        "acquirer": close.key.acquirer,
        "issuer": close.key.issuer,
        "currency": close.key.currency,
        "business_date": close.key.business_date,
        "close_revision": close.revision,
        "party": close.party,
        "state": settlement.state,
        "state_at": settlement.since,
        "payer": statement.payer,
        "payee": statement.payee,
        "net": statement.net,
        "gross": statement.gross,
        "debits": close.totals.debits,
        "credits": close.totals.credits,
        "items": close.totals.count,
        "proposer": settlement.proposer,
        "acquirer_signed": settlement.has_signed(close.key.acquirer),
        "issuer_signed": settlement.has_signed(close.key.issuer),
        "agrees": settlement.agrees,
        "deadline": settlement.deadline,
        "disputable_until": settlement.disputable_until,
        "verdict": settlement.verdict,
        "supersedes": hex_or_none(settlement.supersedes),
        "superseded_by": hex_or_none(superseded_by),
        "actions": [] if waiting else _actions(node, connection, settlement),
        "order": _order(waiting[0]) if waiting else None,
    }


def _actions(node: ApiNode, connection: queries.Connection, settlement: Settlement) -> list[str]:
    now, member = to_datetime(node.clock.now_ms()), node.settings.member_id
    found = []
    if rules.may_countersign(settlement, member, now) is OrderOutcome.DONE:
        found.append("countersign")
    if rules.may_dispute(settlement, now) is OrderOutcome.DONE:
        found.append("dispute")
    if settlement.state is StatementState.DISPUTED:
        found.append("resolve")
    others = queries.settlements_of(connection, settlement.close.close_id)
    if others[-1].settlement_id == settlement.settlement_id and not settlement.stands:
        confirmed = queries.close_is_in_force(connection, settlement.close.close_id)
        if rules.may_propose(confirmed, others) is OrderOutcome.DONE:
            found.append("propose_again")
    return found


def _detail(
    node: ApiNode, connection: queries.Connection, settlement: Settlement
) -> SettlementDetail:
    number = settlement.settlement_id
    steps = queries.steps_of(connection, number)
    about = queries.orders_of(connection, number)
    by = next((step["superseded_by"] for step in steps if step["superseded_by"]), None)
    reason = next((o.new.reason for o in about if o.new.action is OrderAction.DISPUTE), None)
    return SettlementDetail(
        **_members(node, connection, settlement, by),
        totals_hash=settlement.close.totals_hash.hex(),
        statement_hash=settlement.statement_hash.hex(),
        nonce=settlement.nonce,
        signatures=[
            SettlementSignature(
                member=row["member"], signature=row["signature"].hex(), at=row["at"]
            )
            for row in queries.signatures_of(connection, number)
        ],
        steps=[
            SettlementStep(
                state=step["state"],
                at=step["at"],
                block_number=step["block_number"],
                tx_hash=hex_or_none(step["tx_hash"]),
            )
            for step in steps
        ],
        dispute=next((_dispute(step, reason) for step in steps if step["txid"]), None),
        orders=[_order(one) for one in about],
    )


def _dispute(step: queries.Row, reason: str | None) -> SettlementDispute:
    return SettlementDispute(
        by=step["by_member"],
        txid=step["txid"].hex(),
        leaf_member=step["leaf_member"],
        reason_hash=step["reason_hash"].hex(),
        reason=reason,
        at=step["at"],
    )
