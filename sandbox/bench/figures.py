"""The figures of the benchmark: what each must reach, and how runs become one number. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Goal:
    """What a figure is a ratio of, and its bounds: floor must hold, aim is what we are after.

    `least`: more is better. Otherwise the floor is an upper bound.
    """

    of: str
    to: str
    unit: str
    floor: float
    aim: float | None = None
    least: bool = True

    def met(self, ratio: float) -> bool:
        """Whether the floor holds."""
        return ratio >= self.floor if self.least else ratio <= self.floor


_RATE = "approved purchases/s"
#: By name, as issue 3 gives them.
GOALS: Mapping[str, Goal] = {
    "node_authorizations_vs_tpcb": Goal("batch call to the node's API", "TPC-B", _RATE, 5, 12),
    "full_path_vs_tpcb": Goal("terminal to issuer and back", "TPC-B", _RATE, 1, 3),
    "on_us_path_vs_tpcb": Goal("the same, one institution", "TPC-B", _RATE, 2, 6),
    "hot_merchant_vs_spread": Goal("one merchant takes all", "1,000 merchants", _RATE, 0.9),
    "idle_p50_vs_tpcb_one_client": Goal(
        "one terminal's purchase", "TPC-B, one client", "ms (median)", 4, least=False
    ),
    "authorizations_vs_transfer_function": Goal(
        "batch call to the node's API", "plain SQL transfer", _RATE, 10, 25
    ),
    "at_5m_rows_vs_empty": Goal("5 million rows before", "empty books", _RATE, 0.85),
}


@dataclass
class Series:
    """The runs of one figure, and the runs of what it is compared with, made beside them."""

    name: str
    runs: list[float] = field(default_factory=list)
    yardsticks: list[float] = field(default_factory=list)
    latencies: list[Mapping[str, float]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def add(self, run: float, yardstick: float, latency: Mapping[str, float] | None = None) -> None:
        """A run and the yardstick's run beside it."""
        self.runs.append(run)
        self.yardsticks.append(yardstick)
        if latency:
            self.latencies.append(latency)

    def summary(self) -> dict[str, Any]:
        """As it stands in bench.json."""
        goal = GOALS[self.name]
        ratio = median_ratio(self.runs, self.yardsticks)
        document: dict[str, Any] = {
            "value": round(statistics.median(self.runs), 3),
            "yardstick": round(statistics.median(self.yardsticks), 3),
            "ratio": round(ratio, 3),
            "floor": goal.floor,
            "aim": goal.aim,
            "floor_met": goal.met(ratio),
            "unit": goal.unit,
            "of": goal.of,
            "to": goal.to,
            "runs": [round(run, 3) for run in self.runs],
            "yardstick_runs": [round(run, 3) for run in self.yardsticks],
        }
        if self.latencies:
            document["latency_ms"] = medians(self.latencies)
        return document | self.extra


def median_ratio(runs: Sequence[float], yardsticks: Sequence[float]) -> float:
    """The median of the ratios of runs made side by side."""
    return statistics.median(run / beside for run, beside in zip(runs, yardsticks, strict=True))


def medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each value over several runs."""
    return {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0..1) of the values don't exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    return {
        "p50": round(percentile(seconds, 0.50) * 1000, 3),
        "p99": round(percentile(seconds, 0.99) * 1000, 3),
    }


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The least-squares slope of y over x."""
    mean_x = statistics.fmean(x for x, _ in points)
    mean_y = statistics.fmean(y for _, y in points)
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x, _ in points)
