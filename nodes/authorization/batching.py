"""Requests that wait share a commit: batches with no timer.

Whatever waits while all connections are busy goes into the next batch; an idle path carries
batches of one.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

import psycopg
import structlog
from psycopg.types.numeric import Int8BinaryDumper

log = structlog.get_logger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")
Connection = psycopg.Connection[Any]

_RETRIES = 8
#: Others were first: what was decided no longer holds, and is to be decided again.
REFUSED = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)


class Overloaded(Exception):
    """More waits than can be answered in time."""


class LedgerUnavailable(Exception):
    """The database is out of reach or the outcome of a commit is unknown: ask again."""


class _Call(Generic[In, Out]):
    """One caller's items and the future of their results."""

    __slots__ = ("future", "items")

    def __init__(self, items: Sequence[In], future: asyncio.Future[list[Out]]) -> None:
        self.items = items
        self.future = future


class Batcher(Generic[In, Out]):
    """Runs `work(connection, items)` on a few connections, each in a thread of its own.

    `work` gets about `max_batch` items and gives one result for each, in order. An item that
    makes it fail is found by running the batch's items alone, and ends as `failed(item)`.
    """

    def __init__(
        self,
        dsn: str,
        work: Callable[[Connection, Sequence[In]], list[Out]],
        failed: Callable[[In], Out],
        *,
        name: str,
        connections: int = 2,
        max_batch: int = 256,
        max_waiting: int | None = 20_000,
    ) -> None:
        self._dsn = dsn
        self._work = work
        self._failed = failed
        self._name = name
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._idle = connections
        self._waiting: deque[_Call[In, Out]] = deque()
        self._items_waiting = 0
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix=name)
        self._local = threading.local()
        # At once: the first terminal of the day shouldn't wait for it.
        for _ in range(connections):
            self._pool.submit(self._connection)

    async def submit(self, items: Sequence[In]) -> list[Out]:
        """The results of these items; they may share a commit with other callers'.

        Raises Overloaded or LedgerUnavailable.
        """
        bound = self._max_waiting
        if bound is not None and self._items_waiting + len(items) > bound:
            raise Overloaded
        if not items:
            return []
        loop = asyncio.get_running_loop()
        call: _Call[In, Out] = _Call(items, loop.create_future())
        self._waiting.append(call)
        self._items_waiting += len(items)
        self._start(loop)
        return await call.future

    def close(self) -> None:
        """Wait for running batches and end the threads."""
        self._pool.shutdown(wait=True)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._idle and self._waiting:
            self._idle -= 1
            taken = [self._waiting.popleft()]
            count = len(taken[0].items)
            while self._waiting and count + len(self._waiting[0].items) <= self._max_batch:
                taken.append(self._waiting.popleft())
                count += len(taken[-1].items)
            self._items_waiting -= count
            items = [item for call in taken for item in call.items]
            running = loop.run_in_executor(self._pool, self._run, items)
            running.add_done_callback(partial(self._finish, loop, taken))

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        taken: list[_Call[In, Out]],
        done: asyncio.Future[list[Out]],
    ) -> None:
        self._idle += 1
        error = done.exception()
        results = [] if error else done.result()
        start = 0
        for call in taken:
            end = start + len(call.items)
            if call.future.done():
                pass  # the caller has gone; what was decided stands and is told when asked again
            elif error:
                call.future.set_exception(error)
            else:
                call.future.set_result(results[start:end])
            start = end
        self._start(loop)

    def _run(self, items: list[In]) -> list[Out]:
        try:
            return self._attempt(items)
        except LedgerUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - one bad item must not take the others along
            if len(items) == 1:
                log.error("an item failed", batcher=self._name, error=type(error).__name__)
                return [self._failed(items[0])]
        return [result for item in items for result in self._run([item])]

    def _attempt(self, items: list[In]) -> list[Out]:
        for attempt in range(_RETRIES):
            connection = self._connection()
            try:
                return self._work(connection, items)
            except REFUSED as error:
                if attempt == _RETRIES - 1:
                    raise
                log.info("batch repeated", batcher=self._name, error=type(error).__name__)
            except psycopg.OperationalError as error:
                # Whether the commit took place isn't known: the caller asks again with its keys.
                self._drop()
                raise LedgerUnavailable(type(error).__name__) from None
        raise AssertionError("unreachable")

    def _connection(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is not None and not connection.closed:
            return connection
        connection = connect(self._dsn, self._name)
        self._local.connection = connection
        return connection

    def _drop(self) -> None:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
        self._local.connection = None


class Worker:
    """One connection in one thread."""

    def __init__(self, dsn: str, name: str) -> None:
        self._dsn = dsn
        self._name = name
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._connection: Connection | None = None
        # At once: the first terminal of the day shouldn't wait for it.
        self._pool.submit(self._connect)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """`work(connection)` in the thread; LedgerUnavailable if the database is out of reach."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._work, work)

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def _connect(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._dsn, self._name)
        return self._connection

    def _work(self, work: Callable[[Connection], T]) -> T:
        connection = self._connect()
        try:
            return work(connection)
        except REFUSED:
            raise
        except psycopg.OperationalError as error:
            # Whether a commit took place isn't known: the caller asks again with its keys.
            connection.close()
            raise LedgerUnavailable(type(error).__name__) from None


class Beside:
    """What is read beside the path so that nobody waits for it: one reading at a time.

    One that fails is told in the log alone: who needs what it lacks reads that, and is told.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        #: The reading under way, or the last one.
        self.reading: asyncio.Task[None] | None = None

    def start(self, read: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin, unless one is under way."""
        if self.reading is None or self.reading.done():
            self.reading = asyncio.get_running_loop().create_task(self._guarded(read))

    async def _guarded(self, read: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await read()
        except Exception as error:  # noqa: BLE001 - see above
            log.warning("not read beside the path", what=self._what, error=type(error).__name__)


def connect(dsn: str, name: str) -> Connection:
    """A connection for the authorization path. LedgerUnavailable if the database is away."""
    try:
        connection = psycopg.connect(
            dsn,
            autocommit=True,
            connect_timeout=3,
            application_name=f"countersign {name}",
            options="-c timezone=UTC -c plan_cache_mode=force_generic_plan"
            " -c lock_timeout=5s -c idle_in_transaction_session_timeout=30s",
        )
    except psycopg.OperationalError as error:
        raise LedgerUnavailable(type(error).__name__) from None
    connection.prepare_threshold = 0
    # Integers always as bigint: else the size of the largest one in an array would decide on
    # its type, and each mixture of types would be a statement to prepare.
    connection.adapters.register_dumper(int, Int8BinaryDumper)
    return connection
