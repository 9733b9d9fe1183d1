"""POST over kept-alive HTTP/1.1 connections: what a call to the node needs of HTTP, and no more.

Gateways and acquirers make thousands of calls a second to one address. A general client's session,
resolver, timers and streams cost about 450 microseconds of CPU a call; this a tenth of that.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec

#: Largest answer that is read, in bytes.
MAX_ANSWER = 16 << 20
_CONNECT_S = 2.0


class NotSent(Exception):
    """There is no connection: the call certainly never reached the server."""


class Broken(Exception):
    """No whole answer came; whether the server got the call is unknown."""


class Answer(msgspec.Struct, frozen=True):
    """A whole answer. Header names in lower case; a repeated header's values joined by commas."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Caller:
    """Calls to one server (http or https, without credentials in the URL), on one event loop."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("a node's address is an http or https URL without credentials")
        self.base_url = base_url.rstrip("/")
        self._host, self._address = parts.hostname, parts.netloc
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")
        self._idle: list[_Connection] = []

    async def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send `body` to `base_url` + `path`. Raises NotSent or Broken; cancelling closes."""
        connection = await self._connection()
        lines = [f"POST {self._path}{path} HTTP/1.1", f"Host: {self._address}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "\r\n"]
        try:
            answer = await connection.call("\r\n".join(lines).encode("latin-1") + body)
        except BaseException:
            connection.close()  # an answer that comes now would be taken for the next call's
            raise
        if connection.usable:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close the connections that are idle; a later call opens new ones."""
        while self._idle:
            self._idle.pop().close()

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, opened = await loop.create_connection(
                    _Connection, self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise NotSent(type(error).__name__) from None
        return opened


class _Connection(asyncio.Protocol):
    """One connection; one call at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._size = 0
        self.usable = False

    async def call(self, request: bytes) -> Answer:
        """Write a request and wait for its answer. Broken if none comes whole."""
        if self._transport is None:
            raise Broken("closed")
        self._parser = httptools.HttpResponseParser(self)
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    def close(self) -> None:
        """Close at once; a call that waits gets Broken."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, for uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._transport = None
        self._fail("connection lost")

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:
            self.close()  # nobody asked
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(type(error).__name__)
            self.close()

    # httptools: what it has found

    def on_message_begin(self) -> None:
        self._headers, self._chunks, self._size = {}, [], 0

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_ANSWER:
            self._fail("the answer is too large")
            self.close()
        else:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            self.close()  # a second answer
            return
        self.usable = self.usable and self._parser.should_keep_alive()
        if not self.usable:
            self.close()
        if not waiting.done():
            status = self._parser.get_status_code()
            waiting.set_result(Answer(status, self._headers, b"".join(self._chunks)))

    def _fail(self, why: str) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(Broken(why))
