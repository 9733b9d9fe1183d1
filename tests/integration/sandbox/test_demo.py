"""`countersign demo` as a user runs it: twice in one directory, then interrupted."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from nodes.chain.client import ChainClient
from nodes.chain.contracts import ANCHOR_REGISTRY, MEMBER_REGISTRY, artifact
from sandbox.network import DemoDirectory
from sandbox.postgres import remove_outside_data
from tests.integration.sandbox.processes import alive, eventually

pytestmark = pytest.mark.timeout(300)


def command(directory: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "sandbox.cli", "demo", "--dir", str(directory), *options]


def spawned(arguments: list[str]) -> subprocess.Popen[str]:
    """A demo that hears Ctrl-C, also where the tests themselves run in the background of a script
    (then SIGINT is ignored, and what is ignored is inherited)."""
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("demo") / "network"
    yield path
    remove_outside_data(path / "postgres")


@pytest.fixture(scope="module")
def first(directory: Path) -> subprocess.CompletedProcess[str]:
    """The first run, to its end."""
    return subprocess.run(
        command(directory, "--once"), capture_output=True, text=True, check=False, timeout=240
    )


def test_the_demo_ends_with_every_check_held(first: subprocess.CompletedProcess[str]) -> None:
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Every check held" in first.stdout
    assert "✗" not in first.stdout


def test_it_shows_what_it_is_about(first: subprocess.CompletedProcess[str]) -> None:
    for said in (
        "00, approval",
        "55",
        "51",
        "the same answer, byte for byte",
        "its reversal",
        "refund",
        "verifies against the chain",
        "is refused",
        "Console",
        "network.json",
    ):
        assert said in first.stdout


def test_all_processes_are_gone(first: subprocess.CompletedProcess[str], directory: Path) -> None:
    assert json.loads((directory / "processes.json").read_text()) == {}


def test_no_card_number_or_pin_stands_in_a_log(
    first: subprocess.CompletedProcess[str], directory: Path
) -> None:
    network = json.loads((directory / "network.json").read_text())
    logs = {path.name: path.read_bytes() for path in (directory / "log").iterdir()}
    assert len(logs) >= 13
    for card in network["cards"]:
        for name, content in logs.items():
            assert card["pan"].encode() not in content, name


def test_network_json_is_private_and_complete(
    first: subprocess.CompletedProcess[str], directory: Path
) -> None:
    file = directory / "network.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    network = json.loads(file.read_text())
    assert set(network["chain"]) >= {"rpc", "chain_id", "contracts"}
    for name in (MEMBER_REGISTRY, ANCHOR_REGISTRY):
        contract = network["chain"]["contracts"][name]
        assert json.loads(Path(contract["abi"]).read_text())["abi"] == artifact(name).abi
        assert contract["address"].startswith("0x")
    assert [member["id"] for member in network["members"]] == [
        "aurora",
        "borealis",
        "meridian",
        "harbor",
    ]
    for member in network["members"]:
        assert set(member) >= {"id", "name", "roles", "api", "dsn", "operator"}
    (gateway,) = network["gateways"]
    assert set(gateway["iso8583"]) == {"host", "port"}
    assert gateway["acquirer"] == "meridian"
    assert {login["role"] for login in network["console"]["logins"]} == {
        "admin",
        "operator",
        "reader",
    }
    for card in network["cards"]:
        assert set(card) == {"pan", "expiry", "service_code", "pin", "currency", "member"}
    for terminal in network["terminals"]:
        assert set(terminal["keys"]) == {"tmk", "mac", "pin"}
        assert len(bytes.fromhex(terminal["tpdu"])) == 5


def test_a_second_run_continues_and_ctrl_c_stops_everything(
    first: subprocess.CompletedProcess[str], directory: Path
) -> None:
    before = _network(directory)
    with spawned(command(directory)) as second:
        said = _read_until(second, "Press Ctrl-C")
        pids = json.loads((directory / "processes.json").read_text())
        after = _network(directory)
        client = ChainClient(after["chain"]["rpc"])
        address = after["chain"]["contracts"][ANCHOR_REGISTRY]["address"]
        assert artifact(ANCHOR_REGISTRY).matches(client.code(address))
        _tampering_is_found(directory, after)
        second.send_signal(signal.SIGINT)
        status = second.wait(40)
    assert status == 0, said
    assert "Every check held" in said
    assert "Business day 2" in said
    assert len(pids) == 14
    assert not [name for name, pid in pids.items() if alive(pid)]
    for name in ("cards", "terminals", "merchants"):
        assert after[name] == before[name]
    assert after["chain"] == before["chain"]


@pytest.mark.parametrize("after_s", [0.3, 2.0, 4.0, 6.5])
def test_ctrl_c_at_any_moment_leaves_nothing_behind_and_the_network_usable(
    directory: Path, first: subprocess.CompletedProcess[str], after_s: float
) -> None:
    with spawned(command(directory, "--once")) as run:
        time.sleep(after_s)
        pids = _pids(directory)
        run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=40)[0]
    if run.returncode == -signal.SIGINT:
        # Python was still looking for us: what it says then is its own.
        assert "sandbox" not in said
    else:
        assert run.returncode == 130, said
        assert "Traceback" not in said
    eventually(lambda: not any(alive(pid) for pid in pids.values()))
    with DemoDirectory(directory).locked() as state:
        assert state.cards


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    done = subprocess.run(
        command(tmp_path, "--once", "--fresh"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no demo directory" in done.stdout.replace("\n", " ")
    assert (tmp_path / "thesis.txt").read_text() == "three years of work"


def test_an_ordinary_user_can_run_it() -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests run as an ordinary user already")
    nobody = pwd.getpwnam("nobody")
    home = Path(tempfile.mkdtemp(prefix="countersign-user-", dir="/var/tmp"))
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    common: dict[str, Any] = {
        "user": nobody.pw_uid,
        "group": nobody.pw_gid,
        "extra_groups": [],
        "env": environment,
        "cwd": home,
        "capture_output": True,
        "text": True,
        "check": False,
        "timeout": 240,
    }
    try:
        try:
            reached = subprocess.run([sys.executable, "-c", "import sandbox.demo"], **common)
        except PermissionError:
            pytest.skip("this virtual environment is out of an ordinary user's reach")
        if reached.returncode != 0:
            pytest.skip("this virtual environment is out of an ordinary user's reach")
        done = subprocess.run(command(home / "demo", "--once"), **common)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        shutil.rmtree(home)


def _tampering_is_found(directory: Path, network: dict[str, Any]) -> None:
    """The owner of a database changes an anchored row: verify-ledger names it."""
    aurora = network["members"][0]
    check = [sys.executable, "-m", "sandbox.cli", "verify-ledger", "--member", "aurora"]
    check += ["--network", str(directory / "network.json")]
    clean = subprocess.run(check, capture_output=True, text=True, check=False)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    with psycopg.connect(aurora["dsn"], autocommit=True) as connection:
        connection.execute("ALTER TABLE transactions DISABLE TRIGGER USER")
        row = connection.execute(
            "UPDATE transactions SET amount = amount + 1 WHERE transaction_id ="
            " (SELECT min(transaction_id) FROM transactions) RETURNING transaction_id"
        ).fetchone()
        assert row is not None
        try:
            found = subprocess.run(check, capture_output=True, text=True, check=False)
        finally:
            connection.execute(
                "UPDATE transactions SET amount = amount - 1 WHERE transaction_id = %s", row
            )
            connection.execute("ALTER TABLE transactions ENABLE TRIGGER USER")
    assert found.returncode == 1, found.stdout + found.stderr
    assert "transactions" in found.stdout
    assert "amount" in found.stdout


def _network(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "network.json").read_text()))


def _pids(directory: Path) -> dict[str, int]:
    try:
        return dict(json.loads((directory / "processes.json").read_text()))
    except FileNotFoundError:
        return {}


def _read_until(process: subprocess.Popen[str], mark: str) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if mark in line:
            return said
    raise AssertionError(f"it ended before {mark!r}:\n{said}")
