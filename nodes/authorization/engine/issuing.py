"""The issuer's engine: requests that wait share a batch, and a batch is decided while the one
before it is being committed.

One task decides, on snapshots in memory; a commit is one round trip on a connection of the event
loop. An answer leaves when its batch and all before it are durable. If the database refuses a batch
(another process was first with a version, a number or a key), what it is about is read anew and
decided again, in a thread.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, TypeVar

import psycopg
import structlog

from nodes.authorization import rules
from nodes.authorization.batching import (
    REFUSED,
    Beside,
    LedgerUnavailable,
    Worker,
    connect,
)
from nodes.authorization.engine.memory import AcquirerMemory
from nodes.authorization.engine.work import Call, OnUs, OnUsCall, Waiting, Work, must_follow
from nodes.authorization.model import (
    LOOKING_UP,
    AuthorizationAnswer,
    AuthorizationRequest,
    Outcome,
    TerminalAnswer,
    TerminalRequest,
)
from nodes.authorization.operations.accepting import Acquirer, open_from_memory
from nodes.authorization.operations.answering import unrecorded
from nodes.authorization.operations.asking import Asked, prepare
from nodes.authorization.operations.deciding import (
    Book,
    Decided,
    Issuer,
    decide_batch,
    decide_each,
)
from nodes.authorization.operations.issuing import Numbers, stage_batch, write_batch
from nodes.authorization.operations.on_us import on_us_batch, stage_on_us
from nodes.authorization.operations.pending import Forward
from nodes.authorization.operations.supplying import BookReader
from nodes.authorization.store import accounts
from nodes.authorization.store.accounts import KnownOriginal
from nodes.authorization.store.requests import StoredRequest
from nodes.db.link import Link, LinkBroken
from nodes.db.writes import Writes
from nodes.money import CURRENCIES

log = structlog.get_logger(__name__)

Connection = psycopg.Connection[Any]
T = TypeVar("T")

_ATTEMPTS = 24
#: After a lost race so many batches take their numbers in the database first: another process of
#: the institution is at work, and would win every other one.
_CAREFUL = 64
#: After so many decisions the loop sees to others: commits that have ended, calls that have come.
_AT_A_TIME = 16
#: So many answers are kept in memory for repeats.
_ANSWERS_KEPT = 20_000


class IssuingEngine:
    """Decides and commits for one issuer's node. One a process and event loop."""

    def __init__(
        self,
        dsn: str,
        issuer: Issuer,
        *,
        acquirer: Acquirer | None = None,
        careful_acquirer: Acquirer | None = None,
        memory: AcquirerMemory | None = None,
        max_batch: int = 256,
        max_waiting: int = 20_000,
    ) -> None:
        self._dsn = dsn
        self._issuer = issuer
        #: On us: of the event loop, and of the thread that takes what memory had wrong.
        self._acquirer, self._careful_acquirer = acquirer, careful_acquirer
        self._memory = memory or AcquirerMemory()
        self._book = Book()
        self._supply = BookReader(issuer, self._book)
        self._waiting = Waiting(max_batch, max_waiting)
        self._pump: asyncio.Task[None] | None = None
        self._numbers = Numbers()
        self._careful = 0
        self._link = Link(lambda: connect(dsn, "issuing commits"), "issuing commits")
        # Reads for the next batch don't wait for the commit of the last one.
        self._reader = Worker(dsn, "issuing reads")
        self._terms = Beside("terms and rules")
        self._writer = Worker(dsn, "issuing")

    async def submit(self, requests: Sequence[AuthorizationRequest]) -> list[AuthorizationAnswer]:
        """The answers, durable. Raises Overloaded, or LedgerUnavailable (ask again)."""
        if not requests:
            return []
        call = self._call(requests)
        if not call.asked:
            return [answer for answer in call.answers if answer is not None]
        self._enqueue(call, len(call.asked))
        return await call.future

    async def submit_on_us(self, requests: Sequence[TerminalRequest]) -> list[TerminalAnswer]:
        """What terminals are told whose cards are this institution's own; durable on both sides.

        At most one request a (terminal, business date, batch, STAN). Raises as submit does.
        """
        call = OnUsCall(requests, asyncio.get_running_loop().create_future())
        self._enqueue(call, len(requests))
        return await call.future

    def _enqueue(self, call: Call | OnUsCall, count: int) -> None:
        self._waiting.put(call, count)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Let a commit under way end, and the threads with it."""
        self._link.close()
        self._reader.close()
        self._writer.close()

    def _call(self, requests: Sequence[AuthorizationRequest]) -> Call:
        issuer = self._issuer
        answers: list[AuthorizationAnswer | None] = [None] * len(requests)
        asked: list[tuple[int, Asked]] = []
        for place, request in enumerate(requests):
            if rules.malformed(request, issuer.member_id) is None:
                asked.append((place, prepare(request, issuer.vault)))
            else:
                answers[place] = unrecorded(request, Outcome.MALFORMED, issuer.clock.now_ms())
        return Call(asked, answers, asyncio.get_running_loop().create_future())

    async def _run(self) -> None:
        """Decide what waits while the last batch is committed, until nothing is left."""
        before: Work | None = None
        while self._waiting or before is not None:
            if before is not None and (not self._waiting or must_follow(self._waiting.first)):
                await self._finish(before)
                before = None
                continue
            if isinstance(self._waiting.first, OnUsCall):
                calls = self._waiting.take_on_us()
                staged = await self._try_on_us(calls, before)
                if staged is None:
                    if before is not None:
                        await self._finish(before)
                        before = None
                    await self._run_on_us(calls)
                    continue
                work = staged
            else:
                work = self._waiting.take()
            try:
                if work.on_us is None:
                    await self._decide(work, before)
                    if not self._careful:
                        work.staged = Writes()
                        stage_batch(work.staged, work.decided, self._numbers, self._issuer.signer)
                if work.staged is not None and not self._link.ready():
                    await self._link.open()
            except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
                self._fail(work.calls, error)
                continue
            if before is not None and not await self._finish(before):
                # It was decided on what hasn't come about.
                self._drop(work)
                before = None
                self._waiting.put_back(work)
                continue
            before = self._begin(work)

    async def _try_on_us(self, calls: Sequence[OnUsCall], before: Work | None) -> Work | None:
        """Open, decide and record from memory, without a look; None if that can't be done."""
        acquirer, memory = self._acquirer, self._memory
        requests = [request for call in calls for request in call.requests]
        if acquirer is None or self._careful or any(r.kind in LOOKING_UP for r in requests):
            return None
        work: Work | None = None
        try:
            if memory.lacks(acquirer, requests):
                await memory.load(self._reader, acquirer, requests)
            memory.refresh_early(self._reader)
            opening = open_from_memory(acquirer, requests, memory.terminals, memory.recent)
            forwards = [result for result in opening.results if isinstance(result, Forward)]
            asked = [prepare(forward.request, self._issuer.vault) for forward in forwards]
            if any(rules.malformed(one.request, self._issuer.member_id) for one in asked):
                return None
            work = Work(calls, asked, staged=Writes())
            await self._decide(work, before)
            recording = stage_on_us(
                work.staged or Writes(),
                self._issuer,
                acquirer,
                self._book,
                self._numbers,
                opening,
                work.decided,
            )
            if recording is not None:
                memory.numbered(opening)
                work.on_us = OnUs(requests, opening, recording)
                return work
        except Exception as error:  # noqa: BLE001 - found by the careful way
            log.error("batch not staged", error=type(error).__name__)
        if work is not None:
            self._drop(work)
        memory.drop(requests)
        return None

    async def _run_on_us(self, calls: list[OnUsCall]) -> None:
        requests = [request for call in calls for request in call.requests]
        try:
            answers = iter(await self._on_us(requests))
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
            self._fail(calls, error)
            return
        finally:
            # The thread has taken numbers, of the pair and of the terminals.
            self._numbers.last.clear()
            self._memory.drop(requests)
        for call in calls:
            told = [next(answers) for _ in call.requests]
            if not call.future.done():
                call.future.set_result(told)

    async def _on_us(self, requests: Sequence[TerminalRequest]) -> list[TerminalAnswer]:
        """Both sides in one commit; again where others were first, alone where one row is bad."""
        acquirer, member = self._careful_acquirer, self._issuer.member_id
        if acquirer is None:
            raise LedgerUnavailable("no acquirer")
        pairs = {(member, r.currency) for r in requests if r.currency in CURRENCIES}
        for attempt in range(_ATTEMPTS):
            thorough = attempt > 0

            def work(connection: Connection, thorough: bool = thorough) -> list[TerminalAnswer]:
                self._supply.open_sides(connection, pairs)
                answers, decided = on_us_batch(
                    connection,
                    self._issuer,
                    acquirer,
                    self._book,
                    lambda c, asked: self._load_on_us(c, asked, thorough),
                    requests,
                )
                self._remember(decided)
                return answers

            try:
                return await self._writer.run(work)
            except REFUSED as error:
                log.info("batch decided again", error=type(error).__name__)
                self._book.forget()
                self._numbers.last.clear()
                await _pause(attempt)
            except LedgerUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - the bad row is found below
                self._book.forget()
                if len(requests) > 1:
                    return [answer for one in requests for answer in await self._on_us([one])]
                log.error("an item failed", batcher="on us", error=type(error).__name__)
                return [
                    TerminalAnswer(
                        outcome=Outcome.SYSTEM_ERROR, rrn="0" * 12, currency=requests[0].currency
                    )
                ]
        raise LedgerUnavailable("too many others were first")

    def _load_on_us(
        self, connection: Connection, asked: Sequence[Asked], thorough: bool
    ) -> tuple[dict[bytes, StoredRequest], dict[bytes, KnownOriginal]]:
        if thorough or self._supply.lacks(asked):
            return self._supply.load(connection, asked, thorough)
        return {}, {}

    async def _decide(self, work: Work, before: Work | None, *, thorough: bool = False) -> None:
        """Read what memory lacks, then decide. `thorough`: look every key up."""
        stored: dict[bytes, StoredRequest] = {}
        originals: dict[bytes, KnownOriginal] = {}
        lacking = thorough or self._supply.lacks(work.asked)
        if not lacking and self._supply.is_early_due():
            self._terms.start(self._read_products)
        if lacking or (not self._careful and self._numbers.lacks(work.asked)):

            def read(
                connection: Connection,
            ) -> tuple[dict[bytes, StoredRequest], dict[bytes, KnownOriginal]]:
                self._numbers.supply(connection, work.asked)
                return self._supply.load(connection, work.asked, thorough) if lacking else ({}, {})

            stored, originals = await self._reader.run(read)
        in_flight = before.by_key() if before is not None else {}
        work.decided = []
        for one in decide_each(self._issuer, self._book, work.asked, originals, stored, in_flight):
            work.decided.append(one)
            if not len(work.decided) % _AT_A_TIME:
                await asyncio.sleep(0)

    async def _read_products(self) -> None:
        self._supply.note(await self._reader.run(self._supply.read_products))

    def _begin(self, work: Work) -> Work:
        def write(connection: Connection) -> None:
            with connection.transaction():
                write_batch(connection, work.decided, self._issuer.signer)

        if work.staged is not None:
            work.written = self._link.begin(work.staged)
        else:
            self._careful -= 1
            work.written = asyncio.ensure_future(self._writer.run(write))
        work.written.add_done_callback(lambda done: self._written(work, done))
        return work

    def _written(self, work: Work, done: asyncio.Future[None]) -> None:
        """A commit has ended: its answers don't wait for the batch that is being decided."""
        if done.cancelled() or done.exception() is not None:
            return  # _finish sees to it
        self._give(work)

    async def _finish(self, work: Work | None) -> bool:
        """Wait for the commit and give the answers; False if it had to be decided again."""
        if work is None or work.written is None:
            return True
        try:
            await work.written
        except (LedgerUnavailable, LinkBroken) as error:
            self._fail(work.calls, LedgerUnavailable(str(error)))
            return False
        except Exception as error:  # noqa: BLE001 - refused, or one bad row: decided again
            if isinstance(error, REFUSED):
                self._careful = _CAREFUL
            else:
                log.error("batch not written", error=type(error).__name__)
            try:
                if work.on_us is None:
                    await self._again(work)
                else:
                    self._drop(work)
                    await self._run_on_us([c for c in work.calls if isinstance(c, OnUsCall)])
            except Exception as last:  # noqa: BLE001
                self._fail(work.calls, last)
            return False
        # One that had ended already when it was waited for comes here before _written.
        self._give(work)
        return True

    async def _again(self, work: Work) -> None:
        """Decide and write once more, on what the database has; then a request at a time.

        In one transaction, and in a queue with others that do the same: who has lost once would
        else lose again and again to them.
        """

        def once_more(connection: Connection) -> None:
            self._supply.open_sides(
                connection, {(one.request.acquirer, one.request.currency) for one in work.asked}
            )
            with connection.transaction():
                accounts.queue_up(connection, work.account_ids())
                stored, originals = self._supply.load(connection, work.asked, thorough=True)
                work.decided = decide_batch(
                    self._issuer, self._book, work.asked, originals, stored, {}
                )
                write_batch(connection, work.decided, self._issuer.signer)

        for attempt in range(_ATTEMPTS):
            self._drop(work)
            try:
                await self._writer.run(once_more)
            except REFUSED as error:
                log.info("batch decided again", error=type(error).__name__)
                await _pause(attempt)
                continue
            except LedgerUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - the bad row is found below
                self._drop(work)
                if len(work.asked) == 1:
                    log.error("an item failed", batcher="issuing", error=type(error).__name__)
                    now_ms = self._issuer.clock.now_ms()
                    refused = unrecorded(work.asked[0].request, Outcome.SYSTEM_ERROR, now_ms)
                    work.decided = [Decided(work.asked[0], refused)]
                else:
                    await self._one_by_one(work)
            self._give(work)
            return
        raise LedgerUnavailable("too many others were first")

    async def _one_by_one(self, work: Work) -> None:
        decided: list[Decided] = []
        for one in work.asked:
            single = Work([], [one])
            await self._again(single)
            decided += single.decided
        work.decided = decided

    def _give(self, work: Work) -> None:
        """The batch is durable: remember its answers and let them out, once."""
        if work.given:
            return
        work.given = True
        self._remember(work.decided)
        if work.on_us is not None:
            work.on_us.recording.committed()
            self._memory.opened(work.on_us.opening)
            self._memory.recorded(work.on_us.recording)
            answered = iter(work.on_us.told())
            for call in work.calls:
                if isinstance(call, OnUsCall):
                    told = [next(answered) for _ in call.requests]
                    if not call.future.done():
                        call.future.set_result(told)
            return
        answers = [one.twin.answer if one.twin else one.answer for one in work.decided]
        place = 0
        for call in work.calls:
            if isinstance(call, OnUsCall):
                continue
            for position, _ in call.asked:
                call.answers[position] = answers[place]
                place += 1
            if not call.future.done():
                call.future.set_result([a for a in call.answers if a is not None])

    def _remember(self, decided: Sequence[Decided]) -> None:
        recent = self._book.recent
        for one in decided:
            if one.record is not None and one.stored is not None:
                _keep(recent, one.asked.key, one.stored)
                if one.record.bar is not None:
                    _keep(recent, one.record.bar.key, one.record.bar)

    def _drop(self, work: Work) -> None:
        """What memory has of these accounts is not what the database has."""
        self._book.drop((one.lookup for one in work.asked), work.account_ids())
        self._numbers.drop(work.asked)
        if work.on_us is not None:
            self._memory.drop(work.on_us.requests)

    def _fail(self, calls: Sequence[Call | OnUsCall], error: Exception) -> None:
        """Whether it was committed isn't known: nothing in memory is trusted any more."""
        self._book.forget()
        self._numbers.last.clear()
        for call in calls:
            if not call.future.done():
                call.future.set_exception(error)


def _keep(kept: OrderedDict[bytes, StoredRequest], key: bytes, value: StoredRequest) -> None:
    kept[key] = value
    if len(kept) > _ANSWERS_KEPT:
        kept.popitem(last=False)


async def _pause(attempt: int) -> None:
    """Two that keep losing to each other come apart."""
    await asyncio.sleep(random.uniform(0, 0.002 * (1 + attempt)))  # noqa: S311 (no secret)
