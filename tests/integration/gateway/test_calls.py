"""The gateway's HTTP calls against a server that answers whatever it is told, over real TCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from nodes.api import calls
from nodes.api.calls import Answer, Broken, Caller, NotSent
from tests.integration.gateway.running import play

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-One: a\r\n\r\nbody"


class Server:
    """Takes requests apart and answers each with the next of `answers`, as raw bytes.

    None: says nothing. An empty answer: closes. `heard` has the requests, as they came.
    """

    def __init__(self) -> None:
        self.answers: list[bytes | None] = []
        self.heard: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.heard.append(head + await reader.readexactly(length))
                answer = self.answers.pop(0) if self.answers else OK
                if answer is None:
                    continue
                writer.write(answer)
                await writer.drain()
                if not answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Server, Caller]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    caller = Caller(f"http://127.0.0.1:{server.port}/base/")
    try:
        yield server, caller
    finally:
        caller.close()
        listening.close()


def against_server(scenario: Callable[[Server, Caller], Awaitable[None]]) -> None:
    async def run() -> None:
        async with serving() as (server, caller):
            await scenario(server, caller)

    play(run)


async def post(caller: Caller, body: bytes = b"{}") -> Answer:
    async with asyncio.timeout(5):
        return await caller.post("/v1/x", {"X-Asked": "yes"}, body)


def test_a_call_is_sent_whole_and_its_answer_read() -> None:
    async def scenario(server: Server, caller: Caller) -> None:
        answer = await post(caller, b'{"a":1}')
        assert (answer.status, answer.body, answer.headers["x-one"]) == (200, b"body", "a")
        (heard,) = server.heard
        assert heard.startswith(b"POST /base/v1/x HTTP/1.1\r\n")
        assert f"Host: 127.0.0.1:{server.port}\r\n".encode() in heard
        assert b"X-Asked: yes\r\n" in heard
        assert heard.endswith(b'Content-Length: 7\r\n\r\n{"a":1}')

    against_server(scenario)


def test_connections_are_kept_and_one_carries_one_call_at_a_time() -> None:
    async def scenario(server: Server, caller: Caller) -> None:
        for _ in range(5):
            await post(caller)
        assert server.connections == 1
        await asyncio.gather(*(post(caller) for _ in range(3)))
        assert server.connections == 3
        assert len(server.heard) == 8

    against_server(scenario)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody",
        b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nbody",
    ],
)
def test_other_forms_of_an_answer_are_read_too(raw: bytes) -> None:
    async def scenario(server: Server, caller: Caller) -> None:
        server.answers = [raw, raw]
        for _ in range(2):
            answer = await post(caller)
            assert (answer.status, answer.body) == (200, b"body")

    against_server(scenario)


def test_a_refusal_is_an_answer_and_a_repeated_header_is_joined() -> None:
    async def scenario(server: Server, caller: Caller) -> None:
        server.answers = [b"HTTP/1.1 503 No\r\nA: 1\r\na: 2\r\nContent-Length: 0\r\n\r\n"]
        answer = await post(caller)
        assert (answer.status, answer.body, answer.headers["a"]) == (503, b"", "1, 2")
        assert (await post(caller)).status == 200

    against_server(scenario)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-nothing\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Length: 4\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + bytes(1001),
    ],
)
def test_no_whole_answer_is_broken_and_the_next_call_goes_another_way(
    raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MAX_ANSWER", 1000)

    async def scenario(server: Server, caller: Caller) -> None:
        server.answers = [OK, raw]
        await post(caller)
        with pytest.raises(Broken):
            await post(caller)
        assert (await post(caller)).body == b"body"
        assert server.connections == 2

    against_server(scenario)


def test_an_answer_after_its_call_was_given_up_is_nobodys() -> None:
    async def scenario(server: Server, caller: Caller) -> None:
        server.answers = [None]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await caller.post("/v1/x", {}, b"first")
        server.answers = [OK.replace(b"body", b"next")]
        assert (await post(caller)).body == b"next"
        assert server.connections == 2

    against_server(scenario)


def test_an_answer_that_nobody_asked_for_closes_the_connection() -> None:
    async def scenario(server: Server, caller: Caller) -> None:
        server.answers = [OK + OK.replace(b"body", b"evil")]
        assert (await post(caller)).body == b"body"
        assert (await post(caller)).body == b"body"
        assert server.connections == 2

    against_server(scenario)


def test_without_a_connection_nothing_was_sent() -> None:
    async def scenario() -> None:
        async with serving() as (server, caller):
            port = server.port
        del caller
        with pytest.raises(NotSent):
            await post(Caller(f"http://127.0.0.1:{port}"))

    play(scenario)


@pytest.mark.parametrize("url", ["ftp://node/", "node:80", "http://", "http://a:b@node/"])
def test_an_address_is_an_http_url_without_credentials(url: str) -> None:
    with pytest.raises(ValueError, match="credentials"):
        Caller(url)
