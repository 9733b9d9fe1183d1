"""A terminal's batch against the acquirer's books: totals, items, and what is done about both.

Debits take money from cardholders (purchase, completion, advice), credits give it (refund, top-up,
void of a payment). A transaction counts with what its reversals have left of it, and not at all
where that is nothing. Amounts are minor units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from nodes.authorization.model import Kind
from nodes.authorization.services import CurrencyTotals

DEBITS = frozenset({Kind.PURCHASE, Kind.CAPTURE, Kind.ADVICE})
CREDITS = frozenset({Kind.REFUND, Kind.TOP_UP, Kind.VOID})
#: What a difference is put right for: these can be told of again, or reversed, by themselves.
_ADJUSTABLE = frozenset({Kind.PURCHASE, Kind.ADVICE})
#: Behind the STAN of an item: the advice that posts what its transaction lacks.
DIFFERENCE_MARK = "D"


class Line(msgspec.Struct, frozen=True):
    """A transaction of the acquirer's books in a batch; `amount` is what is left of it."""

    txid: bytes
    kind: Kind
    amount: int
    currency: str
    stan: str
    business_date: str
    #: None: taken in, and not yet with its issuer.
    transaction_id: int | None = None


class Item(msgspec.Struct, frozen=True):
    """A transaction as the terminal has it."""

    kind: Kind
    amount: int
    currency: str
    stan: str
    business_date: str


class Finding(StrEnum):
    """What comparing an item with the books says."""

    EQUAL = "equal"
    MISSING_HERE = "missing_here"
    MISSING_THERE = "missing_there"
    AMOUNT = "amount"


class Action(StrEnum):
    """What is done about it."""

    NONE = "none"
    POSTED = "posted"
    REVERSED = "reversed"
    FLAGGED = "flagged"


class Verdict(msgspec.Struct, frozen=True):
    """A finding, the action, and the amount that is posted or reversed."""

    finding: Finding
    action: Action
    amount: int = 0
    booked: int = 0


def totals_of(lines: Iterable[Line | Item]) -> tuple[CurrencyTotals, ...]:
    """Counts and sums by currency, sorted; what is left of nothing isn't counted."""
    sums: dict[str, list[int]] = {}
    for line in lines:
        if line.amount <= 0 or line.kind not in DEBITS | CREDITS:
            continue
        place = 2 if line.kind in CREDITS else 0
        found = sums.setdefault(line.currency, [0, 0, 0, 0])
        found[place] += 1
        found[place + 1] += line.amount
    return tuple(CurrencyTotals(currency, *sums[currency]) for currency in sorted(sums))


def compare(item: Item, line: Line | None) -> Verdict:
    """One item with what the books have under its number."""
    if line is None or line.amount == 0:
        if item.kind in _ADJUSTABLE:
            return Verdict(Finding.MISSING_HERE, Action.POSTED, item.amount)
        return Verdict(Finding.MISSING_HERE, Action.FLAGGED)
    booked = line.amount
    if item.amount == booked and item.currency == line.currency:
        return Verdict(Finding.EQUAL, Action.NONE, booked=booked)
    if item.currency != line.currency or line.kind not in _ADJUSTABLE:
        same = item.currency == line.currency
        return Verdict(Finding.AMOUNT, Action.FLAGGED, booked=booked if same else 0)
    if item.amount > booked:
        return Verdict(Finding.AMOUNT, Action.POSTED, item.amount - booked, booked)
    return Verdict(Finding.AMOUNT, Action.REVERSED, booked - item.amount, booked)


def missing_there(lines: Iterable[Line], known: Mapping[tuple[str, str], object]) -> list[Line]:
    """Lines that the terminal doesn't know of: `known` has its items by (STAN, business date)."""
    return [
        line
        for line in lines
        if line.amount > 0
        and not line.stan.endswith(DIFFERENCE_MARK)
        and (line.stan, line.business_date) not in known
    ]


def unknown_there(line: Line) -> Verdict:
    """A purchase that the terminal doesn't know of was never handed over: it is reversed. What
    else it doesn't know of is for people to look at."""
    if line.kind is Kind.PURCHASE:
        return Verdict(Finding.MISSING_THERE, Action.REVERSED, line.amount, line.amount)
    return Verdict(Finding.MISSING_THERE, Action.FLAGGED, booked=line.amount)


def next_batch(batch: str) -> str:
    """The batch number of what comes after a close: six digits, 000001 after 999999."""
    return f"{int(batch) % 999_999 + 1:06d}"
