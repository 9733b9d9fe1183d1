"""The HTTP face: JSON-RPC by POST on /, readiness on GET /health. For loopback.

The engine has a thread of its own; requests and sealing are jobs in its queue, so that whatever
arrives while a block is written goes into the next one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import uvicorn

from nodes.chain.embedded.engine import Engine
from nodes.chain.embedded.jsonrpc import JsonRpc

_logger = logging.getLogger(__name__)

MAX_BODY = 4 << 20
_RETRY_AFTER_FAILURE_S = 1.0

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class ChainApp:
    """The ASGI application over one engine. `heartbeat_s`: an empty block is sealed when none was
    for so long; 0 for never."""

    def __init__(self, engine: Engine, *, heartbeat_s: float = 0.0) -> None:
        self._engine = engine
        self._rpc = JsonRpc(engine)
        self._heartbeat_s = heartbeat_s
        self._jobs = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._sealing = False
        self._last_block = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            status, body = await self._handle(scope, receive)
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async def _lifespan(self, receive: _Receive, send: _Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                if self._heartbeat_s > 0:
                    self._spawn(self._heartbeat())
                await send({"type": "lifespan.startup.complete"})
            else:
                for task in self._tasks:
                    task.cancel()
                self._jobs.shutdown(wait=True)
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _handle(self, scope: _Scope, receive: _Receive) -> tuple[int, bytes]:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if not _is_local(headers.get(b"host", "")):
            return _problem(403, "only by a loopback address")
        if scope["path"] == "/health" and scope["method"] == "GET":
            return 200, await self._in_engine(self._health)
        if scope["path"] != "/":
            return _problem(404, "JSON-RPC is at /")
        if scope["method"] != "POST":
            return _problem(405, "JSON-RPC is sent by POST")
        # A page in a browser can't send this type to another origin unasked.
        if headers.get(b"content-type", "").partition(";")[0].strip() != "application/json":
            return _problem(415, "application/json is wanted")
        body = await _read_body(receive)
        if body is None:
            return _problem(413, f"more than {MAX_BODY} bytes")
        answer = await self._in_engine(self._rpc.answer, body)
        if len(self._engine.pool):
            self._start_sealing()
        return 200, answer

    async def _in_engine(self, job: Callable[..., bytes], *arguments: Any) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._jobs, job, *arguments)

    def _health(self) -> bytes:
        engine = self._engine
        return msgspec.json.encode(
            {
                "status": "ok",
                "chain_id": engine.genesis.chain_id,
                "block_number": engine.head.block_number,
                "waiting": len(engine.pool),
            }
        )

    # -- sealing

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _start_sealing(self) -> None:
        if not self._sealing:
            self._sealing = True
            self._spawn(self._seal_all())

    async def _seal_all(self) -> None:
        """Seals until nothing can run. What waits for an earlier nonce is looked at again when
        the next request has come."""
        try:
            while await self._seal(empty=False):
                pass
        finally:
            self._sealing = False

    async def _seal(self, *, empty: bool) -> bool:
        """Seals one block; whether there may be more to seal."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._jobs, self._seal_now, empty)
        except Exception:
            # The disk is full or fails: nothing of the block is there, all is tried again.
            _logger.exception("a block could not be sealed")
            await asyncio.sleep(_RETRY_AFTER_FAILURE_S)
            return True

    def _seal_now(self, empty: bool) -> bool:
        if empty or self._engine.can_seal:
            self._engine.seal(empty=empty)
            self._last_block = time.monotonic()
        return self._engine.can_seal

    async def _heartbeat(self) -> None:
        while True:
            wait = self._last_block + self._heartbeat_s - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            else:
                await self._seal(empty=True)


async def _read_body(receive: _Receive) -> bytes | None:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body"):
            return bytes(body)


def _is_local(host: str) -> bool:
    """Whether a Host header names this machine by a loopback address: a name of somebody's own
    that resolves to it is how a web page would get here."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _problem(status: int, detail: str) -> tuple[int, bytes]:
    return status, msgspec.json.encode({"status": status, "detail": detail})


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 has the system choose one. ValueError if the address is not a
    loopback one: the chain has no authentication but its transactions' signatures."""
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError("the embedded chain listens on loopback only")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    return listener


def serve(engine: Engine, listener: socket.socket, *, heartbeat_s: float = 0.0) -> None:
    """Serves until SIGTERM or SIGINT, then closes the engine."""
    config = uvicorn.Config(
        ChainApp(engine, heartbeat_s=heartbeat_s),
        lifespan="on",
        access_log=False,
        log_config=None,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    # uvicorn raises the signal that stopped it once more when it has finished; that one is to end
    # in an orderly return.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        engine.close()
