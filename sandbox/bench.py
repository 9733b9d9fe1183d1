"""`countersign bench`: throughput of the authorization path against PostgreSQL's own TPC-B.

docs/performance.md says what is measured and how to read it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nodes.db.engine import make_engine
from nodes.reconciliation.invariants import check_invariants
from sandbox.founding import FoundingError
from sandbox.launcher import running
from sandbox.load import GatewayOrder, NodeOrder, Result
from sandbox.network import (
    ACQUIRER,
    MERCHANTS,
    AlreadyRunningError,
    Card,
    CardPlan,
    DemoDirectory,
    MerchantPlan,
    NotADemoDirectoryError,
    Plan,
    api_url,
)
from sandbox.postgres import DURABLE, TUNING, PostgresError
from sandbox.services import Network
from sandbox.supervisor import ProcessFailedError

#: The node load calls one issuer past the acquirer's books, so it has a pair of members of its own:
#: the acquirer's numbers of a pair must have no gap.
_NODE_ISSUER = "borealis"
_GATEWAY_ISSUER = "aurora"
_MEASURED = (ACQUIRER, _NODE_ISSUER, _GATEWAY_ISSUER)
_IN_FLIGHT = 128
_CARDS = 256
_PGBENCH_CLIENTS = 32
_PGBENCH_SCALE = 20
_UNIT = "approved purchases/s"
#: Outcomes that mean that the system failed, not that it declined: such a run is void.
_SYSTEM_ERRORS = frozenset(
    {"overloaded", "system_error", "issuer_unavailable", "deadline_passed", "91", "96", "A0", "?"}
)
#: How long the log may take to seal what a run has produced, before the next one begins.
_DRAIN_S = 300.0


class BenchError(RuntimeError):
    """A run is void; the text says why."""


@dataclass(frozen=True)
class Settings:
    """How long and how often. `messages`: prepared for each terminal, at least as many as sent."""

    seconds: float = 10.0
    runs: int = 3
    calls: int = 2
    messages: int = 600


@dataclass
class Series:
    """The runs of one benchmark, per second, and the yardstick's runs beside them."""

    runs: list[float] = field(default_factory=list)
    yardsticks: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """As it stands in bench.json."""
        value, yardstick = statistics.median(self.runs), statistics.median(self.yardsticks)
        return {
            "value": round(value, 1),
            "yardstick": round(yardstick, 1),
            "ratio": round(value / yardstick, 3),
            "unit": _UNIT,
            "runs": [round(run, 1) for run in self.runs],
            "yardstick_runs": [round(run, 1) for run in self.yardsticks],
        }


def bench_plan() -> Plan:
    """One merchant with as many terminals as requests in flight; cards that last."""
    first = MERCHANTS[0]
    terminals = tuple(f"LD{number:06d}" for number in range(1, _IN_FLIGHT + 1))
    merchant = MerchantPlan(first.merchant_id, first.name, first.mcc, first.member_id, terminals)
    issuers = (_NODE_ISSUER, _GATEWAY_ISSUER)
    cards = tuple(CardPlan(issuer, 100_000_000) for issuer in issuers for _ in range(_CARDS))
    return Plan((merchant,), cards)


def run_bench(directory: Path, output: Path, settings: Settings) -> int:
    """Measure, print, write `output`. The exit status: 0, or 2 if a run was void."""
    console = Console(highlight=False)
    demo = DemoDirectory(directory, bench_plan())
    try:
        with demo.locked(fresh=True) as state:
            console.print(f"Setting up a network of its own in {demo.path}")
            with running(demo, state, lambda _: None, console=False) as network:
                bench = Bench(network.network, settings, console)
                document = bench.run()
    except (
        BenchError,
        NotADemoDirectoryError,
        AlreadyRunningError,
        ProcessFailedError,
        FoundingError,
        PostgresError,
    ) as error:
        console.print(f"[red]No result:[/] {escape(str(error))}")
        return 2
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=1) + "\n")
    console.print(_table(document))
    console.print(f"Written to {output}")
    return 0


class Bench:
    """The measurements on one running network."""

    def __init__(self, network: Network, settings: Settings, console: Console) -> None:
        self._network = network
        self._settings = settings
        self._console = console
        self._batch = 0

    def run(self) -> dict[str, Any]:
        """Interleaved: yardstick, node, yardstick, gateway, so that a slow machine slows all."""
        self._say(f"filling pgbench's tables, scale {_PGBENCH_SCALE}")
        self._prepare_yardstick()
        node, gateway = Series(), Series()
        for number in range(1, self._settings.runs + 1):
            for name, series, measure in (
                ("node", node, self._node),
                ("gateway", gateway, self._gateway),
            ):
                series.yardsticks.append(self._yardstick())
                series.runs.append(measure())
                self._say(
                    f"run {number}, {name}: {series.runs[-1]:,.0f} approved/s beside "
                    f"{series.yardsticks[-1]:,.0f} TPC-B/s"
                )
                self._after_run()
        return {
            "node_authorization": node.summary(),
            "gateway_purchase": gateway.summary(),
            "machine": _machine(),
            "settings": self._settings_of_record(),
        }

    # ------------------------------------------------------------- measuring

    def _node(self) -> float:
        directory, state = self._network.directory, self._network.state
        acquirer = directory.keystore(ACQUIRER)
        order = NodeOrder(
            issuer=_NODE_ISSUER,
            url=api_url(state, _NODE_ISSUER),
            message_key=acquirer.secret("message").hex(),
            peer_key=self._network.public_key(_NODE_ISSUER, "message").hex(),
            zone_key=acquirer.secret(f"zone:{_NODE_ISSUER}").hex(),
            cards=self._cards(_NODE_ISSUER),
            merchant_id=directory.plan.merchants[0].merchant_id,
            calls=self._settings.calls,
            batch=_IN_FLIGHT // self._settings.calls,
            seconds=self._settings.seconds,
            business_batch=self._next_batch(),
        )
        return self._load("node", order)

    def _gateway(self) -> float:
        state = self._network.state
        order = GatewayOrder(
            port=state.ports["gateway"],
            cards=self._cards(_GATEWAY_ISSUER),
            terminals=state.terminals,
            messages=self._settings.messages,
            seconds=self._settings.seconds,
            business_batch=self._next_batch(),
        )
        return self._load("gateway", order)

    def _cards(self, issuer: str) -> list[Card]:
        return [card for card in self._network.state.cards if card["member"] == issuer]

    def _next_batch(self) -> str:
        self._batch += 1
        return f"{self._batch:06d}"

    def _load(self, name: str, order: Mapping[str, Any]) -> float:
        done = subprocess.run(
            [sys.executable, "-m", "sandbox.load", name],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=self._settings.seconds + 600,
            check=False,
        )
        if done.returncode != 0:
            raise BenchError(f"the {name} load failed: {done.stderr.strip()[-2000:]}")
        result: Result = json.loads(done.stdout)
        failures = {
            outcome: count
            for outcome, count in result["outcomes"].items()
            if outcome in _SYSTEM_ERRORS
        }
        if failures:
            raise BenchError(f"the {name} run is void: {failures}")
        others = set(result["outcomes"]) - {"approved", "00"}
        if others:
            raise BenchError(f"the {name} run was to be approved throughout, but: {others}")
        return result["approved"] / result["seconds"]

    def _prepare_yardstick(self) -> None:
        with psycopg.connect(self._network.postgres.superuser_dsn(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE tpcb")
        self._pgbench("--initialize", "--quiet", f"--scale={_PGBENCH_SCALE}")

    def _yardstick(self) -> float:
        """Transactions a second of PostgreSQL's TPC-B-like script, prepared statements."""
        said = self._pgbench(
            f"--client={_PGBENCH_CLIENTS}",
            f"--jobs={min(os.cpu_count() or 1, 4)}",
            f"--time={max(1, round(self._settings.seconds))}",
            "--protocol=prepared",
            "--no-vacuum",
        )
        found = re.search(r"^tps = ([0-9.]+)", said, re.MULTILINE)
        if found is None:
            raise BenchError(f"pgbench said no rate: {said[-500:]}")
        return float(found[1])

    def _pgbench(self, *options: str) -> str:
        path, environment = self._network.postgres.binary("pgbench")
        postgres = self._network.postgres
        done = subprocess.run(
            [
                *(path, *options),
                *(f"--host={postgres.host}", f"--port={postgres.port}", "--username=postgres"),
                "tpcb",
            ],
            env=environment | {"PGPASSWORD": postgres.password},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BenchError(f"pgbench failed: {done.stderr.strip()[-500:]}")
        return done.stdout

    # ------------------------------------------------------------- around a run

    def _after_run(self) -> None:
        """Let the log catch up, so that it doesn't run beside the next yardstick; then check."""
        began = time.monotonic()
        for member in _MEASURED:
            self._await_sealed(member)
        for member in _MEASURED:
            engine = make_engine(self._network.dsn(member, "worker"))
            try:
                violations = check_invariants(engine)
            finally:
                engine.dispose()
            if violations:
                found = "; ".join(str(violation) for violation in violations[:5])
                raise BenchError(f"invariants are violated at {member}: {found}")
        self._say(f"  log sealed and invariants checked in {time.monotonic() - began:.1f} s")

    def _await_sealed(self, member: str) -> None:
        deadline = time.monotonic() + _DRAIN_S
        with psycopg.connect(self._network.dsn(member, "worker"), autocommit=True) as connection:
            while True:
                row = connection.execute(
                    "SELECT count(*) FROM transactions t WHERE NOT EXISTS "
                    "(SELECT FROM log_leaves l WHERE l.transaction_id = t.transaction_id)"
                ).fetchone()
                if row == (0,):
                    return
                if time.monotonic() > deadline:
                    raise BenchError(f"{member} has not sealed its rows after {_DRAIN_S:.0f} s")
                time.sleep(1)

    def _settings_of_record(self) -> dict[str, Any]:
        return {
            "seconds": self._settings.seconds,
            "runs": self._settings.runs,
            "in_flight": _IN_FLIGHT,
            "node_calls_in_flight": self._settings.calls,
            "cards": _CARDS,
            "entry": "PIN checked on every purchase",
            "sealing_and_anchoring": "running",
            "yardstick": f"pgbench (TPC-B-like), -c {_PGBENCH_CLIENTS} -M prepared, "
            f"scale {_PGBENCH_SCALE}, same cluster, interleaved",
            "postgresql": {**TUNING, **DURABLE},
        }

    def _say(self, text: str) -> None:
        self._console.print(f"  {escape(text)}")


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": model[1] if model else platform.processor(),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _table(document: dict[str, Any]) -> Table:
    table = Table(title="Approved purchases a second, as multiples of TPC-B")
    for column in ("benchmark", "value", "TPC-B", "ratio", "runs"):
        table.add_column(column, justify="left" if column == "benchmark" else "right")
    for name in ("node_authorization", "gateway_purchase"):
        entry = document[name]
        table.add_row(
            name,
            f"{entry['value']:,.0f}",
            f"{entry['yardstick']:,.0f}",
            f"{entry['ratio']:.2f}",
            " ".join(f"{run:,.0f}" for run in entry["runs"]),
        )
    return table
