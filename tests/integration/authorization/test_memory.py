"""What an engine keeps in memory, and what it reads anew when others were first."""

from __future__ import annotations

import asyncio
import select
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from nodes.authorization.controls import Limit, Measure, Rule, Window
from nodes.authorization.engine import issuing
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations.controlling import SPREAD_MS, Scope, create_rule
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


@pytest.mark.parametrize("age_s", [0.8, 1.1])
def test_rules_are_read_again_beside_decisions_and_wait_only_if_they_are_too_old(
    house: IssuingHouse, monkeypatch: pytest.MonkeyPatch, age_s: float
) -> None:
    card = house.card(1_000)
    early, may_read = age_s < 1.0, threading.Event()
    real = accounts.products

    def slow(connection: Any, now_ms: int) -> Any:
        if early:
            assert may_read.wait(20)
        return real(connection, now_ms)

    async def scene() -> list[Outcome]:
        engine = house.engine()

        async def buy() -> Outcome:
            return (await engine.submit([house.request(Kind.PURCHASE, 100, card)]))[0].outcome

        bought = [await buy()]
        limit = Limit(Window.TRANSACTION, Measure.AMOUNT, 50)
        create_rule(
            house.database.engine,
            Scope.PRODUCT,
            "standard",
            Rule("", "at most 50", limit=limit),
            created_by="key:ops",
            now=to_datetime(house.clock.now_ms()),
        )
        house.clock.advance(SPREAD_MS)
        monkeypatch.setattr(accounts, "products", slow)
        supply = engine._supply
        # As if they had been read so long ago, and nothing had taken any time since.
        supply._began = time.monotonic() - age_s
        supply._due = supply._began + (60.0 if early else 1.0)
        bought.append(await buy())
        if early:
            assert engine._terms.reading is not None
            assert not engine._terms.reading.done()
            may_read.set()
            await engine._terms.reading
            bought.append(await buy())
        return bought

    bought = asyncio.run(asyncio.wait_for(scene(), 15))
    assert bought == [Outcome.APPROVED] * (len(bought) - 1) + [Outcome.AMOUNT_LIMIT]


def test_an_answer_leaves_when_its_commit_has_ended_though_a_long_batch_is_being_decided(
    house: IssuingHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = house.card(100_000)
    count = 256  # a batch of its own

    async def scene() -> tuple[int, list[Outcome]]:
        engine = house.engine()
        await engine.submit([house.request(Kind.PURCHASE, 1, card)])  # the link is open
        decided = 0
        real = issuing.decide_each

        def slow(*arguments: Any) -> Iterator[Any]:
            nonlocal decided
            for one in real(*arguments):
                decided += 1
                if decided == 2:
                    # The first one's commit has ended: what PostgreSQL says of it waits here.
                    assert select.select([engine._link._socket], [], [], 20)[0]
                yield one

        monkeypatch.setattr(issuing, "decide_each", slow)
        first = asyncio.ensure_future(engine.submit([house.request(Kind.PURCHASE, 1, card)]))
        when = list[int]()
        first.add_done_callback(lambda _: when.append(decided))
        await asyncio.sleep(0)  # it is the first to wait
        answers = await engine.submit([house.request(Kind.PURCHASE, 1, card) for _ in range(count)])
        assert (await first)[0].outcome is Outcome.APPROVED
        return when[0], [answer.outcome for answer in answers]

    told_at, outcomes = asyncio.run(asyncio.wait_for(scene(), 30))
    assert outcomes == [Outcome.APPROVED] * count
    assert told_at < count, "it waited for the next batch's last decision"
