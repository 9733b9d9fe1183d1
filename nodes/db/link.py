"""A connection of an event loop that commits: one pipeline, one round trip, no thread.

A commit waits for the disk, not for a processor: so the loop goes on meanwhile, and nothing has to
be handed to a thread and back (which costs more than the statements' own overhead).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from nodes.db.writes import Prepared, Writes, prepared_of


class LinkBroken(Exception):
    """The connection is lost: whether what was under way is committed isn't known."""


class _Commit:
    """A commit under way: its caller, and the first error of its statements."""

    __slots__ = ("error", "future", "names")

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future
        self.error: Exception | None = None
        self.names: list[str] = []


class Link:
    """Commits on one connection, in the order of the calls. One event loop's."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], name: str) -> None:
        self._connect = connect
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        # At once: the first terminal of the day shouldn't wait for it.
        self._opening = self._pool.submit(self._opened)
        self._connection: psycopg.Connection[Any] | None = None
        self._known: Prepared | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._under_way: deque[_Commit] = deque()
        self._socket = -1
        #: Statements that were prepared: no name is used twice.
        self._prepared = 0

    async def commit(self, writes: Writes) -> None:
        """Do all of it, durably, or nothing.

        Raises what an INSERT would (psycopg.errors.UniqueViolation ...), LinkBroken (its fate isn't
        known), or what connecting raises.
        """
        if not self.ready():
            await self.open()
        await self.begin(writes)

    def ready(self) -> bool:
        """Whether `begin` may be called."""
        return self._connection is not None and self._loop is asyncio.get_running_loop()

    def begin(self, writes: Writes) -> asyncio.Future[None]:
        """As commit, on an open connection: sent when this returns."""
        loop, connection, known = self._loop, self._connection, self._known
        if loop is None or connection is None or known is None:
            raise LinkBroken
        commit = _Commit(loop.create_future())
        self._under_way.append(commit)
        link = connection.pgconn
        try:
            for statement, _ in writes.statements:
                # Before all else: behind one that fails, nothing is prepared, and the next commit,
                # which may be sent by then, would call what isn't there.
                if statement.name not in known.names:
                    self._prepared += 1
                    name = f"{statement.name} {self._prepared}".encode()
                    known.names[statement.name] = name
                    commit.names.append(statement.name)
                    link.send_prepare(name, statement.sql.encode())
            for statement, parameters in writes.statements:
                sent = known.encoded(parameters)
                link.send_query_prepared(known.names[statement.name], sent, [1] * len(sent), 1)
            link.pipeline_sync()
            if link.flush():
                loop.add_writer(self._socket, self._flush)
        except psycopg.OperationalError as error:
            self._lost(error)
        return commit.future

    def close(self) -> None:
        """Close the connection; commits under way are lost sight of."""
        self._lost(LinkBroken("closed"))
        self._pool.shutdown(wait=True)

    async def open(self) -> None:
        """Connect. Raises what connecting raises."""
        if self.ready():
            return
        if self._connection is not None:
            # The loop that it served has ended.
            self._attach(self._connection)
            return
        try:
            connection, known = await asyncio.wrap_future(self._opening)
        except BaseException:
            self._opening = self._pool.submit(self._opened)
            raise
        if self._connection is None:  # else another call was first
            self._known = known
            connection.pgconn.nonblocking = 1
            connection.pgconn.enter_pipeline_mode()
            self._attach(connection)

    def _attach(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._socket = connection.pgconn.socket
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def _opened(self) -> tuple[psycopg.Connection[Any], Prepared]:
        connection = self._connect()
        return connection, prepared_of(connection)

    def _flush(self) -> None:
        if self._connection is None or self._loop is None:
            return
        try:
            if not self._connection.pgconn.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.OperationalError as error:
            self._lost(error)

    def _read(self) -> None:
        connection = self._connection
        if connection is None:
            return
        link = connection.pgconn
        try:
            link.consume_input()
            while self._under_way and not link.is_busy():
                result = link.get_result()
                if result is not None:
                    self._take(result)
        except psycopg.OperationalError as error:
            self._lost(error)

    def _take(self, result: pq.abc.PGresult) -> None:
        status, commit = result.status, self._under_way[0]
        if status == pq.ExecStatus.PIPELINE_SYNC:
            self._under_way.popleft()
            if commit.error is not None and self._known is not None:
                # One that couldn't be prepared isn't there.
                for name in commit.names:
                    self._known.names.pop(name, None)
            if commit.future.done():
                return
            if commit.error is None:
                commit.future.set_result(None)
            else:
                commit.future.set_exception(commit.error)
        elif status == pq.ExecStatus.FATAL_ERROR and commit.error is None:
            commit.error = error_from_result(result)

    def _lost(self, error: Exception) -> None:
        connection, loop = self._connection, self._loop
        self._connection = None
        if connection is not None and loop is not None:
            if not loop.is_closed():
                loop.remove_reader(self._socket)
                loop.remove_writer(self._socket)
            connection.close()
            self._opening = self._pool.submit(self._opened)
        while self._under_way:
            commit = self._under_way.popleft()
            if not commit.future.done():
                commit.future.set_exception(LinkBroken(type(error).__name__))
