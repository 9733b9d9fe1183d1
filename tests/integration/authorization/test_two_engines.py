"""Two node processes of one institution, on one database: each money path holds between them.

Each engine has its own memory, so each decides on what the other may have passed; the database lets
one of the two stand and the other is decided again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from nodes.authorization.controls import Limit, Measure, Rule, Terms, Window
from nodes.authorization.model import AuthorizationAnswer, AuthorizationRequest, Kind, Outcome
from nodes.authorization.operations.expiring import expire_holds
from nodes.authorization.operations.standing import set_card_status
from nodes.authorization.store import accounts
from nodes.cards.model import CardOutcome, CardStatus
from nodes.clock import to_datetime
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import NodeDatabase
from tests.factories.issuing import ISSUER, IssuingHouse, approved

ROUNDS = 12


@pytest.fixture
def house(database: NodeDatabase) -> Iterator[IssuingHouse]:
    made = IssuingHouse(database)
    yield made
    made.close()
    assert check_invariants(database.engine) == []


def test_two_purchases_of_the_last_money(house: IssuingHouse) -> None:
    async def scene() -> None:
        one, two = house.engine(), house.engine()
        for _ in range(ROUNDS):
            card = house.card(1_000)
            asked = [house.request(Kind.PURCHASE, 400, card) for _ in range(6)]
            answers = await asyncio.gather(
                *(engine.submit([r]) for engine, r in zip([one, two] * 3, asked, strict=True))
            )
            assert approved([answer[0].outcome for answer in answers]) == 2
            assert house.account(card).balance == 200

    asyncio.run(scene())


def test_a_hold_takes_the_last_available_once(house: IssuingHouse) -> None:
    async def scene() -> None:
        one, two = house.engine(), house.engine()
        for _ in range(ROUNDS):
            card = house.card(1_000)
            holding = house.request(Kind.AUTHORIZATION, 600, card)
            buying = house.request(Kind.PURCHASE, 401, card)
            held, bought = await asyncio.gather(one.submit([holding]), two.submit([buying]))
            assert approved([held[0].outcome, bought[0].outcome]) == 1
            account = house.account(card)
            assert account.balance - account.held in (400, 599)

    asyncio.run(scene())


def test_a_card_of_three_uses_is_used_three_times(house: IssuingHouse) -> None:
    house.product("three", Terms(uses=3))

    async def scene() -> None:
        one, two = house.engine(), house.engine()
        for _ in range(ROUNDS):
            card = house.card(10_000, "three")
            asked = [house.request(Kind.PURCHASE, 10, card) for _ in range(8)]
            answers = await asyncio.gather(
                *(engine.submit([r]) for engine, r in zip([one, two] * 4, asked, strict=True))
            )
            outcomes = [answer[0].outcome for answer in answers]
            assert approved(outcomes) == 3
            assert set(outcomes) == {Outcome.APPROVED, Outcome.USES_EXHAUSTED}
            # A reversal gives the use back, and only that one.
            used = asked[outcomes.index(Outcome.APPROVED)]
            await two.submit([house.request(Kind.REVERSAL, 10, original=used)])
            more = [house.request(Kind.PURCHASE, 10, card) for _ in range(2)]
            answers = await asyncio.gather(one.submit([more[0]]), two.submit([more[1]]))
            assert approved([answer[0].outcome for answer in answers]) == 1

    asyncio.run(scene())


def test_a_window_counts_over_both(house: IssuingHouse) -> None:
    with house.database.owner_engine.begin() as connection:
        rule = Rule("day", "two a day", limit=Limit(Window.DAY, Measure.COUNT, 2))
        connection.exec_driver_sql(
            "INSERT INTO spend_rules (rule_id, scope, subject, definition, created_by, created_at,"
            " effective_from_ms) VALUES ('day', 'product', 'standard', %s, 'test', now(), 0)",
            (_json(rule),),
        )

    async def scene() -> None:
        one, two = house.engine(), house.engine()
        for _ in range(ROUNDS):
            card = house.card(10_000)
            asked = [house.request(Kind.PURCHASE, 10, card) for _ in range(6)]
            answers = await asyncio.gather(
                *(engine.submit([r]) for engine, r in zip([one, two] * 3, asked, strict=True))
            )
            outcomes = [answer[0].outcome for answer in answers]
            assert approved(outcomes) == 2
            assert set(outcomes) == {Outcome.APPROVED, Outcome.COUNT_LIMIT}

    asyncio.run(scene())


def test_concurrent_refunds_give_back_no_more_than_was_paid(house: IssuingHouse) -> None:
    async def scene() -> None:
        one, two = house.engine(), house.engine()
        for _ in range(ROUNDS):
            card = house.card(1_000)
            bought = house.request(Kind.PURCHASE, 500, card)
            await one.submit([bought])
            asked = [house.request(Kind.REFUND, 300, original=bought) for _ in range(4)]
            answers = await asyncio.gather(
                *(engine.submit([r]) for engine, r in zip([one, two] * 2, asked, strict=True))
            )
            assert approved([answer[0].outcome for answer in answers]) == 1
            assert house.account(card).balance == 800

    asyncio.run(scene())


@pytest.mark.parametrize("moment", [1, 2])
def test_an_original_may_commit_while_its_reversal_is_being_read(
    house: IssuingHouse, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Just before the first, or the second look for it: the reversal then takes it back."""
    real = accounts.originals

    async def scene() -> None:
        one, two = house.engine(), house.engine()
        loop = asyncio.get_running_loop()
        # At the first turn the second engine loses the pair's number. From then on it takes its
        # numbers in the database, and nothing but the look itself stands between the two.
        for _ in range(3):
            card, looks = house.card(1_000), itertools.count(1)
            bought = house.request(Kind.PURCHASE, 500, card)
            undone = house.request(Kind.REVERSAL, 500, original=bought)
            first: list[AuthorizationAnswer] = []

            def originals(
                connection: Any,
                txids: Any,
                looks: Iterator[int] = looks,
                first: list[AuthorizationAnswer] = first,
                bought: AuthorizationRequest = bought,
            ) -> Any:
                if next(looks) == moment:
                    buying = asyncio.run_coroutine_threadsafe(one.submit([bought]), loop)
                    first.extend(buying.result(30))
                return real(connection, txids)

            monkeypatch.setattr(accounts, "originals", originals)
            [answer] = await two.submit([undone])
            assert answer.outcome is Outcome.APPROVED
            if not first:
                first.extend(await one.submit([bought]))
                assert first[0].outcome is Outcome.REVERSED_BEFORE_ARRIVAL
            assert house.account(card).balance == 1_000

    asyncio.run(scene())


def test_a_reversal_and_its_original_have_no_effect_together(house: IssuingHouse) -> None:
    async def scene() -> None:
        one, two = house.engine(), house.engine()
        for turn in range(ROUNDS):
            card = house.card(1_000)
            bought = house.request(Kind.PURCHASE, 500, card)
            undone = house.request(Kind.REVERSAL, 500, original=bought)
            first, second = (one, two) if turn % 2 else (two, one)
            answers = await asyncio.gather(first.submit([bought]), second.submit([undone]))
            assert answers[1][0].outcome is Outcome.APPROVED
            assert answers[0][0].outcome in (Outcome.APPROVED, Outcome.REVERSED_BEFORE_ARRIVAL)
            assert house.account(card).balance == 1_000
            late = house.request(Kind.REVERSAL, 500, original=bought)
            again = await first.submit([undone])
            assert again == [answers[1][0]]
            assert late.txid != undone.txid

    asyncio.run(scene())


def test_a_hold_is_captured_or_expires(house: IssuingHouse) -> None:
    house.product("short", Terms(hold_seconds=60))

    async def scene() -> None:
        one = house.engine()
        for _ in range(ROUNDS):
            card = house.card(1_000, "short")
            held = house.request(Kind.AUTHORIZATION, 600, card)
            await one.submit([held])
            house.clock.advance(60_001)
            taking = house.request(Kind.CAPTURE, 600, original=held)
            loop = asyncio.get_running_loop()
            answers, _ = await asyncio.gather(
                one.submit([taking]), loop.run_in_executor(None, sweep, house)
            )
            account = house.account(card)
            assert answers[0].outcome is Outcome.HOLD_ENDED
            assert (account.balance, account.held, account.holds) == (1_000, 0, ())

    asyncio.run(scene())


def sweep(house: IssuingHouse) -> None:
    """What the worker does."""
    expire_holds(house.database.engine, ISSUER, house.clock.now_ms(), "Asia/Shanghai")


def test_a_freeze_stops_the_next_purchase_of_either(house: IssuingHouse) -> None:
    async def scene() -> None:
        one, two = house.engine(), house.engine()
        for _ in range(ROUNDS):
            card = house.card(1_000)
            for engine in (one, two):
                answers = await engine.submit([house.request(Kind.PURCHASE, 100, card)])
                assert answers[0].outcome is Outcome.APPROVED
            changed = set_card_status(
                house.database.engine,
                card.card_token,
                CardStatus.BLOCKED,
                actor="ops",
                reason="customer's wish",
                now=to_datetime(house.clock.now_ms()),
            )
            assert changed is CardOutcome.DONE
            for engine in (one, two):
                answers = await engine.submit([house.request(Kind.PURCHASE, 100, card)])
                assert answers[0].outcome is Outcome.CARD_BLOCKED
            assert house.account(card).balance == 800

    asyncio.run(scene())


def _json(rule: Rule) -> str:
    return msgspec.json.encode(rule).decode()
