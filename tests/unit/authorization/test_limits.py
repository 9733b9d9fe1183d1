"""Rules: what they are about, what their windows count, what they say; and the back-test."""

from __future__ import annotations

from typing import Any

import pytest

from nodes.authorization import rules
from nodes.authorization.controls import Conditions, Limit, Measure, Rule, Window
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.rules.limits import Spend, concerns
from nodes.authorization.state import Counter, Moment
from tests.unit.authorization.cases import Books, account, at, moment


def amount_rule(window: Window, maximum: int, **changes: Any) -> Rule:
    return Rule("r", "Spending", limit=Limit(window, Measure.AMOUNT, maximum), **changes)


@pytest.mark.parametrize(
    ("when", "changes", "matches"),
    [
        ({}, {}, True),
        ({"mccs": ("5811-5814",)}, {"mcc": "5810"}, False),
        ({"mccs": ("5811-5814",)}, {"mcc": "5811"}, True),
        ({"mccs": ("5811-5814",)}, {"mcc": "5814"}, True),
        ({"mccs": ("5811-5814",)}, {"mcc": "5815"}, False),
        ({"mccs": ("4111", "5812")}, {"mcc": "5812"}, True),
        ({"merchants": ("M1",)}, {"merchant_id": "M1"}, True),
        ({"merchants": ("M1",)}, {"merchant_id": "M10"}, False),
        ({"countries": ("CN", "HK")}, {"country": "HK"}, True),
        ({"countries": ("CN", "HK")}, {"country": "US"}, False),
        ({"channels": ("ecommerce",)}, {"channel": "ecommerce"}, True),
        ({"channels": ("ecommerce",)}, {"channel": "pos"}, False),
        ({"channels": ("contactless",)}, {"entry_mode": "071"}, True),
        ({"channels": ("contactless",)}, {"entry_mode": "051"}, False),
        ({"channels": ("pos",)}, {"entry_mode": "071"}, True),
        ({"channels": ("contactless",)}, {"entry_mode": "071", "channel": "ecommerce"}, False),
        ({"entry_modes": ("05",)}, {"entry_mode": "051"}, True),
        ({"entry_modes": ("05",)}, {"entry_mode": "021"}, False),
        ({"kinds": ("purchase",)}, {"kind": Kind.AUTHORIZATION}, False),
        ({"kinds": ("purchase",)}, {"kind": Kind.ADVICE}, True),
        ({"kinds": ("authorization",)}, {"kind": Kind.INCREMENT}, True),
        ({}, {"kind": Kind.LOAD}, False),
        ({"kinds": ("load",)}, {"kind": Kind.LOAD}, True),
        ({"mccs": ("5812",), "countries": ("CN",)}, {"mcc": "5812", "country": "US"}, False),
    ],
)
def test_a_rule_is_about_what_all_its_conditions_fit(
    when: dict[str, Any], changes: dict[str, Any], matches: bool
) -> None:
    spend = Spend(Kind.PURCHASE, 10)._replace(**changes)
    rule = Rule("r", "R", Conditions(**when))
    assert concerns(rule, spend, moment().local) is matches


def test_an_allow_list_declines_the_rest_but_only_of_its_kinds() -> None:
    rule = Rule("r", "Only food", Conditions(mccs=("5411",)), unless=True)
    books = Books(limits=(rule,))
    assert books.ask(Kind.PURCHASE, 10, mcc="5411").outcome is Outcome.APPROVED
    decision = books.ask(Kind.PURCHASE, 10, mcc="7995")
    assert decision.outcome is Outcome.RULE_DECLINED
    assert decision.detail.reason is not None
    assert "7995" in rules.explain(decision.detail.reason)
    assert "Only food" in rules.explain(decision.detail.reason)
    assert books.load(10).outcome is Outcome.APPROVED


@pytest.mark.parametrize(
    ("start", "end", "time", "matches"),
    [
        (9 * 60, 17 * 60, "08:59", False),
        (9 * 60, 17 * 60, "09:00", True),
        (9 * 60, 17 * 60, "16:59", True),
        (9 * 60, 17 * 60, "17:00", False),
        (22 * 60, 6 * 60, "21:59", False),
        (22 * 60, 6 * 60, "22:00", True),
        (22 * 60, 6 * 60, "00:00", True),
        (22 * 60, 6 * 60, "05:59", True),
        (22 * 60, 6 * 60, "06:00", False),
        (None, 60, "00:30", True),
        (None, 60, "01:00", False),
        (1_380, None, "23:00", True),
        (1_380, None, "22:59", False),
        (1_380, None, "00:00", False),
    ],
)
def test_hours_run_over_midnight(
    start: int | None, end: int | None, time: str, matches: bool
) -> None:
    rule = Rule("r", "Hours", Conditions(from_minute=start, to_minute=end))
    assert concerns(rule, Spend(Kind.PURCHASE, 1), at(f"2026-03-04 {time}").local) is matches


def test_weekdays_are_those_of_the_programs_time_zone() -> None:
    rule = Rule("r", "Sundays", Conditions(weekdays=(7,)))
    # The same moment: Sunday in Shanghai, still Saturday in New York.
    here = at("2026-03-01 02:00")
    there = moment(here.now_ms, "America/New_York")
    assert concerns(rule, Spend(Kind.PURCHASE, 1), here.local)
    assert not concerns(rule, Spend(Kind.PURCHASE, 1), there.local)


@pytest.mark.parametrize(
    ("window", "first", "second", "same"),
    [
        (Window.DAY, "2026-03-04 00:00", "2026-03-04 23:59", True),
        (Window.DAY, "2026-03-04 23:59", "2026-03-05 00:00", False),
        (Window.WEEK, "2026-03-02 00:00", "2026-03-08 23:59", True),
        (Window.WEEK, "2026-03-08 23:59", "2026-03-09 00:00", False),
        (Window.WEEK, "2026-12-28 12:00", "2027-01-03 12:00", True),
        (Window.MONTH, "2026-02-01 00:00", "2026-02-28 23:59", True),
        (Window.MONTH, "2026-12-31 23:59", "2027-01-01 00:00", False),
        (Window.MONTH, "2026-02-10 00:00", "2027-02-10 00:00", False),
        (Window.LIFETIME, "2026-02-01 00:00", "2029-02-28 23:59", True),
    ],
)
def test_a_window_ends_where_the_calendar_says(
    window: Window, first: str, second: str, same: bool
) -> None:
    one, two = (rules.period(window, at(text).local) for text in (first, second))
    assert one <= two
    assert (one == two) is same
    books = Books(account(1_000), limits=(amount_rule(window, 100),))
    books.go_to(at(first))
    assert books.ask(Kind.PURCHASE, 60).outcome is Outcome.APPROVED
    books.go_to(at(second))
    expected = Outcome.AMOUNT_LIMIT if same else Outcome.APPROVED
    assert books.ask(Kind.PURCHASE, 41).outcome is expected


@pytest.mark.parametrize("day", ["2026-03-08", "2026-11-01"])
def test_a_day_of_23_or_25_hours_is_one_day(day: str) -> None:
    zone = "America/New_York"
    start = at(f"{day} 00:00", zone)
    hours = 23 if day == "2026-03-08" else 25
    last = moment(start.now_ms + hours * 3_600_000 - 1, zone)
    after = moment(start.now_ms + hours * 3_600_000, zone)
    numbers = [rules.period(Window.DAY, m.local) for m in (start, last, after)]
    assert numbers == [numbers[0], numbers[0], numbers[0] + 1]


@pytest.mark.parametrize(
    ("amount", "outcome"),
    [(39, Outcome.APPROVED), (40, Outcome.APPROVED), (41, Outcome.AMOUNT_LIMIT)],
)
def test_a_limit_may_be_reached_and_not_exceeded(amount: int, outcome: Outcome) -> None:
    books = Books(account(1_000), limits=(amount_rule(Window.DAY, 100),))
    books.ask(Kind.PURCHASE, 35)
    books.ask(Kind.AUTHORIZATION, 25)
    decision = books.ask(Kind.PURCHASE, amount)
    assert decision.outcome is outcome
    if outcome is not Outcome.APPROVED:
        reason = decision.detail.reason
        assert reason is not None
        assert (reason.rule_id, reason.rule_name) == ("r", "Spending")
        assert reason.values == {"limit": 100, "used": 60, "amount": 41, "window": "day"}
        assert rules.explain(reason) == (
            'Rule "Spending" allows 100 a day: 60 were used before, and this asks for 41.'
        )


def test_counts_count_approvals_alone() -> None:
    rule = Rule("r", "Thrice", limit=Limit(Window.WEEK, Measure.COUNT, 3))
    books = Books(account(100), limits=(rule,))
    asked = [10, 500, 10, 10, 10]
    outcomes = [books.ask(Kind.PURCHASE, amount).outcome for amount in asked]
    assert outcomes == [
        Outcome.APPROVED,
        Outcome.INSUFFICIENT_FUNDS,
        Outcome.APPROVED,
        Outcome.APPROVED,
        Outcome.COUNT_LIMIT,
    ]
    assert books.account.counters["r"].count == 3


def test_a_rule_in_shadow_mode_declines_nothing_and_tells_what_it_would_have() -> None:
    books = Books(account(1_000), limits=(amount_rule(Window.DAY, 50, shadow=True),))
    assert books.ask(Kind.PURCHASE, 50).detail.shadow == ()
    decision = books.ask(Kind.PURCHASE, 1)
    assert decision.outcome is Outcome.APPROVED
    [reason] = decision.detail.shadow
    assert reason.values["used"] == 50
    assert books.account.counters["r"].amount == 51


def test_a_reversal_gives_back_what_was_counted_while_the_window_lasts() -> None:
    books = Books(account(1_000), limits=(amount_rule(Window.DAY, 100),))
    books.go_to(at("2026-03-04 23:00"))
    books.ask(Kind.PURCHASE, 80)
    bought = books.last
    books.ask(Kind.REVERSAL, 30, bought)
    assert books.account.counters["r"].amount == 50
    assert books.account.counters["r"].count == 1
    books.ask(Kind.REVERSAL, 50, bought)
    assert books.account.counters["r"].amount == 0
    assert books.account.counters["r"].count == 0
    books.ask(Kind.PURCHASE, 80)
    bought = books.last
    books.go_to(at("2026-03-05 01:00"))
    books.ask(Kind.PURCHASE, 70)
    books.ask(Kind.REVERSAL, 80, bought)
    assert books.account.counters["r"].amount == 70


def test_a_refund_gives_nothing_of_a_window_back() -> None:
    books = Books(account(1_000), limits=(amount_rule(Window.DAY, 100),))
    books.ask(Kind.PURCHASE, 80)
    books.ask(Kind.REFUND, 80, books.last)
    assert books.account.counters["r"].amount == 80


def test_increments_are_one_transaction_with_their_authorization() -> None:
    books = Books(account(1_000), limits=(amount_rule(Window.TRANSACTION, 100),))
    books.ask(Kind.AUTHORIZATION, 60)
    held = books.last
    assert books.ask(Kind.INCREMENT, 41, held).outcome is Outcome.AMOUNT_LIMIT
    assert books.ask(Kind.INCREMENT, 40, held).outcome is Outcome.APPROVED
    assert books.ask(Kind.PURCHASE, 100).outcome is Outcome.APPROVED


def test_a_clock_that_goes_back_empties_no_window() -> None:
    books = Books(account(1_000), limits=(amount_rule(Window.DAY, 100),))
    books.go_to(at("2026-03-05 00:01"))
    books.ask(Kind.PURCHASE, 80)
    books.go_to(at("2026-03-04 23:59"))
    assert books.ask(Kind.PURCHASE, 30).outcome is Outcome.AMOUNT_LIMIT
    assert books.ask(Kind.PURCHASE, 20).outcome is Outcome.APPROVED
    books.go_to(at("2026-03-05 00:02"))
    assert books.ask(Kind.PURCHASE, 1).outcome is Outcome.AMOUNT_LIMIT


@pytest.mark.parametrize(("now", "outcome"), [(9, "a"), (10, "d"), (19, "d"), (20, "a")])
def test_a_rule_is_in_force_from_its_first_moment_to_before_its_last(
    now: int, outcome: str
) -> None:
    rule = Rule("r", "Never", effective_from_ms=10, effective_to_ms=20)
    books = Books(limits=(rule,))
    books.go_to(Moment(now, moment().local))
    expected = Outcome.RULE_DECLINED if outcome == "d" else Outcome.APPROVED
    assert books.ask(Kind.PURCHASE, 1).outcome is expected


def test_a_counter_of_an_earlier_window_is_as_good_as_none() -> None:
    rule = amount_rule(Window.MONTH, 100)
    earlier = rules.period(Window.MONTH, at("2026-02-28 12:00").local)
    books = Books(account(1_000, counters={"r": Counter(earlier, 100, 7)}), limits=(rule,))
    books.go_to(at("2026-03-01 12:00"))
    assert books.ask(Kind.PURCHASE, 100).outcome is Outcome.APPROVED
    assert books.account.counters["r"] == Counter(earlier + 1, 100, 1)


# -- back-test ----------------------------------------------------------------------------------


def past(day: str, amount: int, stream: int = 1, **changes: Any) -> rules.Past:
    values: dict[str, Any] = {
        "at_ms": at(day).now_ms,
        "stream": stream,
        "txid": b"t" * 32,
        "kind": Kind.PURCHASE,
        "amount": amount,
        "mcc": "5411",
        "merchant_id": "M",
        "country": "CN",
    }
    return rules.Past(**(values | changes))


def test_a_back_test_says_which_of_the_past_a_rule_would_have_declined() -> None:
    history = [
        past("2026-03-04 10:00", 60),
        past("2026-03-04 11:00", 50),  # would be 110: declined, and so not counted
        past("2026-03-04 12:00", 40),
        past("2026-03-04 12:00", 90, stream=2),  # another account counts apart
        past("2026-03-04 13:00", 500, kind=Kind.LOAD),  # the rule isn't about loads
        past("2026-03-05 00:00", 100),
        past("2026-03-05 00:01", 1),
    ]
    result = rules.backtest(amount_rule(Window.DAY, 100, shadow=True), history)
    assert (result.examined, result.concerned) == (7, 6)
    assert (result.declined_count, result.declined_amount) == (2, 51)
    assert [declined.past.amount for declined in result.declined] == [50, 1]
    assert result.declined[0].reason.values["used"] == 60


def test_a_back_test_counts_all_and_keeps_the_first() -> None:
    history = [past("2026-03-04 10:00", 10)] * 5
    result = rules.backtest(Rule("r", "Never"), history, keep=2)
    assert (result.declined_count, len(result.declined)) == (5, 2)


def test_a_back_test_tells_what_the_rule_tells_when_it_is_live() -> None:
    rule = Rule(
        "r",
        "Food",
        Conditions(mccs=("5411-5499",)),
        limit=Limit(Window.WEEK, Measure.AMOUNT, 120),
    )
    books = Books(account(10_000), limits=(rule,))
    history, declined = [], 0
    for number in range(60):
        now = at(f"2026-03-{1 + number // 3:02d} 1{number % 3}:00")
        books.go_to(now)
        amount, mcc = 7 + number * 5 % 40, "5411" if number % 4 else "5812"
        decision = books.ask(Kind.PURCHASE, amount, mcc=mcc)
        declined += decision.outcome is Outcome.AMOUNT_LIMIT
        history.append(past("2026-03-01 10:00", amount, at_ms=now.now_ms, mcc=mcc, txid=books.last))
    assert declined
    assert rules.backtest(rule, history).declined_count == declined
