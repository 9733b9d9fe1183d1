"""The durable way of a webhook: transactions to messages, messages to their endpoints."""

from __future__ import annotations

import time

import structlog
from sqlalchemy import Engine

from nodes.acquiring.online import store, webhooks
from nodes.acquiring.online.model import ORDER_BATCH
from nodes.acquiring.online.webhooks import DeliveryFailed, UrlRefused
from nodes.db.engine import transaction

log = structlog.get_logger(__name__)

_READ_AT_ONCE = 500
_SENT_AT_ONCE = 16
_FORGOTTEN_AT_ONCE = 5_000
#: Longer than all attempts of one round may take.
_LEASE_MS = 120_000


def collect(engine: Engine, now_ms: int) -> int:
    """Queue a message for each thing that merchants are told of and that was committed since the
    last time: transactions, refusals, orders whose time was over; how many.

    Messages and the place up to which was read are one commit: each makes its messages exactly
    once, whatever crashes. Nothing of it is on the authorization path.
    """
    with transaction(engine) as connection:
        rows = store.next_transactions(connection, _READ_AT_ONCE)
        refused = store.next_refusals(connection, _READ_AT_ONCE)
        expired = store.take_expired_orders(connection, _READ_AT_ONCE)
        if not (rows or refused or expired):
            return 0
        endpoints = store.active_endpoints(connection)
        #: Merchant, message, and when it happened: endpoints that came later aren't told.
        messages: list[tuple[str, tuple[str, bytes], int]] = []
        for row in rows:
            if row[7] in endpoints:
                order_id = _order_of(connection, row[8], row[13], row[14])
                messages.append((row[7], webhooks.message_of(row, order_id), now_ms))
        for one in refused:
            if one.merchant_id in endpoints:
                order_id = _order_of(connection, one.terminal_id, one.batch, one.stan)
                message = webhooks.message_of_refusal(one, order_id)
                messages.append((one.merchant_id, message, now_ms))
        messages += [
            (order.merchant_id, webhooks.message_of_expiry(order), order.expires_ms)
            for order in expired
        ]
        made = 0
        for merchant_id, (message_id, body), at_ms in messages:
            for endpoint_id, created_ms in endpoints.get(merchant_id, ()):
                if created_ms <= at_ms:
                    store.queue_delivery(connection, message_id, endpoint_id, body, now_ms)
                    made += 1
        if rows:
            store.advance_scan(connection, rows[-1][0], rows[-1][1])
        if refused:
            store.advance_refusals(connection, refused[-1].xact, refused[-1].refusal_id)
    return made


def _order_of(connection: store.Connection, terminal_id: str, batch: str, stan: str) -> str | None:
    return store.order_of_attempt(connection, terminal_id, stan) if batch == ORDER_BATCH else None


def forget_jtis(engine: Engine, now_ms: int) -> int:
    """Drop what fronts need no longer remember of signatures; how many."""
    with transaction(engine) as connection:
        return store.forget_jtis(connection, now_ms, _FORGOTTEN_AT_ONCE)


def deliver_due(engine: Engine, seed: bytes, now_ms: int, *, private_allowed: bool) -> int:
    """Send what is due; how many attempts. A message that isn't taken is tried again for a day."""
    with transaction(engine) as connection:
        taken = store.due_deliveries(connection, now_ms, _LEASE_MS, _SENT_AT_ONCE)
    for row in taken:
        _attempt(engine, seed, row, now_ms, private_allowed=private_allowed)
    return len(taken)


def _attempt(
    engine: Engine, seed: bytes, row: tuple[object, ...], now_ms: int, *, private_allowed: bool
) -> None:
    delivery_id, message_id, endpoint_id, url, body, created_ms, attempts, status = row
    assert isinstance(delivery_id, int)
    assert isinstance(created_ms, int)
    assert isinstance(attempts, int)
    assert isinstance(body, bytes)
    started = time.monotonic()
    timestamp = now_ms // 1000
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "countersign",
        "webhook-id": str(message_id),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": webhooks.signature(
            webhooks.secret_of(seed, str(endpoint_id)), str(message_id), timestamp, body
        ),
    }
    answered, error, again = None, None, webhooks.next_attempt(created_ms, attempts, now_ms)
    if status != "active":
        error, again = "the endpoint has ended", None
    else:
        try:
            answered = webhooks.deliver(str(url), headers, body, private_allowed=private_allowed)
            again = None
        except DeliveryFailed as failure:
            answered, error = failure.status, failure.why
        except UrlRefused as refusal:
            error = str(refusal)
    took_ms = int(1_000 * (time.monotonic() - started))
    delivered = now_ms + took_ms if error is None else None
    log.info("webhook", endpoint=endpoint_id, delivered=error is None, why=error, took_ms=took_ms)
    with transaction(engine) as connection:
        store.note_attempt(
            connection,
            delivery_id,
            delivered_ms=delivered,
            next_attempt_ms=again,
            status=answered,
            error=error,
        )
