"""How the campaign talks to the gateway: fuzz frames, honest probes, split frames, slow
connections, replays."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.iso8583.dialect import DIALECTS
from gateway.pos.framing import LENGTH_BYTES
from sandbox.bench.figures import percentile
from sandbox.campaigns.fuzz_frames import Sender, otherwise
from sandbox.campaigns.fuzz_gateway import PIN, Target
from sandbox.postgres import HOST
from sandbox.terminal import NoAnswer, NotAuthentic, Reply, Terminal

#: Connections that throw frames at a time.
THROWERS = 48
#: How long a thrower waits for an answer that may not come.
_PATIENCE_S = 0.03
#: An honest terminal that waits longer than this has been hung up on.
PROBE_S = 30.0


async def throw(
    target: Target,
    frames: Iterator[tuple[Sender, bytes]],
    count: int,
    tick: Callable[[], None],
) -> int:
    """Send so many frames on many connections, whatever becomes of each; answers that came."""
    lock = asyncio.Lock()
    left = count

    async def thrower() -> int:
        nonlocal left
        answers = 0
        links: dict[str, _Link] = {}
        while True:
            async with lock:
                if left == 0:
                    break
                left -= 1
                sender, frame = next(frames)
            port = target.ports[sender.dialect.name]
            link = links.setdefault(sender.dialect.name, _Link(port))
            answers += await link.send(frame)
            tick()
        for link in links.values():
            await link.close()
        return answers

    return sum(await asyncio.gather(*(thrower() for _ in range(min(THROWERS, count)))))


@dataclass
class _Link:
    """A connection that is opened again whenever the gateway has closed it."""

    port: int
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    unanswered: int = 0

    async def send(self, frame: bytes) -> int:
        """Whether an answer came to it, or to one before."""
        if self.writer is None or self.writer.is_closing() or self.unanswered > 3:
            await self.close()
            self.reader, self.writer = await asyncio.open_connection(HOST, self.port)
            self.unanswered = 0
        assert self.reader is not None
        try:
            self.writer.write(frame)
            await self.writer.drain()
            async with asyncio.timeout(_PATIENCE_S):
                prefix = await self.reader.readexactly(LENGTH_BYTES)
                await self.reader.readexactly(int.from_bytes(prefix, "big"))
        except TimeoutError:
            # The next frame goes into what may be half a frame: that is fuzz, too.
            self.unanswered += 1
            return 0
        except (asyncio.IncompleteReadError, OSError):
            await self.close()
            return 0
        return 1

    async def close(self) -> None:
        """Close it, if it is open."""
        writer, self.writer, self.reader = self.writer, None, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@dataclass
class Probe:
    """An honest terminal at work beside the fuzz."""

    refused: Counter[str]
    asked: int = 0
    hangs: int = 0


@asynccontextmanager
async def probing(
    terminal: Terminal, ask: Callable[[Terminal], object], every_s: float, refused: Counter[str]
) -> AsyncIterator[Probe]:
    """Ask again and again while the block runs, and once more after it.

    `refused` counts what was answered, but with another code than 00.
    """
    probe = Probe(refused)
    stop = asyncio.Event()

    async def loop() -> None:
        while not stop.is_set():
            await _ask(terminal, ask, probe)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await stop.wait()

    task = asyncio.create_task(loop())
    try:
        yield probe
    finally:
        stop.set()
        await task
        await _ask(terminal, ask, probe)


async def _ask(terminal: Terminal, ask: Callable[[Terminal], object], probe: Probe) -> None:
    probe.asked += 1
    try:
        async with asyncio.timeout(PROBE_S):
            reply = await ask(terminal)  # type: ignore[misc]
        assert isinstance(reply, Reply)
        probe.hangs += not reply.authentic
        if not reply.approved:
            probe.refused[reply.code] += 1
    except (NoAnswer, NotAuthentic, OSError, TimeoutError):
        probe.hangs += 1
        with contextlib.suppress(OSError):
            await terminal.connect()


def purchase(target: Target, number: int) -> Callable[[Terminal], object]:
    """An honest purchase with one of the campaign's cards."""
    card = target.card(number)
    return lambda terminal: terminal.purchase(card, 100, PIN)


async def split_everywhere(
    sender: Sender, target: Target, tick: Callable[[], None], refused: Counter[str]
) -> int:
    """A purchase, cut at every byte: how many weren't answered. `refused`: see probing."""
    terminal, wrong = sender.terminal, 0
    await terminal.connect()
    size = len(terminal.seal(terminal.request("0200", "000000", target.card(0), 100, PIN)))
    for place in range(1, size):
        frame = terminal.seal(terminal.request("0200", "000000", target.card(0), 100, PIN))
        try:
            await terminal.send(frame[:place])
            await asyncio.sleep(0)
            await terminal.send(frame[place:])
            reply = await terminal.receive(frame)
            wrong += not reply.authentic
            if not reply.approved:
                refused[reply.code] += 1
        except (NoAnswer, NotAuthentic, OSError):
            wrong += 1
            await terminal.connect()
        tick()
    return wrong


# -- slow connections


async def honest_p99(terminal: Terminal, target: Target, count: int) -> float:
    """The p99 (milliseconds) of so many purchases, one after the other."""
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        reply = await terminal.purchase(target.card(0), 100, PIN)
        if not reply.approved:
            raise NoAnswer(f"an honest purchase was answered {reply.code}")
        seconds.append(time.perf_counter() - started)
        await asyncio.sleep(0.005)
    return percentile(seconds, 0.99) * 1000


# -- replays


@dataclass
class Shift:
    """One terminal's sendings, and what it was told first of each."""

    terminal: Terminal
    source: random.Random
    frames: list[bytes] = field(default_factory=list)
    reversals: list[bytes] = field(default_factory=list)
    early: list[bytes] = field(default_factory=list)
    told: dict[bytes, bytes] = field(default_factory=dict)
    sent: int = 0
    differing: int = 0
    silent: int = 0
    #: Answers of an overloaded gateway (96), which stores nothing: the next one may differ.
    busy: int = 0
    #: What was answered otherwise: types and codes, no values.
    notes: list[str] = field(default_factory=list)


async def replay(shift: Shift, target: Target, count: int, tick: Callable[[], None]) -> None:
    """So many sendings: purchases, the same again, reversals, reversals before their originals."""
    terminal, source = shift.terminal, shift.source
    while shift.sent < count:
        draw, card = source.random(), target.card(source.randrange(1_000))
        if draw < 0.2 or not shift.frames:
            message = terminal.request("0200", "000000", card, source.randrange(1, 500), PIN)
            frame = terminal.seal(message)
            shift.frames.append(frame)
        elif draw < 0.65:
            frame = source.choice(shift.frames)
        elif draw < 0.75:
            frame = terminal.seal(terminal.reversal_of(source.choice(shift.frames)))
            shift.reversals.append(frame)
        elif draw < 0.85 and shift.reversals:
            frame = source.choice(shift.reversals)
        elif draw < 0.93:
            late = terminal.seal(terminal.request("0200", "000000", card, 77, PIN))
            shift.early.append(late)
            frame = terminal.seal(terminal.reversal_of(late))
            shift.reversals.append(frame)
        elif shift.early:
            frame = shift.early.pop()
            shift.frames.append(frame)
        else:
            continue
        await _send(shift, frame)
        if source.random() < 0.2:
            await _send(shift, frame)
        tick()


async def _send(shift: Shift, frame: bytes) -> None:
    shift.sent += 1
    try:
        reply = await shift.terminal.send_frame(frame)
    except (NoAnswer, NotAuthentic, OSError):
        shift.silent += 1
        await shift.terminal.connect()
        return
    if reply.code == "96":
        shift.busy += 1
        return
    first = shift.told.setdefault(frame, reply.response)
    if first != reply.response:
        shift.differing += 1
        shift.notes.append(otherwise(shift.terminal, frame, first, reply))


def dialect_of(number: int) -> str:
    """The dialects in turn."""
    return list(DIALECTS)[number % len(DIALECTS)]
