"""An answer leaves in one piece: one send here, one wake-up there. On real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from nodes.api.server import BoundedHeadProtocol

#: Between what an answer begins with and what follows: a head that doesn't wait arrives in it.
GAP_S = 0.3
LENGTH = (b"Content-Length", b"4")


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """`/known` announces its length, `/stream` doesn't, `/broken` fails before its body."""
    if scope["path"] == "/asked":
        await receive()
    headers = [] if scope["path"] == "/stream" else [LENGTH]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await asyncio.sleep(GAP_S)
    if scope["path"] == "/broken":
        raise RuntimeError
    await send({"type": "http.response.body", "body": b"bo", "more_body": True})
    await asyncio.sleep(GAP_S)
    await send({"type": "http.response.body", "body": b"dy"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    config = uvicorn.Config(
        _app,
        http=BoundedHeadProtocol,
        loop="uvloop",
        lifespan="off",
        log_level="critical",
        access_log=False,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(10)


def _pieces(port: int, request: bytes) -> list[bytes]:
    """What came, split where nothing came for half of the gap; until the peer closes."""
    pieces: list[bytes] = []
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request)
        last = 0.0
        while data := connection.recv(65536):
            now = time.monotonic()
            if pieces and now - last < GAP_S / 2:
                pieces[-1] += data
            else:
                pieces.append(data)
            last = now
    return pieces


def _get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n".encode()


def test_a_head_that_announces_a_body_leaves_with_its_first_piece(port: int) -> None:
    first, second = _pieces(port, _get("/known"))
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert first.endswith(b"\r\n\r\nbo")
    assert second == b"dy"


def test_the_head_of_a_stream_leaves_at_once(port: int) -> None:
    head, first, second = _pieces(port, _get("/stream"))
    assert head.endswith(b"\r\n\r\n")
    assert (first, second) == (b"2\r\nbo\r\n", b"2\r\ndy\r\n0\r\n\r\n")


def test_a_head_request_gets_its_head(port: int) -> None:
    (head,) = _pieces(port, _get("/known", "HEAD"))
    assert b"content-length: 4\r\n" in head
    assert head.endswith(b"\r\n\r\n")


def test_an_answer_that_breaks_before_its_body_says_nothing(port: int) -> None:
    assert _pieces(port, _get("/broken")) == []


def test_each_answer_of_a_connection_is_whole(port: int) -> None:
    request = b"GET /known HTTP/1.1\r\nHost: node\r\n\r\n"
    got = b"".join(_pieces(port, request + request + _get("/known")))
    assert [part[-4:] for part in got.split(b"HTTP/1.1 200 OK\r\n")[1:]] == [b"body"] * 3


def test_who_waits_for_100_continue_gets_it_before_the_answer(port: int) -> None:
    request = (
        b"POST /asked HTTP/1.1\r\nHost: node\r\nConnection: close\r\n"
        b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n"
    )
    got = b"".join(_pieces(port, request))
    assert got.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert got.endswith(b"\r\n\r\nbody")
