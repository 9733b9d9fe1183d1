"""The issuer's own transactions: loads, corrections, transfers; and what people change."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nodes import money
from nodes.authorization import rules
from nodes.authorization.controls import Conditions, Limit, Measure, Rule, Terms, Window
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.state import CardStanding, Hold, Move, Purse, Side
from tests.unit.authorization.cases import CARD, OTHER_CARD, START_MS, Books, account


def test_an_account_without_versions_is_version_0() -> None:
    first = rules.first_snapshot(100, "CNY", ((100, "main"), (200, "meal")), {1: "inactive"})
    assert (first.version, first.available, first.status) == (0, 0, "open")
    assert first.purses == (Purse(100, "main"), Purse(200, "meal"))
    assert first.cards == {1: CardStanding("inactive")}


@pytest.mark.parametrize(
    ("amount", "outcome"),
    [
        (-1, Outcome.AMOUNT_INVALID),
        (0, Outcome.AMOUNT_INVALID),
        (1, Outcome.APPROVED),
        (money.MAX_TRANSACTION_AMOUNT, Outcome.APPROVED),
        (money.MAX_TRANSACTION_AMOUNT + 1, Outcome.AMOUNT_INVALID),
    ],
)
def test_a_load_is_of_an_amount_that_can_be_posted(amount: int, outcome: Outcome) -> None:
    assert Books().load(amount).outcome is outcome


@pytest.mark.parametrize(
    ("card", "frozen", "outcome"),
    [
        ("active", "open", Outcome.APPROVED),
        ("inactive", "open", Outcome.APPROVED),
        ("blocked", "open", Outcome.APPROVED),
        ("active", "frozen", Outcome.APPROVED),
        ("active", "closed", Outcome.ACCOUNT_FROZEN),
        ("lost", "closed", Outcome.CARD_LOST),
        ("stolen", "open", Outcome.CARD_STOLEN),
        ("cancelled", "open", Outcome.CARD_BLOCKED),
    ],
)
def test_a_card_that_has_ended_takes_no_load(card: str, frozen: str, outcome: Outcome) -> None:
    books = Books(account(0, cards={1: CardStanding(card)}, status=frozen))
    decision = books.load(50)
    assert decision.outcome is outcome
    assert books.account.balance == (50 if outcome is Outcome.APPROVED else 0)
    assert books.account.version == 2


def test_a_card_that_is_not_reloadable_takes_one_load() -> None:
    books = Books(account(0), Terms(reloadable=False, max_balance=100))
    assert books.load(101).outcome is Outcome.AMOUNT_LIMIT
    assert books.load(50).outcome is Outcome.APPROVED
    assert books.load(50).outcome is Outcome.CARD_NOT_PERMITTED


@pytest.mark.parametrize(
    ("balance", "amount", "outcome"),
    [
        (600, 400, Outcome.APPROVED),
        (600, 401, Outcome.AMOUNT_LIMIT),
        (0, 1_000, Outcome.APPROVED),
    ],
)
def test_the_balance_after_a_load_is_at_most_the_maximum(
    balance: int, amount: int, outcome: Outcome
) -> None:
    decision = Books(account(balance), Terms(max_balance=1_000)).load(amount)
    assert decision.outcome is outcome
    if decision.detail.reason is not None:
        assert decision.detail.reason.values == {
            "amount": 401,
            "balance": 600,
            "max_balance": 1_000,
        }
        assert "maximum of 1000" in rules.explain(decision.detail.reason)


def test_what_repays_a_debt_is_not_on_the_balance() -> None:
    books = Books(account(0, receivable=30), Terms(max_balance=100))
    assert books.load(131).outcome is Outcome.AMOUNT_LIMIT
    assert books.load(130).outcome is Outcome.APPROVED
    assert (books.account.balance, books.account.receivable) == (100, 0)


def test_a_load_goes_into_a_purse_by_name() -> None:
    books = Books(account(purses=(Purse(100, "main"), Purse(200, "meal"))))
    assert books.load(70, purse="meal").moves == (Move(Side.FUNDING, 200, 70),)
    assert books.load(30).moves == (Move(Side.FUNDING, 100, 30),)
    assert books.load(30, purse="bus").outcome is Outcome.CARD_NOT_PERMITTED


def test_rules_about_loads_count_loads() -> None:
    rule = Rule(
        "r", "Loads", Conditions(kinds=("load",)), limit=Limit(Window.DAY, Measure.AMOUNT, 100)
    )
    books = Books(account(0), limits=(rule,))
    assert books.load(100).outcome is Outcome.APPROVED
    assert books.load(1).outcome is Outcome.AMOUNT_LIMIT
    books.pass_ms(86_400_000)
    assert books.load(1).outcome is Outcome.APPROVED


@pytest.mark.parametrize(
    ("amount", "outcome", "balance"),
    [
        (0, Outcome.AMOUNT_INVALID, 100),
        (50, Outcome.APPROVED, 150),
        (-60, Outcome.APPROVED, 40),
        (-61, Outcome.INSUFFICIENT_FUNDS, 100),
    ],
)
@pytest.mark.parametrize("status", ["open", "frozen", "closed"])
def test_a_correction_never_takes_what_is_held(
    amount: int, outcome: Outcome, balance: int, status: str
) -> None:
    held = (Hold(b"h" * 32, ((100, 40),), START_MS + 1),)
    books = Books(account(purses=(Purse(100, "main", 100, 40),), holds=held, status=status))
    decision = rules.decide_adjustment(amount, books.facts(card=None))
    books.keep(decision)
    assert (decision.outcome, books.account.balance) == (outcome, balance)
    if outcome is Outcome.APPROVED:
        assert decision.amount == abs(amount)
        up = Move(Side.ADJUSTMENT, 100, abs(amount))
        assert decision.moves == (up if amount > 0 else Move(100, Side.ADJUSTMENT, -amount),)


def transferable(**changes: Any) -> Books:
    return Books(account(100, **changes), Terms(transfers=True))


def test_a_transfer_moves_from_card_to_card() -> None:
    books = transferable()
    decision = books.transfer(70)
    assert decision.moves == (Move(100, 300, 70),)
    assert (books.account.balance, books.other.balance) == (30, 70)
    assert (books.account.version, books.other.version) == (2, 2)
    assert books.transfer(31).outcome is Outcome.INSUFFICIENT_FUNDS
    assert books.other.version == 2


def test_a_transfer_repays_what_the_other_owes() -> None:
    books = transferable()
    books.other = msgspec.structs.replace(books.other, receivable=50)
    assert books.transfer(70).moves == (Move(100, 300, 70), Move(300, Side.RECEIVABLE, 50))
    assert (books.other.balance, books.other.receivable) == (20, 0)


@pytest.mark.parametrize(
    ("here", "there", "facts", "outcome"),
    [
        ({"cards": {1: CardStanding("blocked")}}, {}, {}, Outcome.CARD_BLOCKED),
        ({}, {"cards": {2: CardStanding("stolen")}}, {}, Outcome.CARD_STOLEN),
        (
            {"cards": {1: CardStanding("blocked")}},
            {"cards": {2: CardStanding("lost")}},
            {},
            Outcome.CARD_LOST,
        ),
        ({}, {"currency": "USD"}, {}, Outcome.CURRENCY_NOT_PERMITTED),
        ({"status": "frozen"}, {}, {}, Outcome.ACCOUNT_FROZEN),
        ({}, {"status": "closed"}, {}, Outcome.ACCOUNT_FROZEN),
        ({}, {"status": "frozen"}, {}, Outcome.APPROVED),
        ({}, {}, {"terms": Terms()}, Outcome.CARD_NOT_PERMITTED),
        ({}, {}, {"to_terms": Terms(max_balance=9)}, Outcome.AMOUNT_LIMIT),
        ({}, {}, {"to_terms": Terms(max_balance=10)}, Outcome.APPROVED),
        ({}, {}, {"to_card": None}, Outcome.CARD_UNKNOWN),
    ],
)
def test_a_transfer_needs_both_sides_in_good_standing(
    here: dict[str, Any], there: dict[str, Any], facts: dict[str, Any], outcome: Outcome
) -> None:
    books = transferable(**here)
    books.terms = facts.pop("terms", books.terms)
    books.other = msgspec.structs.replace(books.other, **there)
    assert books.transfer(10, **facts).outcome is outcome


def test_nobody_transfers_within_an_account() -> None:
    books = transferable(cards={1: CardStanding("active"), 2: CardStanding("active")})
    decision = books.transfer(10, to_card=OTHER_CARD, to_account=books.account)
    assert decision.outcome is Outcome.CARD_NOT_PERMITTED
    assert books.transfer(10, to_card=CARD, to_account=books.account).outcome is (
        Outcome.CARD_NOT_PERMITTED
    )


def test_a_changed_standing_keeps_tries_and_uses_and_is_a_version() -> None:
    books = Books(account(cards={1: CardStanding("active", 2, 7)}))
    books.set_card("blocked")
    assert books.account.cards == {1: CardStanding("blocked", 2, 7)}
    assert books.account.version == 2
    assert books.ask(Kind.PURCHASE, 1).outcome is Outcome.CARD_BLOCKED
    books.set_card("active")
    assert books.ask(Kind.PURCHASE, 1).outcome is Outcome.APPROVED
    unknown = rules.decide_standing(books.facts(), 99, "active")
    assert unknown.outcome is Outcome.CARD_UNKNOWN


def test_a_closed_account_stays_closed() -> None:
    books = Books(account())
    for status in ("frozen", "open", "closed"):
        books.set_account(status)
        assert books.account.status == status
    decision = rules.decide_account_status(books.facts(), "open")
    assert decision.outcome is Outcome.ACCOUNT_FROZEN
