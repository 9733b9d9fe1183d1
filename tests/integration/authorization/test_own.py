"""The issuer's own transactions and what people change, on a real database beside real engines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from nodes.authorization.controls import (
    PurseTerms,
    Terms,
)
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations.adjusting import (
    AdjustmentOutcome,
    AdjustmentResult,
    approve_adjustment,
    propose_adjustment,
    reject_adjustment,
)
from nodes.authorization.operations.expiring import expire_holds
from nodes.authorization.operations.own import (
    LoadOutcome,
    TransferOutcome,
    TransferResult,
    transfer_between_cards,
)
from nodes.cards.model import CardStatus, IssuedCard
from nodes.clock import to_datetime
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import NodeDatabase
from tests.factories.issuing import ISSUER, IssuingHouse
from tests.integration.authorization.owning import (
    DAY_MS,
    NOW,
    ask,
    load,
    rows,
    set_status,
)

ZONE = "Asia/Shanghai"


@pytest.fixture
def house(database: NodeDatabase) -> Iterator[IssuingHouse]:
    made = IssuingHouse(database)
    yield made
    made.close()
    assert check_invariants(database.engine) == []


def transfer(
    house: IssuingHouse, source: IssuedCard, to: IssuedCard, amount: int, key: str
) -> TransferResult:
    return transfer_between_cards(
        house.database.engine,
        ISSUER,
        from_token=source.card_token,
        to_token=to.card_token,
        amount=amount,
        currency="CNY",
        reference="lunch",
        idempotency_key=key,
        now=to_datetime(house.clock.now_ms()),
    )


# --- loads -------------------------------------------------------------------------------------


def test_a_load_whose_answer_was_lost_gets_the_same_one_again(house: IssuingHouse) -> None:
    card = house.card(0)
    first = load(house, card, 500, "key-1")
    assert (first.outcome, first.balance) == (LoadOutcome.DONE, 500)
    load(house, card, 70, "key-2")
    house.clock.advance(2 * DAY_MS)  # a repeat after midnight is the same repeat
    assert load(house, card, 500, "key-1") == first
    assert load(house, card, 501, "key-1").outcome is LoadOutcome.KEY_REUSED
    assert house.account(card).balance == 570
    [(kind, version, pair, seq)] = rows(
        house,
        "SELECT kind, account_version, pair_seq, terminal_seq FROM transactions WHERE txid = %s",
        first.txid,
    )
    assert (kind, version, pair, seq) == ("load", 1, 0, 0)


def test_loads_at_one_moment_all_count(house: IssuingHouse) -> None:
    card = house.card(0)
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda n: load(house, card, 10, f"key-{n % 3}"), range(6)))
    assert {result.outcome for result in results} == {LoadOutcome.DONE}
    assert len({result.txid for result in results}) == 3
    account = house.account(card)
    assert (account.balance, account.version, account.loads) == (30, 3, 3)


def test_loads_beside_purchases_of_a_running_engine(house: IssuingHouse) -> None:
    card = house.card(1_000)
    engine = house.engine()

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        loads = [
            loop.run_in_executor(None, load, house, card, 100, f"beside-{n}") for n in range(6)
        ]
        for _ in range(30):
            [answer] = await engine.submit([house.request(Kind.PURCHASE, 10, card)])
            assert answer.outcome is Outcome.APPROVED
        assert {(await one).outcome for one in loads} == {LoadOutcome.DONE}

    asyncio.run(scene())
    assert house.account(card).balance == 1_000 + 600 - 300


@pytest.mark.parametrize("status", ["lost", "stolen", "cancelled"])
def test_an_ended_card_takes_no_load(house: IssuingHouse, status: str) -> None:
    card = house.card(0)
    set_status(house, card, CardStatus(status))
    assert load(house, card, 10, "key-1").outcome is LoadOutcome.CARD_ENDED


def test_what_a_load_is_refused_for(house: IssuingHouse) -> None:
    house.product("gift", Terms(reloadable=False))
    house.product("small", Terms(max_balance=1_000))
    gift, small = house.card(500, "gift"), house.card(0, "small")
    assert load(house, gift, 1, "key-1").outcome is LoadOutcome.NOT_RELOADABLE
    assert load(house, small, 1_001, "key-2").outcome is LoadOutcome.OVER_MAX_BALANCE
    assert load(house, small, 1_000, "key-3").outcome is LoadOutcome.DONE
    refused = load(house, small, 1, "key-4")
    assert refused.outcome is LoadOutcome.OVER_MAX_BALANCE
    assert refused.reason is not None
    assert refused.reason.values == {"amount": 1, "balance": 1_000, "max_balance": 1_000}
    assert load(house, gift, 1, "key-5", currency="EUR").outcome is (
        LoadOutcome.CURRENCY_NOT_PERMITTED
    )
    assert load(house, gift, 0, "key-6").outcome is LoadOutcome.AMOUNT_INVALID
    assert load(house, gift, 1, "key-7", card_token=bytes(16)).outcome is LoadOutcome.CARD_UNKNOWN
    assert load(house, small, 1, "key-8", purse="meal").outcome is LoadOutcome.PURSE_UNKNOWN


def test_a_load_into_a_purse_of_its_own(house: IssuingHouse) -> None:
    purses = (PurseTerms("main"), PurseTerms("meal", ("5811-5814",), ("main",)))
    house.product("meal", Terms(purses=purses))
    card = house.card(300, "meal")
    assert load(house, card, 40, "key-1", purse="meal").balance == 340
    account = house.account(card)
    assert [(purse.name, purse.balance) for purse in account.purses] == [
        ("main", 300),
        ("meal", 40),
    ]


# --- adjustments -------------------------------------------------------------------------------


def propose(house: IssuingHouse, card: IssuedCard, amount: int, key: str) -> AdjustmentResult:
    return propose_adjustment(
        house.database.engine,
        ISSUER,
        account_id=card.account_id,
        amount=amount,
        currency="CNY",
        reason="fee charged twice",
        made_by="key:maker",
        idempotency_key=key,
        now=NOW,
    )


def approve(house: IssuingHouse, number: int, by: str, key: str) -> AdjustmentResult:
    return approve_adjustment(
        house.database.engine, ISSUER, number, checked_by=by, idempotency_key=key, now=NOW
    )


def test_an_adjustment_is_posted_by_another_than_its_maker(house: IssuingHouse) -> None:
    card = house.card(1_000)
    made = propose(house, card, -250, "make-1")
    assert made.adjustment_id is not None
    assert propose(house, card, -250, "make-1") == made
    assert house.account(card).balance == 1_000
    refused = approve(house, made.adjustment_id, "key:maker", "check-1")
    assert refused.outcome is AdjustmentOutcome.MAKER_IS_CHECKER
    posted = approve(house, made.adjustment_id, "key:checker", "check-2")
    assert (posted.outcome, posted.balance) == (AdjustmentOutcome.DONE, 750)
    assert approve(house, made.adjustment_id, "key:checker", "check-2") == posted
    again = approve(house, made.adjustment_id, "key:checker", "check-3")
    assert again.outcome is AdjustmentOutcome.ADJUSTMENT_DECIDED
    assert house.account(card).balance == 750
    assert rows(house, "SELECT kind, amount FROM transactions WHERE txid = %s", posted.txid) == [
        ("adjustment", 250)
    ]


def test_the_database_refuses_a_maker_who_checks(house: IssuingHouse) -> None:
    made = propose(house, house.card(0), 250, "make-1")
    with (
        psycopg.connect(house.database.dsn) as connection,
        pytest.raises(psycopg.errors.CheckViolation),
    ):
        connection.execute(
            "UPDATE adjustments SET state = 'rejected', checked_by = made_by, checked_at = now()"
            " WHERE adjustment_id = %s",
            (made.adjustment_id,),
        )


def test_approved_twice_at_one_moment_it_is_posted_once(house: IssuingHouse) -> None:
    card = house.card(0)
    number = propose(house, card, 250, "make-1").adjustment_id
    assert number is not None
    with ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(lambda n: approve(house, number, f"key:checker-{n}", f"check-{n}"), range(4))
        )
    outcomes = sorted(result.outcome.value for result in results)
    assert outcomes == ["adjustment_decided"] * 3 + ["done"]
    assert house.account(card).balance == 250


def test_without_funds_an_adjustment_stays_proposed_and_can_be_rejected(
    house: IssuingHouse,
) -> None:
    card = house.card(100)
    number = propose(house, card, -101, "make-1").adjustment_id
    assert number is not None
    refused = approve(house, number, "key:checker", "check-1")
    assert refused.outcome is AdjustmentOutcome.INSUFFICIENT_FUNDS

    def reject(by: str) -> AdjustmentOutcome:
        return reject_adjustment(house.database.engine, number, checked_by=by, now=NOW)

    assert reject("key:maker") is AdjustmentOutcome.MAKER_IS_CHECKER
    assert reject("key:checker") is AdjustmentOutcome.DONE
    assert reject("key:checker") is AdjustmentOutcome.DONE
    assert reject("key:other") is AdjustmentOutcome.ADJUSTMENT_DECIDED
    later = approve(house, number, "key:checker", "check-2")
    assert later.outcome is AdjustmentOutcome.ADJUSTMENT_DECIDED
    assert house.account(card).balance == 100


# --- transfers ---------------------------------------------------------------------------------


def test_a_transfer_moves_money_once_with_a_version_at_both_ends(house: IssuingHouse) -> None:
    house.product("giving", Terms(transfers=True))
    giver, taker = house.card(1_000, "giving"), house.card(50)
    made = transfer(house, giver, taker, 300, "key-1")
    assert (made.outcome, made.balance, made.to_balance) == (TransferOutcome.DONE, 700, 350)
    assert transfer(house, giver, taker, 300, "key-1") == made
    assert transfer(house, giver, taker, 301, "key-1").outcome is TransferOutcome.KEY_REUSED
    assert (house.account(giver).balance, house.account(taker).balance) == (700, 350)
    versions = rows(
        house,
        "SELECT v.account_id FROM account_versions v JOIN transactions t USING (transaction_id)"
        " WHERE t.txid = %s ORDER BY 1",
        made.txid,
    )
    assert [account for (account,) in versions] == sorted([giver.account_id, taker.account_id])


def test_what_a_transfer_is_refused_for(house: IssuingHouse) -> None:
    house.product("giving", Terms(transfers=True))
    house.product("small", Terms(max_balance=100))
    giver, plain, small = house.card(1_000, "giving"), house.card(50), house.card(50, "small")
    assert transfer(house, plain, giver, 1, "key-1").outcome is (
        TransferOutcome.TRANSFER_NOT_PERMITTED
    )
    assert transfer(house, giver, giver, 1, "key-2").outcome is (
        TransferOutcome.TRANSFER_NOT_PERMITTED
    )
    assert transfer(house, giver, plain, 1_001, "key-3").outcome is (
        TransferOutcome.INSUFFICIENT_FUNDS
    )
    assert transfer(house, giver, small, 51, "key-4").outcome is TransferOutcome.OVER_MAX_BALANCE
    set_status(house, plain, CardStatus.BLOCKED)
    assert transfer(house, giver, plain, 1, "key-5").outcome is TransferOutcome.CARD_NOT_ACTIVE
    assert house.account(giver).balance == 1_000


def test_transfers_that_cross_all_stand(house: IssuingHouse) -> None:
    house.product("giving", Terms(transfers=True))
    one, two = house.card(1_000, "giving"), house.card(1_000, "giving")

    def move(number: int) -> TransferOutcome:
        ends = (one, two) if number % 2 else (two, one)
        return transfer(house, *ends, 10, f"key-{number}").outcome

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(move, range(8))) == {TransferOutcome.DONE}
    assert house.account(one).balance == house.account(two).balance == 1_000


# --- holds that end ----------------------------------------------------------------------------


def sweep(house: IssuingHouse) -> int:
    return expire_holds(house.database.engine, ISSUER, house.clock.now_ms(), ZONE)


def test_a_quiet_accounts_hold_is_released_by_the_sweep_once(house: IssuingHouse) -> None:
    house.product("short", Terms(hold_seconds=60))
    cards = [house.card(1_000, "short") for _ in range(3)]
    for card in cards[:2]:
        assert ask(house, Kind.AUTHORIZATION, 400, card) is Outcome.APPROVED
    assert sweep(house) == 0
    house.clock.advance(60_000)
    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(lambda _: sweep(house), range(2))) == 2
    assert sweep(house) == 0
    for card in cards[:2]:
        account = house.account(card)
        assert (account.balance, account.held, account.holds) == (1_000, 0, ())
    found = rows(
        house,
        "SELECT e.amount, o.kind FROM transactions e"
        " JOIN transactions o ON o.txid = e.original_txid WHERE e.kind = 'expiry'",
    )
    assert found == [(400, "authorization")] * 2
    assert rows(house, "SELECT count(*) FROM hold_deadlines") == [(0,)]


def test_a_hold_that_a_decision_has_released_is_not_released_again(house: IssuingHouse) -> None:
    house.product("short", Terms(hold_seconds=60))
    card = house.card(1_000, "short")
    assert ask(house, Kind.AUTHORIZATION, 400, card) is Outcome.APPROVED
    house.clock.advance(60_000)
    assert ask(house, Kind.PURCHASE, 1_000, card) is Outcome.APPROVED
    assert sweep(house) == 0
    assert house.account(card).balance == 0
