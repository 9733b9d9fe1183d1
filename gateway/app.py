"""Puts a gateway together from its settings and runs it."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Mapping

import structlog

from gateway.http.status import StatusServer
from gateway.metrics import Metrics
from gateway.node_link import HttpNodeLink
from gateway.pos.dispatch import Dispatcher, NodeLink, ServicesLink
from gateway.pos.server import Limits, PosServer
from gateway.pos.session import Session
from gateway.pos.translate import FINGERPRINT_KEY, FINGERPRINT_LABEL, Policy
from gateway.settings import GatewaySettings
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY, KeyRing, tmk_name
from nodes.clock import Clock, SystemClock
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.keystore import Keystore

_log = structlog.get_logger("gateway")


class Gateway:
    """One gateway process's parts. `start` binds the ports, `close` ends everything."""

    def __init__(
        self,
        settings: GatewaySettings,
        keystore: Keystore,
        *,
        clock: Clock | None = None,
        link: NodeLink | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.pos_port = 0
        self.http_port = 0
        self._clock = clock or SystemClock()
        self._keystore = keystore
        self._link = link
        self._http_link: HttpNodeLink | None = None
        self._pos: PosServer | None = None
        self._status = StatusServer(self.metrics, self._health)
        self.session = _session(settings, keystore)

    async def start(self) -> None:
        """Listen for terminals and for HTTP."""
        settings = self.settings
        link = self._link
        if link is None:
            link = self._http_link = HttpNodeLink(
                settings.node_url,
                key_id=settings.key_id,
                message_seed=self._keystore.secret("message"),
                node_key=bytes.fromhex(settings.node_message_key),
                acquirer=settings.acquirer,
                deadline_s=settings.deadline_ms / 1000,
            )
        dispatcher = Dispatcher(
            link,
            self.metrics,
            max_batch=settings.max_batch,
            in_flight=settings.in_flight,
            max_waiting=settings.max_waiting,
            max_wait_s=settings.max_wait_ms / 1000,
        )
        self.metrics.waiting.set_function(lambda: dispatcher.waiting)
        # Few and slow: they get calls of their own, so that no payment waits behind them.
        services = Dispatcher(
            link,
            self.metrics,
            max_batch=min(16, settings.max_batch),
            in_flight=2,
            max_waiting=settings.max_waiting,
            max_wait_s=settings.deadline_ms / 1000,
            exchange=link.terminal_services if isinstance(link, ServicesLink) else None,
        )
        limits = Limits(
            connections=settings.max_connections,
            frame_s=settings.frame_timeout_s,
            idle_s=settings.idle_timeout_s,
        )
        self._pos = PosServer(self.session, dispatcher, self.metrics, self._clock, limits, services)
        # In this order: whoever finds /health there, finds the POS port open.
        self.pos_port = await self._pos.start(settings.host, settings.port)
        self.http_port = await self._status.start(settings.host, settings.http_port)
        _log.info(
            "gateway_listening",
            acquirer=settings.acquirer,
            pos_port=self.pos_port,
            http_port=self.http_port,
            terminals=len(settings.terminals),
        )

    async def close(self) -> None:
        """Refuse what waits, close the connections and the way to the node."""
        if self._pos is not None:
            await self._pos.close()
        await self._status.close()
        if self._http_link is not None:
            await self._http_link.close()

    def _health(self) -> Mapping[str, object]:
        pos = self._pos
        return {
            "status": "ok" if pos is not None else "starting",
            "acquirer": self.settings.acquirer,
            "connections": len(pos.connections) if pos is not None else 0,
            "waiting": pos.dispatcher.waiting if pos is not None else 0,
        }


def _session(settings: GatewaySettings, keystore: Keystore) -> Session:
    records = [terminal.record() for terminal in settings.terminals]
    names = [MASTER_KEY, ZONE_KEY, *(tmk_name(record.terminal_id) for record in records)]
    hsm = SoftwareHsm({name: keystore.secret(name) for name in names})
    hsm.derive(MASTER_KEY, FINGERPRINT_LABEL, FINGERPRINT_KEY)
    ring = KeyRing(hsm, records, settings.key_period_s)
    policy = Policy(frozenset(settings.currencies), settings.max_amount, settings.deadline_ms)
    return Session(hsm, ring, policy)


async def serve(settings: GatewaySettings, keystore: Keystore) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gateway = Gateway(settings, keystore)
    await gateway.start()
    # What exists now stays; what a message allocates is freed by its reference count. So the
    # collector looks seldom, and never at the modules.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    try:
        await stop.wait()
    finally:
        await gateway.close()
        _log.info("gateway_stopped")
