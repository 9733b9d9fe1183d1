"""SQL of claims that others bring. Callers own the transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeAlias

import psycopg

from nodes.claims.model import OPEN, ClaimOrder, OrderState

Connection: TypeAlias = psycopg.Connection[Any]

_ORDERS = (
    "SELECT claim_id, member_id, txid, commitment, merge_deadline, signature, state, answer_by,"
    " reason FROM claim_orders"
)


def keep_order(connection: Connection, order: ClaimOrder, at: datetime) -> bool:
    """Keep an order, in the place of one that was refused; whether it was kept: another that is
    there stays as it is."""
    done = connection.execute(
        "INSERT INTO claim_orders (claim_id, member_id, txid, commitment, merge_deadline,"
        " signature, state, answer_by, reason, asked_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (claim_id) DO UPDATE SET merge_deadline = excluded.merge_deadline,"
        " signature = excluded.signature, state = excluded.state, answer_by = excluded.answer_by,"
        " reason = excluded.reason WHERE claim_orders.state = %s",
        (
            *(order.claim_id, order.member_id, order.txid, order.commitment),
            *(order.merge_deadline, order.signature, order.state.value, order.answer_by),
            *(order.reason, at, OrderState.REFUSED.value),
        ),
    )
    return done.rowcount == 1


def order_of(connection: Connection, claim_id: bytes) -> ClaimOrder | None:
    """The order of a claim; None if nobody brought it here."""
    row = connection.execute(_ORDERS + " WHERE claim_id = %s", (claim_id,)).fetchone()
    return None if row is None else _order(row)


def open_orders(connection: Connection, limit: int) -> list[ClaimOrder]:
    """What is to be brought further, the oldest first."""
    rows = connection.execute(
        _ORDERS + " WHERE state = ANY(%s) ORDER BY asked_at LIMIT %s",
        (sorted(state.value for state in OPEN), limit),
    )
    return [_order(row) for row in rows]


def count_open(connection: Connection) -> int:
    """How many are to be brought further."""
    row = connection.execute(
        "SELECT count(*) FROM claim_orders WHERE state = ANY(%s)",
        (sorted(state.value for state in OPEN),),
    ).fetchone()
    return int(row[0]) if row else 0


def move_order(
    connection: Connection,
    claim_id: bytes,
    state: OrderState,
    *,
    answer_by: int | None = None,
    reason: str | None = None,
) -> None:
    """Write down how far an order has come."""
    connection.execute(
        "UPDATE claim_orders SET state = %s, answer_by = coalesce(%s, answer_by), reason = %s"
        " WHERE claim_id = %s",
        (state.value, answer_by, reason, claim_id),
    )


def _order(row: tuple[Any, ...]) -> ClaimOrder:
    claim_id, member_id, txid, commitment, merge_deadline, signature, state, answer_by, reason = row
    return ClaimOrder(
        claim_id,
        member_id,
        txid,
        commitment,
        merge_deadline,
        signature,
        OrderState(state),
        answer_by,
        reason,
    )
