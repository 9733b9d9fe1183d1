"""SQL of keys, orders and webhooks. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import psycopg

from nodes.acquiring.online.model import FrontKey, NewOrder, Order, OrderState
from nodes.db.events import record_event

Connection = psycopg.Connection[Any]

_ORDER = (
    "SELECT o.order_id, o.terminal_id, o.merchant_id, m.name, m.mcc, m.country, o.amount,"
    " o.currency, o.reference, o.business_date::text, o.state, o.attempt, o.expires_ms,"
    " o.created_ms, o.txid, o.rrn FROM orders AS o JOIN merchants AS m USING (merchant_id)"
)


def insert_key(connection: Connection, key: FrontKey, created_by: str, now: datetime) -> bool:
    """Enrol a key; False if its id is taken."""
    done = connection.execute(
        "INSERT INTO front_keys (key_id, terminal_id, merchant_id, algorithm, public_key,"
        " created_by, created_at) VALUES (%s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (key_id) DO NOTHING",
        (
            key.key_id,
            key.terminal_id,
            key.merchant_id if key.terminal_id is None else None,
            key.algorithm,
            key.public_key,
            created_by,
            now,
        ),
    )
    if done.rowcount == 1:
        owner = f"merchant {key.merchant_id}"
        if key.terminal_id is not None:
            owner = f"terminal {key.terminal_id}"
        record_event(
            connection,
            "merchant",
            "front_key.enrolled",
            subject=key.key_id,
            actor=created_by,
            detail=f"{key.algorithm} {key.public_key.hex()}, {owner}",
        )
    return done.rowcount == 1


def active_key(connection: Connection, key_id: str) -> FrontKey | None:
    """A key that may be used; None if there is none, or it is revoked."""
    row = connection.execute(
        "SELECT k.key_id, k.terminal_id, coalesce(k.merchant_id, t.merchant_id), k.algorithm,"
        " k.public_key FROM front_keys AS k LEFT JOIN terminals AS t USING (terminal_id)"
        " WHERE k.key_id = %s AND k.status = 'active'",
        (key_id,),
    ).fetchone()
    return FrontKey(*row) if row is not None else None


def revoke_key(connection: Connection, key_id: str, actor: str) -> bool:
    """Take a key out of use; False if there is none."""
    row = connection.execute(
        "SELECT status FROM front_keys WHERE key_id = %s FOR UPDATE", (key_id,)
    ).fetchone()
    if row is not None and row[0] != "revoked":
        connection.execute("UPDATE front_keys SET status = 'revoked' WHERE key_id = %s", (key_id,))
        record_event(connection, "merchant", "front_key.revoked", subject=key_id, actor=actor)
    return row is not None


def keys(connection: Connection, *, after: str | None, limit: int) -> list[tuple[Any, ...]]:
    """Keys in the order of their ids: id, terminal or merchant, algorithm, status, who, when."""
    return connection.execute(
        "SELECT key_id, terminal_id, merchant_id, algorithm, status, created_by, created_at"
        " FROM front_keys WHERE %s::text IS NULL OR key_id > %s ORDER BY key_id LIMIT %s",
        (after, after, limit),
    ).fetchall()


def take_jti(connection: Connection, key_id: str, jti: str, forget_ms: int) -> bool:
    """Whether no front has taken this one yet; from now on one has.

    Not durable at once, as no money depends on it: what a crash forgets is a signature of the last
    moments, and its Idempotency-Key still gets the stored answer.
    """
    connection.execute("SET LOCAL synchronous_commit = off")
    done = connection.execute(
        "INSERT INTO front_jtis (key_id, jti, forget_ms) VALUES (%s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (key_id, jti, forget_ms),
    )
    return done.rowcount == 1


def forget_jtis(connection: Connection, now_ms: int, limit: int) -> int:
    """Drop those that can't be replayed any more; how many."""
    done = connection.execute(
        "DELETE FROM front_jtis WHERE (key_id, jti) IN (SELECT key_id, jti FROM front_jtis"
        " WHERE forget_ms <= %s ORDER BY forget_ms LIMIT %s)",
        (now_ms, limit),
    )
    return done.rowcount


def terminal_of(connection: Connection, terminal_id: str) -> tuple[str, str] | None:
    """A terminal's merchant and that one's currency."""
    row = connection.execute(
        "SELECT t.merchant_id, m.currency FROM terminals AS t JOIN merchants AS m"
        " USING (merchant_id) WHERE t.terminal_id = %s",
        (terminal_id,),
    ).fetchone()
    return (row[0], row[1]) if row is not None else None


def insert_order(
    connection: Connection, order_id: str, merchant_id: str, new: NewOrder, now_ms: int
) -> bool:
    """Add an order; False if its idempotency key was used before."""
    done = connection.execute(
        "INSERT INTO orders (order_id, terminal_id, merchant_id, amount, currency, reference,"
        " business_date, idempotency_key, fingerprint, expires_ms, created_ms)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (terminal_id, idempotency_key) DO NOTHING",
        (
            order_id,
            new.terminal_id,
            merchant_id,
            new.amount,
            new.currency,
            new.reference,
            new.business_date,
            new.idempotency_key,
            new.fingerprint,
            now_ms + 1_000 * new.lifetime_s,
            now_ms,
        ),
    )
    return done.rowcount == 1


def order_of_key(connection: Connection, terminal_id: str, key: str) -> tuple[str, bytes] | None:
    """The order that was made under an idempotency key, and its fingerprint."""
    row = connection.execute(
        "SELECT order_id, fingerprint FROM orders WHERE terminal_id = %s AND idempotency_key = %s",
        (terminal_id, key),
    ).fetchone()
    return (row[0], row[1]) if row is not None else None


def find_order(connection: Connection, order_id: str) -> Order | None:
    """One order, its code not filled in."""
    row = connection.execute(f"{_ORDER} WHERE o.order_id = %s", (order_id,)).fetchone()
    if row is None:
        return None
    fields = dict(zip(Order.__struct_fields__, row, strict=False))
    return Order(**fields | {"state": OrderState(fields["state"])})


def claim_order(connection: Connection, order_id: str, now_ms: int, until_ms: int) -> int | None:
    """Take an open order for one attempt to pay; its number, or None if it isn't open."""
    row = connection.execute(
        "UPDATE orders SET state = 'paying', attempt = attempt + 1, paying_until_ms = %s"
        " WHERE order_id = %s AND state = 'open' AND expires_ms > %s RETURNING attempt",
        (until_ms, order_id, now_ms),
    ).fetchone()
    return row[0] if row is not None else None


def note_order_attempt(connection: Connection, order: Order, stan: str) -> None:
    """Which order a payment's trace number belongs to."""
    connection.execute(
        "INSERT INTO order_attempts (terminal_id, stan, order_id) VALUES (%s, %s, %s)",
        (order.terminal_id, stan, order.order_id),
    )


def order_of_attempt(connection: Connection, terminal_id: str, stan: str) -> str | None:
    """The order that a payment with this trace number was for."""
    row = connection.execute(
        "SELECT order_id FROM order_attempts WHERE terminal_id = %s AND stan = %s",
        (terminal_id, stan),
    ).fetchone()
    return row[0] if row is not None else None


def settle_order(
    connection: Connection,
    order: Order,
    state: OrderState,
    txid: bytes | None = None,
    rrn: str | None = None,
) -> None:
    """What became of an attempt; nothing, if somebody has noted it already."""
    connection.execute(
        "UPDATE orders SET state = %s, paying_until_ms = NULL, txid = %s, rrn = %s"
        " WHERE order_id = %s AND state = %s AND attempt = %s",
        (state.value, txid, rrn, order.order_id, order.state.value, order.attempt),
    )


# --- webhooks ------------------------------------------------------------------------------------


def insert_endpoint(
    connection: Connection,
    endpoint_id: str,
    merchant_id: str,
    url: str,
    created_by: str,
    now: datetime,
) -> None:
    """Add an endpoint; the first one says from where transactions are read."""
    connection.execute(
        "INSERT INTO webhook_endpoints (endpoint_id, merchant_id, url, created_by, created_at)"
        " VALUES (%s, %s, %s, %s, %s)",
        (endpoint_id, merchant_id, url, created_by, now),
    )
    record_event(
        connection,
        "merchant",
        "endpoint.made",
        subject=endpoint_id,
        actor=created_by,
        detail=f"merchant {merchant_id}, {url}",
    )
    connection.execute(
        "INSERT INTO webhook_scan (xact, transaction_id)"
        " VALUES (pg_snapshot_xmin(pg_current_snapshot()), 0) ON CONFLICT DO NOTHING"
    )


def endpoints(connection: Connection, *, after: str | None, limit: int) -> list[tuple[Any, ...]]:
    """Endpoints in the order of their ids: id, merchant, URL, status."""
    return connection.execute(
        "SELECT endpoint_id, merchant_id, url, status FROM webhook_endpoints"
        " WHERE %s::text IS NULL OR endpoint_id > %s ORDER BY endpoint_id LIMIT %s",
        (after, after, limit),
    ).fetchall()


def end_endpoint(connection: Connection, endpoint_id: str, actor: str) -> bool:
    """Send nothing there any more; False if there is none."""
    row = connection.execute(
        "SELECT status FROM webhook_endpoints WHERE endpoint_id = %s FOR UPDATE", (endpoint_id,)
    ).fetchone()
    if row is not None and row[0] != "ended":
        connection.execute(
            "UPDATE webhook_endpoints SET status = 'ended' WHERE endpoint_id = %s", (endpoint_id,)
        )
        record_event(connection, "merchant", "endpoint.ended", subject=endpoint_id, actor=actor)
    return row is not None


def next_transactions(connection: Connection, limit: int) -> list[tuple[Any, ...]]:
    """Committed transactions that weren't read yet, of merchants with an endpoint.

    The scan's row is locked until the transaction ends: one reader at a time. What stands before
    the first of them, or all if there is none, counts as read.
    """
    place = connection.execute(
        "SELECT xact::text, transaction_id, pg_snapshot_xmin(pg_current_snapshot())::text,"
        " EXISTS (SELECT FROM webhook_endpoints WHERE status = 'active')"
        " FROM webhook_scan FOR UPDATE"
    ).fetchone()
    if place is None:
        return []
    *since, below, wanted = place
    rows: list[tuple[Any, ...]] = []
    if wanted:
        rows = connection.execute(
            "SELECT t.xact::text, t.transaction_id, t.txid, t.kind, t.outcome, t.amount,"
            " t.currency, t.merchant_id, t.terminal_id, t.rrn, t.approval_code, t.pan_masked,"
            " t.decided_ms, t.batch, t.stan, t.original_txid FROM transactions AS t"
            " WHERE (t.xact, t.transaction_id) > (%s::xid8, %s) AND t.xact < %s::xid8"
            " AND t.side = 'acquirer' AND t.merchant_id IN"
            " (SELECT merchant_id FROM webhook_endpoints WHERE status = 'active')"
            " ORDER BY t.xact, t.transaction_id LIMIT %s",
            (*since, below, limit),
        ).fetchall()
    if not rows:
        connection.execute(
            "UPDATE webhook_scan AS s SET xact = n.xact, transaction_id = n.transaction_id"
            " FROM (SELECT xact, transaction_id FROM transactions WHERE xact < %s::xid8"
            " ORDER BY xact DESC, transaction_id DESC LIMIT 1) AS n"
            " WHERE (n.xact, n.transaction_id) > (s.xact, s.transaction_id)",
            (below,),
        )
    return rows


def advance_scan(connection: Connection, xact: str, transaction_id: int) -> None:
    """All up to there are read."""
    connection.execute(
        "UPDATE webhook_scan SET xact = %s::xid8, transaction_id = %s", (xact, transaction_id)
    )


class RefusedRow(msgspec.Struct, frozen=True):
    """A request that never became a transaction, as the scan finds it (acquirer_refusals)."""

    xact: str
    refusal_id: int
    idempotency_key: bytes
    kind: str
    outcome: str
    amount: int
    currency: str
    merchant_id: str
    terminal_id: str
    rrn: str
    pan_masked: str
    batch: str
    stan: str
    refused_ms: int


_REFUSED = ", ".join(
    f"r.{name}" for name in RefusedRow.__struct_fields__ if name not in ("xact", "refusal_id")
)


def next_refusals(connection: Connection, limit: int) -> list[RefusedRow]:
    """Committed refusals that weren't read yet; the scan's row is locked as in
    next_transactions."""
    place = connection.execute(
        "SELECT refused_xact::text, refusal_id FROM webhook_scan FOR UPDATE"
    ).fetchone()
    if place is None:
        return []
    rows = connection.execute(
        f"SELECT r.xact::text, r.refusal_id, {_REFUSED} FROM acquirer_refusals AS r"
        " WHERE (r.xact, r.refusal_id) > (%s::xid8, %s)"
        " AND r.xact < pg_snapshot_xmin(pg_current_snapshot())"
        " ORDER BY r.xact, r.refusal_id LIMIT %s",
        (*place, limit),
    ).fetchall()
    return [RefusedRow(*row) for row in rows]


def advance_refusals(connection: Connection, xact: str, refusal_id: int) -> None:
    """All refusals up to there are read."""
    connection.execute(
        "UPDATE webhook_scan SET refused_xact = %s::xid8, refusal_id = %s", (xact, refusal_id)
    )


def ending_orders(connection: Connection, now_ms: int, limit: int) -> list[str]:
    """Orders whose time is over and whose state doesn't say so yet; an attempt's time as well."""
    rows = connection.execute(
        "SELECT order_id FROM orders WHERE state IN ('open', 'paying') AND expires_ms <= %s"
        " AND coalesce(paying_until_ms, 0) <= %s ORDER BY expires_ms LIMIT %s",
        (now_ms, now_ms, limit),
    ).fetchall()
    return [row[0] for row in rows]


def take_expired_orders(connection: Connection, limit: int) -> list[Order]:
    """Expired orders that nobody was told of; they are told with this transaction."""
    rows = connection.execute(
        "UPDATE orders SET expiry_told = true WHERE order_id IN (SELECT order_id FROM orders"
        " WHERE state = 'expired' AND NOT expiry_told ORDER BY order_id LIMIT %s"
        " FOR UPDATE SKIP LOCKED) RETURNING order_id",
        (limit,),
    ).fetchall()
    found = [find_order(connection, row[0]) for row in rows]
    return [order for order in found if order is not None]


def refusals(
    connection: Connection,
    *,
    merchant_id: str | None,
    terminal_id: str | None,
    before: int | None,
    limit: int,
) -> list[tuple[Any, ...]]:
    """Requests that never became transactions, the newest first."""
    wanted = {
        "merchant_id = %s": merchant_id,
        "terminal_id = %s": terminal_id,
        "refusal_id < %s": before,
    }
    given = {condition: value for condition, value in wanted.items() if value is not None}
    where = f" WHERE {' AND '.join(given)}" if given else ""
    return connection.execute(
        "SELECT refusal_id, merchant_id, terminal_id, kind, outcome, amount, currency, rrn,"
        f" pan_masked, batch, stan, refused_ms FROM acquirer_refusals{where}"
        " ORDER BY refusal_id DESC LIMIT %s",
        (*given.values(), limit),
    ).fetchall()


def active_endpoints(connection: Connection) -> dict[str, list[tuple[str, int]]]:
    """Endpoints by merchant, each with the moment of its making (ms since 1970)."""
    found: dict[str, list[tuple[str, int]]] = {}
    for merchant_id, endpoint_id, created_ms in connection.execute(
        "SELECT merchant_id, endpoint_id, (1000 * extract(epoch FROM created_at))::bigint"
        " FROM webhook_endpoints WHERE status = 'active'"
    ):
        found.setdefault(merchant_id, []).append((endpoint_id, created_ms))
    return found


def queue_delivery(
    connection: Connection, message_id: str, endpoint_id: str, body: bytes, now_ms: int
) -> None:
    """Have a message delivered, once an endpoint."""
    connection.execute(
        "INSERT INTO webhook_deliveries (message_id, endpoint_id, body, created_ms,"
        " next_attempt_ms) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (message_id, endpoint_id, body, now_ms, now_ms),
    )


def due_deliveries(
    connection: Connection, now_ms: int, lease_ms: int, limit: int
) -> list[tuple[Any, ...]]:
    """Take deliveries that are due; others leave them alone until the lease is over."""
    return connection.execute(
        "UPDATE webhook_deliveries AS d SET next_attempt_ms = %s, attempts = d.attempts + 1"
        " FROM webhook_endpoints AS e WHERE e.endpoint_id = d.endpoint_id AND d.delivery_id IN"
        " (SELECT delivery_id FROM webhook_deliveries WHERE next_attempt_ms <= %s"
        " ORDER BY next_attempt_ms LIMIT %s FOR UPDATE SKIP LOCKED)"
        " RETURNING d.delivery_id, d.message_id, d.endpoint_id, e.url, d.body, d.created_ms,"
        " d.attempts, e.status",
        (now_ms + lease_ms, now_ms, limit),
    ).fetchall()


def note_attempt(
    connection: Connection,
    delivery_id: int,
    *,
    delivered_ms: int | None,
    next_attempt_ms: int | None,
    status: int | None,
    error: str | None,
) -> None:
    """What an attempt came to."""
    connection.execute(
        "UPDATE webhook_deliveries SET delivered_ms = %s, next_attempt_ms = %s, last_status = %s,"
        " last_error = %s WHERE delivery_id = %s",
        (delivered_ms, next_attempt_ms, status, error, delivery_id),
    )


def deliveries(
    connection: Connection, *, endpoint_id: str | None, before: int | None, limit: int
) -> Sequence[tuple[Any, ...]]:
    """The delivery log, the newest first."""
    return connection.execute(
        "SELECT delivery_id, message_id, endpoint_id, created_ms, attempts, next_attempt_ms,"
        " delivered_ms, last_status, last_error FROM webhook_deliveries"
        " WHERE (%s::text IS NULL OR endpoint_id = %s) AND (%s::bigint IS NULL OR delivery_id < %s)"
        " ORDER BY delivery_id DESC LIMIT %s",
        (endpoint_id, endpoint_id, before, before, limit),
    ).fetchall()


def replay(connection: Connection, delivery_id: int, now_ms: int) -> bool:
    """Deliver once more, from now on; False if there is no such delivery."""
    done = connection.execute(
        "UPDATE webhook_deliveries SET next_attempt_ms = %s, attempts = 0, delivered_ms = NULL"
        " WHERE delivery_id = %s",
        (now_ms, delivery_id),
    )
    return done.rowcount == 1
