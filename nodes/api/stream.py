"""New transactions as server-sent events: one reader of the database for all who listen."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import structlog
from fastapi.sse import format_sse_event
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from nodes.api.dependencies import items_of
from nodes.api.metrics import NodeMetrics
from nodes.api.problems import (
    Problem,
    is_ledger_away,
    is_timeout_of_query,
    log_defect,
    unavailable,
)
from nodes.api.reads import snapshot
from nodes.ledger import queries as ledger

#: Seconds between two looks at the database while somebody listens.
POLL_S = 0.4
#: Seconds after which a listener gets a sign of life.
HEARTBEAT_S = 10.0
#: Events that a listener may be behind before its stream is ended (it resumes by Last-Event-ID).
QUEUE_LENGTH = 2_000
MAX_LISTENERS = 100
_PAGE = 200
_EVENT_ID = re.compile(r"([0-9]{1,19})-([0-9]{1,19})\Z")

Position = tuple[int, int]
_Queue = asyncio.Queue[bytes | None]

log = structlog.get_logger(__name__)


class TransactionStream:
    """Polls for committed transactions while somebody listens, and tells all listeners."""

    def __init__(self, engine: Engine, metrics: NodeMetrics, *, poll_s: float = POLL_S) -> None:
        self._engine = engine
        self._metrics = metrics
        self._poll_s = poll_s
        self._listeners: set[_Queue] = set()
        self._task: asyncio.Task[None] | None = None
        self._position: Position | None = None
        self._closed = False

    def subscribe(self, after: Position | None) -> AsyncIterator[bytes]:
        """Events behind a position, or from now on. Problem 503 if too many listen."""
        if self._closed or len(self._listeners) >= MAX_LISTENERS:
            raise unavailable("too-many-streams", "No more streams at the moment.", retry_after_s=5)
        return self._events(after)

    async def close(self) -> None:
        """End all streams; the server is stopping."""
        self._closed = True
        for queue in self._listeners:
            _end(queue)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _events(self, after: Position | None) -> AsyncIterator[bytes]:
        if self._position is None:
            position = await run_in_threadpool(self._newest)
            if self._position is None:  # nobody else was faster
                self._position = position
        queue: _Queue = asyncio.Queue(QUEUE_LENGTH)
        self._listeners.add(queue)
        self._metrics.streams.set(len(self._listeners))
        start = self._position
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
        try:
            yield _event("ready", "{}", after or start)
            while after is not None and after < start:
                page, after = await run_in_threadpool(self._page_after, after, start)
                for event in page:
                    yield event
                if not page:
                    break
            while True:
                try:
                    event_or_end = await asyncio.wait_for(queue.get(), HEARTBEAT_S)
                except TimeoutError:
                    event_or_end = _event("heartbeat", "{}", None)
                if event_or_end is None:
                    return
                yield event_or_end
        finally:
            self._listeners.discard(queue)
            self._metrics.streams.set(len(self._listeners))

    async def _poll(self) -> None:
        try:
            await self._follow()
        except Exception as error:  # noqa: BLE001
            # A defect: end the streams rather than let them look alive.
            log_defect(error)
            for queue in self._listeners:
                _end(queue)
        finally:
            self._position = None

    async def _follow(self) -> None:
        while self._listeners and self._position is not None:
            try:
                page, self._position = await run_in_threadpool(
                    self._page_after, self._position, None
                )
            except Exception as error:
                if not (is_ledger_away(error) or is_timeout_of_query(error)):
                    raise
                log.warning("stream waits for the database", error=type(error).__name__)
                await asyncio.sleep(1.0)
                continue
            for queue in list(self._listeners):
                self._tell(queue, page)
            if len(page) < _PAGE:
                await asyncio.sleep(self._poll_s)

    def _tell(self, queue: _Queue, page: list[bytes]) -> None:
        if queue.qsize() + len(page) >= QUEUE_LENGTH:
            self._listeners.discard(queue)
            _end(queue)
            return
        for event in page:
            queue.put_nowait(event)

    def _newest(self) -> Position:
        with snapshot(self._engine) as connection:
            return ledger.newest_position(connection)

    def _page_after(
        self, position: Position, until: Position | None
    ) -> tuple[list[bytes], Position]:
        with snapshot(self._engine) as connection:
            found = ledger.transactions_after(connection, position, limit=_PAGE)
            if until is not None:
                found = [entry for entry in found if entry[0] <= until]
            rows: list[Any] = [row for _, row in found]
            items = items_of(connection, rows)
        events = [
            _event("transaction", item.model_dump_json(), place)
            for (place, _), item in zip(found, items, strict=True)
        ]
        return events, found[-1][0] if found else position


def position_of(last_event_id: str | None) -> Position | None:
    """The place that an event's id names; Problem 422 if it isn't one of ours."""
    if last_event_id is None:
        return None
    found = _EVENT_ID.match(last_event_id)
    if found is None:
        raise Problem(422, "event-id-unknown", "Last-Event-ID is not one of this node's.")
    xact, number = int(found[1]), int(found[2])
    if xact >= 1 << 63 or number >= 1 << 63:
        raise Problem(422, "event-id-unknown", "Last-Event-ID is not one of this node's.")
    return xact, number


def _event(name: str, data: str, position: Position | None) -> bytes:
    place = None if position is None else f"{position[0]}-{position[1]}"
    return format_sse_event(event=name, data_str=data, id=place)


def _end(queue: _Queue) -> None:
    while queue.full():
        queue.get_nowait()
    queue.put_nowait(None)
