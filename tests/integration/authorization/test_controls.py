"""Statuses, products, rules and simulations, on a real database beside real engines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
import psycopg
import pytest

from nodes.authorization import queries
from nodes.authorization.batching import LedgerUnavailable
from nodes.authorization.controls import (
    Conditions,
    Limit,
    Measure,
    PurseTerms,
    Rule,
    Terms,
    Window,
)
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations.changing_terms import (
    TermsOutcome,
    TermsResult,
    approve_terms,
    propose_terms,
)
from nodes.authorization.operations.controlling import (
    SPREAD_MS,
    ControlOutcome,
    Scope,
    backtest_rule,
    create_product,
    create_rule,
    end_rule,
)
from nodes.authorization.operations.own import (
    LoadOutcome,
)
from nodes.authorization.operations.simulating import Simulated, Supposed, simulate
from nodes.authorization.operations.standing import (
    AccountOutcome,
    AccountStatus,
)
from nodes.cards.model import CardOutcome, CardStatus, IssuedCard
from nodes.clock import to_datetime
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import NodeDatabase
from tests.factories.issuing import ISSUER, MERCHANT, NOW_MS, IssuingHouse
from tests.integration.authorization.owning import (
    DAY_MS,
    NOW,
    ask,
    load,
    rows,
    set_account,
    set_status,
)

ZONE = "Asia/Shanghai"
DONE = TermsOutcome.DONE


@pytest.fixture
def house(database: NodeDatabase) -> Iterator[IssuingHouse]:
    made = IssuingHouse(database)
    yield made
    made.close()
    assert check_invariants(database.engine) == []


# --- standing ----------------------------------------------------------------------------------


def test_a_cards_status_is_a_version_with_its_event(house: IssuingHouse) -> None:
    card = house.card(0)  # nothing recorded of its account yet
    assert set_status(house, card, CardStatus.BLOCKED) is CardOutcome.DONE
    assert set_status(house, card, CardStatus.BLOCKED) is CardOutcome.TRANSITION_REFUSED
    assert house.account(card).version == 1
    assert ask(house, Kind.PURCHASE, 1, card) is Outcome.CARD_BLOCKED
    assert set_status(house, card, CardStatus.LOST) is CardOutcome.DONE
    assert set_status(house, card, CardStatus.ACTIVE) is CardOutcome.TRANSITION_REFUSED
    assert rows(house, "SELECT status FROM cards") == [("lost",)]
    assert rows(house, "SELECT event, actor FROM card_events ORDER BY card_event_id") == [
        ("issued", "test"),
        ("blocked", "key:ops"),
        ("lost", "key:ops"),
    ]


def test_nothing_is_approved_after_a_freeze_whichever_process_decides(house: IssuingHouse) -> None:
    async def buy(
        engine: Any, card: IssuedCard, started: asyncio.Event, frozen: asyncio.Event
    ) -> None:
        while not frozen.is_set():
            request = house.request(Kind.PURCHASE, 1, card)
            with contextlib.suppress(LedgerUnavailable):  # the other one was first too often
                [answer] = await engine.submit([request])
                if answer.outcome is Outcome.APPROVED:
                    started.set()
            await asyncio.sleep(0.003)
        [answer] = await engine.submit([house.request(Kind.PURCHASE, 1, card)])
        assert answer.outcome is Outcome.ACCOUNT_FROZEN

    async def scene(card: IssuedCard) -> None:
        frozen = asyncio.Event()
        started = [asyncio.Event() for _ in range(2)]
        buying = [asyncio.ensure_future(buy(house.engine(), card, one, frozen)) for one in started]
        for one in started:
            await asyncio.wait_for(one.wait(), 10)
        loop = asyncio.get_running_loop()
        done = await loop.run_in_executor(None, set_account, house, card, AccountStatus.FROZEN)
        frozen.set()
        assert done is AccountOutcome.DONE
        await asyncio.gather(*buying)

    for _ in range(4):
        card = house.card(100_000)
        asyncio.run(scene(card))
        after = rows(
            house,
            "SELECT t.outcome FROM account_versions v JOIN transactions t USING (transaction_id)"
            " WHERE v.account_id = %s AND v.version > (SELECT version FROM account_versions"
            " WHERE account_id = %s AND transaction_id IS NULL)",
            card.account_id,
            card.account_id,
        )
        assert {outcome for (outcome,) in after} == {"account_frozen"}


def test_a_frozen_account_takes_money_and_a_closed_one_stays_closed(house: IssuingHouse) -> None:
    card = house.card(0)
    assert set_account(house, card, AccountStatus.FROZEN) is AccountOutcome.DONE
    assert load(house, card, 10, "key-1").outcome is LoadOutcome.DONE
    assert set_account(house, card, AccountStatus.CLOSED) is AccountOutcome.ACCOUNT_NOT_EMPTY
    assert set_account(house, card, AccountStatus.OPEN) is AccountOutcome.DONE
    assert ask(house, Kind.PURCHASE, 10, card) is Outcome.APPROVED
    assert set_account(house, card, AccountStatus.CLOSED) is AccountOutcome.DONE
    assert set_account(house, card, AccountStatus.CLOSED) is AccountOutcome.DONE
    assert set_account(house, card, AccountStatus.OPEN) is AccountOutcome.ACCOUNT_CLOSED
    assert load(house, card, 10, "key-2").outcome is LoadOutcome.ACCOUNT_CLOSED
    unknown = IssuedCard(b"", "", "", "", 10_000)
    assert set_account(house, unknown, AccountStatus.FROZEN) is AccountOutcome.ACCOUNT_UNKNOWN


# --- products and rules ------------------------------------------------------------------------

BETTING = Rule("", "no betting", Conditions(mccs=("7995",)))
TWO_A_DAY = Rule("", "two a day", limit=Limit(Window.DAY, Measure.COUNT, 2))


def make_rule(house: IssuingHouse, scope: Scope, subject: str, rule: Rule) -> Rule:
    now = to_datetime(house.clock.now_ms())
    made = create_rule(house.database.engine, scope, subject, rule, created_by="key:ops", now=now)
    assert made.outcome is ControlOutcome.DONE
    assert made.rule is not None
    return made.rule


@pytest.mark.parametrize("scope", [Scope.ACCOUNT, Scope.CARD])
def test_a_rule_of_an_account_or_card_is_in_force_at_once_in_every_process(
    house: IssuingHouse, scope: Scope
) -> None:
    card, other = house.card(1_000), house.card(1_000)
    engines = house.engine(), house.engine()
    subject = str(card.account_id) if scope is Scope.ACCOUNT else card.card_token.hex()

    async def outcomes(of: IssuedCard) -> set[Outcome]:
        asked = [house.request(Kind.PURCHASE, 1, of, mcc="7995") for _ in engines]
        answers = [await e.submit([r]) for e, r in zip(engines, asked, strict=True)]
        return {answer[0].outcome for answer in answers}

    async def scene() -> None:
        assert await outcomes(card) == {Outcome.APPROVED}
        rule = make_rule(house, scope, subject, BETTING)
        assert rule.effective_from_ms == NOW_MS
        assert await outcomes(card) == {Outcome.RULE_DECLINED}
        assert await outcomes(other) == {Outcome.APPROVED}
        ended = end_rule(house.database.engine, rule.rule_id, ended_by="key:ops", now=NOW)
        assert ended.outcome is ControlOutcome.DONE
        assert await outcomes(card) == {Outcome.APPROVED}
        again = end_rule(house.database.engine, rule.rule_id, ended_by="key:ops", now=NOW)
        assert again.outcome is ControlOutcome.RULE_ENDED

    asyncio.run(scene())


def test_a_rule_of_a_product_is_in_force_a_second_later_and_says_so(house: IssuingHouse) -> None:
    card = house.card(1_000)
    rule = make_rule(house, Scope.PRODUCT, "standard", BETTING)
    assert rule.effective_from_ms == NOW_MS + SPREAD_MS
    assert ask(house, Kind.PURCHASE, 1, card, mcc="7995") is Outcome.APPROVED
    house.clock.advance(SPREAD_MS)
    assert ask(house, Kind.PURCHASE, 1, card, mcc="7995") is Outcome.RULE_DECLINED
    now = to_datetime(house.clock.now_ms())
    ended = end_rule(house.database.engine, rule.rule_id, ended_by="key:ops", now=now)
    assert ended.rule is not None
    assert ended.rule.effective_to_ms == NOW_MS + 2 * SPREAD_MS
    assert ask(house, Kind.PURCHASE, 1, card, mcc="7995") is Outcome.RULE_DECLINED
    house.clock.advance(SPREAD_MS)
    assert ask(house, Kind.PURCHASE, 1, card, mcc="7995") is Outcome.APPROVED


@pytest.mark.parametrize(
    ("rule", "at"),
    [
        (Rule("", "x"), "when"),
        (Rule("", "x", unless=True, limit=TWO_A_DAY.limit), "when"),
        (Rule("", " ", Conditions(mccs=("7995",))), "name"),
        (Rule("", "x", Conditions(mccs=("5814-5811",))), "when.mccs"),
        (Rule("", "x", Conditions(countries=("cn",))), "when.countries"),
        (Rule("", "x", Conditions(channels=("web",))), "when.channels"),
        (Rule("", "x", Conditions(kinds=("refund",))), "when.kinds"),
        (Rule("", "x", Conditions(weekdays=(0,))), "when.weekdays"),
        (Rule("", "x", Conditions(from_minute=600, to_minute=600)), "when.to_minute"),
        (Rule("", "x", Conditions(entry_modes=("051",))), "when.entry_modes"),
        (Rule("", "x", limit=Limit(Window.TRANSACTION, Measure.COUNT, 1)), "limit.measure"),
        (Rule("", "x", limit=Limit(Window.DAY, Measure.COUNT, -1)), "limit.maximum"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_with_the_place(
    house: IssuingHouse, rule: Rule, at: str
) -> None:
    refused = create_rule(
        house.database.engine, Scope.PRODUCT, "standard", rule, created_by="key:ops", now=NOW
    )
    assert refused.outcome is ControlOutcome.RULE_INVALID
    assert [fault.at for fault in refused.faults] == [at]


def test_rules_need_a_subject_and_products_a_name_of_their_own(house: IssuingHouse) -> None:
    engine = house.database.engine
    for scope, subject in (
        (Scope.PRODUCT, "nothing"),
        (Scope.ACCOUNT, "999999"),
        (Scope.ACCOUNT, "x"),
        (Scope.CARD, "00" * 16),
        (Scope.CARD, "short"),
    ):
        done = create_rule(engine, scope, subject, BETTING, created_by="key:ops", now=NOW)
        assert done.outcome is ControlOutcome.SUBJECT_UNKNOWN
    terms = Terms(purses=(PurseTerms("main", fallback=("meal",)), PurseTerms("meal")), uses=3)
    made = create_product(engine, product_id="meal", name="Meal", terms=terms, now=NOW)
    assert made.outcome is ControlOutcome.DONE
    made = create_product(engine, product_id="meal", name="Meal", terms=terms, now=NOW)
    assert made.outcome is ControlOutcome.PRODUCT_TAKEN
    wrong = Terms(purses=(PurseTerms("main", fallback=("gone",)),), uses=0, time_zone="Mars/Base")
    made = create_product(engine, product_id="wrong", name="Wrong", terms=wrong, now=NOW)
    assert [fault.at for fault in made.faults] == ["purses.fallback", "uses", "time_zone"]


def test_a_back_test_counts_what_the_rule_would_have_declined(house: IssuingHouse) -> None:
    card = house.card(10_000)
    for _ in range(5):
        assert ask(house, Kind.PURCHASE, 100, card) is Outcome.APPROVED
    # The ledger's clock is the database's, which is behind the books' one here.
    heard: list[int] = []
    tried = backtest_rule(
        house.database.engine.connect,
        Scope.PRODUCT,
        "standard",
        TWO_A_DAY,
        now=NOW,
        days=30,
        on_progress=heard.append,
    )
    assert (tried.result.examined, tried.result.concerned) == (5, 5)
    assert (tried.result.declined_count, tried.result.declined_amount) == (3, 300)
    assert tried.complete
    assert heard == [5]
    part = backtest_rule(
        house.database.engine.connect,
        Scope.CARD,
        card.card_token.hex(),
        TWO_A_DAY,
        now=NOW,
        days=30,
        maximum=3,
    )
    assert (part.result.examined, part.result.declined_count, part.complete) == (3, 1, False)


def test_a_back_test_sees_the_channel_that_the_decision_saw(house: IssuingHouse) -> None:
    card = house.card(10_000)
    for channel, entry_mode in (("pos", "051"), ("ecommerce", "012"), ("pos", "012")):
        more = {"channel": channel, "entry_mode": entry_mode}
        assert ask(house, Kind.PURCHASE, 100, card, **more) is Outcome.APPROVED
    for channel, concerned in (("ecommerce", 1), ("manual", 1), ("pos", 2), ("chip", 1)):
        limit = Limit(Window.TRANSACTION, Measure.AMOUNT, 50)
        rule = Rule("r", "small ones", Conditions(channels=(channel,)), limit=limit)
        tried = backtest_rule(
            house.database.engine.connect, Scope.PRODUCT, "standard", rule, now=NOW, days=30
        )
        assert (tried.result.examined, tried.result.concerned) == (3, concerned), channel


def test_later_terms_are_in_force_from_their_moment_and_not_by_their_maker(
    house: IssuingHouse,
) -> None:
    engine, at_ms = house.database.engine, house.clock.now_ms()
    create_product(engine, product_id="three", name="Three", terms=Terms(uses=3), now=NOW)
    card = house.card(1_000, product_id="three")
    proposal: dict[str, Any] = {
        "effective_from_ms": at_ms + DAY_MS,
        "reason": "one is enough",
        "made_by": "key:anna",
        "idempotency_key": "three-to-one",
        "now": NOW,
    }

    def proposed(terms: Terms, **changes: Any) -> TermsResult:
        return propose_terms(engine, ISSUER, "three", terms, **proposal | changes)

    assert proposed(Terms(uses=1)) == proposed(Terms(uses=1)) == TermsResult(DONE, 2)
    assert proposed(Terms(uses=2)).outcome is TermsOutcome.KEY_REUSED
    other = Terms(uses=0, purses=(PurseTerms("meal"),), time_zone="UTC")
    faults = proposed(Terms(uses=0), idempotency_key="wrong-one").faults
    assert [fault.at for fault in faults] == ["uses"]
    other = msgspec.structs.replace(other, uses=1)
    faults = proposed(other, idempotency_key="wrong-two").faults
    assert [fault.at for fault in faults] == ["purses.name", "time_zone"]

    def approved(by: str) -> TermsOutcome:
        return approve_terms(engine, "three", 2, checked_by=by, now=NOW).outcome

    assert ask(house, Kind.PURCHASE, 10, card) is Outcome.APPROVED  # proposed isn't in force
    assert approved("key:anna") is TermsOutcome.MAKER_IS_CHECKER
    assert [approved("key:ben"), approved("key:ben")] == [DONE, DONE]
    assert approved("key:carl") is TermsOutcome.TERMS_DECIDED
    with pytest.raises(psycopg.Error, match="append-only"):
        rows(house, "DELETE FROM product_terms")
    assert ask(house, Kind.PURCHASE, 10, card) is Outcome.APPROVED  # not yet
    house.clock.advance(DAY_MS)
    assert ask(house, Kind.PURCHASE, 10, card) is not Outcome.APPROVED


def test_an_engine_in_use_takes_later_terms_at_their_moment(house: IssuingHouse) -> None:
    engine = house.database.engine
    create_product(engine, product_id="soon", name="Soon", terms=Terms(), now=NOW)
    card = house.card(1_000, product_id="soon")
    propose_terms(
        engine,
        ISSUER,
        "soon",
        Terms(uses=1),
        effective_from_ms=0,
        reason="at once",
        made_by="key:anna",
        idempotency_key="soon-used-up",
        now=NOW,
    )
    running = house.engine()

    async def buys() -> list[Outcome]:
        first = await running.submit([house.request(Kind.PURCHASE, 10, card)])
        approve_terms(engine, "soon", 2, checked_by="key:ben", now=NOW)
        house.clock.advance(SPREAD_MS)
        await asyncio.sleep(SPREAD_MS / 1000 + 0.05)
        second = await running.submit([house.request(Kind.PURCHASE, 10, card)])
        return [first[0].outcome, second[0].outcome]

    first, second = asyncio.run(buys())
    assert first is Outcome.APPROVED
    assert second is not Outcome.APPROVED


# --- simulation --------------------------------------------------------------------------------


def supposed(house: IssuingHouse, card: IssuedCard, amount: int, **more: Any) -> Simulated:
    fields: dict[str, Any] = {"kind": Kind.PURCHASE, "amount": amount, "currency": "CNY"}
    found = simulate(
        house.database.engine,
        ISSUER,
        Supposed(**fields | more),
        card_token=card.card_token,
        account_id=None,
        now_ms=house.clock.now_ms(),
    )
    assert isinstance(found, Simulated)
    return found


def test_a_simulation_says_what_would_be_answered_and_posts_nothing(house: IssuingHouse) -> None:
    purses = (PurseTerms("meal", ("5411",), ("main",)), PurseTerms("main"))
    house.product("meal", Terms(purses=purses))
    card = house.card(0, "meal")
    load(house, card, 300, "key-1", purse="meal")
    load(house, card, 700, "key-2", purse="main")
    limit = Limit(Window.DAY, Measure.AMOUNT, 800)
    make_rule(house, Scope.ACCOUNT, str(card.account_id), Rule("", "800 a day", limit=limit))
    before = house.account(card)
    found = supposed(house, card, 500)
    assert found.decision.outcome is Outcome.APPROVED
    meal, main = (purse.account_id for purse in before.purses)
    assert found.decision.detail.parts == ((meal, 300), (main, 200))
    assert (found.before.balance, found.after.balance) == (1_000, 500)
    [seen] = found.rules
    assert (seen.used, seen.would_be, seen.reason) == (0, 500, None)
    assert ask(house, Kind.PURCHASE, 500, card) is Outcome.APPROVED
    after = house.account(card)
    assert after.version == before.version + 1
    assert after.balance == found.after.balance
    declined = supposed(house, card, 400)
    assert declined.decision.outcome is Outcome.AMOUNT_LIMIT
    [seen] = declined.rules
    assert (seen.used, seen.would_be) == (500, 900)
    assert seen.reason == declined.decision.detail.reason
    assert declined.after.balance == declined.before.balance
    tomorrow = supposed(house, card, 400, at_ms=house.clock.now_ms() + DAY_MS)
    assert tomorrow.decision.outcome is Outcome.APPROVED
    assert house.account(card) == after


def test_what_cannot_be_simulated(house: IssuingHouse) -> None:
    question = Supposed(kind=Kind.PURCHASE, amount=0, currency="CNY", merchant_id=MERCHANT)

    def asked(card_token: bytes | None, account_id: int | None) -> Simulated | str | None:
        return simulate(
            house.database.engine,
            ISSUER,
            question,
            card_token=card_token,
            account_id=account_id,
            now_ms=NOW_MS,
        )

    card = house.card(0)
    assert asked(bytes(16), None) is None
    assert asked(None, 999_999) is None
    assert asked(None, card.account_id) == "amount is out of range"
    # Not even the further purses of a new account are opened by a question.
    house.product("meal", Terms(purses=(PurseTerms("main"), PurseTerms("meal"))))
    new = house.card(0, "meal")
    count = rows(house, "SELECT count(*) FROM accounts")
    assert supposed(house, new, 1).decision.outcome is Outcome.INSUFFICIENT_FUNDS
    assert rows(house, "SELECT count(*) FROM accounts") == count


def test_the_history_of_an_account_is_all_its_versions(house: IssuingHouse) -> None:
    card = house.card(100)
    ask(house, Kind.PURCHASE, 60, card)
    ask(house, Kind.PURCHASE, 60, card)
    set_account(house, card, AccountStatus.FROZEN)
    with house.database.engine.connect() as connection:
        found = queries.versions_of(connection, card.account_id, limit=3)
        older = queries.versions_of(connection, card.account_id, limit=3, before=2)
    assert [version.state.version for version in (*found, *older)] == [4, 3, 2, 1]
    assert found[0].transaction is None
    assert found[1].detail.reason is not None
    assert found[1].detail.reason.values == {
        "amount": 60,
        "available": 40,
        "balance": 40,
        "held": 0,
    }
