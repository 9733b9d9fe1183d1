"""The TCP server that terminals connect to: one protocol object a connection, no task a message."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import cast

import structlog

from gateway.iso8583.dialect import BCD_TPDU, Dialect
from gateway.metrics import Metrics
from gateway.pos.dispatch import Decision, Dispatcher, Waiting
from gateway.pos.framing import FrameFlaw, FrameReader
from gateway.pos.response_codes import KEY_REUSED, Refusal
from gateway.pos.session import Close, Drop, Forward, Reply, Session
from gateway.pos.translate import ROUTES, answer_mti
from gateway.pos.turns import Turns
from nodes.authorization.services import ServiceRequest
from nodes.clock import Clock

_log = structlog.get_logger("gateway.pos")

#: MTIs that a metric's label may show; everything else a peer sends counts as "other".
_KNOWN_MTIS = frozenset(answer_mti(mti) for mti in ROUTES)
#: So many frames are decoded before what came of them may leave (some milliseconds).
_AT_A_TIME = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What one gateway grants its connections. Times in seconds.

    `frame_s`: from a frame's first byte to its last. `idle_s`: without any frame.
    `outstanding`: requests of one connection that wait for the node; reading pauses beyond.
    """

    connections: int
    frame_s: float = 5.0
    idle_s: float = 600.0
    outstanding: int = 1024


class PosServer:
    """Accepts terminals and connects them with session and dispatcher. One event loop."""

    def __init__(
        self,
        session: Session,
        dispatcher: Dispatcher,
        metrics: Metrics,
        clock: Clock,
        limits: Limits,
        dialect: Dialect = BCD_TPDU,
        services: Dispatcher | None = None,
    ) -> None:
        self.session = session
        self.dialect = dialect
        self.dispatcher = dispatcher
        #: For what isn't a payment: it doesn't wait in the payments' queue, nor they behind it.
        self.services = services or dispatcher
        self.metrics = metrics
        self.clock = clock
        self.limits = limits
        self.connections: set[_Connection] = set()
        #: By terminal: when (ms, UTC) its last request came, and its batch. The fleet empties it.
        self.seen: dict[str, tuple[int, str]] = {}
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self.turns = Turns(_AT_A_TIME)
        # Connections with answers that wait to be written, and the end of this turn.
        self._ready: list[_Connection] = []
        self._flush: asyncio.Handle | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port that was bound (asked for as 0: any free one)."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), host, port, backlog=1024, start_serving=True
        )
        self._close_idle()
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop listening, refuse what waits, close every connection."""
        if self._sweep is not None:
            self._sweep.cancel()
        if self._server is not None:
            self._server.close()
        await self.dispatcher.close()
        await self.services.close()
        for connection in list(self.connections):
            connection.receive_all()  # refused, by now
            connection.close()
        self.turns.close()
        if self._server is not None:
            await self._server.wait_closed()

    def write_soon(self, connection: _Connection) -> None:
        """Write the connection's answers at the end of this turn: one write for all of them."""
        self._ready.append(connection)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._flush = None
        ready, self._ready = self._ready, []
        for connection in ready:
            connection.write()

    def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self.limits.idle_s
        for connection in list(self.connections):
            if connection.last_frame < oldest and not connection.outstanding:
                connection.end("idle")
        self._sweep = loop.call_later(min(self.limits.idle_s, 30.0), self._close_idle)


class _Connection(asyncio.Protocol):
    """One terminal's (or concentrator's) connection."""

    def __init__(self, server: PosServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        #: Frames that wait for their turn.
        self._frames: deque[bytes] = deque()
        self._turning = False  # has asked for a turn
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._output: list[bytes] = []
        self._stopped = False  # reads no more
        self._blocked = False  # the peer doesn't take its answers
        self._paused = False
        self.outstanding = 0
        self.last_frame = self._loop.time()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, for uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        server = self._server
        if len(server.connections) >= server.limits.connections:
            server.metrics.closed.labels("too_many").inc()
            self._stopped = True
            self._transport.abort()
            return
        server.connections.add(self)
        server.metrics.connections.inc()

    def connection_lost(self, exc: Exception | None) -> None:
        self.receive_all()
        self._stopped = True
        self._transport = None
        self._disarm()
        server = self._server
        if self in server.connections:
            server.connections.discard(self)
            server.metrics.connections.dec()

    def eof_received(self) -> bool:
        self.receive_all()
        if not self._stopped and self._reader.partial:
            self.end(f"frame_{FrameFlaw.TRUNCATED.value}")
            return False
        self._stopped = True
        self.write()
        # A peer that closed its sending side may still read the answers that are under way.
        return self.outstanding > 0

    def pause_writing(self) -> None:
        self._blocked = True
        self._regulate()

    def resume_writing(self) -> None:
        self._blocked = False
        self._take_turns()
        self._regulate()

    def data_received(self, data: bytes) -> None:
        if self._stopped:
            return
        had_partial = self._reader.partial
        frames, flaw = self._reader.feed(data)
        if frames:
            self._server.metrics.frames.counts[()] += len(frames)
            self.last_frame = self._loop.time()
            self._frames += frames
            self._take_turns()
            self._regulate()
        if flaw is not None:
            self.receive_all()
            self.end(f"frame_{flaw.value}")
        if self._stopped:
            return
        # The time a frame may take runs from its first byte; more bytes don't lengthen it.
        if (frames or not had_partial) and (self._reader.partial or self._timer is not None):
            self._arm()

    # What a frame leads to

    def receive_all(self) -> None:
        """See to the frames that wait for their turn, now."""
        while self._frames and not self._stopped:
            self._receive_next()
        self._frames.clear()

    def _take_turns(self) -> None:
        if self._frames and not self._turning:
            self._turning = True
            self._server.turns.do(self._turn)

    def _turn(self) -> bool:
        """See to one frame; whether there are more. A peer that takes no answers gets none made."""
        self._turning = False
        if self._frames and not self._stopped and not self._blocked:
            self._receive_next()
            self._turning = bool(self._frames)
        return self._turning

    def _receive_next(self) -> None:
        server = self._server
        now_ms = server.clock.now_ms()
        try:
            step = server.session.receive(self._frames.popleft(), now_ms, server.dialect)
        except Exception as error:  # noqa: BLE001 (one frame must never end the gateway)
            # The type only: the message of an unexpected error might quote card data.
            _log.error("frame_failed", error=type(error).__name__)
            self.end("internal")
            return
        if isinstance(step, Forward):
            self._forward(step, now_ms)
        elif isinstance(step, Reply):
            self._send(step)
        elif isinstance(step, Drop):
            server.metrics.dropped.labels(step.reason).inc()
        else:
            assert isinstance(step, Close)
            self.end(step.reason)
        self._regulate()

    def _forward(self, step: Forward, now_ms: int) -> None:
        server = self._server
        arrived = self.last_frame
        server.seen[step.request.terminal_id] = now_ms, step.request.batch
        deadline = arrived + (step.request.deadline_ms - now_ms) / 1000
        item = Waiting(step.request, step.address, arrived, deadline, self._done)
        to = server.services if isinstance(step.request, ServiceRequest) else server.dispatcher
        if not to.submit(item):
            self._send(server.session.refuse(step.address, Refusal.OVERLOADED))
            return
        self.outstanding += 1

    def _done(self, item: Waiting, result: Decision | Refusal | None) -> None:
        self.outstanding -= 1
        now = self._loop.time()
        try:
            self._tell(item, result, now)
        finally:
            self._regulate()
            if self._stopped and not self.outstanding and self._transport is not None:
                self.write()
                self._transport.close()

    def _tell(self, item: Waiting, result: Decision | Refusal | None, now: float) -> None:
        server = self._server
        if result is None:
            server.metrics.unanswered.labels("undecided").inc()
        elif self._transport is None:
            server.metrics.unanswered.labels("gone").inc()
        elif now >= item.deadline:
            server.metrics.unanswered.labels("late").inc()
            _log.warning("answer_late", terminal_id=item.request.terminal_id)
        elif isinstance(result, Refusal):
            self._send(server.session.refuse(item.address, result))
        else:
            self._send(server.session.answer(item.request, item.address, result))
            server.metrics.seconds.observe(now - item.arrived)

    def _send(self, reply: Reply) -> None:
        metrics = self._server.metrics
        mti = reply.mti if reply.mti in _KNOWN_MTIS else "other"
        metrics.answers.counts[mti, reply.code] += 1
        if reply.refusal is not None:
            metrics.refusals.labels(reply.refusal.value).inc()
            if reply.refusal is Refusal.MAC:
                metrics.mac_failures.inc()
                _log.warning("mac_refused", terminal_id=reply.terminal_id, mti=mti)
        elif reply.code == KEY_REUSED:
            # An alarm, too: a terminal that has lost count, or somebody who tries things out.
            _log.warning("key_reused", terminal_id=reply.terminal_id, mti=mti)
        if not self._output:
            self._server.write_soon(self)
        self._output.append(reply.frame)

    # The connection

    def end(self, reason: str) -> None:
        """Close for a reason that is counted; answers that are ready still go out."""
        if self._stopped:
            return
        self._server.metrics.closed.labels(reason).inc()
        self.close()

    def close(self) -> None:
        """Read no more, write what is ready, close."""
        self._stopped = True
        self._disarm()
        self.write()
        if self._transport is None:
            return
        if self._blocked:
            self._transport.abort()  # a peer that takes nothing would keep it open for good
        else:
            self._transport.close()

    def write(self) -> None:
        """Hand the answers that are ready to the transport."""
        output, self._output = self._output, []
        if output and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(output))

    def _regulate(self) -> None:
        """Read on only while the peer takes its answers and not too many of them are due."""
        due = self.outstanding + len(self._frames)
        pause = self._blocked or due >= self._server.limits.outstanding
        if self._transport is None or pause == self._paused or self._transport.is_closing():
            return
        self._paused = pause
        if pause:
            self._disarm()  # while nothing is read, a frame can't be late
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
            self._arm()

    def _arm(self) -> None:
        self._disarm()
        if self._reader.partial and not self._paused:
            self._timer = self._loop.call_later(self._server.limits.frame_s, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        self.end(f"frame_{FrameFlaw.SLOW.value}")

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
