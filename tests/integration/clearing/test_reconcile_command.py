"""`countersign reconcile` as its own process: what it prints, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.integration.clearing.institutions import Pair
from tests.integration.clearing.test_day_close import PAID


def described(pair: Pair, directory: Path) -> Path:
    """A network.json of the two."""
    file = directory / "network.json"
    document = {
        "chain": {"rpc": pair.chain.rpc_url, "contracts": {"AnchorRegistry": {"address": "0x"}}},
        "members": [
            {"id": one.member_id, "dsn": one.database.owner_dsn}
            for one in (pair.acquirer, pair.issuer)
        ],
    }
    file.write_text(json.dumps(document))
    return file


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandbox.cli", "reconcile", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"DEMO_DIR": "/nonexistent"},
        check=False,
    )


def test_equal_then_changed(pair: Pair, tmp_path: Path) -> None:
    file = str(described(pair, tmp_path))
    none = command("--network", file)
    assert (none.returncode, "no day is closed yet" in none.stderr) == (2, True)
    pair.both(6)
    pair.acquirer.jobs.close()
    early = command("--network", file)
    assert (early.returncode, "ONE_SIDED" in early.stdout) == (2, True)
    pair.work()
    equal = command("--network", file, "--date", "2026-09-22", "--pair", "meridian-aurora")
    assert equal.returncode == 0, equal.stderr
    assert "meridian-aurora 2026-09-22 CNY: EQUAL" in equal.stdout
    assert equal.stdout.count("CONFIRMED") == 2
    with psycopg.connect(pair.issuer.database.owner_dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE transactions DISABLE TRIGGER USER")
        connection.execute(
            "DELETE FROM transactions WHERE transaction_id ="
            " (SELECT min(transaction_id) FROM transactions)"
        )
    changed = command("--network", file, "--json")
    assert changed.returncode == 1
    [close] = json.loads(changed.stdout)["closes"]
    assert close["verdict"] == "CHANGED"
    roots = {s["member"]: s["close_root"] == s["root_of_the_books"] for s in close["sides"]}
    assert roots == {"meridian": True, "aurora": False}


def test_breaks_are_listed_and_make_the_status_1(pair: Pair, tmp_path: Path) -> None:
    file = str(described(pair, tmp_path))
    pair.both(3)
    mine, _ = pair.pair(**PAID)
    pair.acquirer.write(mine)
    pair.work()
    told = command("--network", file)
    assert told.returncode == 1
    assert f"MISSING_AT_ISSUER {mine.txid.hex()}: open, owner meridian" in told.stdout
    assert command("--network", file, "--date", "2026-09-23").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--date", "22.9.2026"], "is not a date: give YYYY-MM-DD"),
        (["--network", "/nonexistent/network.json"], "No such file"),
        ([], "no network is described"),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], why: str) -> None:
    told = command(*arguments)
    assert told.returncode == 2
    assert why in told.stderr


def test_a_pair_that_is_none_is_named(pair: Pair, tmp_path: Path) -> None:
    told = command("--network", str(described(pair, tmp_path)), "--pair", "meridian-borealis")
    assert told.returncode == 2
    assert "names no two members: they are aurora, meridian" in told.stderr
