"""The gateway load: ISO 8583 over TCP, as terminals speak it.

A closed loop (each connection sends its next message when the last one is answered) or an open one
(messages arrive at random at a given rate; one that finds no free terminal waits, and its waiting
counts). The connection is a bare asyncio protocol: a few microseconds a message.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import cast

from gateway.iso8583 import codec
from gateway.pos import framing
from sandbox.bench.cpu import CpuClock
from sandbox.bench.figures import latency
from sandbox.bench.load import AMOUNTS, GatewayOrder, Result, repeats_in, with_repeats
from sandbox.bench.zipf import Zipf
from sandbox.network import TPDU, Terminal
from sandbox.postgres import HOST
from sandbox.terminal import PURCHASE
from sandbox.terminal import Card as TerminalCard
from sandbox.terminal import Terminal as SimulatedTerminal

#: No answer for this long after the last message has gone out: the run is broken off.
_PATIENCE_S = 30.0
#: Messages that are due wait up to so long for one another: waking for each one would cost a tenth
#: of the path's processor time. The wait counts as theirs.
_TICK_S = 0.002


@dataclass
class _Prepared:
    """Frames by number, and the order in which they are sent."""

    frames: list[bytes]
    sent: list[int]


@dataclass
class _Run:
    """What the links share."""

    prepared: _Prepared
    end: float = 0.0
    next: int = 0
    exhausted: bool = False
    closed_loop: bool = True
    idle: deque[_Link] = field(default_factory=deque)
    #: Open loop: (number, moment of arrival) of messages that found no free link.
    waiting: deque[tuple[int, float]] = field(default_factory=deque)
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    in_flight: int = 0
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    broken: int = 0

    def take(self) -> int | None:
        """The next message's number; None if the prepared ones are over."""
        if self.next >= len(self.prepared.sent):
            self.exhausted = True
            return None
        self.next += 1
        return self.prepared.sent[self.next - 1]


class _Link(asyncio.Protocol):
    """A connection to the gateway with at most one message in flight."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._buffer = b""
        self._number = 0
        self._since = 0.0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.broken += 1
        self._run.quiet.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def send(self, number: int, since: float) -> None:
        """Send a message; its time counts from `since`."""
        assert self._transport is not None
        self._number, self._since = number, since
        self._run.in_flight += 1
        self._transport.write(self._run.prepared.frames[number])

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if len(buffer) < framing.LENGTH_BYTES + int.from_bytes(buffer[:2], "big"):
            self._buffer = buffer
            return
        self._buffer = b""
        run, now = self._run, time.perf_counter()
        run.seconds.append(now - self._since)
        run.answers.append((self._number, buffer))
        run.in_flight -= 1
        if run.waiting:
            self.send(*run.waiting.popleft())
        elif run.closed_loop and now < run.end:
            number = run.take()
            if number is not None:
                self.send(number, now)
        elif not run.closed_loop:
            run.idle.append(self)
        if not run.in_flight:
            run.quiet.set()


def _prepare(order: GatewayOrder) -> _Prepared:
    random, zipf = Random(order["seed"]), Zipf(len(order["cards"]))
    sent = with_repeats(order["messages"], random, order["links"])
    terminals = [_simulated(entry, order) for entry in order["terminals"]]
    frames = []
    for number in range(max(sent) + 1):
        terminal = terminals[number % len(terminals)]
        card = order["cards"][zipf.draw(random)]
        read = TerminalCard(card["pan"], card["expiry"], card["service_code"], card["currency"])
        amount = AMOUNTS[number % len(AMOUNTS)]
        frames.append(terminal.seal(terminal.request("0200", PURCHASE, read, amount, card["pin"])))
    return _Prepared(frames, sent)


def _simulated(entry: Terminal, order: GatewayOrder) -> SimulatedTerminal:
    return SimulatedTerminal(
        entry["terminal_id"],
        entry["merchant_id"],
        bytes.fromhex(entry["tmk"]),
        HOST,
        order["port"],
        tpdu=bytes.fromhex(TPDU),
        batch=order["business_batch"],
    )


async def load_gateway(order: GatewayOrder) -> Result:
    """Purchases over the POS link for the time of the order."""
    run = _Run(_prepare(order))
    loop = asyncio.get_running_loop()
    links = [
        (await loop.create_connection(lambda: _Link(run), HOST, order["port"]))[1]
        for _ in range(order["links"])
    ]
    # Connections, prepared statements and caches are warm before the clock starts.
    for _ in range(2):
        await _one_each(links, run)
    warm = len(run.answers)
    run.seconds.clear()
    groups = {**order["processes"]["groups"], "load": [os.getpid()]}
    cpu = CpuClock(groups, order["processes"]["trees"])
    cpu.start()
    began = time.perf_counter()
    run.end = began + order["seconds"]
    if order["rate"] is None:
        _start(links, run, began)
    else:
        await _arrivals(order["rate"], Random(order["seed"] + 2), links, run)
    await _quiet(run, order["seconds"] + _PATIENCE_S)
    took, used = time.perf_counter() - began, cpu.stop()
    broken = run.broken
    for link in links:
        link.close()
    if broken:
        raise RuntimeError(f"the gateway closed {broken} connections")
    return _judge(run, warm, took, used)


def _start(links: list[_Link], run: _Run, since: float) -> None:
    run.quiet.clear()
    for link in links:
        number = run.take()
        if number is not None:
            link.send(number, since)


async def _one_each(links: list[_Link], run: _Run) -> None:
    run.closed_loop = True
    run.end = 0.0
    _start(links, run, time.perf_counter())
    await _quiet(run, _PATIENCE_S)


async def _quiet(run: _Run, patience_s: float) -> None:
    async with asyncio.timeout(patience_s):
        await run.quiet.wait()


async def _arrivals(rate: float, random: Random, links: list[_Link], run: _Run) -> None:
    """Messages at random moments (Poisson), `rate` a second on average, until the end."""
    run.closed_loop = False
    run.idle.extend(links)
    run.quiet.clear()
    due = time.perf_counter()
    while due < run.end:
        ahead = due - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(max(ahead, _TICK_S))
        elif not run.in_flight:
            await asyncio.sleep(0)
        now = time.perf_counter()
        while due <= now and due < run.end:
            number = run.take()
            if number is None:
                return
            if run.idle:
                run.idle.popleft().send(number, due)
            else:
                run.waiting.append((number, due))
            due += random.expovariate(rate)
    if run.in_flight:
        run.quiet.clear()


def _judge(run: _Run, warm: int, took: float, cpu: Mapping[str, float]) -> Result:
    """Outcomes, and that a repeat got the very answer that the original got."""
    repeated = repeats_in(run.prepared.sent)
    outcomes: Counter[str] = Counter()
    first: dict[int, bytes] = {}
    seen: set[int] = set()
    approved = differing = repeats = 0
    for turn, (number, answer) in enumerate(run.answers):
        message = codec.decode(answer[framing.LENGTH_BYTES + framing.MESSAGE_START :])
        code = message.text.get(39, "?")
        outcomes[code] += 1
        if number in repeated:
            differing += first.setdefault(number, answer) != answer
        repeats += number in seen
        approved += code == "00" and number not in seen and turn >= warm
        seen.add(number)
    return Result(
        approved=approved,
        repeats=repeats,
        seconds=took,
        outcomes=dict(outcomes),
        differing=differing,
        latency_ms=latency(run.seconds),
        cpu=dict(cpu),
        exhausted=run.exhausted,
    )
