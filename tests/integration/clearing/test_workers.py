"""Two workers as processes of their own: a day is closed, compared and agreed on by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from nodes.chain.closes import CloseRegistry
from nodes.chain.deploy import set_api_url
from nodes.clearing.model import CloseStage
from nodes.crypto.keystore import Keystore
from tests.conftest import dsn_for_database
from tests.integration.api.running import SEEDS
from tests.integration.clearing.institutions import Institution, Pair
from tests.integration.clearing.test_day_close import PAID


@contextmanager
def worker(one: Institution, pair: Pair, directory: Path) -> Iterator[Path]:
    """`python -m nodes worker` of one of the two; its log."""
    directory.mkdir()
    database, jobs = one.database, f"{one.database.name}_jobs"
    login = database.worker_dsn.split("//")[1].split(":")[0]
    with psycopg.connect(database.admin_dsn, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(jobs), sql.Identifier(login)
            )
        )
    operator = pair.chain.operators[one.member_id]
    secrets = {
        "operator": bytes(operator._account.key),
        "note": bytes(range(32)),
        "message": SEEDS[one.member_id],
        "zone:gateway": bytes(16),
        "pan": bytes(32),
        "pan_lookup": bytes(32),
        "pin_lookup": bytes(32),
    }
    Keystore.create(directory / "keys", "pass", secrets)
    (directory / "passphrase").write_text("pass")
    settings = one.node.settings
    (directory / "config.json").write_text(
        json.dumps(
            {
                "member_id": one.member_id,
                "roles": settings.roles,
                "port": settings.port,
                "api_url": settings.api_url,
                "dsn": database.dsn,
                "worker_dsn": database.worker_dsn,
                "jobs_url": "pgmq" + dsn_for_database(database.worker_dsn, jobs)[10:],
                "rpc_url": pair.chain.rpc_url,
                "member_registry": pair.chain.member_registry,
                "anchor_registry": pair.chain.anchor_registry,
                "close_registry": pair.chain.close_registry,
                "keystore": str(directory / "keys"),
                "passphrase_file": str(directory / "passphrase"),
            }
        )
    )
    log = directory / "worker.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "nodes", "worker", "--config", str(directory / "config.json")],
            stdout=out,
            stderr=out,
            env=os.environ | {"ETH_HASH_BACKEND": "pysha3"},
        )
    try:
        yield log
    finally:
        process.kill()
        process.wait()
        with psycopg.connect(database.admin_dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(jobs)))


def wait_for(condition: Callable[[], bool], logs: list[Path], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("\n".join(log.read_text()[-3000:] for log in logs))
        time.sleep(0.2)


def test_an_equal_and_a_broken_day_go_their_way_without_anybody(pair: Pair, tmp_path: Path) -> None:
    both = (pair.acquirer, pair.issuer)
    for one in both:
        operator, url = pair.chain.operators[one.member_id], one.api.url
        client = pair.chain.client()
        set_api_url(client, operator, pair.chain.member_registry, one.member_id, url)
    pair.both(5)
    with ExitStack() as stack:
        logs = [stack.enter_context(worker(one, pair, tmp_path / one.member_id)) for one in both]
        wait_for(lambda: {one.stage() for one in both} == {CloseStage.CONFIRMED}, logs)
        mine, _ = pair.pair(**PAID)
        pair.acquirer.write(mine)
        wait_for(lambda: len(pair.issuer.cases()) == 1, logs)
        [file] = pair.issuer.cases()
        assert file.found["kind"] == "MISSING_AT_ISSUER"
        ref = file.case.break_ref.hex()
        for one, act, body in (
            (pair.acquirer, "propose", {"resolution": "TAKE_ACQUIRER", "note": "it was paid"}),
            (pair.issuer, "countersign", {}),
        ):
            wait_for(lambda one=one: bool(one.cases()), logs)  # type: ignore[misc]
            deadline = time.monotonic() + 30
            with one.api.http("operator") as http:
                while True:
                    answer = http.post(
                        f"/v1/breaks/{ref}/{act}",
                        json=body,
                        headers={"Idempotency-Key": f"{act}-of-the-test"},
                    )
                    if answer.status_code == 200 or time.monotonic() > deadline:
                        break
                    time.sleep(0.3)
            assert answer.status_code == 200, answer.text
        wait_for(lambda: {one.stage(2) for one in both} == {CloseStage.CONFIRMED}, logs)
        wait_for(lambda: all(f.case.state == "closed" for f in pair.issuer.cases()), logs)
    registry = CloseRegistry(pair.chain.client(), pair.chain.close_registry)
    assert registry.member_registry() == pair.chain.member_registry
    assert [pair.round(number).state.name for number in range(3)] == [
        "SUPERSEDED",
        "SUPERSEDED",
        "CONFIRMED",
    ]
