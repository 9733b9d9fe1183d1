"""What the tests ask of statements."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import psycopg

from nodes.clearing.model import DayKey
from nodes.clearing.operations.posting import chain_key
from nodes.clearing.queries import close_of
from nodes.clock import to_datetime
from nodes.db.engine import transaction
from nodes.settlement import queries
from nodes.settlement.model import NewOrder, Order, OrderOutcome, Settlement
from nodes.settlement.operations.context import SettlementContext
from nodes.settlement.operations.ordering import place_order
from tests.integration.clearing.institutions import KEY, Institution, Pair


def context(one: Institution) -> SettlementContext:
    made = one.jobs._settlement
    assert made is not None
    return made


def statements(one: Institution, revision: int = 0, key: DayKey = KEY) -> list[Settlement]:
    """The statements of a close in one's books, the first first."""
    with transaction(one.database.engine) as connection:
        staged = close_of(connection, key, revision)
        if staged is None:
            return []
        return queries.settlements_of(connection, staged.close.close_id)


def states(one: Institution, revision: int = 0, key: DayKey = KEY) -> list[str]:
    return [found.state.value for found in statements(one, revision, key)]


def close_id(one: Institution, revision: int = 0, key: DayKey = KEY) -> int:
    with transaction(one.database.engine) as connection:
        staged = close_of(connection, key, revision)
    assert staged is not None
    return staged.close.close_id


def in_force(one: Institution, key: DayKey = KEY) -> bytes | None:
    with transaction(one.database.engine) as connection:
        return queries.in_force(connection, key)


def order(
    one: Institution, new: NewOrder, key: str = "an-order", now: datetime | None = None
) -> tuple[OrderOutcome, Order | None]:
    """Place an order as the API does."""
    with transaction(one.database.engine) as connection:
        return place_order(
            connection,
            new,
            member_id=one.member_id,
            idempotency_key=key,
            now=now or to_datetime(one.node.clock.now_ms()),
        )


def ended(one: Institution, order: Order | None) -> Order:
    """The order as it stands now."""
    assert order is not None
    with transaction(one.database.engine) as connection:
        found = queries.order(connection, order.order_id)
    assert found is not None
    return found


def on_chain(pair: Pair, settlement_id: bytes) -> str:
    record = context(pair.acquirer).registry.record(settlement_id)
    return record.state.name if record else "NONE"


def current(pair: Pair, key: DayKey = KEY) -> bytes | None:
    return context(pair.acquirer).registry.current(chain_key(key))


def events(one: Institution) -> list[str]:
    rows = one.rows(
        "SELECT action FROM events WHERE kind = 'settlement' AND action LIKE 'statement.%'"
        " ORDER BY event_id"
    )
    return [row[0].removeprefix("statement.") for row in rows]


def wait_until(moment_s: float) -> None:
    """Until the machine's clock, which is the chain's, is past a moment."""
    time.sleep(max(0.0, moment_s - time.time()) + 2.6)


def as_owner(one: Institution, statement: str, *parameters: Any) -> None:
    """The owner, with no trigger in the way."""
    with psycopg.connect(one.database.admin_dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(statement, parameters)
