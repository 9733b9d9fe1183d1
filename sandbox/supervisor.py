"""Starts the network's processes, waits until each is ready, restarts what ends, stops all.

Every process is forked by `sandbox.forkserver`, in a session of its own, so that a Ctrl-C reaches
only the launcher, which then stops them in order. A process that ends without having been asked
is started again after a pause that grows from 0.2 s to 10 s while it doesn't stay up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_STAYED_UP_S = 5.0


class ProcessFailedError(RuntimeError):
    """A process did not become ready; the text names it and ends with the end of its log."""


@dataclass(frozen=True)
class Order:
    """What to run: a Python module with arguments, or (`program` set) an executable.

    `program` holds args, env, cwd, uid and gid (see sandbox.postgres.Command).
    """

    module: str
    args: list[str] = field(default_factory=list)
    program: dict[str, Any] | None = None


@dataclass(frozen=True)
class Service:
    """One supervised process.

    `order` is called before every start (in a thread; it may wait). `ready` answers whether
    the process serves; it is asked until it does, then no more. `needs` names services that must
    have been ready once before the first start. Services stop from the highest `tier` down.
    """

    name: str
    order: Callable[[], Order]
    ready: Callable[[], Awaitable[bool]]
    needs: tuple[str, ...] = ()
    tier: int = 0
    stop_signal: signal.Signals = signal.SIGTERM
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 10.0


class Supervisor:
    """The launcher's hand on the process tree; its work runs in a thread of its own."""

    def __init__(self, log_dir: Path, processes_file: Path, preload: Sequence[str] = ()) -> None:
        """`processes_file` is kept current as {name: pid} of what runs.

        `preload`: modules that the forkserver imports before it forks.
        """
        self._log_dir = log_dir
        self._processes_file = processes_file
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="supervisor")
        self._thread.daemon = True
        self._forkserver = _Forkserver(self._log_dir / "forkserver.log", preload, self._lost)
        self._services: dict[str, Service] = {}
        self._pids: dict[str, int] = {}
        self._ready: dict[str, asyncio.Event] = {}
        self._restarts: dict[str, int] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self._thread.start()

    # ------------------------------------------------------------- for other threads

    def add(self, services: Iterable[Service]) -> None:
        """Start supervising these services; returns at once."""
        self._call(self._add(list(services)))

    def wait_ready(self, name: str, timeout_s: float = 90.0) -> None:
        """Wait until this service is ready. ProcessFailedError if that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not self._ready[name].is_set():
            if time.monotonic() > deadline:
                raise ProcessFailedError(f"{name} is not ready:\n{self.log_tail(name)}")
            if self._restarts.get(name, 0) >= 3:
                raise ProcessFailedError(f"{name} keeps ending:\n{self.log_tail(name)}")
            time.sleep(0.02)

    def pids(self) -> dict[str, int]:
        """Name and process id of what runs now."""
        return dict(self._pids)

    def ready_names(self) -> set[str]:
        """Names of the services that are ready now."""
        return {name for name, event in self._ready.items() if event.is_set()}

    def restarts(self, name: str) -> int:
        """How often the service has been started again."""
        return self._restarts.get(name, 0)

    def log_tail(self, name: str, lines: int = 15) -> str:
        """The last lines of a service's log."""
        with contextlib.suppress(OSError):
            text = (self._log_dir / f"{name}.log").read_text(errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        return "(no log)"

    def stop(self) -> None:
        """Stop every process, tier by tier, then the thread. Idempotent."""
        if not self._thread.is_alive():
            return
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._write_processes()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # ------------------------------------------------------------- in the thread

    async def _add(self, services: list[Service]) -> None:
        for service in services:
            self._services[service.name] = service
            self._ready[service.name] = asyncio.Event()
            self._keepers[service.name] = asyncio.ensure_future(self._keep(service))

    async def _keep(self, service: Service) -> None:
        """Keep one service up until it is cancelled."""
        for name in service.needs:
            await self._ready[name].wait()
        pause = _FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            try:
                await self._run_once(service)
            except (OSError, RuntimeError) as error:
                self._note(service.name, f"could not be started: {error}")
            if time.monotonic() - began > _STAYED_UP_S:
                pause = _FIRST_PAUSE_S
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            self._restarts[service.name] = self._restarts.get(service.name, 0) + 1

    async def _run_once(self, service: Service) -> None:
        order = await asyncio.to_thread(service.order)
        pid, ended = await self._forkserver.start(
            service.name, order, self._log_dir / f"{service.name}.log"
        )
        self._pids[service.name] = pid
        self._write_processes()
        try:
            await self._until_ready(service, ended)
            status = await asyncio.shield(ended)
            self._note(service.name, f"process {pid} ended with status {status}")
        finally:
            if ended.done():
                self._ready[service.name].clear()
                if self._pids.get(service.name) == pid:
                    del self._pids[service.name]
                self._write_processes()

    async def _until_ready(self, service: Service, ended: asyncio.Future[int]) -> None:
        deadline = time.monotonic() + service.start_timeout_s
        while not ended.done():
            if await service.ready():
                self._ready[service.name].set()
                return
            if time.monotonic() > deadline:
                self._note(service.name, f"not ready after {service.start_timeout_s} s: killed")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pids[service.name], signal.SIGKILL)
                return
            await asyncio.sleep(0.05)

    def _lost(self) -> None:
        """The forkserver ended by itself: the kernel has killed what it had forked."""
        self._note("forkserver", "ended; starting it again")

    async def _stop(self) -> None:
        self._stopping = True
        for task in self._keepers.values():
            task.cancel()
        await asyncio.gather(*self._keepers.values(), return_exceptions=True)
        for tier in sorted({service.tier for service in self._services.values()}, reverse=True):
            await asyncio.gather(
                *(self._end(service) for service in self._services.values() if service.tier == tier)
            )
        await self._forkserver.close()

    async def _end(self, service: Service) -> None:
        ended = self._forkserver.ended.get(service.name)
        if ended is None:
            return
        pid, future = ended
        for number in (service.stop_signal, signal.SIGKILL):
            if future.done():
                break
            if number == signal.SIGKILL:
                self._note(service.name, f"did not stop in {service.stop_timeout_s} s: killed")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(future), service.stop_timeout_s)
        self._pids.pop(service.name, None)
        self._ready[service.name].clear()

    def _note(self, name: str, text: str) -> None:
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with (self._log_dir / "launcher.log").open("a") as log:
            log.write(f"{moment} {name}: {text}\n")

    def _write_processes(self) -> None:
        temporary = self._processes_file.with_suffix(".new")
        temporary.write_text(json.dumps(self._pids, indent=1, sort_keys=True) + "\n")
        temporary.replace(self._processes_file)


class _Forkserver:
    """The launcher's end of the link to `sandbox.forkserver`; started when first needed."""

    def __init__(self, log: Path, preload: Sequence[str], lost: Callable[[], None]) -> None:
        self._log = log
        self._preload = preload
        self._lost = lost
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._starting = asyncio.Lock()
        self._is_ready = asyncio.Event()
        self._begun: dict[str, asyncio.Future[int]] = {}
        self.ended: dict[str, tuple[int, asyncio.Future[int]]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self, name: str, order: Order, log: Path) -> tuple[int, asyncio.Future[int]]:
        """Have a process forked; its id, and a future of its exit status."""
        await self._ensure()
        message: dict[str, Any] = {
            "id": name,
            "name": name,
            "module": order.module,
            "args": order.args,
            "log": str(log),
        }
        if order.program is not None:
            message["exec"] = order.program
        loop = asyncio.get_running_loop()
        begun = self._begun[name] = loop.create_future()
        if self._writer is None:
            raise ProcessFailedError("the forkserver has ended")
        self._writer.write(json.dumps(message).encode() + b"\n")
        # Shielded: what has been ordered will run, also when the caller is cancelled meanwhile.
        pid = await asyncio.shield(begun)
        return pid, self.ended[name][1]

    async def _ensure(self) -> None:
        async with self._starting:
            if self._process is not None and self._process.poll() is None and self._writer:
                await self._is_ready.wait()
                return
            self._is_ready.clear()
            ours, theirs = socket.socketpair()
            with self._log.open("ab") as log, theirs:
                self._process = subprocess.Popen(  # noqa: ASYNC220 - takes a few ms
                    [
                        sys.executable,
                        "-m",
                        "sandbox.forkserver",
                        str(theirs.fileno()),
                        *self._preload,
                    ],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=os.environ | {"ETH_HASH_BACKEND": "pysha3"},
                )
            reader, self._writer = await asyncio.open_connection(sock=ours)
            self._reader = asyncio.ensure_future(self._read(reader))
            await self._is_ready.wait()
            if self._writer is None:
                raise ProcessFailedError(f"the forkserver ended; see {self._log}")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionResetError):
            while line := await reader.readline():
                self._hear(json.loads(line))
        if self._closing:
            return
        self._lost()
        self._writer = None
        for _, future in self.ended.values():
            if not future.done():
                future.set_result(-signal.SIGKILL)
        for begun in self._begun.values():
            if not begun.done():
                begun.set_exception(ProcessFailedError("the forkserver has ended"))
        self._is_ready.set()

    def _hear(self, message: dict[str, Any]) -> None:
        if message["event"] == "ready":
            self._is_ready.set()
        elif message["event"] == "started":
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self.ended[message["id"]] = (message["pid"], future)
            self._begun[message["id"]].set_result(message["pid"])
        elif message["event"] == "exited":
            pid, future = self.ended[message["id"]]
            if pid == message["pid"] and not future.done():
                future.set_result(message["status"])

    async def close(self) -> None:
        """End the forkserver (and, through the kernel, whatever it still runs)."""
        self._closing = True
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, 5)
            self._process.kill()
            self._process.wait()
