"""Puts a gateway together from its settings and runs it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Mapping

import structlog

from gateway.fleet import Fleet
from gateway.hsm import open_hsm
from gateway.http.receipts import ReceiptService
from gateway.http.status import StatusServer
from gateway.iso8583.dialect import BCD_TPDU
from gateway.metrics import Metrics
from gateway.node_link import HttpNodeLink
from gateway.pos.dispatch import Dispatcher, NodeLink, ServicesLink
from gateway.pos.server import Limits, PosServer
from gateway.pos.session import Session
from gateway.pos.translate import FINGERPRINT_KEY, FINGERPRINT_LABEL, Policy
from gateway.settings import GatewaySettings
from gateway.terminal_keys.enrolment import enrol
from gateway.terminal_keys.model import KeyManagement, TerminalRecord
from gateway.terminal_keys.periods import PeriodFileUnusable, PeriodKeys
from gateway.terminal_keys.ring import ALGORITHMS, MASTER_KEY, KeyRing, tmk_name
from nodes.api.client import NodeClient, NodePeer, NodeRefused, NodeUnreachable
from nodes.clock import Clock, SystemClock
from nodes.crypto.http_signatures import MessageSigner
from nodes.crypto.keystore import Keystore

_log = structlog.get_logger("gateway")

_ERASE_EVERY_S = 20.0


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
        self._servers: list[PosServer] = []
        #: The POS port of each dialect, by its name.
        self.ports: dict[str, int] = {}
        receipts = ReceiptService(settings.node_url)
        self._status = StatusServer(self.metrics, self._health, receipts.routes())
        self.session, self.ring, self.fleet = _session(settings, keystore, self._clock.now_ms())
        self._tasks: list[asyncio.Task[None]] = []
        self._fleet_link: NodeClient | None = None

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
        if self._http_link is not None:
            await self._follow_fleet()
        self._tasks.append(asyncio.create_task(self._erase()))
        # In this order: whoever finds /health there, finds the POS ports open.
        listeners = [(settings.port, BCD_TPDU)]
        listeners += [(listener.port, listener.load()) for listener in settings.listeners]
        for port, dialect in listeners:
            server = PosServer(
                self.session, dispatcher, self.metrics, self._clock, limits, dialect, services
            )
            server.seen = self.fleet.seen
            self._servers.append(server)
            self.ports[dialect.name] = await server.start(settings.host, port)
        self._pos = self._servers[0]
        self.pos_port = self.ports[BCD_TPDU.name]
        self.http_port = await self._status.start(settings.host, settings.http_port)
        _log.info(
            "gateway_listening",
            acquirer=settings.acquirer,
            pos_port=self.pos_port,
            pos_ports=self.ports,
            http_port=self.http_port,
            terminals=len(settings.terminals),
        )

    async def _follow_fleet(self) -> None:
        """Know the fleet before the first terminal comes, as far as the node is there."""
        settings = self.settings
        self._fleet_link = link = NodeClient(
            settings.node_url,
            signer=MessageSigner(settings.key_id, self._keystore.secret("message")),
            peer=NodePeer(settings.acquirer, bytes.fromhex(settings.node_message_key)),
            timeout_s=5.0,
            connections=2,
        )
        self.fleet.restore()
        with contextlib.suppress(NodeUnreachable, NodeRefused):
            await self.fleet.follow(link)
        following = self.fleet.run(link, settings.fleet_poll_s, settings.fleet_report_s)
        self._tasks.append(asyncio.create_task(following))

    async def _erase(self) -> None:
        """Erase keys of periods when they are over, also while no message comes."""
        while True:
            await asyncio.sleep(_ERASE_EVERY_S)
            try:
                self.ring.advance(self._clock.now_ms())
            except PeriodFileUnusable as error:
                _log.error("periods_not_advanced", reason=str(error))

    async def close(self) -> None:
        """Refuse what waits, close the connections and the way to the node."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._fleet_link is not None:
            await self._fleet_link.close()
        for server in self._servers:
            await server.close()
        await self._status.close()
        if self._http_link is not None:
            await self._http_link.close()

    def _health(self) -> Mapping[str, object]:
        pos = self._pos
        return {
            "status": "ok" if pos is not None else "starting",
            "acquirer": self.settings.acquirer,
            "connections": sum(len(server.connections) for server in self._servers),
            "waiting": pos.dispatcher.waiting if pos is not None else 0,
        }


def _session(
    settings: GatewaySettings, keystore: Keystore, now_ms: int
) -> tuple[Session, KeyRing, Fleet]:
    records = [terminal.record() for terminal in settings.terminals]
    imported = [record for record in records if tmk_name(record.terminal_id) in keystore.names()]
    kinds = {tmk_name(record.terminal_id): ALGORITHMS[record.suite] for record in imported}
    hsm = open_hsm(settings, keystore, kinds)
    hsm.derive(MASTER_KEY, FINGERPRINT_LABEL, FINGERPRINT_KEY)
    periods = None
    if settings.period_file is not None:
        periods = PeriodKeys(hsm, settings.period_file, settings.key_period_s, now_ms)
    ring = KeyRing(hsm, records, settings.key_period_s, settings.key_uses, periods)
    policy = Policy(frozenset(settings.currencies), settings.max_amount, settings.deadline_ms)

    def check_value(record: TerminalRecord) -> bytes:
        if record.management is KeyManagement.DUKPT:
            return enrol(hsm, record).check_value
        return hsm.check_value(ring.master(record.terminal_id))

    fleet = Fleet(ring, check_value, records, settings.fleet_file)
    return Session(hsm, ring, policy), ring, fleet


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
