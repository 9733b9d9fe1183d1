"""How many bytes and seconds the comparison of a large day takes, over real HTTP.

Two databases, two node processes, and between them a relay that counts every byte of the
connections, heads and signatures included.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import multiprocessing
import os
import secrets
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine

from nodes.api.app import create_app
from nodes.api.clearing_client import ClearingClient, case_events_since
from nodes.api.client import NodePeer
from nodes.api.server import server
from nodes.chain.directory import Member
from nodes.clearing import case_queries, store
from nodes.clearing.model import BreakKind, Close, CloseStage
from nodes.clearing.operations.cases import take_over
from nodes.clearing.operations.closing import ClosingTerms, make_close
from nodes.clock import SystemClock, to_datetime
from nodes.crypto.http_signatures import MessageSigner
from nodes.crypto.keystore import Keystore
from nodes.db.engine import make_engine, migrate, transaction
from nodes.db.provision import LOGINS, provision
from nodes.ledger.model import TransactionRecord
from nodes.reconciliation.day_comparison import CountedExchange, compare_close
from nodes.settings import NodeSettings
from sandbox.bench.cpu import CpuClock
from sandbox.bench.reconcile_days import KEY, TOGETHER, Name, broken_day, write_side
from sandbox.bench.served import ServedNode, wait_listening
from sandbox.postgres import EmbeddedPostgres

_SEEDS = {name: hashlib.sha256(name.encode()).digest() for name in (KEY.acquirer, KEY.issuer)}
_TERMS = ClosingTerms("Asia/Shanghai")


@dataclass
class Relay:
    """Passes bytes on to a port, both ways, and counts them."""

    target: int
    up: int = 0
    down: int = 0

    def __post_init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listening.accept()
            far = socket.create_connection(("127.0.0.1", self.target))
            for one, other, name in ((near, far, "up"), (far, near, "down")):
                threading.Thread(target=self._pass, args=(one, other, name), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, name: str) -> None:
        while data := one.recv(1 << 16):
            setattr(self, name, getattr(self, name) + len(data))
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)

    @property
    def total(self) -> int:
        return self.up + self.down


@dataclass
class _Directory:
    urls: dict[str, str]

    def member(self, member_id: str) -> Member | None:
        if member_id not in self.urls:
            return None
        role = "acquirer" if member_id == KEY.acquirer else "issuer"
        return Member(
            member_id=member_id,
            name=member_id.title(),
            roles=frozenset({role}),
            api_url=self.urls[member_id],
            bins=(),
            operator="0x" + "11" * 20,
            note_key=bytes(32),
            message_key=_public(member_id),
            active=True,
        )

    def members(self) -> tuple[Member, ...]:
        return tuple(found for name in self.urls if (found := self.member(name)))


class _Chain:
    def chain_id(self) -> int:
        return 1


def _public(member_id: str) -> bytes:
    key = Ed25519PrivateKey.from_private_bytes(_SEEDS[member_id])
    return key.public_key().public_bytes_raw()


def _serve(member_id: str, dsns: dict[str, str], port: int, urls: dict[str, str]) -> None:
    settings = NodeSettings(
        member_id=member_id,
        roles=["acquirer" if member_id == KEY.acquirer else "issuer"],
        port=port,
        api_url=urls[member_id],
        dsn=dsns["app"],
        worker_dsn=dsns["worker"],
        jobs_url="",
        rpc_url="http://127.0.0.1:1",
        member_registry="0x" + "aa" * 20,
        anchor_registry="0x" + "bb" * 20,
        keystore=Path("unused"),
        passphrase_file=Path("unused"),
    )
    keystore = Keystore({"message": _SEEDS[member_id], "note": bytes(32)}, "bench")
    engine = make_engine(dsns["app"])
    node = ServedNode(settings, engine, keystore, _Directory(urls), _Chain())
    server(create_app(node), "127.0.0.1", port).run()


def run_reconcile(directory: Path, rows: int, breaks: int, seed: int, output: Path) -> int:
    """Measure; 0 if exactly the planted breaks were found."""
    console = Console(stderr=True)
    shutil.rmtree(directory, ignore_errors=True)
    postgres = EmbeddedPostgres(directory / "postgres", durable=False)
    running = postgres.start()
    try:
        with Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console
        ) as bar:
            compared = compare_day(running, rows, breaks, seed, bar)
    finally:
        running.delete()
    result = compared.figures
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0 if result["exact"] else 1


@dataclass(frozen=True)
class Compared:
    """What was planted, what each party's books say was found, and what it took."""

    planted: set[Name]
    found: dict[str, set[Name]]
    figures: dict[str, Any]


def compare_day(
    postgres: EmbeddedPostgres,
    rows: int,
    breaks: int,
    seed: int,
    bar: Progress,
    kinds: tuple[BreakKind, ...] = TOGETHER,
) -> Compared:
    """Two databases with a day of `rows` a side, two node processes, and the comparison.

    `kinds`: of which classes the breaks are, in turn."""
    children: list[Any] = []
    try:
        now_ms = SystemClock().now_ms()
        without, (mine, theirs, names, unsigned) = broken_day(rows, breaks, now_ms, seed, kinds)
        parts = {KEY.acquirer: (mine, unsigned), KEY.issuer: (theirs, list[bytes]())}
        dsns = {
            member_id: _make_side(postgres, member_id, rows, without, *part, bar)
            for member_id, part in parts.items()
        }
        urls, relays, ports = _relays()
        context = multiprocessing.get_context("spawn")
        for member_id in dsns:
            child = context.Process(
                target=_serve,
                args=(member_id, dsns[member_id], ports[member_id], urls),
                daemon=True,
            )
            child.start()
            children.append(child)
        for port in ports.values():
            wait_listening(port)
        cpu = CpuClock(
            {"asker": [os.getpid()], "nodes": [child.pid for child in children]},
            {"postgresql": postgres.pid} if postgres.pid else {},
        )
        found, result = _measure(dsns, urls, relays, cpu)
    finally:
        for child in children:
            child.terminate()
            child.join(10)
    exact = found[KEY.acquirer] == found[KEY.issuer] == names
    planted = {"rows_a_side": rows, "breaks_planted": len(names), "seed": seed}
    return Compared(names, found, {"exact": exact} | result | planted)


def _make_side(
    postgres: EmbeddedPostgres,
    member_id: str,
    rows: int,
    without: list[int],
    records: list[TransactionRecord],
    unsigned: list[bytes],
    bar: Progress,
) -> dict[str, str]:
    """One party's database with its day; the DSNs of its logins."""
    passwords = {login: secrets.token_hex(8) for login in LOGINS}
    dsns = provision(postgres.superuser_dsn("postgres"), f"bench_{member_id}", passwords)
    migrate(dsns["owner"])
    side: Literal["acquirer", "issuer"] = "acquirer" if member_id == KEY.acquirer else "issuer"
    task = bar.add_task(f"Rows of {member_id}", total=rows)
    write_side(
        dsns["owner"],
        side,
        rows,
        without,
        records,
        unsigned,
        lambda done: bar.update(task, completed=done),
    )
    return dsns


def _relays() -> tuple[dict[str, str], dict[str, Relay], dict[str, int]]:
    urls: dict[str, str] = {}
    relays: dict[str, Relay] = {}
    ports: dict[str, int] = {}
    for member_id in (KEY.acquirer, KEY.issuer):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports[member_id] = free.getsockname()[1]
        relays[member_id] = Relay(ports[member_id])
        urls[member_id] = f"http://127.0.0.1:{relays[member_id].port}"
    return urls, relays, ports


def _measure(
    dsns: dict[str, dict[str, str]],
    urls: dict[str, str],
    relays: dict[str, Relay],
    cpu: CpuClock,
) -> tuple[dict[str, set[Name]], dict[str, Any]]:
    engines = {name: make_engine(found["worker"]) for name, found in dsns.items()}
    closes, closing, judged = _judged(engines)
    runner, directory = asyncio.Runner(), _Directory(urls)
    client = _client(KEY.acquirer, KEY.issuer, directory)
    exchange = CountedExchange(lambda question: runner.run(client.compare(question)))
    cpu.start()
    started = time.perf_counter()
    compare_close(
        engines[KEY.acquirer],
        KEY.acquirer,
        closes[KEY.acquirer],
        judged,
        exchange,
        SystemClock(),
        _TERMS,
    )
    seconds = time.perf_counter() - started
    used = cpu.stop()
    runner.run(client.close())
    wire = relays[KEY.issuer].total
    client = _client(KEY.issuer, KEY.acquirer, directory)
    started = time.perf_counter()
    events = runner.run(case_events_since(client, 0))
    taken = take_over(engines[KEY.issuer], KEY.issuer, KEY.acquirer, events)
    opening = time.perf_counter() - started
    runner.run(client.close())
    found = {name: _names(engine) for name, engine in engines.items()}
    for engine in engines.values():
        engine.dispose()
    return found, {
        "breaks_found": len(found[KEY.acquirer]),
        "cases_opened_at_issuer": taken,
        "comparison_s": round(seconds, 2),
        "comparison_cpu_s": {name: round(took, 2) for name, took in used.items()},
        "load_average": round(os.getloadavg()[0], 1),
        "comparison_rounds": exchange.rounds,
        "comparison_message_bytes": exchange.sent + exchange.received,
        "comparison_wire_bytes": wire,
        "cases_s": round(opening, 2),
        "cases_wire_bytes": relays[KEY.acquirer].total,
        "all_wire_bytes": wire + relays[KEY.acquirer].total,
        "close_s": {name: round(took, 2) for name, took in closing.items()},
    }


def _judged(
    engines: dict[str, Engine],
) -> tuple[dict[str, Close], dict[str, float], CloseStage]:
    """Both sides' closes, at the stage at which the chain has judged them."""
    closes: dict[str, Close] = {}
    took: dict[str, float] = {}
    for name, engine in engines.items():
        started = time.perf_counter()
        with transaction(engine) as connection:
            closes[name] = make_close(connection, KEY, 0, name, SystemClock())
        took[name] = time.perf_counter() - started
    at = to_datetime(SystemClock().now_ms())
    one, two = closes.values()
    alike = (one.close_root, one.totals_hash) == (two.close_root, two.totals_hash)
    judged = CloseStage.CONFIRMED if alike else CloseStage.BROKEN
    for name, engine in engines.items():
        other = closes[KEY.other(name)]
        number = closes[name].close_id
        with transaction(engine) as connection:
            store.enter_stage(connection, number, CloseStage.COMMITTED, at)
            store.enter_stage(connection, number, CloseStage.REVEALED, at)
            revealed = (other.close_root, other.totals_hash)
            store.enter_stage(connection, number, judged, at, revealed)
    return closes, took, judged


def _client(caller: str, called: str, directory: _Directory) -> ClearingClient:
    member = directory.member(called)
    assert member is not None
    signer = MessageSigner(caller, _SEEDS[caller])
    peer = NodePeer(called, member.message_key)
    return ClearingClient(member.api_url, signer=signer, peer=peer, timeout_s=120.0)


def _names(engine: Engine) -> set[Name]:
    with transaction(engine) as connection:
        rows = [file.found for file in case_queries.case_files(connection)]
    return {(row["kind"], row["txid"], tuple(row["fields"]), row["pair_seq"]) for row in rows}
