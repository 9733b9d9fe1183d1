"""The HTTP front as a process of its own: `python -m gateway.http --config F`.

It shares settings, keys and code with the gateway of the POS link, but no event loop: whatever
callers of the API do, terminals don't wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket

import structlog
from aiohttp import web

from gateway.hsm import open_hsm
from gateway.http.api import FrontApi
from gateway.http.front_link import FrontLink
from gateway.http.pins import PinKeys
from gateway.http.requests import Accepting
from gateway.metrics import Metrics
from gateway.node_link import HttpNodeLink
from gateway.pos.dispatch import Dispatcher
from gateway.pos.translate import FINGERPRINT_KEY, FINGERPRINT_LABEL
from gateway.settings import GatewaySettings
from gateway.terminal_keys.periods import PeriodFileUnusable, PeriodKeys
from gateway.terminal_keys.ring import MASTER_KEY, SIGNING_KEY, SIGNING_LABEL
from nodes.clock import Clock, SystemClock
from nodes.crypto.keystore import Keystore

log = structlog.get_logger("gateway.http")

#: Connections at once; a connection that has sent no whole head after so many seconds is closed.
MAX_CONNECTIONS = 1_000
HEAD_S = 10.0
_IDLE_S = 30.0
_ERASE_EVERY_S = 20.0
_HEAD_END = b"\r\n\r\n"


class HttpFront:
    """One front. `start` binds the port, `close` ends everything."""

    def __init__(
        self, settings: GatewaySettings, keystore: Keystore, *, clock: Clock | None = None
    ) -> None:
        self._settings = settings
        self._keystore = keystore
        self._clock = clock or SystemClock()
        self._connections = 0
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._node: HttpNodeLink | None = None
        self._link: FrontLink | None = None
        self._dispatcher: Dispatcher | None = None
        self._erasing: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. ValueError if the settings have no API port."""
        settings = self._settings
        if settings.api_port is None:
            raise ValueError("the settings have no api_port")
        accepting = self._accepting()
        seed = self._keystore.secret("message")
        node_key = bytes.fromhex(settings.node_message_key)
        self._node = HttpNodeLink(
            settings.node_url,
            key_id=settings.key_id,
            message_seed=seed,
            node_key=node_key,
            acquirer=settings.acquirer,
            deadline_s=settings.deadline_ms / 1000,
        )
        self._link = FrontLink(
            settings.node_url,
            key_id=settings.key_id,
            message_seed=seed,
            node_key=node_key,
            acquirer=settings.acquirer,
        )
        self._dispatcher = Dispatcher(
            self._node,
            Metrics(),
            max_batch=settings.max_batch,
            in_flight=settings.in_flight,
            max_waiting=settings.max_waiting,
            max_wait_s=settings.max_wait_ms / 1000,
        )
        listening = socket.create_server((settings.host, settings.api_port), backlog=256)
        self.port = listening.getsockname()[1]
        own_url = settings.api_url or f"http://{settings.host}:{self.port}"
        self._erasing = asyncio.create_task(self._erase(accepting.pins))
        api = FrontApi(self._dispatcher, self._link, accepting, self._clock, own_url)
        self._runner = web.AppRunner(
            api.application(), access_log=None, keepalive_timeout=_IDLE_S, handle_signals=False
        )
        await self._runner.setup()
        make = self._runner.server
        assert make is not None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Guarded(make(), self), sock=listening
        )
        log.info("http_front_listening", port=self.port)

    async def close(self) -> None:
        """Stop listening, end what is under way."""
        if self._erasing is not None:
            self._erasing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._erasing
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._dispatcher is not None:
            await self._dispatcher.close()
        if self._node is not None:
            await self._node.close()
        if self._link is not None:
            self._link.close()

    def _accepting(self) -> Accepting:
        settings = self._settings
        hsm = open_hsm(settings, self._keystore, {})
        hsm.derive(MASTER_KEY, FINGERPRINT_LABEL, FINGERPRINT_KEY)
        hsm.derive_sm2(MASTER_KEY, SIGNING_LABEL, SIGNING_KEY)
        period_s, periods = settings.key_period_s, None
        if settings.period_file is not None:
            periods = PeriodKeys(hsm, settings.period_file, period_s, self._clock.now_ms())
        return Accepting(
            hsm,
            PinKeys(hsm, period_s, periods),
            frozenset(settings.currencies),
            settings.max_amount,
            settings.deadline_ms,
        )

    async def _erase(self, pins: PinKeys) -> None:
        """Erase keys of periods when they are over, also while no request comes."""
        while True:
            await asyncio.sleep(_ERASE_EVERY_S)
            try:
                pins.advance(self._clock.now_ms())
            except PeriodFileUnusable as error:
                log.error("periods_not_advanced", reason=str(error))

    def entered(self) -> bool:
        """Count a connection; False if there are too many."""
        self._connections += 1
        return self._connections <= MAX_CONNECTIONS

    def left(self) -> None:
        """A connection has ended."""
        self._connections -= 1


class _Guarded(asyncio.Protocol):
    """Stands before aiohttp's protocol: heads arrive in time, and connections are counted."""

    def __init__(self, inner: asyncio.Protocol, front: HttpFront) -> None:
        self._inner = inner
        self._front = front
        self._transport: asyncio.BaseTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if not self._front.entered():
            transport.close()
        self._timer = asyncio.get_running_loop().call_later(HEAD_S, self._too_slow)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._timer is not None:
            joined = self._tail + data
            self._tail = joined[-len(_HEAD_END) + 1 :]
            if _HEAD_END in joined:
                self._timer.cancel()
                self._timer = None
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._front.left()
        self._inner.connection_lost(exc)

    def _too_slow(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def serve(settings: GatewaySettings, keystore: Keystore) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    front = HttpFront(settings, keystore)
    await front.start()
    try:
        await stop.wait()
    finally:
        await front.close()
