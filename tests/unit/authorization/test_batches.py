"""A terminal's batch against the books: totals, findings, what is done about them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.authorization.model import Kind
from nodes.authorization.rules.batches import (
    Action,
    Finding,
    Item,
    Line,
    compare,
    missing_there,
    next_batch,
    totals_of,
    unknown_there,
)
from nodes.authorization.services import CurrencyTotals

DAY = "2026-11-23"


def line(kind: Kind = Kind.PURCHASE, amount: int = 100, stan: str = "000001", **more: str) -> Line:
    return Line(b"t" * 32, kind, amount, more.get("currency", "CNY"), stan, DAY, 1)


def item(kind: Kind = Kind.PURCHASE, amount: int = 100, currency: str = "CNY") -> Item:
    return Item(kind, amount, currency, "000001", DAY)


def test_totals_count_debits_and_credits_by_currency_and_nothing_of_nothing() -> None:
    lines = [
        line(), line(Kind.CAPTURE, 50), line(Kind.ADVICE, 7), line(Kind.REFUND, 30),
        line(Kind.TOP_UP, 20), line(Kind.VOID, 1), line(amount=0), line(Kind.AUTHORIZATION, 99),
        line(amount=5, currency="USD"),
    ]  # fmt: skip
    assert totals_of(lines) == (
        CurrencyTotals("CNY", 3, 157, 3, 51),
        CurrencyTotals("USD", 1, 5, 0, 0),
    )
    assert totals_of([]) == ()


@pytest.mark.parametrize(
    ("asked", "booked", "finding", "action", "amount"),
    [
        (item(), line(), Finding.EQUAL, Action.NONE, 0),
        (item(), None, Finding.MISSING_HERE, Action.POSTED, 100),
        (item(Kind.ADVICE), None, Finding.MISSING_HERE, Action.POSTED, 100),
        (item(Kind.REFUND), None, Finding.MISSING_HERE, Action.FLAGGED, 0),
        (item(Kind.TOP_UP), None, Finding.MISSING_HERE, Action.FLAGGED, 0),
        (item(), line(amount=0), Finding.MISSING_HERE, Action.POSTED, 100),
        (item(amount=80), line(), Finding.AMOUNT, Action.REVERSED, 20),
        (item(amount=120), line(), Finding.AMOUNT, Action.POSTED, 20),
        (item(Kind.REFUND, 80), line(Kind.REFUND), Finding.AMOUNT, Action.FLAGGED, 0),
        (item(currency="USD"), line(), Finding.AMOUNT, Action.FLAGGED, 0),
    ],
)
def test_an_item_is_compared_with_the_books(
    asked: Item, booked: Line | None, finding: Finding, action: Action, amount: int
) -> None:
    verdict = compare(asked, booked)
    assert (verdict.finding, verdict.action, verdict.amount) == (finding, action, amount)


def test_what_the_terminal_doesnt_know_of() -> None:
    known = {("000001", DAY): object()}
    lines = [line(), line(stan="000002"), line(stan="000002D"), line(amount=0, stan="000003")]
    assert [one.stan for one in missing_there(lines, known)] == ["000002"]
    assert unknown_there(line(amount=7)).action is Action.REVERSED
    assert unknown_there(line(Kind.REFUND)).action is Action.FLAGGED
    assert unknown_there(line(Kind.CAPTURE)).action is Action.FLAGGED


@given(st.integers(min_value=0, max_value=999_999))
def test_batch_numbers_go_round(number: int) -> None:
    following = next_batch(f"{number:06d}")
    assert len(following) == 6
    assert int(following) == (number + 1 if number < 999_999 else 1)
