"""Increments, captures, voids, refunds, reversals and expiry: what becomes of a transaction."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nodes.authorization import rules
from nodes.authorization.controls import Limit, Measure, PurseTerms, Rule, Terms, Window
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.state import CardStanding, Hold, Move, Progress, Purse, Side
from tests.unit.authorization.cases import OTHER_CARD, START_MS, Books, account, request

_DAY_MS = 86_400_000


def books_with(kind: Kind, amount: int, balance: int = 1_000, **terms: Any) -> tuple[Books, bytes]:
    """Books in which one transaction of this kind was approved."""
    books = Books(account(balance), Terms(**terms))
    assert books.ask(kind, amount).outcome is Outcome.APPROVED
    return books, books.last


def held_and_balance(books: Books) -> tuple[int, int]:
    return books.account.held, books.account.balance


# -- holds --------------------------------------------------------------------------------------


def test_an_increment_raises_the_hold_and_what_may_be_captured() -> None:
    books, held = books_with(Kind.AUTHORIZATION, 300)
    assert books.ask(Kind.INCREMENT, 200, held).outcome is Outcome.APPROVED
    assert books.originals[held].progress == Progress(500)
    assert held_and_balance(books) == (500, 1_000)
    assert books.ask(Kind.INCREMENT, 501, held).outcome is Outcome.INSUFFICIENT_FUNDS
    assert books.ask(Kind.CAPTURE, 501, held).outcome is Outcome.OVER_ORIGINAL_AMOUNT
    assert books.ask(Kind.CAPTURE, 500, held).outcome is Outcome.APPROVED
    assert held_and_balance(books) == (0, 500)
    assert books.ask(Kind.INCREMENT, 1, held).outcome is Outcome.HOLD_ENDED


def test_an_increment_keeps_the_time_at_which_the_hold_ends() -> None:
    books, held = books_with(Kind.AUTHORIZATION, 300, hold_seconds=60)
    books.pass_ms(59_999)
    assert books.ask(Kind.INCREMENT, 1, held).outcome is Outcome.APPROVED
    assert books.account.holds == (Hold(held, ((100, 301),), START_MS + 60_000),)
    books.pass_ms(1)
    assert books.ask(Kind.INCREMENT, 1, held).outcome is Outcome.HOLD_ENDED


@pytest.mark.parametrize(
    ("card", "frozen", "outcome"),
    [
        ("lost", "open", Outcome.CARD_LOST),
        ("blocked", "frozen", Outcome.CARD_BLOCKED),
        ("active", "frozen", Outcome.ACCOUNT_FROZEN),
    ],
)
def test_an_increment_is_new_spending_and_a_capture_is_not(
    card: str, frozen: str, outcome: Outcome
) -> None:
    books, held = books_with(Kind.AUTHORIZATION, 300)
    books.set_card(card)
    books.set_account(frozen)
    assert books.ask(Kind.INCREMENT, 1, held).outcome is outcome
    assert books.ask(Kind.CAPTURE, 300, held).outcome is Outcome.APPROVED


@pytest.mark.parametrize(
    ("captures", "final", "held"),
    [
        ([300], False, 0),
        ([100], False, 200),
        ([100], True, 0),
        ([100, 150], False, 50),
        ([100, 150], True, 0),
        ([100, 100, 100], False, 0),
    ],
)
def test_captures_take_from_the_hold_and_a_final_one_frees_the_rest(
    captures: list[int], final: bool, held: int
) -> None:
    books, authorization = books_with(Kind.AUTHORIZATION, 300)
    for number, amount in enumerate(captures):
        last = final and number == len(captures) - 1
        decision = books.ask(Kind.CAPTURE, amount, authorization, final=last)
        assert decision.outcome is Outcome.APPROVED
        assert decision.moves == (Move(100, Side.SETTLEMENT, amount),)
    assert held_and_balance(books) == (held, 1_000 - sum(captures))
    assert books.originals[authorization].progress.captured == sum(captures)
    expected = Outcome.HOLD_ENDED if held == 0 else Outcome.APPROVED
    assert books.ask(Kind.CAPTURE, 1, authorization).outcome is expected


@pytest.mark.parametrize(
    ("amount", "balance", "outcome"),
    [
        (345, 1_000, Outcome.APPROVED),
        (346, 1_000, Outcome.OVER_ORIGINAL_AMOUNT),
        (345, 345, Outcome.APPROVED),
        (345, 344, Outcome.INSUFFICIENT_FUNDS),
        (300, 300, Outcome.APPROVED),
    ],
)
def test_a_capture_exceeds_the_hold_within_the_tolerance_of_its_mcc(
    amount: int, balance: int, outcome: Outcome
) -> None:
    percents = {"5411": 15, "5400-5499": 99}
    books, held = books_with(
        Kind.AUTHORIZATION, 300, balance=balance, over_capture_percent=percents
    )
    assert books.ask(Kind.CAPTURE, amount, held).outcome is outcome


def test_what_a_capture_takes_beyond_the_hold_is_not_for_a_frozen_account() -> None:
    books, held = books_with(Kind.AUTHORIZATION, 300, over_capture_percent={"5400-5499": 10})
    books.set_account("frozen")
    assert books.ask(Kind.CAPTURE, 301, held).outcome is Outcome.ACCOUNT_FROZEN
    assert books.ask(Kind.CAPTURE, 331, held).outcome is Outcome.OVER_ORIGINAL_AMOUNT
    assert books.ask(Kind.CAPTURE, 300, held).outcome is Outcome.APPROVED


def test_all_captures_together_stay_within_the_tolerance() -> None:
    books, held = books_with(Kind.AUTHORIZATION, 100, over_capture_percent={"5411": 10})
    assert books.ask(Kind.CAPTURE, 90, held).outcome is Outcome.APPROVED
    assert books.ask(Kind.CAPTURE, 21, held).outcome is Outcome.OVER_ORIGINAL_AMOUNT
    assert books.ask(Kind.CAPTURE, 20, held).outcome is Outcome.APPROVED
    assert held_and_balance(books) == (0, 890)


@pytest.mark.parametrize(("late_ms", "outcome"), [(-1, Outcome.APPROVED), (0, Outcome.HOLD_ENDED)])
def test_a_hold_ends_at_its_moment_for_captures_too(late_ms: int, outcome: Outcome) -> None:
    books, held = books_with(Kind.AUTHORIZATION, 300, hold_seconds=60)
    books.pass_ms(60_000 + late_ms)
    decision = books.ask(Kind.CAPTURE, 300, held)
    assert decision.outcome is outcome
    assert books.account.held == 0
    assert books.account.balance == (700 if outcome is Outcome.APPROVED else 1_000)


def test_expiry_releases_what_is_due_and_is_nothing_where_nothing_is() -> None:
    books, first = books_with(Kind.AUTHORIZATION, 300, hold_seconds=60)
    books.pass_ms(1_000)
    books.ask(Kind.AUTHORIZATION, 200)
    assert rules.decide_expiry(books.facts()) is None
    books.pass_ms(59_000)
    decision = rules.decide_expiry(books.facts())
    assert decision is not None
    assert (decision.outcome, decision.amount) == (Outcome.APPROVED, 300)
    assert decision.detail.expired == ((first, 300),)
    books.keep(decision)
    assert held_and_balance(books) == (200, 1_000)
    assert rules.decide_expiry(books.facts()) is None


def test_holds_over_several_purses_are_taken_in_order_and_freed_from_the_end() -> None:
    terms = Terms(purses=(PurseTerms("meal", fallback=("main",)), PurseTerms("main")))
    purses = (Purse(100, "main", 100), Purse(200, "meal", 50))
    books = Books(account(purses=purses), terms)
    books.ask(Kind.AUTHORIZATION, 80)
    held = books.last
    books.ask(Kind.REVERSAL, 10, held)
    assert books.account.holds[0].parts == ((200, 50), (100, 20))
    assert books.ask(Kind.CAPTURE, 60, held).detail.parts == ((200, 50), (100, 10))
    assert books.account.purses == (Purse(100, "main", 90, 10), Purse(200, "meal", 0, 0))
    captured = books.last
    refund = books.ask(Kind.REFUND, 30, captured)
    assert refund.detail.parts == ((100, 10), (200, 20))
    again = books.ask(Kind.REFUND, 30, captured)
    assert again.detail.parts == ((200, 30),)


# -- voids --------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [0, 300])
def test_a_void_frees_what_is_held_and_lets_captures_stand(asked: int) -> None:
    books, held = books_with(Kind.AUTHORIZATION, 300)
    books.ask(Kind.CAPTURE, 100, held)
    decision = books.ask(Kind.VOID, asked, held)
    assert (decision.outcome, decision.amount, decision.moves) == (Outcome.APPROVED, 200, ())
    assert decision.detail.requested == asked
    assert held_and_balance(books) == (0, 900)
    for kind in (Kind.VOID, Kind.CAPTURE, Kind.INCREMENT):
        assert books.ask(kind, 300, held).outcome is Outcome.ALREADY_REVERSED
    assert books.account.cards[1].uses == 1


def test_a_void_of_an_unused_authorization_gives_the_use_and_the_windows_back() -> None:
    limit = Limit(Window.DAY, Measure.AMOUNT, 500)
    books = Books(account(1_000), Terms(uses=1), (Rule("r", "R", limit=limit),))
    books.ask(Kind.AUTHORIZATION, 300)
    assert books.ask(Kind.VOID, 0, books.last).amount == 300
    assert books.account.cards[1].uses == 0
    assert (books.account.counters["r"].amount, books.account.counters["r"].count) == (0, 0)
    assert books.ask(Kind.PURCHASE, 500).outcome is Outcome.APPROVED


def test_a_void_of_a_purchase_gives_it_back_once() -> None:
    books, bought = books_with(Kind.PURCHASE, 300)
    assert books.ask(Kind.VOID, 299, bought).outcome is Outcome.ORIGINAL_MISMATCH
    assert books.ask(Kind.VOID, 300, bought).moves == (Move(Side.SETTLEMENT, 100, 300),)
    assert books.account.balance == 1_000
    assert books.ask(Kind.VOID, 300, bought).outcome is Outcome.ALREADY_REVERSED
    assert books.ask(Kind.REVERSAL, 300, bought).outcome is Outcome.ALREADY_REVERSED
    assert books.ask(Kind.REFUND, 300, bought).outcome is Outcome.ALREADY_REVERSED


def test_a_void_after_a_refund_is_refused_and_after_a_partial_reversal_gives_the_rest() -> None:
    books, bought = books_with(Kind.PURCHASE, 300)
    books.ask(Kind.REVERSAL, 100, bought)
    assert books.ask(Kind.VOID, 0, bought).amount == 200
    assert books.account.balance == 1_000
    books, bought = books_with(Kind.PURCHASE, 300)
    books.ask(Kind.REFUND, 1, bought)
    assert books.ask(Kind.VOID, 0, bought).outcome is Outcome.ORIGINAL_MISMATCH


def test_a_voided_capture_may_be_captured_again_while_the_hold_is_open() -> None:
    books, held = books_with(Kind.AUTHORIZATION, 300)
    books.ask(Kind.CAPTURE, 100, held)
    assert books.ask(Kind.VOID, 100, books.last).outcome is Outcome.APPROVED
    assert books.originals[held].progress.captured == 0
    assert held_and_balance(books) == (200, 1_000)
    assert books.ask(Kind.CAPTURE, 301, held).outcome is Outcome.OVER_ORIGINAL_AMOUNT
    assert books.ask(Kind.CAPTURE, 300, held).outcome is Outcome.APPROVED
    assert held_and_balance(books) == (0, 700)


# -- refunds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.PURCHASE, Kind.ADVICE])
def test_refunds_come_to_what_was_taken_at_most(kind: Kind) -> None:
    books, bought = books_with(kind, 300)
    steps = [(100, Outcome.APPROVED), (201, Outcome.OVER_ORIGINAL_AMOUNT), (200, Outcome.APPROVED)]
    for amount, outcome in [*steps, (1, Outcome.OVER_ORIGINAL_AMOUNT)]:
        assert books.ask(Kind.REFUND, amount, bought).outcome is outcome
    assert books.account.balance == 1_000


def test_refund_and_partial_reversal_share_what_was_taken() -> None:
    books, bought = books_with(Kind.PURCHASE, 300)
    books.ask(Kind.REVERSAL, 100, bought)
    assert books.ask(Kind.REFUND, 201, bought).outcome is Outcome.OVER_ORIGINAL_AMOUNT
    assert books.ask(Kind.REFUND, 200, bought).outcome is Outcome.APPROVED
    assert books.ask(Kind.REVERSAL, 1, bought).outcome is Outcome.ORIGINAL_MISMATCH


def test_an_authorization_and_a_declined_purchase_have_nothing_to_refund() -> None:
    books, held = books_with(Kind.AUTHORIZATION, 300)
    assert books.ask(Kind.REFUND, 1, held).outcome is Outcome.ORIGINAL_NOT_FOUND
    books.ask(Kind.PURCHASE, 2_000)
    assert books.ask(Kind.REFUND, 1, books.last).outcome is Outcome.ORIGINAL_NOT_FOUND


@pytest.mark.parametrize("status", ["blocked", "lost", "stolen", "cancelled"])
@pytest.mark.parametrize("frozen", ["open", "frozen", "closed"])
@pytest.mark.parametrize("kind", [Kind.REFUND, Kind.REVERSAL, Kind.VOID])
def test_a_card_in_bad_standing_still_gets_its_money_back(
    kind: Kind, status: str, frozen: str
) -> None:
    books, bought = books_with(Kind.PURCHASE, 300)
    books.set_card(status)
    books.set_account(frozen)
    assert books.ask(kind, 300, bought).outcome is Outcome.APPROVED
    assert books.account.balance == 1_000


def test_money_that_comes_back_repays_what_is_owed_first() -> None:
    books, bought = books_with(Kind.PURCHASE, 300, balance=300)
    books.ask(Kind.ADVICE, 120)
    assert books.ask(Kind.REFUND, 200, bought).moves == (
        Move(Side.SETTLEMENT, 100, 200),
        Move(100, Side.RECEIVABLE, 120),
    )
    assert (books.account.balance, books.account.receivable) == (80, 0)


def test_an_advice_that_was_posted_over_the_means_comes_back_whole() -> None:
    books, advice = books_with(Kind.ADVICE, 100, balance=60)
    assert books.account.receivable == 40
    books.ask(Kind.REVERSAL, 100, advice)
    assert (books.account.balance, books.account.receivable) == (60, 0)
    assert books.account.cards[1].uses == 0


# -- reversals ----------------------------------------------------------------------------------


def test_partial_reversals_add_up_to_the_whole() -> None:
    books, bought = books_with(Kind.PURCHASE, 300)
    for amount, outcome in [
        (0, Outcome.ORIGINAL_MISMATCH),
        (301, Outcome.OVER_ORIGINAL_AMOUNT),
        (100, Outcome.APPROVED),
        (201, Outcome.OVER_ORIGINAL_AMOUNT),
        (200, Outcome.APPROVED),
        (1, Outcome.ALREADY_REVERSED),
    ]:
        decision = books.ask(Kind.REVERSAL, amount, bought)
        assert decision.outcome is outcome
        assert decision.amount == (amount if outcome is Outcome.APPROVED else 0)
    assert books.account.balance == 1_000
    assert books.originals[bought].progress == Progress(300, reversed=300, ended=True)
    assert books.account.cards[1].uses == 0


def test_a_terminal_reverses_a_partial_approval_by_either_amount() -> None:
    for amount in (400, 1_000):
        books = Books(account(400), Terms(partial_approval=True))
        assert books.ask(Kind.PURCHASE, 1_000, partial_ok=True).amount == 400
        decision = books.ask(Kind.REVERSAL, amount, books.last)
        assert (decision.outcome, decision.amount) == (Outcome.APPROVED, 400)
        assert books.account.balance == 400


def test_a_reversal_before_its_original_leaves_a_tombstone() -> None:
    books = Books(account())
    decision = books.ask(Kind.REVERSAL, 300, b"?" * 32)
    assert (decision.outcome, decision.amount, decision.tombstone) == (Outcome.APPROVED, 0, True)
    assert decision.account is not None
    assert decision.account.balance == 1_000


def test_a_reversal_of_what_was_declined_needs_nothing() -> None:
    books = Books(account(10))
    books.ask(Kind.PURCHASE, 300)
    decision = books.ask(Kind.REVERSAL, 300, books.last)
    assert (decision.outcome, decision.amount, decision.moves) == (Outcome.APPROVED, 0, ())
    assert not decision.tombstone


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"acquirer": "lagoon"}, Outcome.ORIGINAL_MISMATCH),
        ({"merchant_id": "MERIDIAN0000002"}, Outcome.ORIGINAL_MISMATCH),
        ({"currency": "USD"}, Outcome.ORIGINAL_MISMATCH),
        ({"terminal_id": "T0000002"}, None),
        ({"pan": "6223001000000002"}, None),
        ({}, Outcome.APPROVED),
    ],
)
@pytest.mark.parametrize("kind", [Kind.REFUND, Kind.REVERSAL, Kind.VOID, Kind.CAPTURE])
def test_nobody_names_anothers_transaction(
    kind: Kind, changes: dict[str, Any], outcome: Outcome | None
) -> None:
    books, original = books_with(Kind.AUTHORIZATION if kind is Kind.CAPTURE else Kind.PURCHASE, 300)
    if outcome is None:  # a reversal is the terminal's own; another terminal may refund
        outcome = Outcome.APPROVED
        if kind is Kind.REVERSAL and "terminal_id" in changes:
            outcome = Outcome.ORIGINAL_MISMATCH
    assert books.ask(kind, 300, original, **changes).outcome is outcome


def test_a_reversed_authorization_holds_nothing_and_is_no_use() -> None:
    books, held = books_with(Kind.AUTHORIZATION, 300, uses=1)
    assert books.ask(Kind.REVERSAL, 100, held).outcome is Outcome.APPROVED
    assert books.account.held == 200
    assert books.ask(Kind.CAPTURE, 201, held).outcome is Outcome.OVER_ORIGINAL_AMOUNT
    assert books.ask(Kind.REVERSAL, 200, held).outcome is Outcome.APPROVED
    assert books.account.held == 0
    assert books.account.cards[1].uses == 0
    assert books.ask(Kind.CAPTURE, 1, held).outcome is Outcome.ALREADY_REVERSED


def test_what_was_captured_is_not_released() -> None:
    books, held = books_with(Kind.AUTHORIZATION, 300)
    books.ask(Kind.CAPTURE, 100, held)
    assert books.ask(Kind.REVERSAL, 300, held).outcome is Outcome.OVER_ORIGINAL_AMOUNT
    assert books.ask(Kind.REVERSAL, 200, held).outcome is Outcome.APPROVED
    assert held_and_balance(books) == (0, 900)
    assert books.ask(Kind.CAPTURE, 1, held).outcome is Outcome.HOLD_ENDED


def test_an_authorization_is_reversed_though_its_hold_has_expired() -> None:
    books, held = books_with(Kind.AUTHORIZATION, 300, hold_seconds=60, uses=1)
    books.pass_ms(_DAY_MS)
    assert books.ask(Kind.REVERSAL, 300, held).outcome is Outcome.APPROVED
    assert held_and_balance(books) == (0, 1_000)
    assert books.account.cards[1].uses == 0


def test_a_reversed_increment_takes_its_part_out_of_the_hold() -> None:
    books, held = books_with(Kind.AUTHORIZATION, 300)
    books.ask(Kind.INCREMENT, 200, held)
    raised = books.last
    assert books.ask(Kind.REVERSAL, 201, raised).outcome is Outcome.OVER_ORIGINAL_AMOUNT
    assert books.ask(Kind.REVERSAL, 50, raised).outcome is Outcome.APPROVED
    assert books.originals[held].progress == Progress(450)
    assert books.ask(Kind.REVERSAL, 150, raised).outcome is Outcome.APPROVED
    assert books.ask(Kind.REVERSAL, 150, raised).outcome is Outcome.ALREADY_REVERSED
    assert books.account.held == 300
    assert books.ask(Kind.CAPTURE, 301, held).outcome is Outcome.OVER_ORIGINAL_AMOUNT


def test_a_reversed_refund_is_taken_back_and_may_be_made_again() -> None:
    books, bought = books_with(Kind.PURCHASE, 300)
    books.ask(Kind.REFUND, 300, bought)
    refund = books.last
    assert books.ask(Kind.REVERSAL, 300, refund).moves == (Move(100, Side.SETTLEMENT, 300),)
    assert books.account.balance == 700
    assert books.originals[bought].progress == Progress(300)
    assert books.ask(Kind.REFUND, 300, bought).outcome is Outcome.APPROVED


def test_a_reversed_refund_takes_no_more_than_there_is() -> None:
    books, bought = books_with(Kind.PURCHASE, 300)
    books.ask(Kind.REFUND, 300, bought)
    refund = books.last
    books.ask(Kind.PURCHASE, 701)
    assert books.ask(Kind.REVERSAL, 300, refund).outcome is Outcome.INSUFFICIENT_FUNDS
    assert books.account.balance == 299
    assert books.ask(Kind.REVERSAL, 299, refund).outcome is Outcome.APPROVED


def test_a_void_is_not_reversed() -> None:
    books, bought = books_with(Kind.PURCHASE, 300)
    books.ask(Kind.VOID, 300, bought)
    voided = books.last
    assert books.ask(Kind.REVERSAL, 300, voided).outcome is Outcome.ORIGINAL_MISMATCH


def test_a_balance_inquiry_is_reversed_without_effect() -> None:
    books = Books(account(cards={1: CardStanding("active")}))
    books.ask(Kind.BALANCE_INQUIRY, 0)
    inquiry = books.last
    assert books.ask(Kind.REVERSAL, 0, inquiry).outcome is Outcome.APPROVED
    assert books.ask(Kind.REVERSAL, 0, inquiry).outcome is Outcome.ALREADY_REVERSED


def test_what_paid_for_an_original_must_come_to_its_amount() -> None:
    books, bought = books_with(Kind.PURCHASE, 300)
    original = books.originals[bought]
    books.originals[bought] = msgspec.structs.replace(original, parts=((100, 299),))
    with pytest.raises(ValueError, match="doesn't come to its amount"):
        books.ask(Kind.REFUND, 300, bought)


@pytest.mark.parametrize("kind", [Kind.INCREMENT, Kind.CAPTURE, Kind.VOID])
def test_a_card_of_another_account_does_not_fit_the_original(kind: Kind) -> None:
    books, held = books_with(Kind.AUTHORIZATION, 300)
    asked = request(kind, 300, number=9, original_txid=held, pan="6223001000000002")
    facts = books.facts(card=OTHER_CARD, original=books.originals[held])
    decision = rules.decide(asked, facts)
    assert decision.outcome is Outcome.ORIGINAL_MISMATCH
    unknown = rules.decide(asked, books.facts(card=None, original=books.originals[held]))
    assert unknown.outcome is Outcome.ORIGINAL_MISMATCH
