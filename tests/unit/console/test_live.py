"""One stream from a node, fanned out: order, drops, reconnection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import cast

from console import live
from console.live import FeedState, LiveFeed
from nodes.api.client import NodeClient, NodeUnreachable


class ScriptedStream:
    """Stands in for a node's stream: each connection yields what is put into its queue."""

    def __init__(self) -> None:
        self.connections: list[asyncio.Queue[tuple[str, str] | None]] = []

    async def stream(self, path: str) -> AsyncIterator[tuple[str, str]]:
        queue: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue()
        self.connections.append(queue)
        yield "ready", "{}"
        while (event := await queue.get()) is not None:
            yield event
        raise NodeUnreachable("node", sent=True, why="cut")


def _feed(stream: ScriptedStream) -> LiveFeed:
    return LiveFeed(cast(NodeClient, stream), "/v1/transactions/stream")


def test_all_watchers_share_one_connection_and_get_everything_in_order() -> None:
    async def scene() -> None:
        stream = ScriptedStream()
        feed = _feed(stream)
        async with aclosing(feed.watch()) as first, aclosing(feed.watch()) as second:
            assert await anext(first) is FeedState.CONNECTED
            waiting = asyncio.ensure_future(anext(second))
            await asyncio.sleep(0)
            assert await waiting is FeedState.CONNECTED
            for number in range(3):
                stream.connections[0].put_nowait(("transaction", json.dumps({"n": number})))
            stream.connections[0].put_nowait(("heartbeat", "{}"))
            for watcher in (first, second):
                assert [await anext(watcher) for _ in range(3)] == [{"n": 0}, {"n": 1}, {"n": 2}]
            assert len(stream.connections) == 1
        await feed.close()

    asyncio.run(scene())


def test_a_cut_is_told_and_the_stream_taken_up_again() -> None:
    async def scene() -> None:
        stream = ScriptedStream()
        feed = _feed(stream)
        async with aclosing(feed.watch()) as watcher:
            assert await anext(watcher) is FeedState.CONNECTED
            stream.connections[0].put_nowait(None)
            assert await anext(watcher) is FeedState.AWAY
            assert await anext(watcher) is FeedState.CONNECTED
            stream.connections[1].put_nowait(("transaction", "no json"))
            assert await anext(watcher) is FeedState.AWAY
            assert await anext(watcher) is FeedState.CONNECTED
        await feed.close()

    asyncio.run(scene())


def test_a_slow_watcher_loses_its_oldest_and_holds_nobody_up() -> None:
    async def scene() -> None:
        stream = ScriptedStream()
        feed = _feed(stream)
        async with aclosing(feed.watch()) as slow:
            assert await anext(slow) is FeedState.CONNECTED
            for number in range(live.QUEUE_LENGTH + 50):
                stream.connections[0].put_nowait(("transaction", json.dumps({"n": number})))
            await asyncio.sleep(0.05)
            assert await anext(slow) == {"n": 50}
        await feed.close()

    asyncio.run(scene())


def test_nobody_watching_means_no_connection() -> None:
    async def scene() -> None:
        stream = ScriptedStream()
        feed = _feed(stream)
        async with aclosing(feed.watch()) as watcher:
            await anext(watcher)
        assert feed._reader is None
        async with aclosing(feed.watch()) as watcher:
            assert await anext(watcher) is FeedState.CONNECTED
        assert len(stream.connections) == 2

    asyncio.run(scene())
