"""A campaign counts misses, wrong names and false alarms, and doesn't hold with any of them."""

from __future__ import annotations

import pytest

from nodes.reconciliation.findings import Change, Report
from sandbox.campaigns.books import Deed, altered, missing
from sandbox.campaigns.tally import Tallies


def tallies(**try_: bool) -> Tallies:
    made = Tallies(7)
    made.add("A", found=True, named=True, what="x")
    if try_:
        made.add("A", found=try_["found"], named=try_["named"], what="the second")
    return made


def test_all_found_and_named_holds_and_is_written_so() -> None:
    made = tallies()
    made.clean()
    assert made.held
    assert made.document() == {
        "classes": {"A": {"tried": 1, "found": 1, "named": 1}},
        "clean_runs": 1,
        "false_alarms": 0,
        "seed": 7,
    }


@pytest.mark.parametrize(("found", "named"), [(False, False), (True, False), (False, True)])
def test_a_miss_or_a_wrong_name_does_not_hold(found: bool, named: bool) -> None:
    made = tallies(found=found, named=named)
    assert not made.held
    assert made.classes["A"].misses == ["the second"]
    assert made.classes["A"].named == 1


def test_a_false_alarm_does_not_hold_and_nothing_tried_is_not_complete() -> None:
    made = tallies()
    made.clean(alarm="there was nothing")
    assert not made.held
    whole = Tallies(7)
    whole.take(made)
    whole.take(tallies())
    assert (whole.classes["A"].tried, whole.false_alarms) == (2, 1)


def report(
    *findings: tuple[str, int, str | None, Change], unjudged: tuple[int, ...] = ()
) -> Report:
    made = Report(unjudged=list(unjudged))
    for table, number, column, change in findings:
        made.add(table, {"transaction_id": number}, change, column)
    return made


AMOUNT = Deed("x", frozenset({altered("transactions", "transaction_id=5", "amount")}))


def test_a_deed_is_named_by_its_row_and_column_and_nothing_else() -> None:
    right = ("transactions", 5, "amount", Change.ALTERED)
    assert AMOUNT.named_by(report(right))
    assert not AMOUNT.named_by(report())
    assert not AMOUNT.named_by(report(("transactions", 5, "stan", Change.ALTERED)))
    assert not AMOUNT.named_by(report(right, ("transactions", 6, "amount", Change.ALTERED)))
    assert not AMOUNT.named_by(report(right, unjudged=(3,)))


def test_rows_that_only_may_be_named_are_no_mistake_and_no_substitute() -> None:
    gone = missing("transactions", "transaction_id=5")
    deed = Deed("x", frozenset({gone}), rows=frozenset({("transfers", "transaction_id=5")}))
    row = ("transactions", 5, None, Change.MISSING)
    also = ("transfers", 5, None, Change.MISSING)
    assert deed.named_by(report(row))
    assert deed.named_by(report(row, also))
    assert not deed.named_by(report(also))
    touched = Deed("x", frozenset(), touched=frozenset({("transactions", "transaction_id=5")}))
    assert touched.named_by(report(row))
    assert not touched.named_by(report())
