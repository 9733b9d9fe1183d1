"""The networks that are measured: founded once, given a history, and copied for each benchmark.

A founded network with its history takes minutes to make, so it is kept below var/bench-cache under
a hash of all that it depends on; a benchmark works on a copy, so each begins with the same books.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from nodes.anchoring.model import LogIdentity
from nodes.crypto.pan import random_pan
from nodes.db.engine import make_engine
from nodes.reconciliation.invariants import check_invariants
from sandbox.bench import preload
from sandbox.bench.history import History, HistoryTerminal
from sandbox.bench.load import GatewayOrder, NodeOrder, Processes, Result
from sandbox.founding import NodeAdministration
from sandbox.launcher import Running, running
from sandbox.network import (
    ACQUIRER,
    CURRENCY,
    MARKER,
    Card,
    DemoDirectory,
    MemberPlan,
    MerchantPlan,
    Plan,
    State,
    Terminal,
    api_url,
    write_private,
)
from sandbox.postgres import EmbeddedPostgres, remove_outside_data

Say = Callable[[str], None]

#: Calls the issuer without a gateway and without books of its own: the load has its keys.
CALLER = "borealis"
ISSUER = "aurora"
EMPTY_ISSUER = "cirrus"
_AURORA = MemberPlan(ISSUER, "Aurora Bank", ("issuer",), ("62230010",))
_CALLER = MemberPlan(CALLER, "Borealis Pay", ("acquirer",))
_ACQUIRER = MemberPlan(ACQUIRER, "Meridian", ("acquirer", "issuer"), ("622500",))
_EMPTY = MemberPlan(EMPTY_ISSUER, "Cirrus Bank", ("issuer",), ("622600",))
HOT, SPREAD = "HOT", "SPREAD"
#: On each card: more than a benchmark can spend.
CARD_LOAD = 10_000_000_000
_MCC = "5411"
#: How long the log may take to seal what a run has produced.
DRAIN_S = 900.0
#: What decides how a row of the history looks, and what the network is founded with.
_SHAPED_BY = (
    "nodes/db/migrations/versions/*.sql",
    "nodes/crypto/commitment.py",
    "nodes/crypto/private_copy.py",
    "nodes/anchoring/rules.py",
    "nodes/anchoring/leaf.py",
    "nodes/anchoring/model.py",
    "nodes/authorization/state.py",
    "nodes/authorization/model.py",
    "nodes/authorization/operations/pending.py",
    "contracts/artifacts/*.json",
    "sandbox/bench/history.py",
    "sandbox/bench/preload.py",
    "sandbox/network.py",
)


class BenchError(RuntimeError):
    """A run is void or a network can't be made; the text says why."""


@dataclass(frozen=True)
class Shape:
    """Which network: `main` has an acquirer's path, `growth` two issuers, one with a history."""

    name: str
    rows: int
    cards: int = 2_000
    merchants: int = 1_000

    @property
    def members(self) -> tuple[MemberPlan, ...]:
        last = (_EMPTY,) if self.name == "growth" else ()
        return (_AURORA, _CALLER, _ACQUIRER, *last)

    @property
    def issuers(self) -> tuple[str, ...]:
        """Who issues cards in it."""
        return (ISSUER, EMPTY_ISSUER) if self.name == "growth" else (ISSUER, ACQUIRER)

    @property
    def plan(self) -> Plan:
        """One merchant with a thousand terminals, and a thousand with one each."""
        if self.name == "growth":
            return Plan((_merchant(f"{HOT}0", 0, "H", range(1)),), (), self.members)
        numbers = range(self.merchants)
        hot = _merchant(f"{HOT}0", 0, "H", numbers)
        spread = (_merchant(SPREAD, number, "S", (number,)) for number in numbers)
        return Plan((hot, *spread), (), self.members)


def _merchant(prefix: str, number: int, letter: str, terminals: Any) -> MerchantPlan:
    ids = tuple(f"{letter}{terminal:07d}" for terminal in terminals)
    merchant_id = f"{prefix}{number:0{15 - len(prefix)}d}"
    return MerchantPlan(merchant_id, f"Load {number}", _MCC, None, ids)


@contextmanager
def measured_network(shape: Shape, directory: Path, cache: Path, say: Say) -> Iterator[Running]:
    """The network of this shape with its history, up; `directory` is made anew and removed."""
    kept = cache / f"{shape.name}-{_fingerprint(shape)}"
    if not (kept / "ready.json").exists():
        _make(shape, kept, say)
    say(f"copying the prepared network to {directory}")
    copy_network(kept, directory)
    # What is left to be written of the copy isn't of the first runs.
    os.sync()
    demo = DemoDirectory(directory, shape.plan)
    try:
        with demo.locked() as state, running(demo, state, lambda _: None, console=False) as network:
            yield network
    finally:
        remove_network(directory)


def _fingerprint(shape: Shape) -> str:
    root = Path(__file__).parents[2]
    parts = (shape.name, shape.rows, shape.cards, shape.plan)
    content = hashlib.sha256(repr(parts).encode())
    for pattern in _SHAPED_BY:
        for path in sorted(root.glob(pattern)):
            content.update(path.read_bytes())
    return content.hexdigest()[:16]


def _make(shape: Shape, kept: Path, say: Say) -> None:
    for old in kept.parent.glob(f"{shape.name}-*"):
        remove_network(old)
    began = time.monotonic()
    demo = DemoDirectory(kept, shape.plan)
    say(f"founding the network {shape.name}: {', '.join(m.member_id for m in shape.members)}")
    with demo.locked(fresh=True) as state:
        with running(demo, state, lambda _: None, console=False) as network:
            _issue_cards(shape, network, say)
            _first_purchases(shape, network)
            for member in {*shape.issuers, ACQUIRER}:
                await_sealed(network, member)
            registry = state.contracts["AnchorRegistry"]
        if shape.name == "growth":
            # The caller has no books: comparing the history's days would find each payment missing,
            # and write millions of cases.
            del state.contracts["CloseRegistry"]
            demo.save(state)
        if shape.rows:
            _write_histories(shape, demo, state, registry, say)
            with running(demo, state, lambda _: None, console=False) as network:
                say("letting the workers finish what the history left them")
                for member in {*shape.issuers, ACQUIRER}:
                    _await_quiet(network, member)
    seconds = round(time.monotonic() - began)
    write_private(kept / "ready.json", json.dumps({"rows": shape.rows, "seconds": seconds}))
    say(f"made and checked in {seconds} s")


def _issue_cards(shape: Shape, network: Running, say: Say) -> None:
    """Cards with money on them, over the API, several at a time."""
    state, issuers = network.network.state, shape.issuers
    bins = {member.member_id: member.bins[0] for member in shape.members if member.bins}
    numbers = {member: _numbers(bins[member], shape.cards) for member in issuers}
    cards = [
        Card(
            pan=number,
            expiry="3112",
            service_code="201",
            pin=f"{secrets.randbelow(10_000):04d}",
            currency=CURRENCY,
            member=member,
        )
        for member in issuers
        for number in numbers[member]
    ]
    local = threading.local()

    def issue(card: Card) -> None:
        clients = local.__dict__.setdefault("clients", {})
        member = card["member"]
        if member not in clients:
            clients[member] = NodeAdministration(state, member)
        token = clients[member].issue(card)
        clients[member].load(token, CARD_LOAD, "first load", f"first-{token}")

    say(f"issuing {len(cards):,} cards")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(issue, cards))
    state.cards = cards
    network.network.directory.save(state)


def _numbers(bin_range: str, count: int) -> list[str]:
    """Card numbers, each once: among some thousand random ones two are often the same."""
    numbers: set[str] = set()
    while len(numbers) < count:
        numbers.add(random_pan(bin_range))
    return sorted(numbers)


def _first_purchases(shape: Shape, network: Running) -> None:
    """Some real purchases of each pair: the pattern of the history, and proof that it works."""
    for issuer in shape.issuers:
        if shape.name == "growth":
            load("node", node_order(network, issuer, calls=1, batch=16, seconds=30, messages=64))
        else:
            order = gateway_order(network, issuer, SPREAD, links=4, seconds=30, messages=64)
            load("gateway", order)


def _write_histories(
    shape: Shape, demo: DemoDirectory, state: State, registry: str, say: Say
) -> None:
    server = EmbeddedPostgres(demo.postgres)
    server.start()
    try:
        main = shape.name == "main"
        history = History(
            acquirer=ACQUIRER if main else CALLER,
            issuer=ISSUER,
            count=shape.rows,
            seed=secrets.token_hex(8),
            terminals=preload.terminals_of(server.superuser_dsn(ACQUIRER), SPREAD)
            if main
            else _strangers(),
            cards=preload.cards_of(server.superuser_dsn(ISSUER)),
            today=datetime.now(UTC).date(),
        )
        sides = [("issuer", ISSUER)] + ([("acquirer", ACQUIRER)] if main else [])
        for side, member in sides:
            began = time.monotonic()
            books = preload.Books(
                dsn=server.superuser_dsn(member),
                side=side,
                identity=LogIdentity(member, state.chain_id, registry.lower()),
                note_seed=demo.keystore(member).secret("note"),
                issuer_seed=demo.keystore(ISSUER).secret("message"),
            )
            preload.write_history(books, history)
            preload.vacuum(books.dsn)
            took = time.monotonic() - began
            say(f"{shape.rows:,} rows for {member} in {took:.0f} s ({shape.rows / took:,.0f}/s)")
            check_books(books.dsn, member)
            say(f"invariants of {member} checked in {time.monotonic() - began - took:.0f} s")
    finally:
        server.stop()


def _strangers() -> tuple[HistoryTerminal, ...]:
    """Terminals of an acquirer whose books are nobody's here."""
    return tuple(
        HistoryTerminal(f"X{n:07d}", f"ELSEWHERE{n:06d}", f"Load {n}", _MCC, "CN")
        for n in range(1_000)
    )


# -- copies


def copy_network(source: Path, target: Path) -> None:
    """A stopped network's directory, its database included, as another directory."""
    remove_network(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target, symlinks=True)
    note = target / "postgres" / "location"
    if note.exists():
        # Run by root, the cluster lies outside (sandbox.postgres).
        original = Path(note.read_text())
        cluster = Path(tempfile.mkdtemp(prefix="countersign-pg-", dir=original.parent))
        subprocess.run(
            ["cp", "--archive", "--reflink=auto", f"{original}/.", str(cluster)], check=True
        )
        write_private(note, str(cluster))


def remove_network(directory: Path) -> None:
    """Delete a network's directory and its database; BenchError if it is something else."""
    if not directory.exists():
        return
    if any(directory.iterdir()) and not (directory / MARKER).is_file():
        raise BenchError(f"{directory} is no network's directory")
    if (directory / "postgres").exists():
        remove_outside_data(directory / "postgres")
    shutil.rmtree(directory)


# -- orders


def node_order(
    network: Running,
    issuer: str,
    *,
    calls: int,
    batch: int,
    seconds: float,
    messages: int,
) -> NodeOrder:
    """For the batch call to an issuer's node."""
    directory, state = network.network.directory, network.network.state
    caller = directory.keystore(CALLER)
    return NodeOrder(
        acquirer=CALLER,
        issuer=issuer,
        url=api_url(state, issuer),
        message_key=caller.secret("message").hex(),
        peer_key=network.network.public_key(issuer, "message").hex(),
        zone_key=caller.secret(f"zone:{issuer}").hex(),
        cards=_cards(state, issuer),
        merchant_id=f"{HOT}000000000000",
        calls=calls,
        batch=batch,
        seconds=seconds,
        messages=messages,
        business_batch=_next_batch(network),
        seed=state.next_batch,
        processes=processes(network, issuer),
    )


def gateway_order(
    network: Running,
    issuer: str,
    merchants: str,
    *,
    links: int,
    seconds: float,
    messages: int,
    rate: float | None = None,
) -> GatewayOrder:
    """For the whole path; `merchants`: HOT (one takes all) or SPREAD."""
    state = network.network.state
    terminals: list[Terminal] = [
        terminal for terminal in state.terminals if terminal["merchant_id"].startswith(merchants)
    ]
    return GatewayOrder(
        port=state.ports["gateway"],
        cards=_cards(state, issuer),
        terminals=terminals,
        links=links,
        rate=rate,
        seconds=seconds,
        messages=messages,
        business_batch=_next_batch(network),
        seed=state.next_batch,
        processes=processes(network, issuer),
    )


def _cards(state: State, issuer: str) -> list[Card]:
    return [card for card in state.cards if card["member"] == issuer]


def _next_batch(network: Running) -> str:
    state = network.network.state
    state.next_batch += 1
    network.network.directory.save(state)
    return f"{state.next_batch:06d}"


def processes(network: Running, issuer: str) -> Processes:
    """Whose CPU a run counts."""
    pids = network.supervisor.pids()
    groups = {
        "gateway": [pids["gateway"]],
        "acquirer node": [pids[f"{ACQUIRER}-node"]],
        "issuer node": [pids[f"{issuer}-node"]] if issuer != ACQUIRER else [],
        "workers": [pid for name, pid in pids.items() if name.endswith("-worker")],
        "chain": [pids["chain"]],
    }
    return Processes(groups=groups, trees={"postgres": pids["postgres"]})


def load(name: str, order: NodeOrder | GatewayOrder) -> Result:
    """Run a load in a process of its own. BenchError if it is void."""
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "sandbox.bench.load", name],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=order["seconds"] + 900,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"the {name} load failed: {done.stderr.strip()[-2000:]}")
    result: Result = json.loads(done.stdout)
    judge(name, result)
    return result


def judge(name: str, result: Result) -> None:
    """BenchError unless everything was approved and each repeat got the identical answer."""
    others = {
        outcome: count
        for outcome, count in result["outcomes"].items()
        if outcome not in ("approved", "00")
    }
    if others:
        raise BenchError(f"the {name} run is void, it was to be approved throughout: {others}")
    if result["differing"]:
        raise BenchError(f"{result['differing']} repeats got another answer than their original")
    if not result["approved"]:
        raise BenchError(f"the {name} run is void: nothing was approved")


# -- after a run


def await_sealed(network: Running, member: str) -> None:
    """Let the log catch up, so that it doesn't run beside the next yardstick."""
    deadline = time.monotonic() + DRAIN_S
    with psycopg.connect(network.network.dsn(member, "worker"), autocommit=True) as connection:
        while True:
            row = connection.execute(
                "SELECT count(*) FROM transactions AS t, (SELECT coalesce(max(seq), 0) AS seq"
                " FROM batches) AS n LEFT JOIN batches AS b USING (seq) WHERE b.seq IS NULL"
                " OR (t.xact, t.transaction_id) > (b.last_xact, b.last_transaction_id)"
            ).fetchone()
            if row == (0,):
                return
            if time.monotonic() > deadline:
                raise BenchError(f"{member} has not sealed its rows after {DRAIN_S:.0f} s")
            time.sleep(0.5)


#: What a worker has not done yet: anchors, batches of terminals, closes of days that are over.
_UNDONE = (
    "SELECT (SELECT count(*) FROM batches WHERE seq > (SELECT coalesce(max(seq), 0)"
    " FROM anchor_submissions WHERE state = 'ANCHORED'))"
    " + (SELECT count(*) FROM transactions AS t, terminal_batch_scan AS s WHERE t.side = 'acquirer'"
    " AND (t.xact, t.transaction_id) > (s.last_xact, s.last_transaction_id))"
    " + (SELECT count(*) FROM close_days AS d WHERE d.business_date < current_date - 1"
    " AND NOT EXISTS (SELECT FROM {closed} AS c"
    " WHERE (c.acquirer, c.issuer, c.currency, c.business_date)"
    " = (d.acquirer, d.issuer, d.currency, d.business_date)))"
)
#: Closes that the chain has judged.
_JUDGED = (
    "(SELECT * FROM closes JOIN close_stages AS g USING (close_id)"
    " WHERE g.stage IN ('CONFIRMED', 'BROKEN', 'EXPIRED'))"
)


def _await_quiet(network: Running, member: str) -> None:
    """Let a member's worker do all that a history leaves it: what it does later is of the runs."""
    await_sealed(network, member)
    deadline = time.monotonic() + DRAIN_S
    judged = "CloseRegistry" in network.network.state.contracts
    undone = sql.SQL(_UNDONE).format(closed=sql.SQL(_JUDGED if judged else "closes"))
    quiet = 0
    with psycopg.connect(network.network.dsn(member, "worker"), autocommit=True) as connection:
        # Twice in a row: the days are noted every ten seconds.
        while quiet < 2:
            quiet = quiet + 1 if connection.execute(undone).fetchone() == (0,) else 0
            if time.monotonic() > deadline:
                raise BenchError(f"{member}'s worker has work left after {DRAIN_S:.0f} s")
            time.sleep(12.0 if quiet else 2.0)


def check_books(dsn: str, member: str) -> None:
    """BenchError if an invariant is violated."""
    engine = make_engine(dsn)
    try:
        violations = check_invariants(engine)
    finally:
        engine.dispose()
    if violations:
        found = "; ".join(str(violation) for violation in violations[:5])
        raise BenchError(f"invariants are violated at {member}: {found}")
