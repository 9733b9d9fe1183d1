"""How values look, and how what people type is read."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone

import pytest

from console import presentation, wording
from console.views.transactions import Filters
from nodes.authorization.model import Kind, Outcome

SHANGHAI = timezone(timedelta(hours=8))


@pytest.mark.parametrize(
    ("minor", "currency", "shown"),
    [
        (123456789, "CNY", "1,234,567.89"),
        (5, "CNY", "0.05"),
        (-1050, "CNY", "−10.50"),
        (1200, "JPY", "1,200"),
        (0, "EUR", "0.00"),
        (None, "CNY", "–"),
    ],
)
def test_amounts(minor: int | None, currency: str, shown: str) -> None:
    assert presentation.amount(minor, currency) == shown


@pytest.mark.parametrize(
    ("typed", "currency", "minor"),
    [
        ("12.50", "CNY", 1250),
        ("12.5", "CNY", 1250),
        ("1,200", "CNY", 120000),
        ("0", "CNY", 0),
        ("7", "JPY", 7),
        ("7.5", "JPY", None),
        ("-1", "CNY", None),
        ("1e3", "CNY", None),
        ("1.234", "CNY", None),
        ("", "CNY", None),
        ("٣", "CNY", None),
    ],
)
def test_typed_amounts(typed: str, currency: str, minor: int | None) -> None:
    assert presentation.minor_units(typed, currency) == minor


def test_moments_are_shown_in_the_zone() -> None:
    text = "2026-11-22T16:05:09.250Z"
    assert presentation.precise_time(text, SHANGHAI) == "2026-11-23 00:05:09.250"
    assert presentation.clock_time(text, UTC) == "16:05:09"
    assert presentation.day(text, SHANGHAI) == "2026-11-23"
    assert presentation.date_time("not a moment", UTC) == "–"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0123, "12 ms"),
        (4.25, "4.2 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert presentation.duration(seconds) == shown


def test_long_hashes_are_cut_to_their_ends() -> None:
    assert presentation.short("ab" * 32) == "abababab…ababab"
    assert presentation.short("short") == "short"
    assert presentation.shortened(f"transaction {'cd' * 32}") == "transaction cdcdcdcd…cdcdcd"


def test_a_masked_card_shows_first_six_and_last_four_only() -> None:
    assert presentation.card("622300******4001") == "6223 00•• •••• 4001"


def test_every_kind_and_outcome_has_words() -> None:
    assert {kind.value for kind in Kind} == set(wording.KINDS)
    assert {outcome.value for outcome in Outcome} == set(wording.OUTCOMES)


def test_filters_become_the_nodes_query() -> None:
    filters = Filters(q="HRB00001", kind="purchase", start="2026-11-23T00:30", min_amount="12.50")
    query, wrong = filters.for_node(SHANGHAI, "CNY")
    assert wrong == {}
    assert query == {
        "kind": "purchase",
        "terminal_id": "HRB00001",
        "from": "2026-11-22T16:30:00Z",
        "min_amount": 1250,
    }


def test_what_can_not_be_meant_is_not_asked() -> None:
    filters = Filters(q="?", start="soon", max_amount="x")
    query, wrong = filters.for_node(UTC, "CNY")
    assert query == {}
    assert set(wrong) == {"q", "start", "max_amount"}
