"""What a holder disputes of what he has paid: nobody gets one payment back twice."""

from __future__ import annotations

import msgspec
import pytest

from nodes.authorization import rules
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.state import Decision, Disputed, Move, Side
from tests.unit.authorization.cases import Books


def dispute(books: Books, txid: bytes, amount: int | None = None) -> Decision:
    facts = books.facts(original=books.originals.get(txid))
    decision = rules.decide_dispute(amount, facts)
    books.keep(decision)
    return decision


def decide(books: Books, txid: bytes, amount: int) -> Decision:
    facts = books.facts(original=books.originals.get(txid))
    decision = rules.decide_disputed(amount, facts)
    books.keep(decision)
    return decision


@pytest.fixture
def books() -> Books:
    made = Books()
    made.ask(Kind.PURCHASE, 400)
    return made


@pytest.mark.parametrize("kind", [Kind.REFUND, Kind.VOID])
def test_what_is_disputed_is_not_given_back_beside_it(books: Books, kind: Kind) -> None:
    bought = books.last
    amount = 400 if kind is Kind.VOID else 10
    assert dispute(books, bought, 150).amount == 150
    assert books.account.disputed == (Disputed(bought, 150, paid=True),)
    refusal = books.ask(kind, amount, bought)
    assert refusal.outcome is Outcome.UNDER_DISPUTE
    assert refusal.detail.reason is not None
    assert refusal.detail.reason.values == {"disputed": 150}
    assert "disputes 150" in rules.explain(refusal.detail.reason)
    books.keep(rules.decide_dropped(bought, books.facts()))
    assert books.account.disputed == ()
    assert books.ask(kind, amount, bought).outcome is Outcome.APPROVED


def test_other_payments_are_refunded_as_ever(books: Books) -> None:
    dispute(books, books.last)
    books.ask(Kind.PURCHASE, 90)
    assert books.ask(Kind.REFUND, 90, books.last).outcome is Outcome.APPROVED


def test_what_the_issuer_gives_back_is_not_refunded_again(books: Books) -> None:
    bought = books.last
    dispute(books, bought, 300)
    given = decide(books, bought, 250)
    assert given.moves == (Move(Side.ADJUSTMENT, 100, 250),)
    assert books.account.available == 1_000 - 400 + 250
    assert books.ask(Kind.REFUND, 1, bought).outcome is Outcome.UNDER_DISPUTE, "50 are still open"
    assert decide(books, bought, 51).outcome is Outcome.OVER_ORIGINAL_AMOUNT
    decide(books, bought, 50)
    assert books.account.disputed == ()
    assert books.ask(Kind.REFUND, 101, bought).outcome is Outcome.OVER_ORIGINAL_AMOUNT
    assert books.ask(Kind.REFUND, 100, bought).outcome is Outcome.APPROVED
    assert books.account.available == 1_000
    assert dispute(books, bought).outcome is Outcome.OVER_ORIGINAL_AMOUNT, "nothing is left of it"


def test_a_holder_is_not_made_to_pay_what_he_has_paid(books: Books) -> None:
    dispute(books, books.last)
    refusal = decide(books, books.last, -400)
    assert refusal.outcome is Outcome.OVER_ORIGINAL_AMOUNT
    assert books.account.disputed[0].amount == 400


def test_a_reversal_is_taken_and_ends_as_much_of_the_dispute(books: Books) -> None:
    bought = books.last
    dispute(books, bought)
    assert books.ask(Kind.REVERSAL, 100, bought).outcome is Outcome.APPROVED
    assert books.account.disputed == (Disputed(bought, 300, paid=True),)
    half = books.account
    assert books.ask(Kind.REVERSAL, 300, bought).outcome is Outcome.APPROVED
    assert books.account.disputed == ()
    assert rules.ended_disputes(half, half) == []
    assert rules.ended_disputes(half, books.account) == [bought]
    assert (books.account.available, books.account.receivable) == (1_000, 0)
    assert dispute(books, bought).outcome is Outcome.ALREADY_REVERSED


def test_only_a_payment_is_disputed_and_once(books: Books) -> None:
    bought = books.last
    assert dispute(books, bytes(32)).outcome is Outcome.ORIGINAL_NOT_FOUND
    assert dispute(books, bought, 0).outcome is Outcome.OVER_ORIGINAL_AMOUNT
    assert dispute(books, bought, 401).outcome is Outcome.OVER_ORIGINAL_AMOUNT
    assert dispute(books, bought, 400).outcome is Outcome.APPROVED
    assert dispute(books, bought, 1).outcome is Outcome.UNDER_DISPUTE
    books.ask(Kind.AUTHORIZATION, 50)
    assert dispute(books, books.last).outcome is Outcome.ORIGINAL_NOT_FOUND, "nothing is paid yet"
    captured = books.ask(Kind.CAPTURE, 50, books.last)
    assert captured.outcome is Outcome.APPROVED
    assert dispute(books, books.last).amount == 50
    books.ask(Kind.PURCHASE, 100_000)
    assert dispute(books, books.last).outcome is Outcome.ORIGINAL_NOT_FOUND, "it was declined"


def test_a_dispute_withholds_no_repayment(books: Books) -> None:
    bought = books.last
    dispute(books, bought)
    books.ask(Kind.ADVICE, 700)
    assert (books.account.available, books.account.receivable) == (0, 100)
    books.load(500)
    assert (books.account.available, books.account.receivable) == (400, 0)


def test_a_refund_before_the_dispute_is_not_disputed_again(books: Books) -> None:
    bought = books.last
    books.ask(Kind.REFUND, 120, bought)
    assert dispute(books, bought).amount == 280
    assert books.account.disputed == (Disputed(bought, 280, paid=True),)


def test_a_snapshot_of_an_earlier_release_is_read() -> None:
    """Entries that were written before `paid` existed are debts."""
    [txid, amount] = [b"t" * 32, 7]
    stored = msgspec.msgpack.encode([txid, amount])
    assert msgspec.msgpack.decode(stored, type=Disputed) == Disputed(txid, amount, paid=False)
