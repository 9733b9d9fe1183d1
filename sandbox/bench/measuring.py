"""The measurements on a running network: loads, yardsticks beside them, and checks after each."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from sandbox.bench.cpu import rss_bytes
from sandbox.bench.figures import Series, medians, slope
from sandbox.bench.load import Result
from sandbox.bench.networks import (
    EMPTY_ISSUER,
    HOT,
    ISSUER,
    SPREAD,
    BenchError,
    await_sealed,
    check_books,
    gateway_order,
    load,
    node_order,
)
from sandbox.bench.report import describe, rate_of
from sandbox.bench.settings import GROWTH, IN_FLIGHT, Settings
from sandbox.bench.yardsticks import Yardsticks
from sandbox.launcher import Running
from sandbox.network import ACQUIRER

#: The p99 at half of the load may be this, in milliseconds.
P99_BOUND_MS = 50.0
#: Messages are prepared for this many times the rate that is expected.
_MARGIN = 1.4
#: Expected at first, as multiples of TPC-B.
_FIRST_GUESS = {"node": 12.0, "gateway": 3.0}
_MEMORY_STEP = 50_000
#: A run whose prepared messages lasted for less than this part of its time is void.
_ENOUGH = 0.5


class Reporter(Protocol):
    """Who is told what goes on."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def doing(self, text: str) -> None:
        """What is going on at the moment."""


class Measuring:
    """The measurements on one running network."""

    def __init__(self, said: Reporter, network: Running, settings: Settings) -> None:
        self._said, self._network, self._settings = said, network, settings
        self._yardsticks = Yardsticks(network.network.postgres)
        self._expected: dict[str, float] = {}
        self._series: dict[str, Series] = {}
        self._cpu: dict[str, list[Mapping[str, float]]] = {}

    def figures(self) -> dict[str, Any]:
        """Every figure but the one about growth, round by round."""
        wanted = [name for name in self._settings.figures if name != GROWTH]
        self._series = {name: Series(name) for name in wanted}
        self._said.doing("filling the yardsticks' tables")
        self._yardsticks.prepare_tpcb()
        if "authorizations_vs_transfer_function" in wanted:
            self._yardsticks.prepare_transfer()
        # What is left to be written of the tables isn't of the first runs.
        os.sync()
        for number in range(1, self._settings.runs + 1):
            self._round(number, wanted)
        return {name: self._summary(series) for name, series in self._series.items()}

    def _round(self, number: int, wanted: Collection[str]) -> None:
        """Each load with its yardstick just before it, so that a slow machine slows both."""
        if {"node_authorizations_vs_tpcb", "authorizations_vs_transfer_function"} & set(wanted):
            self._node_figures(wanted)
        if {"full_path_vs_tpcb", "hot_merchant_vs_spread"} & set(wanted):
            self._path_figures(wanted)
        if "on_us_path_vs_tpcb" in wanted:
            tpcb = self._tpcb()
            self._note("on_us_path_vs_tpcb", self._gateway(ACQUIRER, SPREAD), tpcb)
        if "idle_p50_vs_tpcb_one_client" in wanted:
            self._idle()
        self._said.say(f"round {number} of {self._settings.runs} done")

    def _node_figures(self, wanted: Collection[str]) -> None:
        tpcb = self._tpcb()
        result = self._node(ISSUER)
        if "node_authorizations_vs_tpcb" in wanted:
            self._note("node_authorizations_vs_tpcb", result, tpcb)
        if "authorizations_vs_transfer_function" in wanted:
            self._said.doing("plain transfer in SQL")
            transfer = self._yardsticks.transfer(self._settings.seconds).per_second
            self._note("authorizations_vs_transfer_function", result, transfer)

    def _path_figures(self, wanted: Collection[str]) -> None:
        tpcb = self._tpcb()
        full = self._gateway(ISSUER, SPREAD)
        if "full_path_vs_tpcb" in wanted:
            half = rate_of(full) / 2
            self._note("full_path_vs_tpcb", full, tpcb)
            open_loop = self._gateway(ISSUER, SPREAD, rate=half)
            extra = self._series["full_path_vs_tpcb"].extra
            extra.setdefault("half_load", []).append({"rate": half, **open_loop["latency_ms"]})
        if "hot_merchant_vs_spread" in wanted:
            hot = self._gateway(ISSUER, HOT)
            self._note("hot_merchant_vs_spread", hot, rate_of(full))

    def _idle(self) -> None:
        self._said.doing("one client")
        tpcb = self._yardsticks.tpcb_one_client(self._settings.seconds)
        result = self._gateway(ISSUER, SPREAD, links=1)
        series = self._series["idle_p50_vs_tpcb_one_client"]
        series.add(result["latency_ms"]["p50"], tpcb.p50_ms, result["latency_ms"])
        self._said.say(f"idle p50 {series.runs[-1]:.2f} ms beside {tpcb.p50_ms:.2f} ms")

    def growth(self) -> dict[str, Any]:
        """The same load on an issuer with a long history, and on one without any."""
        series = self._series[GROWTH] = Series(GROWTH)
        self._expected["node"] = 30_000.0
        for number in range(self._settings.runs):
            # Turn about: what comes first has the caches for itself.
            order = (ISSUER, EMPTY_ISSUER) if number % 2 else (EMPTY_ISSUER, ISSUER)
            results = {issuer: self._node(issuer) for issuer in order}
            self._note(GROWTH, results[ISSUER], rate_of(results[EMPTY_ISSUER]))
        return self._summary(series) | {"rows": self._settings.growth_rows}

    def memory(self) -> dict[str, Any]:
        """The issuer node's resident memory every 50,000 authorizations, up to a million."""
        step = _MEMORY_STEP // 25 if self._settings.quick else _MEMORY_STEP
        total = 20 * step
        pid = self._network.supervisor.pids()[f"{ISSUER}-node"]
        points = [(0, rss_bytes(pid))]
        while points[-1][0] < total:
            order = node_order(
                self._network,
                ISSUER,
                calls=self._settings.calls,
                batch=self._settings.batch,
                seconds=600,
                messages=step,
            )
            result = load("node", order)
            points.append((points[-1][0] + result["approved"], rss_bytes(pid)))
            self._said.say(f"{points[-1][0]:,} authorizations: {points[-1][1] / 2**20:.1f} MiB")
        self._after((ISSUER,))
        half = points[len(points) // 2 :]
        return {
            "authorizations": [count for count, _ in points],
            "rss_bytes": [size for _, size in points],
            "bytes_per_authorization": round(slope(points[1:]), 2),
            "bytes_per_authorization_second_half": round(slope(half), 2),
            "note": "resident memory of the issuer's node; the first value is before any load",
        }

    # -- one run

    def _tpcb(self) -> float:
        self._said.doing("TPC-B")
        measured = self._yardsticks.tpcb(self._settings.seconds).per_second
        for name, guess in _FIRST_GUESS.items():
            self._expected.setdefault(name, guess * measured)
        return measured

    def _node(self, issuer: str) -> Result:
        self._said.doing(f"calls to {issuer}'s node")
        order = node_order(
            self._network,
            issuer,
            calls=self._settings.calls,
            batch=self._settings.batch,
            seconds=self._settings.seconds,
            messages=self._messages("node"),
        )
        result = load("node", order)
        self._expected["node"] = rate_of(result) * _MARGIN
        self._said.say(f"{issuer}'s node: {describe(result)}")
        self._after((issuer,), result)
        return result

    def _gateway(
        self, issuer: str, merchants: str, *, links: int = IN_FLIGHT, rate: float | None = None
    ) -> Result:
        how = "one terminal" if links == 1 else f"{links} terminals"
        self._said.doing(f"{how} over the gateway to {issuer}, {merchants}")
        if rate is None and links > 1:
            messages = self._messages("gateway")
        else:
            messages = round((rate or 1_000) * self._settings.seconds * 1.2) + 4 * links + 1_000
        order = gateway_order(
            self._network,
            issuer,
            merchants,
            links=links,
            seconds=self._settings.seconds,
            messages=messages,
            rate=rate,
        )
        result = load("gateway", order)
        if rate is None and links > 1:
            known = self._expected.get("gateway", 0.0)
            self._expected["gateway"] = max(rate_of(result) * _MARGIN, known / 2)
        offered = f", {rate:,.0f} offered" if rate else ""
        self._said.say(f"{how} to {issuer}, {merchants}{offered}: {describe(result)}")
        self._after((issuer, ACQUIRER), result)
        return result

    def _messages(self, kind: str) -> int:
        return round(self._expected[kind] * self._settings.seconds) + 8 * IN_FLIGHT

    def _note(self, name: str, result: Result, yardstick: float) -> None:
        rate = rate_of(result)
        self._series[name].add(rate, yardstick, result["latency_ms"])
        each = {who: 1e6 * used / result["approved"] for who, used in result["cpu"].items()}
        self._cpu.setdefault(name, []).append(each)
        self._said.say(f"{name}: {rate:,.0f} beside {yardstick:,.0f}, {rate / yardstick:.2f}")

    def _summary(self, series: Series) -> dict[str, Any]:
        document = series.summary()
        if series.name in self._cpu:
            document["cpu_us"] = medians(self._cpu[series.name])
        halves = series.extra.get("half_load")
        if halves:
            p99 = statistics.median(half["p99"] for half in halves)
            document["p99_ms_at_half_load"] = p99
            document["p99_bound_ms"] = P99_BOUND_MS
            document["p99_bound_met"] = p99 <= P99_BOUND_MS
        return document

    def _after(self, members: Collection[str], result: Result | None = None) -> None:
        """Nothing of this run may go on beside the next; and its books must hold together."""
        too_short = result is not None and result["seconds"] < _ENOUGH * self._settings.seconds
        if too_short:
            raise BenchError("too few messages were prepared for the run")
        began = time.monotonic()
        members = dict.fromkeys(members)
        for member in members:
            self._said.doing(f"{member} seals")
            await_sealed(self._network, member)
        sealed = time.monotonic() - began
        self._said.doing(f"checking the invariants of {' and '.join(members)}")
        with ThreadPoolExecutor() as pool:
            dsns = [self._network.network.dsn(member, "worker") for member in members]
            list(pool.map(check_books, dsns, members))
        checked = time.monotonic() - began - sealed
        self._said.say(f"  sealed in {sealed:.1f} s, invariants checked in {checked:.1f} s")
