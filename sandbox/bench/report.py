"""What a benchmark says: a run in a line, the machine, the settings, the table."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from rich.table import Table

from sandbox.bench.chart import number
from sandbox.bench.figures import GOALS
from sandbox.bench.load import Result
from sandbox.bench.networks import BenchError
from sandbox.bench.settings import IN_FLIGHT, Settings
from sandbox.bench.yardsticks import CLIENTS, TPCB_SCALE
from sandbox.launcher import Running
from sandbox.postgres import DURABLE, TUNING


def rate_of(result: Result) -> float:
    """New purchases approved a second."""
    return result["approved"] / result["seconds"]


def describe(result: Result) -> str:
    """A run in a line."""
    latency = result["latency_ms"]
    return (
        f"{rate_of(result):,.0f} approved/s, {result['repeats']:,} repeats answered alike, "
        f"p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms"
    )


def record(settings: Settings) -> dict[str, Any]:
    """The settings as they stand in bench.json."""
    return {
        "quick": settings.quick,
        "comparable": not settings.quick,
        "seconds": settings.seconds,
        "runs": settings.runs,
        "in_flight": IN_FLIGHT,
        "node_calls_in_flight": settings.calls,
        "requests_a_call": settings.batch,
        "rows_before": settings.preload,
        "rows_before_growth": settings.growth_rows,
        "cards": f"{settings.cards}, drawn by a Zipf law, exponent 1.0",
        "repeats": "5 % of the messages, byte-identical, answers compared",
        "entry": "PIN checked on every purchase",
        "sealing_and_anchoring": "running",
        "yardstick": f"pgbench (TPC-B-like), -c {CLIENTS} -M prepared, scale {TPCB_SCALE}, same "
        "cluster, interleaved",
        "postgresql": {**TUNING, **DURABLE},
    }


def machine() -> dict[str, Any]:
    """What it ran on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": model[1] if model else platform.processor(),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def machine_line(found: Mapping[str, Any]) -> str:
    return (
        f"{found['cpus']} CPUs ({found['cpu']}), {found['memory_gib']} GiB, {found['system']}, "
        f"Python {found['python']}"
    )


def postgresql(network: Running) -> dict[str, str]:
    """What PostgreSQL says of itself: version, and the settings that a benchmark stands on."""
    names = ("server_version", *DURABLE, "shared_buffers", "max_wal_size", "wal_sync_method")
    dsn = network.network.postgres.superuser_dsn()
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)",
            (list(names),),
        ).fetchall()
    found = {str(name): str(value) for name, value in rows}
    if any(found[name] != "on" for name in DURABLE):
        raise BenchError("PostgreSQL isn't durable: nothing is measured on it")
    return found


def table(document: Mapping[str, Any]) -> Table:
    """The figures for people."""
    title = "NOT COMPARABLE: a quick run" if document.get("settings", {}).get("quick") else None
    found = Table(title=title)
    for column in ("figure", "value", "beside", "ratio", "floor", "aim", "p99 at half load"):
        found.add_column(column, justify="left" if column == "figure" else "right")
    for name, goal in GOALS.items():
        entry = document.get(name)
        if entry is not None:
            colour = "green" if entry["floor_met"] else "red"
            p99 = entry.get("p99_ms_at_half_load")
            found.add_row(
                name,
                number(entry["value"]),
                number(entry["yardstick"]),
                f"[{colour}]{entry['ratio']:.2f}[/]",
                f"{'≥' if goal.least else '≤'} {goal.floor:g}",
                f"{goal.aim:g}" if goal.aim else "",
                f"{p99:.1f} ms" if p99 is not None else "",
            )
    return found
