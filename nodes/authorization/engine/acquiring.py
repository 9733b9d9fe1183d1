"""The acquirer's engine: takes terminals' requests in, records issuers' answers.

Payments are opened on what is in memory of terminals and of recent requests, and recorded without
a look: each of the two commits is one round trip on a connection of the event loop. The database
refuses what memory had wrong (a terminal's number, a key that is taken); that, and whatever needs
to look something up (reversals, follow-ups, answers that don't fit), goes by threads instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import psycopg
import structlog

from nodes.authorization.batching import (
    REFUSED,
    Batcher,
    LedgerUnavailable,
    Overloaded,
    Worker,
    connect,
)
from nodes.authorization.engine.memory import AcquirerMemory
from nodes.authorization.model import LOOKING_UP, TerminalAnswer, TerminalRequest
from nodes.authorization.operations.accepting import (
    Acquirer,
    Opening,
    open_from_memory,
)
from nodes.authorization.operations.pending import Closing, Forward
from nodes.authorization.operations.recording import Recording, open_settlement_accounts
from nodes.db.link import Link, LinkBroken
from nodes.db.writes import Writes

log = structlog.get_logger(__name__)

Connection = psycopg.Connection[Any]
In = TypeVar("In")
Out = TypeVar("Out")

#: Commits under way on one connection: while one waits for the disk, the next is computed.
_UNDER_WAY = 2


@dataclass
class _Call(Generic[In, Out]):
    items: Sequence[In]
    future: asyncio.Future[list[Out]]


class _Queue(Generic[In, Out]):
    """Calls that wait; whatever waits while two commits are under way goes into the next."""

    def __init__(self, max_batch: int, max_waiting: int | None) -> None:
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._calls: deque[_Call[In, Out]] = deque()
        self._count = 0
        self.under_way = 0

    def put(self, items: Sequence[In]) -> asyncio.Future[list[Out]]:
        if self._max_waiting is not None and self._count + len(items) > self._max_waiting:
            raise Overloaded
        call: _Call[In, Out] = _Call(items, asyncio.get_running_loop().create_future())
        self._calls.append(call)
        self._count += len(items)
        return call.future

    def take(self) -> list[_Call[In, Out]]:
        """The calls of the next batch, at least one if any waits."""
        taken: list[_Call[In, Out]] = []
        count = 0
        while self._calls and (not taken or count + len(self._calls[0].items) <= self._max_batch):
            taken.append(self._calls.popleft())
            count += len(taken[-1].items)
        self._count -= count
        return taken

    def __bool__(self) -> bool:
        return bool(self._calls) and self.under_way < _UNDER_WAY


def _give(calls: Sequence[_Call[In, Out]], results: Sequence[Out]) -> None:
    start = 0
    for call in calls:
        end = start + len(call.items)
        if not call.future.done():
            call.future.set_result(list(results[start:end]))
        start = end


def _fail(calls: Sequence[_Call[In, Out]], error: Exception) -> None:
    for call in calls:
        if not call.future.done():
            call.future.set_exception(error)


class AcquiringEngine:
    """Opens and closes requests for one acquirer's node. One a process and event loop.

    `opening` and `closing` do the same by threads, with a look at everything.
    """

    def __init__(
        self,
        dsn: str,
        acquirer: Acquirer,
        memory: AcquirerMemory,
        *,
        opening: Batcher[TerminalRequest, TerminalAnswer | Forward],
        closing: Batcher[Closing, TerminalAnswer],
        max_batch: int = 256,
        max_waiting: int = 20_000,
    ) -> None:
        self._acquirer, self._memory = acquirer, memory
        self._opening, self._closing = opening, closing
        self._requests: _Queue[TerminalRequest, TerminalAnswer | Forward]
        self._requests = _Queue(max_batch, max_waiting)
        # The issuer has decided: to refuse these for overload would be untrue.
        self._answers: _Queue[Closing, TerminalAnswer] = _Queue(max_batch, None)
        self._reader = Worker(dsn, "accepting reads")
        self._open_link = Link(lambda: connect(dsn, "accepting commits"), "accepting commits")
        self._close_link = Link(lambda: connect(dsn, "recording commits"), "recording commits")
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, requests: Sequence[TerminalRequest]) -> list[TerminalAnswer | Forward]:
        """Store what is new; an answer or what goes to the issuer for each, durable.

        Raises Overloaded or LedgerUnavailable (ask again with the same keys).
        """
        plain = [r for r in requests if r.kind not in LOOKING_UP]
        if len(plain) == len(requests):
            return await self._submit_open(requests)
        others = [r for r in requests if r.kind in LOOKING_UP]
        here, there = await asyncio.gather(self._submit_open(plain), self._open_carefully(others))
        told_here, told_there = iter(here), iter(there)
        return [next(told_there if r.kind in LOOKING_UP else told_here) for r in requests]

    async def close_requests(self, closings: Sequence[Closing]) -> list[TerminalAnswer]:
        """Record issuers' answers; what the terminals are told. Raises LedgerUnavailable."""
        if not closings:
            return []
        future = self._answers.put(closings)
        self._start_closing()
        return await future

    def close(self) -> None:
        """Let running commits end."""
        for part in (self._open_link, self._close_link, self._reader, self._opening, self._closing):
            part.close()

    # --- opening -------------------------------------------------------------------------------

    async def _submit_open(
        self, requests: Sequence[TerminalRequest]
    ) -> list[TerminalAnswer | Forward]:
        if not requests:
            return []
        future = self._requests.put(requests)
        self._start_opening()
        return await future

    def _start_opening(self) -> None:
        while self._requests:
            calls = self._requests.take()
            self._requests.under_way += 1
            requests = [request for call in calls for request in call.items]
            self._memory.refresh_early(self._reader)
            if self._open_link.ready() and not self._memory.lacks(self._acquirer, requests):
                self._begin_opening(calls, requests)
            else:
                self._spawn(self._read_and_open(calls, requests))

    async def _read_and_open(
        self,
        calls: list[_Call[TerminalRequest, TerminalAnswer | Forward]],
        requests: Sequence[TerminalRequest],
    ) -> None:
        try:
            await self._open_link.open()
            await self._memory.load(self._reader, self._acquirer, requests)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
            self._requests.under_way -= 1
            _fail(calls, error)
            self._start_opening()
            return
        self._begin_opening(calls, requests)

    def _begin_opening(
        self,
        calls: list[_Call[TerminalRequest, TerminalAnswer | Forward]],
        requests: Sequence[TerminalRequest],
    ) -> None:
        keys = {(r.terminal_id, r.business_date, r.batch, r.stan) for r in requests}
        if len(keys) < len(requests):
            # One of them twice: one after the other.
            self._spawn(self._open_again(calls, requests))
            return
        try:
            opening = open_from_memory(
                self._acquirer, requests, self._memory.terminals, self._memory.recent
            )
            if not opening.writes_anything:
                self._requests.under_way -= 1
                _give(calls, opening.results)
                return
            writes = Writes()
            opening.stage(writes, {})
            self._memory.numbered(opening)
            committed = self._open_link.begin(writes)
        except Exception as error:  # noqa: BLE001 - found by the careful way
            log.error("batch not staged", error=type(error).__name__)
            self._spawn(self._open_again(calls, requests))
            return
        committed.add_done_callback(lambda done: self._opened(done, calls, requests, opening))

    def _opened(
        self,
        done: asyncio.Future[None],
        calls: list[_Call[TerminalRequest, TerminalAnswer | Forward]],
        requests: Sequence[TerminalRequest],
        opening: Opening,
    ) -> None:
        error = done.exception()
        if error is None:
            self._requests.under_way -= 1
            self._memory.opened(opening)
            _give(calls, opening.results)
            self._start_opening()
        elif isinstance(error, LinkBroken):
            self._requests.under_way -= 1
            self._memory.drop(requests)
            _fail(calls, LedgerUnavailable(str(error)))
            self._start_opening()
        else:
            if not isinstance(error, REFUSED):
                log.error("batch not written", error=type(error).__name__)
            self._spawn(self._open_again(calls, requests))

    async def _open_again(
        self,
        calls: list[_Call[TerminalRequest, TerminalAnswer | Forward]],
        requests: Sequence[TerminalRequest],
    ) -> None:
        """With a look at everything: memory was wrong, or one of them is bad."""
        try:
            results = await self._open_carefully(requests)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
            _fail(calls, error)
        else:
            _give(calls, results)
        finally:
            self._requests.under_way -= 1
            self._start_opening()

    async def _open_carefully(
        self, requests: Sequence[TerminalRequest]
    ) -> list[TerminalAnswer | Forward]:
        try:
            return await self._opening.submit(requests)
        finally:
            self._memory.drop(requests)

    # --- closing -------------------------------------------------------------------------------

    def _start_closing(self) -> None:
        while self._answers:
            calls = self._answers.take()
            self._answers.under_way += 1
            closings = [closing for call in calls for closing in call.items]
            if not self._begin_closing(calls, closings):
                self._spawn(self._close_carefully(calls, closings))

    def _begin_closing(
        self, calls: list[_Call[Closing, TerminalAnswer]], closings: Sequence[Closing]
    ) -> bool:
        """Whether it could be done without a look."""
        acquirer = self._acquirer
        if not self._close_link.ready() or acquirer.ids is None:
            return False
        for closing in closings:
            if closing.forward.open_batch is None or closing.pending.request.kind in LOOKING_UP:
                return False
            request = closing.pending.request
            if (request.issuer, request.currency) not in acquirer.settlement:
                return False
        recording = Recording(acquirer, acquirer.clock.now_ms())
        try:
            recording.close(closings)
            if recording.needs_reads:
                return False
            writes = Writes()
            recording.stage(writes)
            committed = self._close_link.begin(writes)
        except Exception as error:  # noqa: BLE001 - found by the careful way
            log.error("batch not staged", error=type(error).__name__)
            return False
        committed.add_done_callback(lambda done: self._closed(done, calls, closings, recording))
        return True

    def _closed(
        self,
        done: asyncio.Future[None],
        calls: list[_Call[Closing, TerminalAnswer]],
        closings: Sequence[Closing],
        recording: Recording,
    ) -> None:
        error = done.exception()
        if error is None:
            self._answers.under_way -= 1
            recording.committed()
            self._memory.recorded(recording)
            _give(calls, recording.told)
            self._start_closing()
        elif isinstance(error, LinkBroken):
            self._answers.under_way -= 1
            _fail(calls, LedgerUnavailable(str(error)))
            self._start_closing()
        else:
            if not isinstance(error, REFUSED):
                log.error("batch not written", error=type(error).__name__)
            self._spawn(self._close_carefully(calls, closings))

    async def _close_carefully(
        self, calls: list[_Call[Closing, TerminalAnswer]], closings: Sequence[Closing]
    ) -> None:
        try:
            results = await self._closing.submit(closings)
            if not self._close_link.ready():
                await self._close_link.open()
            await self._reader.run(lambda connection: self._supply_closing(connection, closings))
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
            _fail(calls, error)
        else:
            _give(calls, results)
        finally:
            self._answers.under_way -= 1
            self._start_closing()

    def _supply_closing(self, connection: Connection, closings: Sequence[Closing]) -> None:
        """Read what the next such batch needs to be closed from memory."""
        acquirer, pendings = self._acquirer, [closing.pending for closing in closings]
        acquirer.supply_numbers(connection, 0)
        open_settlement_accounts(connection, acquirer, pendings, acquirer.clock.now_ms())

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
