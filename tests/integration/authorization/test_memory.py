"""What an engine keeps in memory, and what it reads anew when others were first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations.own import load_card
from nodes.authorization.store import accounts
from nodes.clock import to_datetime
from tests.conftest import NodeDatabase
from tests.factories.issuing import ISSUER, IssuingHouse


@pytest.fixture
def house(database: NodeDatabase) -> Iterator[IssuingHouse]:
    made = IssuingHouse(database)
    yield made
    made.close()


def test_a_load_by_others_makes_only_its_own_account_read_anew(
    house: IssuingHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = [house.card(1_000) for _ in range(5)]
    read: list[int] = []
    real = accounts.holders

    def noted(connection: Any, account_ids: Iterable[int], terms: Any) -> Any:
        wanted = list(account_ids)
        read.extend(wanted)
        return real(connection, wanted, terms)

    async def scene() -> None:
        engine = house.engine()
        await engine.submit([house.request(Kind.PURCHASE, 1, card) for card in cards])
        load_card(
            house.database.engine,
            ISSUER,
            card_token=cards[0].card_token,
            amount=500,
            currency="CNY",
            reference="more",
            idempotency_key="more",
            now=to_datetime(house.clock.now_ms()),
        )
        monkeypatch.setattr(accounts, "holders", noted)
        for card in cards:
            answers = await engine.submit([house.request(Kind.PURCHASE, 1_100, card)])
            wanted = Outcome.APPROVED if card is cards[0] else Outcome.INSUFFICIENT_FUNDS
            assert answers[0].outcome is wanted

    asyncio.run(scene())
    assert read == [cards[0].account_id]
