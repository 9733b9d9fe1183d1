"""The day close board: pairs by business dates, from the closes that nodes know. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

Json = dict[str, Any]

#: Stages in the order in which a close goes through them (docs/reconciliation.md).
STAGES = (
    "PREPARED",
    "COMMITTED",
    "REVEALED",
    "EXPIRED",
    "BROKEN",
    "CONFIRMED",
    "SUPERSEDED",
)
_GROUPS = {"CONFIRMED": "confirmed", "BROKEN": "broken", "SUPERSEDED": "superseded"}
#: Steps of a cell's shade, by its share of the board's largest close.
_SHADES = 4


def group_of(stage: str) -> str:
    """A stage's group on the board: confirmed, broken, superseded, or open."""
    return _GROUPS.get(stage, "open")


@dataclass
class Cell:
    """One pair, currency and date: the newest revision, as each institution sees it."""

    close: Json  # the newest revision
    #: Member id of the institution whose node told it.
    teller: str
    #: Stage by the institutions that tell of this revision.
    told: dict[str, str] = field(default_factory=dict)
    earlier: int = 0  # revisions before it
    shade: int = 0

    @property
    def group(self) -> str:
        """Its colour on the board. A superseded close whose successor isn't known is open: it
        counts for what it was, not for what stands now."""
        return group_of(self.close["stage"])

    @property
    def agrees(self) -> bool:
        """Whether all that tell of it tell the same stage."""
        return len(set(self.told.values())) <= 1


@dataclass(frozen=True)
class Row:
    """One pair in one currency."""

    acquirer: str
    issuer: str
    currency: str
    cells: dict[date, Cell]


@dataclass(frozen=True)
class Board:
    """The whole: dates from the newest back, and how many closes are in each group."""

    dates: list[date]
    rows: list[Row]
    counts: dict[str, int]
    items: int
    open_breaks: int


def board(closes: Mapping[str, Iterable[Json]], until: date | None, days: int) -> Board:
    """The board of the closes that each institution (by member id) tells of: `days` dates up to
    `until`, or up to the newest date that has a close."""
    found: dict[tuple[str, str, str, date], Cell] = {}
    superseded: set[tuple[str, str, str, date, int]] = set()
    for teller, items in closes.items():
        for close in items:
            day = date.fromisoformat(close["business_date"])
            key = (close["acquirer"], close["issuer"], close["currency"], day)
            if close["stage"] == "SUPERSEDED":
                superseded.add((*key, close["revision"]))
            _take(found, key, teller, close)
    last = until or max((key[3] for key in found), default=None)
    if last is None:
        return Board([], [], dict.fromkeys(("confirmed", "broken", "open", "superseded"), 0), 0, 0)
    dates = [last - timedelta(days=number) for number in range(days)]
    shown = {key: cell for key, cell in found.items() if dates[-1] <= key[3] <= last}
    _shade(shown.values())
    rows: dict[tuple[str, str, str], dict[date, Cell]] = {}
    for key in sorted(shown):
        rows.setdefault(key[:3], {})[key[3]] = shown[key]
    counts = dict.fromkeys(("confirmed", "broken", "open", "superseded"), 0)
    for key, cell in shown.items():
        if cell.group != "superseded":
            counts[cell.group] += 1
        counts["superseded"] += sum(gone[:4] == key for gone in superseded)
    return Board(
        dates,
        [Row(*pair, cells) for pair, cells in rows.items()],
        counts,
        sum(cell.close["items"] for cell in shown.values()),
        sum(cell.close["open_breaks"] for cell in shown.values()),
    )


def _take(
    found: dict[tuple[str, str, str, date], Cell],
    key: tuple[str, str, str, date],
    teller: str,
    close: Json,
) -> None:
    """Put a close on the board: the newest revision counts, of two views the one that is further;
    that a confirmed revision follows is told by a higher number, so revisions come first."""
    cell = found.get(key)
    if cell is None or close["revision"] > cell.close["revision"]:
        found[key] = Cell(close, teller, {teller: close["stage"]}, earlier=close["revision"])
    elif close["revision"] == cell.close["revision"]:
        cell.told[teller] = close["stage"]
        if STAGES.index(close["stage"]) > STAGES.index(cell.close["stage"]):
            cell.close, cell.teller = close, teller


def _shade(cells: Iterable[Cell]) -> None:
    cells = list(cells)
    most = max((cell.close["items"] for cell in cells), default=0)
    for cell in cells:
        items = cell.close["items"]
        cell.shade = min(_SHADES, 1 + items * _SHADES // (most + 1)) if items else 0
