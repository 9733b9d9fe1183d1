"""Orders and their payment: what became of an attempt is read off the stored answer.

An order is claimed before its payment goes out, so two wallets can't both pay it; and it is open
again only when the answer that stands under the attempt's key says that nothing was paid. An
attempt whose request never came is barred first: nothing can come under its key any more.
"""

from __future__ import annotations

import secrets
from datetime import date

from sqlalchemy import Engine

from nodes import ids
from nodes.acquiring.online import store
from nodes.acquiring.online.codes import order_code
from nodes.acquiring.online.model import (
    ORDER_BATCH,
    NewOrder,
    OnlineOutcome,
    Order,
    OrderState,
    trace_number,
)
from nodes.authorization.model import Outcome
from nodes.authorization.operations.pending import decode_told
from nodes.authorization.store.acquirer import Connection
from nodes.authorization.store.requests import StoredRequest, insert_requests, stored_requests
from nodes.db.engine import transaction
from nodes.db.writes import Writes, execute

#: How long an attempt may take: the deadline of its request and what its recovery takes.
PAYING_MS = 30_000
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_ID_LENGTH = 16


def make_order(
    engine: Engine, acquirer: str, seed: bytes, new: NewOrder, now_ms: int
) -> Order | OnlineOutcome:
    """A new order with its code; under a key that was used, the order that it made."""
    order_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
    with transaction(engine) as connection:
        terminal = store.terminal_of(connection, new.terminal_id)
        if terminal is None or terminal[0] != new.merchant_id:
            return OnlineOutcome.TERMINAL_UNKNOWN
        merchant_id, currency = terminal
        if currency != new.currency:
            return OnlineOutcome.CURRENCY_NOT_PERMITTED
        if not store.insert_order(connection, order_id, merchant_id, new, now_ms):
            known = store.order_of_key(connection, new.terminal_id, new.idempotency_key)
            if known is None or known[1] != new.fingerprint:
                return OnlineOutcome.IDEMPOTENCY_KEY_REUSED
            order_id = known[0]
        order = store.find_order(connection, order_id)
    if order is None:
        return OnlineOutcome.ORDER_UNKNOWN
    return _with_code(order, acquirer, seed, new.pay_url)


def read_order(
    engine: Engine, acquirer: str, seed: bytes, order_id: str, pay_url: str, now_ms: int
) -> Order | OnlineOutcome:
    """An order as it is now: what became of an attempt, and whether its time is over."""
    with transaction(engine) as connection:
        order = _resolved(connection, acquirer, order_id, now_ms)
    if order is None:
        return OnlineOutcome.ORDER_UNKNOWN
    return _with_code(order, acquirer, seed, pay_url)


def claim_order(engine: Engine, acquirer: str, order_id: str, now_ms: int) -> Order | OnlineOutcome:
    """Take an order for one attempt to pay it; `attempt` is that one's number."""
    with transaction(engine) as connection:
        order = _resolved(connection, acquirer, order_id, now_ms)
        if order is None:
            return OnlineOutcome.ORDER_UNKNOWN
        if order.state is OrderState.OPEN and store.claim_order(
            connection, order_id, now_ms, now_ms + PAYING_MS
        ):
            claimed = store.find_order(connection, order_id)
            if claimed is None:
                return OnlineOutcome.ORDER_UNKNOWN
            store.note_order_attempt(connection, claimed, stan_of(claimed))
            return claimed
        return {
            OrderState.PAID: OnlineOutcome.ORDER_PAID,
            OrderState.EXPIRED: OnlineOutcome.ORDER_EXPIRED,
        }.get(order.state, OnlineOutcome.ORDER_BEING_PAID)


def end_orders(engine: Engine, acquirer: str, now_ms: int, *, limit: int = 200) -> int:
    """See what became of orders whose time is over, whether somebody looks at them or not; how
    many were looked at."""
    with transaction(engine) as connection:
        ending = store.ending_orders(connection, now_ms, limit)
    for order_id in ending:
        with transaction(engine) as connection:
            _resolved(connection, acquirer, order_id, now_ms)
    return len(ending)


def stan_of(order: Order) -> str:
    """DE11 of an order's present attempt."""
    return trace_number(order.order_id, str(order.attempt))


def _resolved(connection: Connection, acquirer: str, order_id: str, now_ms: int) -> Order | None:
    order = store.find_order(connection, order_id)
    if order is None:
        return None
    if order.state is OrderState.PAYING:
        _resolve_attempt(connection, acquirer, order, now_ms)
        order = store.find_order(connection, order_id) or order
    if order.state is OrderState.OPEN and order.expires_ms <= now_ms:
        store.settle_order(connection, order, OrderState.EXPIRED)
        order = store.find_order(connection, order_id) or order
    return order


def _resolve_attempt(connection: Connection, acquirer: str, order: Order, now_ms: int) -> None:
    day = date.fromisoformat(order.business_date)
    key = ids.idempotency_key(
        acquirer, order.terminal_id, order.business_date, ORDER_BATCH, stan_of(order), "request"
    )
    stored = stored_requests(connection, [(key, day)], "acquirer").get(key)
    if stored is None:
        if not _attempt_is_over(connection, order, now_ms):
            return
        # The request never came; barred, it never will.
        bar = StoredRequest(key, day, bytes(32), None, None, None, None)
        writes = Writes()
        insert_requests(writes, "acquirer", [bar])
        execute(connection, writes)
        store.settle_order(connection, order, OrderState.OPEN)
    elif stored.is_bar:
        store.settle_order(connection, order, OrderState.OPEN)
    elif stored.answer is not None:
        told = decode_told(stored.answer)
        if told.outcome is Outcome.APPROVED:
            store.settle_order(connection, order, OrderState.PAID, told.txid, told.rrn)
        else:
            store.settle_order(connection, order, OrderState.OPEN)


def _attempt_is_over(connection: Connection, order: Order, now_ms: int) -> bool:
    row = connection.execute(
        "SELECT paying_until_ms FROM orders WHERE order_id = %s", (order.order_id,)
    ).fetchone()
    return row is not None and row[0] is not None and row[0] <= now_ms


def _with_code(order: Order, acquirer: str, seed: bytes, pay_url: str) -> Order:
    fields = {name: getattr(order, name) for name in order.__struct_fields__}
    url = pay_url.replace("{order_id}", order.order_id)
    return Order(**fields | {"qr": order_code(order, acquirer, url, seed)})
