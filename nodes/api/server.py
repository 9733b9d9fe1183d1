"""Serving the application with uvicorn: time-outs that it hasn't, and answers in one piece.

uvicorn waits for a request's head for ever: a client that sends a byte a minute keeps a connection.
Here a head must be complete within HEAD_TIMEOUT_S of its first byte (or of the connection);
nodes/api/bodies.py bounds the body in the same way.

uvicorn sends an answer's head by itself and then its body. Two sends cost both sides a seventh more
(docs/performance.md), so a head that announces a body waits for it.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import TimerHandle
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nodes.api.app import Front

HEAD_TIMEOUT_S = 10.0
#: Larger than any client's pool of kept connections lives (nodes/api/client.py: 30 s).
KEEP_ALIVE_S = 75
STOP_TIMEOUT_S = 5
#: A head in bytes: more is no request of ours.
MAX_HEAD = 32 << 10


class WholeAnswer:
    """The transport of one answer: a head that announces a body leaves with its first piece.

    ASGI allows it (HTTP, Response Start: a server need not flush it before the first body). A head
    without Content-Length, that of a stream, leaves at once.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self._begun = False

    def write(self, data: bytes) -> None:
        """Send, or keep if it is a head that announces a body."""
        if not self._begun:
            self._begun = True
            if _announces_body(data):
                self._head = data
                return
        if self._head is not None:
            data, self._head = self._head + data, None
        self._transport.write(data)

    def close(self) -> None:
        """Close the connection. A head whose body never came has said nothing yet."""
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether the connection is closed or about to be."""
        return self._transport.is_closing()


def _announces_body(head: bytes) -> bool:
    """Whether it is an answer's head with Content-Length: not a 100, and not a stream's."""
    return b"\r\ncontent-length:" in head.lower()


class BoundedHeadProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a bound on the time and size of a request's head, and with
    answers in one piece."""

    head_timeout_s = HEAD_TIMEOUT_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._arm()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD and not self.transport.is_closing():
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._disarm()
        before = self.cycle
        super().on_headers_complete()
        # No body follows the head that answers a HEAD, whatever it announces.
        if self.cycle is not before and self.scope["method"] != "HEAD":
            self.cycle.transport = WholeAnswer(self.transport)  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = 0

    def _arm(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._give_up)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()


class NodeServer(uvicorn.Server):
    """uvicorn's server; ends open streams before it waits for connections to end."""

    def __init__(self, config: uvicorn.Config, front: Front) -> None:
        super().__init__(config)
        self.front = front

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self.front.stop_streams()
        await super().shutdown(sockets)


def server(front: Front, host: str, port: int) -> NodeServer:
    """A server of the application; `run()` serves until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        front,
        host=host,
        port=port,
        loop="uvloop",
        http=BoundedHeadProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
        backlog=1024,
    )
    return NodeServer(config, front)


def serve(front: Front, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    server(front, host, port).run()
