"""Reasons of declines, limits and simulated payments, as people read and type them."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone
from typing import Any

import pytest

from console import reasons, wording
from console.views.simulations import SimulationForm
from nodes.authorization.controls import Conditions, Window
from nodes.authorization.model import Outcome
from nodes.ledger.model import AccountKind

SHANGHAI = timezone(timedelta(hours=8))


def _reason(code: str, rule: str | None = None, **values: Any) -> dict[str, Any]:
    return {
        "code": code,
        "text": "as the node says it",
        "rule_id": "rule-1" if rule else None,
        "rule_name": rule,
        "values": values,
    }


def test_a_limit_is_told_with_amounts_of_the_currency() -> None:
    reason = _reason(
        "amount_limit", "A day", limit=50_000, used=37_000, amount=20_000, window="day"
    )
    why = reasons.explained(reason, "CNY")
    assert why.sentence == (
        "The rule “A day” allows 500.00 CNY a day: 370.00 CNY were used before, "
        "and this asks for 200.00 CNY."
    )
    assert why.rows[0] == ("Limit", "500.00 CNY")
    assert reasons.explained(reason, "JPY").rows[0] == ("Limit", "50,000 JPY")


def test_limits_on_counts_are_no_amounts() -> None:
    reason = _reason("count_limit", "Three", limit=3, used=3, amount=1_000, window="week")
    why = reasons.explained(reason, "CNY")
    assert why.sentence == "The rule “Three” allows 3 payments a week, and 3 were made."
    assert ("Asked for", "10.00 CNY") in why.rows
    assert reasons.explained(_reason("uses_exhausted", limit=1), "CNY").sentence == (
        "All 1 uses of the card are spent."
    )


def test_a_code_that_the_console_does_not_know_is_told_in_the_nodes_words() -> None:
    why = reasons.explained(_reason("of_a_later_release", limit=3), "CNY")
    assert why.sentence == "as the node says it"


def test_a_value_that_is_missing_or_has_braces_breaks_nothing() -> None:
    assert "–" in reasons.explained(_reason("insufficient_funds", amount=5), "CNY").sentence
    odd = reasons.explained(_reason("original_mismatch", differs="{0}{x}"), "CNY")
    assert "{0}{x}" in odd.sentence


@pytest.mark.parametrize(
    ("used", "maximum", "percent"),
    [(0, 100, 0), (None, 100, 0), (74, 100, 74), (1, 3, 33), (250, 100, 100), (1, 0, 100)],
)
def test_shares(used: int | None, maximum: int, percent: int) -> None:
    assert reasons.share(used, maximum) == percent


def test_what_a_rule_is_about_is_said_in_words() -> None:
    when: dict[str, Any] = {
        name: [] for name in ("mccs", "merchants", "countries", "channels", "entry_modes")
    }
    when |= {"kinds": [], "weekdays": [6, 7], "from_minute": 1320, "to_minute": None}
    when["mccs"] = ["5811-5814"]
    assert set(when) == set(Conditions.__struct_fields__)
    assert reasons.conditions({"when": when}) == [
        "MCC 5811-5814",
        "Saturday, Sunday",
        "22:00 to 24:00",
    ]


def test_there_are_words_for_what_the_nodes_can_say() -> None:
    own = {"approved", "system_error", "issuer_unavailable", "card_not_permitted"}
    # What the acquirer refuses by itself carries no reason of the issuer's.
    acquirers = set(list(Outcome)[: list(Outcome).index(Outcome.ORIGINAL_NOT_FOUND)])
    acquirers.discard(Outcome.AMOUNT_INVALID)
    assert {code.value for code in set(Outcome) - acquirers} - own <= set(wording.REASONS)
    assert {window.value for window in Window} == set(wording.WINDOWS)
    assert set(AccountKind.__args__) == set(wording.ACCOUNT_KINDS)  # type: ignore[attr-defined]


def test_the_simulation_form_becomes_the_nodes_question() -> None:
    form = SimulationForm(amount="12.50", mcc="5812", at="2026-11-23T00:30", partial_ok="yes")
    payment, wrong = form.for_node(SHANGHAI)
    assert wrong == {}
    assert payment["amount"] == 1_250
    assert payment["at"] == "2026-11-22T16:30:00Z"
    assert payment["partial_ok"] is True
    assert SimulationForm(kind="balance_inquiry").for_node(UTC)[1] == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "refund"),
        ("amount", "0"),
        ("amount", "1.234"),
        ("currency", "XXX"),
        ("mcc", "54"),
        ("country", "china"),
        ("channel", "moon"),
        ("entry_mode", "999"),
        ("merchant_id", "short"),
        ("at", "soon"),
    ],
)
def test_what_the_node_would_refuse_is_said_at_its_field(field: str, value: str) -> None:
    typed = {"amount": "1", field: value}
    _, wrong = SimulationForm(**typed).for_node(UTC)
    assert set(wrong) == {field} | ({"amount"} if field == "currency" and not wrong else set())
