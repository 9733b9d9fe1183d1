"""`countersign bench --designs`: the two designs of the engine, measured in one run (ADR 8).

(a) decide in the database over locked rows, (b) decide in the node on versioned snapshots; see
designs_schema.py and designs_client.py. On a server of their own, each in a database of its own,
interleaved with each other and with TPC-B.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from nodes.db.engine import migrate
from sandbox.bench.designs_client import Found, Order
from sandbox.bench.designs_schema import fill
from sandbox.bench.yardsticks import Yardsticks
from sandbox.postgres import EmbeddedPostgres

#: Name, design, whether an account's requests keep to one of the two connections.
VARIANTS = (
    ("decide_in_database", "database", True),
    ("decide_in_database_any_connection", "database", False),
    ("decide_in_node", "node", True),
    ("decide_in_node_two_processes", "node", False),
)
BATCH = 256
#: Requests prepared a second of a run: more than any design has answered.
_PREPARED_A_SECOND = 32_000

Say = Callable[[str], None]


class DesignError(RuntimeError):
    """A prototype failed; the text says why."""


def measure_designs(
    directory: Path, *, rows: int, seconds: float, runs: int, say: Say
) -> dict[str, Any]:
    """What stands in bench.json as `designs`. The server's directory is deleted afterwards."""
    server = EmbeddedPostgres(directory / "designs")
    server.delete()
    try:
        server.start()
        yardsticks = Yardsticks(server)
        say("filling pgbench's tables")
        yardsticks.prepare_tpcb()
        for design in ("database", "node"):
            began = time.monotonic()
            _prepare(server, design, rows)
            say(f"{rows:,} earlier transactions for {design} in {time.monotonic() - began:.0f} s")
        return _measure(server, yardsticks, rows, seconds, runs, say)
    finally:
        server.delete()


def _prepare(server: EmbeddedPostgres, design: str, rows: int) -> None:
    name = f"design_{design}"
    with psycopg.connect(server.superuser_dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    migrate(server.superuser_dsn(name))
    with psycopg.connect(server.superuser_dsn(name), autocommit=True) as connection:
        with connection.transaction():
            fill(connection, design, rows)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def _measure(
    server: EmbeddedPostgres,
    yardsticks: Yardsticks,
    rows: int,
    seconds: float,
    runs: int,
    say: Say,
) -> dict[str, Any]:
    found: dict[str, list[Found]] = {name: [] for name, _, _ in VARIANTS}
    tpcb: list[float] = []
    first = rows + 1_000
    for number in range(runs):
        tpcb.append(yardsticks.tpcb(seconds).per_second)
        say(f"run {number + 1}: TPC-B {tpcb[-1]:,.0f}/s")
        for name, design, lanes in VARIANTS:
            order = Order(
                dsn=server.superuser_dsn(f"design_{design}"),
                postmaster=server.pid or 0,
                design=design,
                lanes=lanes,
                seconds=seconds,
                batch=BATCH,
                prepared=round(_PREPARED_A_SECOND * seconds) + 4 * BATCH,
                first=first,
                seed=number,
            )
            first += order["prepared"]
            result = _run(order)
            found[name].append(result)
            rate = result["transactions"] / result["seconds"]
            say(f"run {number + 1}: {name} {rate:,.0f}/s")
    return {
        "rows_before": rows,
        "batch": BATCH,
        "connections": 2,
        "cards": "Zipf, exponent 1.0",
        "tpcb": {"value": round(statistics.median(tpcb), 1), "runs": [round(r, 1) for r in tpcb]},
        **{name: summary(results, tpcb) for name, results in found.items()},
    }


def summary(results: list[Found], tpcb: list[float]) -> dict[str, Any]:
    """Medians over a variant's runs; CPU in microseconds a transaction."""
    rates = [result["transactions"] / result["seconds"] for result in results]

    def cpu(name: str) -> float:
        each = [1e6 * float(r[name]) / r["transactions"] for r in results]  # type: ignore[literal-required]
        return round(statistics.median(each), 1)

    return {
        "value": round(statistics.median(rates), 1),
        "runs": [round(rate, 1) for rate in rates],
        "ratio_to_tpcb": round(
            statistics.median(r / y for r, y in zip(rates, tpcb, strict=True)), 2
        ),
        "postgres_us": cpu("postgres_cpu"),
        "client_us": cpu("client_cpu"),
        "conflicts": sum(result["conflicts"] for result in results),
        "unit": "transactions/s",
    }


def _run(order: Order) -> Found:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.bench.designs_client"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=order["seconds"] + 300,
        check=False,
    )
    if done.returncode != 0:
        raise DesignError(f"{order['design']}: {done.stderr.strip()[-2000:]}")
    result: Found = json.loads(done.stdout)
    return result
