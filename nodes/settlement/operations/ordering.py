"""Orders: what people ask for through the API, which has no operator key; the worker does it."""

from __future__ import annotations

import hashlib
from datetime import datetime

import msgspec

from nodes.clearing.model import CloseStage
from nodes.clearing.queries import close_by_id
from nodes.clock import to_datetime
from nodes.settlement import queries, rules, store
from nodes.settlement.model import NewOrder, Order, OrderAction, OrderOutcome, Settlement
from nodes.settlement.queries import Connection

_ENCODE = msgspec.msgpack.Encoder().encode


def place_order(
    connection: Connection, new: NewOrder, *, member_id: str, idempotency_key: str, now: datetime
) -> tuple[OrderOutcome, Order | None]:
    """Take an order, once a key, if it can be carried out as things stand; in the caller's
    transaction. UniqueViolation if another call has the key at this moment."""
    request_key = hashlib.sha256(f"settlement\x1f{idempotency_key}".encode()).digest()
    fingerprint = hashlib.sha256(_ENCODE(_content(new))).digest()
    known = queries.order_by_key(connection, request_key)
    if known is not None:
        taken, content = known
        return (OrderOutcome.DONE, taken) if content == fingerprint else (_REUSED, None)
    outcome = _check(connection, new, member_id, now)
    if outcome is not OrderOutcome.DONE:
        return outcome, None
    number = store.insert_order(connection, new, request_key, fingerprint, now)
    return OrderOutcome.DONE, queries.order(connection, number)


_REUSED = OrderOutcome.KEY_REUSED


def _content(new: NewOrder) -> tuple[object, ...]:
    return (
        new.action.value,
        new.close_id,
        new.settlement_id,
        new.txid,
        new.reason,
        new.verdict,
        new.deadline_s,
        new.signatures,
    )


def _check(connection: Connection, new: NewOrder, member_id: str, now: datetime) -> OrderOutcome:
    if new.action is OrderAction.PROPOSE:
        return _check_proposal(connection, new)
    settlement = queries.settlement(connection, new.settlement_id or b"")
    if settlement is None:
        return OrderOutcome.SETTLEMENT_UNKNOWN
    if any(
        order.new.settlement_id == new.settlement_id and order.new.action is new.action
        for order in queries.waiting_orders(connection)
    ):
        return OrderOutcome.ORDER_WAITING
    return check_action(settlement, new, member_id, now)


def check_action(
    settlement: Settlement, new: NewOrder, member_id: str, now: datetime
) -> OrderOutcome:
    """Whether an order about a statement can be carried out as it stands."""
    if new.action is OrderAction.COUNTERSIGN:
        return rules.may_countersign(settlement, member_id, now)
    if new.action is OrderAction.DISPUTE:
        return rules.may_dispute(settlement, now)
    return rules.may_resolve(settlement, to_datetime((new.deadline_s or 0) * 1000), now)


def _check_proposal(connection: Connection, new: NewOrder) -> OrderOutcome:
    staged = close_by_id(connection, new.close_id or 0)
    if staged is None:
        return OrderOutcome.CLOSE_UNKNOWN
    if any(order.new.close_id == new.close_id for order in queries.waiting_orders(connection)):
        return OrderOutcome.ORDER_WAITING
    others = queries.settlements_of(connection, staged.close.close_id)
    return rules.may_propose(staged.stage is CloseStage.CONFIRMED, others)
