"""How fast committed rows are sealed, and what sealing costs the authorizations beside it.

On a network with a history: the issuer's worker stands still while purchases pile up, and the same
function that the worker runs seals them; then the load runs again with the worker at work, as its
settings have it, long enough for sealing to keep up.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from nodes.anchoring.model import LogIdentity
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.operations.sealing import seal
from nodes.clock import SystemClock
from nodes.db.engine import make_engine
from sandbox.bench.cpu import children
from sandbox.bench.load import Result
from sandbox.bench.networks import (
    ISSUER,
    Shape,
    await_sealed,
    check_books,
    load,
    measured_network,
    node_order,
)
from sandbox.bench.report import rate_of
from sandbox.bench.settings import IN_FLIGHT
from sandbox.launcher import Running

#: So many rows are to be sealed within so many seconds.
SEAL_ROWS, SEAL_BOUND_S = 100_000, 10.0
#: What is left of the rate of authorizations while the worker seals.
KEPT_BOUND = 0.9
_CALLS = 2
_EXPECTED_RATE = 8_000

Say = Callable[[str], None]


def measure_sealing(
    directory: Path, cache: Path, *, rows: int, history: int, seconds: float, runs: int, say: Say
) -> dict[str, Any]:
    """The section "sealing" of the result."""
    with measured_network(Shape("main", history), directory, cache, say) as network:
        backlog, alone = _pile_up(network, rows, seconds, say)
        took, peak = _seal_all(network)
        say(f"{backlog:,} rows sealed in {took:.2f} s")
        rates, beside = [], []
        for _ in range(runs):
            with _still(network):
                rates.append(rate_of(_load(network, seconds)))
            await_sealed(network, ISSUER)
            beside.append(rate_of(_load(network, seconds)))
            await_sealed(network, ISSUER)
            say(f"{rates[-1]:,.0f} authorizations/s without sealing, {beside[-1]:,.0f} with")
        check_books(network.network.dsn(ISSUER, "worker"), ISSUER)
    kept = statistics.median(b / r for b, r in zip(beside, rates, strict=True))
    per_bound = took * SEAL_ROWS / backlog
    return {
        "rows": backlog,
        "seconds": round(took, 3),
        "us_a_row": round(took / backlog * 1e6, 1),
        "seconds_of_100000": round(per_bound, 3),
        "bound_s": SEAL_BOUND_S,
        "bound_met": per_bound <= SEAL_BOUND_S,
        "longest_transaction_s": round(peak, 3),
        "authorizations_per_s": {
            "while_piling_up": [round(rate) for rate in alone],
            "without_sealing": [round(rate) for rate in rates],
            "with_sealing": [round(rate) for rate in beside],
        },
        "kept": round(kept, 3),
        "kept_bound": KEPT_BOUND,
        "kept_bound_met": kept >= KEPT_BOUND,
    }


def _load(network: Running, seconds: float) -> Result:
    order = node_order(
        network,
        ISSUER,
        calls=_CALLS,
        batch=IN_FLIGHT // _CALLS,
        seconds=seconds,
        messages=round(_EXPECTED_RATE * seconds),
    )
    return load("node", order)


def _pile_up(network: Running, rows: int, seconds: float, say: Say) -> tuple[int, list[float]]:
    """Authorizations until so many rows wait; how many do, and the rates."""
    rates: list[float] = []
    _stop_worker(network)
    while (waiting := _waiting(network)) < rows:
        rates.append(rate_of(_load(network, seconds)))
        say(f"{_waiting(network):,} rows wait, {rates[-1]:,.0f} authorizations/s")
    return waiting, rates


def _seal_all(network: Running) -> tuple[float, float]:
    """Seal what waits by the worker's own function; all the time, and the longest batch's."""
    state, directory = network.network.state, network.network.directory
    identity = LogIdentity(ISSUER, state.chain_id, state.contracts["AnchorRegistry"].lower())
    signer = NoteSigner(directory.keystore(ISSUER).secret("note"))
    engine = make_engine(network.network.dsn(ISSUER, "worker"))
    longest, began = 0.0, time.perf_counter()
    try:
        while True:
            started = time.perf_counter()
            if seal(engine, identity, signer, SystemClock()) is None:
                return time.perf_counter() - began, longest
            longest = max(longest, time.perf_counter() - started)
    finally:
        engine.dispose()
        _signal_worker(network, signal.SIGCONT)


def _waiting(network: Running) -> int:
    with psycopg.connect(network.network.dsn(ISSUER, "worker")) as connection:
        row = connection.execute(
            "SELECT count(*) FROM transactions AS t WHERE (t.xact, t.transaction_id) > (SELECT"
            " last_xact, last_transaction_id FROM batches ORDER BY seq DESC LIMIT 1)"
        ).fetchone()
    return int(row[0]) if row else 0


@contextmanager
def _still(network: Running) -> Iterator[None]:
    """The issuer's worker stands still in here."""
    _stop_worker(network)
    try:
        yield
    finally:
        _signal_worker(network, signal.SIGCONT)


def _stop_worker(network: Running) -> None:
    """Stop it, but not while it seals: it would hold the log's lock."""
    while True:
        _signal_worker(network, signal.SIGSTOP)
        with psycopg.connect(network.network.dsn(ISSUER, "worker")) as connection:
            row = connection.execute(
                "SELECT pg_try_advisory_xact_lock(hashtextextended('countersign/seal', 0))"
            ).fetchone()
        if row == (True,):
            return
        _signal_worker(network, signal.SIGCONT)
        time.sleep(0.2)


def _signal_worker(network: Running, number: signal.Signals) -> None:
    pid = network.supervisor.pids()[f"{ISSUER}-worker"]
    for process in (pid, *children(pid)):
        os.kill(process, number)
