"""What the tests of an issuer's own transactions do with an IssuingHouse."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations.own import LoadResult, load_card
from nodes.authorization.operations.standing import (
    AccountOutcome,
    AccountStatus,
    set_account_status,
    set_card_status,
)
from nodes.cards.model import CardOutcome, CardStatus, IssuedCard
from nodes.clock import to_datetime
from tests.factories.issuing import ISSUER, NOW_MS, IssuingHouse

NOW = to_datetime(NOW_MS)
DAY_MS = 86_400_000


def load(house: IssuingHouse, card: IssuedCard, amount: int, key: str, **more: Any) -> LoadResult:
    fields: dict[str, Any] = {
        "card_token": card.card_token,
        "amount": amount,
        "currency": "CNY",
        "reference": "payroll",
        "idempotency_key": key,
        "now": to_datetime(house.clock.now_ms()),
    }
    return load_card(house.database.engine, ISSUER, **fields | more)


def ask(house: IssuingHouse, kind: Kind, amount: int, card: IssuedCard, **more: Any) -> Outcome:
    """One request to a new node process."""
    engine = house.engine()
    [answer] = asyncio.run(engine.submit([house.request(kind, amount, card, **more)]))
    return answer.outcome


def rows(house: IssuingHouse, statement: str, *values: object) -> list[Any]:
    with psycopg.connect(house.database.owner_dsn) as connection:
        return connection.execute(statement, values).fetchall()


def set_status(house: IssuingHouse, card: IssuedCard, status: CardStatus) -> CardOutcome:
    return set_card_status(
        house.database.engine, card.card_token, status, actor="key:ops", reason="asked", now=NOW
    )


def set_account(house: IssuingHouse, card: IssuedCard, status: AccountStatus) -> AccountOutcome:
    return set_account_status(
        house.database.engine, card.account_id, status, actor="key:ops", reason="asked", now=NOW
    )
