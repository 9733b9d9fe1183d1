"""The embedded PostgreSQL: durable settings, crash recovery, stale locks, an unprivileged owner."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sandbox.postgres import EmbeddedPostgres, PostgresError, binaries_for, clear_stale_lock
from tests.integration.sandbox.processes import alive


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    made = EmbeddedPostgres(tmp_path / "pg")
    yield made
    made.delete()


def test_a_commit_is_durable_by_default(server: EmbeddedPostgres) -> None:
    server.start()
    with psycopg.connect(server.superuser_dsn()) as connection:
        settings = connection.execute(
            "SELECT current_setting('fsync'), current_setting('synchronous_commit'),"
            " current_setting('full_page_writes'), current_setting('data_checksums')"
        ).fetchone()
    assert settings == ("on", "on", "on", "on")


def test_data_survive_kill_9_and_the_port_is_kept(server: EmbeddedPostgres) -> None:
    server.start()
    port = server.port
    with psycopg.connect(server.superuser_dsn()) as connection:
        connection.execute("CREATE TABLE kept (value int)")
        connection.execute("INSERT INTO kept VALUES (42)")
    server.kill()
    again = EmbeddedPostgres(server.data_dir)
    again.start()
    try:
        with psycopg.connect(again.superuser_dsn()) as connection:
            assert connection.execute("SELECT value FROM kept").fetchone() == (42,)
        assert again.port == port
    finally:
        again.stop()


def test_another_port_is_chosen_if_someone_took_it(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    port = server.port
    with socket.socket() as squatter:
        # The server's own closed connections may wait on the port for a minute yet (TIME_WAIT).
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        server.start()
        assert server.port != port


def test_a_password_is_needed(server: EmbeddedPostgres) -> None:
    server.start()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"postgresql://postgres:guess@127.0.0.1:{server.port}/postgres")


def test_a_lock_of_a_program_that_took_the_old_number_is_removed(server: EmbeddedPostgres) -> None:
    """After a crash the lock file may name a live process that is no PostgreSQL."""
    server.start()
    command_cwd = Path(server._cluster_dir())
    server.kill()
    clear_stale_lock(command_cwd)
    (command_cwd / "postmaster.pid").write_text(f"{os.getpid()}\n")
    server.start()
    assert server.pid is not None


def test_run_by_root_the_server_is_nobody_and_no_directory_changes_its_mode(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: an ordinary user's server runs as that user")
    parents = list(tmp_path.parents)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path, *parents)]
    server.start()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path, *parents)] == modes
    assert os.stat(f"/proc/{server.pid}").st_uid != 0


def test_binaries_out_of_reach_are_copied_once(
    server: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if server.user is None:
        pytest.skip("needs root: an ordinary user reaches the own binaries")
    monkeypatch.setattr("sandbox.postgres._reachable", lambda path: False)
    monkeypatch.setattr("sandbox.postgres._OUTSIDE", tmp_path)
    copy = binaries_for(server.user)
    assert copy.is_relative_to(tmp_path)
    assert binaries_for(server.user) == copy
    (tmp_path / copy.parts[len(tmp_path.parts)]).chmod(0o777)
    with pytest.raises(PostgresError, match="not ours"):
        binaries_for(server.user)


def test_a_killed_parent_leaves_no_server_behind(tmp_path: Path) -> None:
    program = (
        "import os, sys, signal\n"
        "from sandbox.postgres import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(sys.argv[1], durable=False).start()\n"
        "print(server.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "pg")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9
    left = EmbeddedPostgres(tmp_path / "pg", durable=False)
    try:
        left.start()  # waits until the old server is gone, else PostgreSQL would refuse
        assert not alive(int(done.stdout))
    finally:
        left.delete()
