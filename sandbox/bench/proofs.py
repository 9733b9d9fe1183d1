"""How fast a proof comes from a large log: over HTTP from a served node, and the reads alone.

The log is made in the database itself: leaf hashes from a counter, and all complete subtrees above
them. Each proof is verified against the root over the log's right edge.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import secrets
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from nodes.anchoring import queries, tree
from nodes.anchoring.store import transaction
from nodes.api.app import create_app
from nodes.api.server import server
from nodes.crypto.keystore import Keystore
from nodes.crypto.merkle import verify_inclusion
from nodes.db.engine import make_engine, migrate
from nodes.db.provision import LOGINS, provision
from nodes.settings import ApiKey, NodeSettings
from sandbox.bench.served import ServedNode, wait_listening
from sandbox.postgres import EmbeddedPostgres

_MEMBER, _KEY = "meridian", "reader-key-of-the-benchmark"
_CHUNK = 250_000
_GO_ON = 3

_LEAVES = """
INSERT INTO log_leaves (log_index, batch_seq, leaf_kind, transaction_id, txid, leaf, leaf_hash,
                        shared_leaves, private_copy)
SELECT i, 1, 2, i, sha256(int8send(i)), decode(repeat('00', 320), 'hex'),
       sha256('\\x00'::bytea || int8send(i)), decode(repeat('00', 256), 'hex'), ''
FROM generate_series(%s::bigint, %s::bigint - 1) AS i
"""
_FIRST_LEVEL = """
INSERT INTO log_nodes (level, node_index, hash)
SELECT 1, l.log_index / 2, sha256('\\x01'::bytea || l.leaf_hash || r.leaf_hash)
FROM log_leaves AS l JOIN log_leaves AS r ON r.log_index = l.log_index + 1
WHERE l.log_index >= 2 * %s::bigint AND l.log_index < 2 * %s::bigint AND l.log_index %% 2 = 0
"""
_LEVEL = """
INSERT INTO log_nodes (level, node_index, hash)
SELECT l.level + 1, l.node_index / 2, sha256('\\x01'::bytea || l.hash || r.hash)
FROM log_nodes AS l JOIN log_nodes AS r ON r.level = l.level AND r.node_index = l.node_index + 1
WHERE l.level = %s AND l.node_index >= 2 * %s::bigint AND l.node_index < 2 * %s::bigint
AND l.node_index %% 2 = 0
"""


def _serve(dsns: dict[str, str], port: int) -> None:
    settings = NodeSettings(
        member_id=_MEMBER,
        roles=["acquirer"],
        port=port,
        api_url=f"http://127.0.0.1:{port}",
        dsn=dsns["app"],
        worker_dsn=dsns["worker"],
        jobs_url="",
        rpc_url="http://127.0.0.1:1",
        member_registry="0x" + "aa" * 20,
        anchor_registry="0x" + "bb" * 20,
        keystore=Path("unused"),
        passphrase_file=Path("unused"),
        api_keys=[
            ApiKey(name="bench", role="reader", sha256=hashlib.sha256(_KEY.encode()).hexdigest())
        ],
    )
    keystore = Keystore({"message": bytes(32), "note": bytes(32)}, "bench")
    node = ServedNode(settings, make_engine(dsns["app"]), keystore)
    server(create_app(node), "127.0.0.1", port).run()


def run_proofs(directory: Path, leaves: int, samples: int, budget_s: float, output: Path) -> int:
    """Fill what isn't filled yet, for at most `budget_s` seconds, then measure.

    0 if every proof held and 99 of 100 came within 20 ms; 3 if the filling has to go on.
    """
    console, deadline = Console(stderr=True), time.monotonic() + budget_s
    running = EmbeddedPostgres(directory / "postgres", durable=False).start()
    try:
        dsns = _database(directory, running)
        if not _fill(dsns["owner"], leaves, deadline, console):
            console.print("Not full yet: run it again to go on.")
            return _GO_ON
        result = _measure(dsns, leaves, samples)
    finally:
        running.stop()
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0 if result["all_hold"] and result["http_ms"]["p99"] <= 20 else 1


def _database(directory: Path, running: EmbeddedPostgres) -> dict[str, str]:
    """The log's database, made at the first run; its logins."""
    file = directory / "passwords.json"
    if not file.exists():
        file.write_text(json.dumps({login: secrets.token_hex(8) for login in LOGINS}))
        file.chmod(0o600)
    passwords = json.loads(file.read_text())
    dsns = provision(running.superuser_dsn("postgres"), "bench_proofs", passwords)
    migrate(dsns["owner"])
    return dsns


def _fill(dsn: str, leaves: int, deadline: float, console: Console) -> bool:
    """Leaves and then each level of nodes, in chunks that are committed; whether all are there."""
    levels = [leaves]
    while levels[-1] > 1:
        levels.append(levels[-1] // 2)
    url = dsn.replace("postgresql+psycopg://", "postgresql://", 1)
    with (
        psycopg.connect(url, autocommit=True) as connection,
        Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console
        ) as bar,
    ):
        if connection.execute("SELECT FROM batches").fetchone() is not None:
            return True
        task = bar.add_task("Making the log", total=sum(levels))
        connection.execute("ALTER TABLE log_leaves SET UNLOGGED")
        connection.execute("ALTER TABLE log_nodes SET UNLOGGED")
        done = 0
        for level, count in enumerate(levels):
            table, column = (
                ("log_leaves", "log_index") if level == 0 else ("log_nodes", "node_index")
            )
            where = "" if level == 0 else f" WHERE level = {level}"
            row = connection.execute(f"SELECT max({column}) FROM {table}{where}").fetchone()
            start = 0 if row is None or row[0] is None else row[0] + 1
            while start < count:
                if time.monotonic() > deadline:
                    return False
                end = min(start + _CHUNK, count)
                if level == 0:
                    connection.execute(_LEAVES, (start, end))
                elif level == 1:
                    connection.execute(_FIRST_LEVEL, (start, end))
                else:
                    connection.execute(_LEVEL, (level - 1, start, end))
                start = end
                bar.update(task, completed=done + start)
            done += count
        connection.execute("VACUUM ANALYZE log_leaves")
        connection.execute("VACUUM ANALYZE log_nodes")
        connection.execute(
            "INSERT INTO batches (seq, first_index, size, leaf_count, prev_root, root, checkpoint,"
            " consistency, last_xact, last_transaction_id, sealed_at) VALUES (1, 0, %s, %s,"
            " sha256(''), sha256(''), '', '', '1', 1, now())",
            (leaves, leaves),
        )
    return True


def _measure(dsns: dict[str, str], leaves: int, samples: int) -> dict[str, Any]:
    rng = random.Random(leaves)
    engine = make_engine(dsns["app"])
    with transaction(engine) as connection:
        root = queries.frontier(connection, leaves).root()
    read_ms, rows = [], []
    for _ in range(samples):
        index = rng.randrange(leaves)
        rows.append(len(tree.coordinates(tree.inclusion_ranges(index, leaves))))
        started = time.perf_counter()
        with transaction(engine) as connection:
            queries.inclusion_proof(connection, index, leaves)
        read_ms.append((time.perf_counter() - started) * 1000)
    engine.dispose()
    http_ms, holding = _over_http(dsns, leaves, samples, root, rng)
    return {
        "leaves": leaves,
        "samples": samples,
        "all_hold": holding == samples,
        "rows_read_max": max(rows),
        "http_ms": _shares(http_ms),
        "read_ms": _shares(read_ms),
    }


def _over_http(
    dsns: dict[str, str], leaves: int, samples: int, root: bytes, rng: random.Random
) -> tuple[list[float], int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    child = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(dsns, port), daemon=True
    )
    child.start()
    took: list[float] = []
    holding = 0
    try:
        wait_listening(port)
        headers = {"Authorization": f"Bearer {_KEY}"}
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
            client.get("/v1/log/inclusion", params={"index": 0, "size": leaves})
            for _ in range(samples):
                index = rng.randrange(leaves)
                started = time.perf_counter()
                answer = client.get("/v1/log/inclusion", params={"index": index, "size": leaves})
                took.append((time.perf_counter() - started) * 1000)
                holding += _holds(answer.json(), index, leaves, root)
    finally:
        child.terminate()
        child.join(10)
    return took, holding


def _holds(proof: dict[str, Any], index: int, leaves: int, root: bytes) -> bool:
    leaf = hashlib.sha256(b"\0" + index.to_bytes(8, "big")).digest()
    path = [bytes.fromhex(node) for node in proof["proof"]]
    return verify_inclusion(index, leaves, leaf, path, root)


def _shares(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        name: round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 2)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }
