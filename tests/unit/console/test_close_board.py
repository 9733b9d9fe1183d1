"""The board of closes: which revision counts, and in which group it is."""

from __future__ import annotations

from datetime import date
from typing import Any

from console.close_board import board

DAY = "2026-09-22"


def close(stage: str, revision: int = 0, day: str = DAY, **more: Any) -> dict[str, Any]:
    return {
        "close_id": revision + 1,
        "acquirer": "meridian",
        "issuer": "aurora",
        "currency": "CNY",
        "business_date": day,
        "revision": revision,
        "stage": stage,
        "items": 10,
        "open_breaks": 0,
    } | more


def only(*closes: dict[str, Any]) -> Any:
    [row] = board({"meridian": closes}, None, 7).rows
    [cell] = row.cells.values()
    return cell


def test_the_newest_revision_counts_in_whatever_order_they_come() -> None:
    first, second = close("SUPERSEDED", 0), close("CONFIRMED", 1)
    for closes in ((first, second), (second, first)):
        cell = only(*closes)
        assert (cell.group, cell.close["revision"], cell.earlier) == ("confirmed", 1, 1)
        counts = board({"meridian": closes}, None, 7).counts
        assert counts == {"confirmed": 1, "broken": 0, "open": 0, "superseded": 1}


def test_stages_before_the_chains_word_are_open() -> None:
    for stage in ("PREPARED", "COMMITTED", "REVEALED", "EXPIRED"):
        assert only(close(stage)).group == "open"
    assert only(close("BROKEN")).group == "broken"


def test_two_views_of_one_close_are_one_cell_and_the_further_one_is_shown() -> None:
    views = {"meridian": [close("REVEALED")], "aurora": [close("CONFIRMED", close_id=9)]}
    made = board(views, None, 7)
    [cell] = made.rows[0].cells.values()
    assert (cell.close["stage"], cell.teller, cell.agrees) == ("CONFIRMED", "aurora", False)
    assert made.counts["confirmed"] == 1
    assert made.items == 10


def test_dates_go_back_from_the_newest_or_from_the_one_that_was_chosen() -> None:
    closes = [close("CONFIRMED"), close("CONFIRMED", day="2026-09-15")]
    made = board({"meridian": closes}, None, 7)
    assert made.dates[0] == date(2026, 9, 22)
    assert made.dates[-1] == date(2026, 9, 16)
    assert made.counts["confirmed"] == 1
    assert board({"meridian": closes}, date(2026, 9, 16), 7).counts["confirmed"] == 1
    assert board({"meridian": []}, None, 7).dates == []


def test_the_shade_tells_how_many_transactions_there_were() -> None:
    days = [close("CONFIRMED", day=f"2026-09-{20 + n}", items=n * 10) for n in range(4)]
    [row] = board({"meridian": days}, None, 7).rows
    shades = [row.cells[day].shade for day in sorted(row.cells)]
    assert shades[0] == 0
    assert shades == sorted(shades)
    assert shades[-1] == 4
