"""The supervisor: readiness, restart after kill -9, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.postgres import free_port
from sandbox.supervisor import Order, ProcessFailedError, Service, Supervisor
from tests.integration.sandbox.processes import alive, eventually


def web(name: str, needs: tuple[str, ...] = (), tier: int = 0) -> Service:
    """A small web server as a service."""
    port = free_port()

    async def ready() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    order = Order("http.server", [str(port), "--bind", "127.0.0.1"])
    return Service(name=name, order=lambda: order, ready=ready, needs=needs, tier=tier)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path, tmp_path / "processes.json")
    yield made
    made.stop()


def test_a_service_starts_after_what_it_needs(supervisor: Supervisor) -> None:
    supervisor.add([web("second", needs=("first",)), web("first")])
    supervisor.wait_ready("second")
    assert supervisor.ready_names() == {"first", "second"}
    pids = supervisor.pids()
    assert pids["first"] < pids["second"] or pids["second"] < 1000  # numbers may wrap


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_is_killed_is_restarted_and_the_process_file_is_current(
    supervisor: Supervisor, tmp_path: Path, number: int
) -> None:
    supervisor.add([web("one"), web("other")])
    supervisor.wait_ready("one")
    supervisor.wait_ready("other")
    before = supervisor.pids()
    os.kill(before["one"], number)
    eventually(lambda: supervisor.pids().get("one", before["one"]) != before["one"])
    supervisor.wait_ready("one")
    now = json.loads((tmp_path / "processes.json").read_text())
    assert now == supervisor.pids()
    assert now["other"] == before["other"]
    assert supervisor.restarts("one") == 1


def test_all_is_restarted_when_the_forkserver_is_killed(supervisor: Supervisor) -> None:
    supervisor.add([web("one")])
    supervisor.wait_ready("one")
    before = supervisor.pids()["one"]
    forkserver = int(Path(f"/proc/{before}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(forkserver, signal.SIGKILL)
    eventually(lambda: not alive(before))
    eventually(lambda: supervisor.pids().get("one", before) != before)
    supervisor.wait_ready("one")


def test_a_process_that_keeps_ending_is_reported_with_its_log(supervisor: Supervisor) -> None:
    async def never() -> bool:
        return False

    supervisor.add([Service("broken", lambda: Order("json.tool", ["/absent.json"]), never)])
    with pytest.raises(ProcessFailedError, match=r"(?s)broken.*absent\.json"):
        supervisor.wait_ready("broken")


def test_stop_ends_every_process(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.add([web("low"), web("high", tier=1)])
    supervisor.wait_ready("low")
    supervisor.wait_ready("high")
    pids = list(supervisor.pids().values())
    supervisor.stop()
    assert not any(alive(pid) for pid in pids)
    assert json.loads((tmp_path / "processes.json").read_text()) == {}


def test_a_killed_launcher_leaves_nothing_behind(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "from tests.integration.sandbox.test_supervisor import web\n"
        "from sandbox.supervisor import Supervisor\n"
        "where = pathlib.Path(sys.argv[1])\n"
        "supervisor = Supervisor(where, where / 'processes.json')\n"
        "supervisor.add([web('one')])\n"
        "supervisor.wait_ready('one')\n"
        "print(supervisor.pids()['one'], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    eventually(lambda: not alive(int(done.stdout)))
