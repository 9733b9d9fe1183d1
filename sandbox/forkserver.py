"""Process that imports the heavy libraries once and forks the network's processes from there.

`python -m sandbox.forkserver FD MODULE...` imports the modules and serves one launcher over the
socket FD. (A module that starts a thread or opens a connection when it is imported must not be
among them.) Each line from the launcher is a JSON order

    {id, module, args, log, name, exec?: {args, env, cwd, uid, gid}}

that is: run `python -m module args` (or, with `exec`, a program) as a process of its own. Programs
are started at once, modules when everything is imported. Lines back: {event: "ready"},
{event: "started", id, pid}, {event: "exited", id, pid, status}, where `status` is an exit code, or
minus the number of the signal that killed the process.

When the launcher goes, this process ends; the kernel then kills the forked processes
(PR_SET_PDEATHSIG), PostgreSQL by a signal that lets it shut down quickly.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def main() -> None:
    """Serve the launcher at the other end of the socket given as first argument."""
    link = socket.socket(fileno=int(sys.argv[1]))
    parent = os.getppid()
    _die_with_parent(signal.SIGKILL, parent)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    Forkserver(link, sys.argv[2:]).serve()


class Forkserver:
    """The loop: orders in, started and exited out. One thread only, so that forking is safe."""

    def __init__(self, link: socket.socket, preload: list[str]) -> None:
        self._link = link
        self._to_import = preload[::-1]
        self._waiting: list[dict[str, Any]] = []
        self._children: dict[int, str] = {}

    def serve(self) -> None:
        """Run until the launcher closes its end."""
        link = self._link.fileno()
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._own_fds = (wake_read, wake_write, link)
        self._tell(event="ready")
        waiting = b""
        while True:
            if self._to_import:
                self._import_next()
            timeout = 0 if self._to_import else None
            readable, _, _ = select.select([link, wake_read], [], [], timeout)
            if wake_read in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
                self._reap()
            if link in readable:
                received = self._link.recv(65536)
                if not received:
                    return
                waiting += received
                *lines, waiting = waiting.split(b"\n")
                for line in lines:
                    self._take(json.loads(line))

    def _import_next(self) -> None:
        importlib.import_module(self._to_import.pop())
        if not self._to_import:
            gc.collect()
            gc.freeze()  # what is shared with the children stays shared
            waiting, self._waiting = self._waiting, []
            for order in waiting:
                self._start(order)

    def _take(self, order: dict[str, Any]) -> None:
        if self._to_import and "exec" not in order:
            self._waiting.append(order)
        else:
            self._start(order)

    def _start(self, order: dict[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            _become(order, self._own_fds)
        self._children[pid] = order["id"]
        self._tell(event="started", id=order["id"], pid=pid)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            identity = self._children.pop(pid, None)
            if identity is not None:
                code = os.waitstatus_to_exitcode(status)
                self._tell(event="exited", id=identity, pid=pid, status=code)

    def _tell(self, **message: object) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._link.sendall(json.dumps(message).encode() + b"\n")


def _become(order: dict[str, Any], own_fds: tuple[int, ...]) -> NoReturn:
    """In the forked child: turn into the process that was ordered. Never returns."""
    status = 1
    try:
        parent = os.getppid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for descriptor in own_fds:
            os.close(descriptor)
        os.setsid()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.close(log)
        os.close(nothing)
        ctypes.CDLL(None).prctl(_PR_SET_NAME, order["name"].encode()[:15], 0, 0, 0)
        if "exec" in order:
            _exec(order["exec"], parent)
        _die_with_parent(signal.SIGKILL, parent)
        # `kill -USR2` writes every thread's stack to the log.
        faulthandler.register(signal.SIGUSR2, all_threads=True)
        sys.argv = [order["module"], *order["args"]]
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        status = 130
    except BaseException:  # noqa: BLE001 - the process ends here; its log says why
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _exec(program: dict[str, Any], parent: int) -> NoReturn:
    if program["uid"] is not None:
        os.setgroups([])
        os.setgid(program["gid"])
        os.setuid(program["uid"])
    # After setuid, which clears it. SIGINT is PostgreSQL's fast shutdown.
    _die_with_parent(signal.SIGINT, parent)
    os.chdir(program["cwd"])
    os.execve(program["args"][0], program["args"], program["env"])  # noqa: S606


def _die_with_parent(number: int, parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main()
