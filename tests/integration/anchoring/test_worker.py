"""The worker as its own process: rows go to the chain by themselves, through kills and outages."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from nodes.anchoring import queries
from nodes.anchoring.chain_view import TrustedChain
from nodes.anchoring.proof_queries import proof_bundle
from nodes.anchoring.store import transaction
from nodes.anchoring.verifier import verify
from nodes.chain.deploy import rotate_key
from nodes.chain.signer import LocalSigner
from nodes.crypto.keystore import Keystore
from tests.conftest import Cluster, NodeDatabase, dsn_for_database
from tests.factories.chain import ChainFixture, ed25519_public, start_chain
from tests.factories.ledger import LedgerFactory


@dataclass
class Worker:
    """`python -m nodes worker` over one database."""

    config: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nodes", "worker", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                env=os.environ | {"ETH_HASH_BACKEND": "pysha3"},
            )

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def own_chain(tmp_path: Path) -> Iterator[ChainFixture]:
    (tmp_path / "chain").mkdir()
    chain = start_chain(tmp_path / "chain")
    yield chain
    chain.stop()


@pytest.fixture
def worker(
    database: NodeDatabase, cluster: Cluster, own_chain: ChainFixture, tmp_path: Path
) -> Iterator[Worker]:
    worker_login = database.worker_dsn.split("//")[1].split(":")[0]
    jobs = f"{database.name}_jobs"
    with psycopg.connect(database.admin_dsn, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(jobs), sql.Identifier(worker_login)
            )
        )
    secrets_of = {name: secrets.token_bytes(32) for name in ("operator", "note", "message")}
    secrets_of |= {"zone:gateway": secrets.token_bytes(16)}
    Keystore.create(tmp_path / "keys", "pass", secrets_of)
    (tmp_path / "passphrase").write_text("pass")
    own_chain.add_member(
        "meridian",
        roles=("acquirer",),
        operator=LocalSigner(secrets_of["operator"]),
        note_key=ed25519_public(secrets_of["note"]),
        message_key=ed25519_public(secrets_of["message"]),
    )
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "member_id": "meridian",
                "roles": ["acquirer"],
                "port": 9,
                "api_url": "http://127.0.0.1:9",
                "dsn": database.dsn,
                "worker_dsn": database.worker_dsn,
                "jobs_url": "pgmq" + dsn_for_database(database.worker_dsn, jobs)[10:],
                "rpc_url": own_chain.rpc_url,
                "member_registry": own_chain.member_registry,
                "anchor_registry": own_chain.anchor_registry,
                "keystore": str(tmp_path / "keys"),
                "passphrase_file": str(tmp_path / "passphrase"),
                "seal_interval_s": 0.5,
            }
        )
    )
    made = Worker(tmp_path / "config.json", tmp_path / "worker.log")
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()
    with psycopg.connect(database.admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(jobs)))


def wait_for(condition: Callable[[], bool], worker: Worker, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not in {seconds} s:\n{worker.log.read_text()[-4000:]}")
        time.sleep(0.1)


def anchored(database: NodeDatabase) -> int:
    with transaction(database.engine) as connection:
        return queries.log_status(connection).anchored_size


def test_rows_are_anchored_through_kills_of_worker_and_chain(
    worker: Worker, database: NodeDatabase, own_chain: ChainFixture
) -> None:
    factory = LedgerFactory(database.engine, "acquirer")
    factory.add(5)
    wait_for(lambda: anchored(database) == 5, worker)

    worker.end(signal.SIGKILL)
    factory.add(3)
    worker.start()
    wait_for(lambda: anchored(database) == 8, worker)

    process = own_chain.process
    assert process is not None
    process.kill()
    factory.add(2)

    def sealed() -> bool:
        with transaction(database.engine) as connection:
            return queries.log_size(connection) == 10

    wait_for(sealed, worker)
    process.start()
    wait_for(lambda: anchored(database) == 10, worker)

    with psycopg.connect(database.admin_dsn, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname LIKE %s AND pid <> pg_backend_pid()",
            (database.name + "%",),
        )
    database.engine.dispose()
    factory.add(1)
    wait_for(lambda: anchored(database) == 11, worker)
    assert worker.end(signal.SIGTERM) == 0


def test_a_worker_without_its_chain_waits_and_seals_nothing(
    worker: Worker, database: NodeDatabase, own_chain: ChainFixture
) -> None:
    """Before the first look at the chain it can't know whether its database was restored."""
    worker.end(signal.SIGKILL)
    process = own_chain.process
    assert process is not None
    process.kill()
    LedgerFactory(database.engine, "acquirer").add(1)
    worker.start()
    wait_for(lambda: "job_put_off" in worker.log.read_text(), worker)
    with transaction(database.engine) as connection:
        assert queries.log_size(connection) == 0
    process.start()
    wait_for(lambda: anchored(database) == 1, worker)


def test_a_node_whose_note_key_was_rotated_seals_nothing_until_it_has_the_new_one(
    worker: Worker, database: NodeDatabase, own_chain: ChainFixture
) -> None:
    factory = LedgerFactory(database.engine, "acquirer")
    records = factory.add(2)
    wait_for(lambda: anchored(database) >= 2, worker)
    keys = worker.config.with_name("keys")
    held = Keystore.open(keys, "pass")
    fresh = {name: held.secret(name) for name in held.names()} | {"note": secrets.token_bytes(32)}
    rotate_key(
        *(own_chain.client(), own_chain.deployer, own_chain.member_registry, "meridian"),
        *("note", ed25519_public(fresh["note"])),
    )
    wait_for(lambda: "NOTE_KEY_NOT_VALID" in worker.log.read_text(), worker)

    def size() -> int:
        with transaction(database.engine) as connection:
            return queries.log_size(connection)

    before = size()
    records += factory.add(3)
    alarms = worker.log.read_text().count("NOTE_KEY_NOT_VALID")
    wait_for(lambda: worker.log.read_text().count("NOTE_KEY_NOT_VALID") > alarms + 2, worker)
    assert size() == before
    assert ed25519_public(held.secret("note")).hex() in worker.log.read_text()

    assert worker.end(signal.SIGTERM) == 0
    keys.unlink()
    Keystore.create(keys, "pass", fresh)
    worker.start()
    wait_for(lambda: anchored(database) >= before + 3, worker)
    view = TrustedChain(own_chain.client(), own_chain.anchor_registry)
    with transaction(database.engine) as connection:
        for record in records:
            key_at = partial(view.note_key, "meridian")
            assert verify(proof_bundle(connection, record.txid, "acquirer", key_at=key_at), view).ok
