"""One stream from a node, fanned out to every browser that watches it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nodes.api.client import NodeClient, NodeRefused, NodeUnreachable

#: What a slow browser may be behind before its oldest entries are dropped.
QUEUE_LENGTH = 200
#: Seconds between tries to reach a node again, doubled up to the last one.
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 8.0
#: Seconds after which a watcher gets a sign of life when nothing happened.
HEARTBEAT_S = 5.0


class FeedState(StrEnum):
    """Whether the node's stream is up."""

    CONNECTED = "connected"
    AWAY = "away"


@dataclass(frozen=True)
class Heartbeat:
    """Nothing happened for a while."""


#: What a watcher gets: a transaction as the node sent it, a change of state, or a sign of life.
Entry = dict[str, Any] | FeedState | Heartbeat


class LiveFeed:
    """Reads a node's event stream as long as somebody watches."""

    def __init__(self, client: NodeClient, path: str) -> None:
        self._client = client
        self._path = path
        self._watchers: set[asyncio.Queue[Entry]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._state = FeedState.AWAY

    async def watch(self) -> AsyncIterator[Entry]:
        """Entries from now on, the feed's state first. Ends only when the caller stops."""
        queue: asyncio.Queue[Entry] = asyncio.Queue(QUEUE_LENGTH)
        self._watchers.add(queue)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        elif self._state is FeedState.CONNECTED:
            queue.put_nowait(self._state)
        try:
            while True:
                try:
                    yield await asyncio.wait_for(queue.get(), HEARTBEAT_S)
                except TimeoutError:
                    yield Heartbeat()
        finally:
            self._watchers.discard(queue)
            if not self._watchers:
                await self.close()

    async def close(self) -> None:
        """Stop reading; the next watcher starts it again."""
        reader, self._reader = self._reader, None
        self._state = FeedState.AWAY
        if reader is not None:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _read(self) -> None:
        pause = FIRST_RETRY_S
        while True:
            try:
                async for event, data in self._client.stream(self._path):
                    if self._state is not FeedState.CONNECTED:
                        pause = FIRST_RETRY_S
                        self._tell(FeedState.CONNECTED)
                    if event == "transaction":
                        self._tell(json.loads(data))
            except (NodeUnreachable, NodeRefused, ValueError):
                pass  # told below, and tried again; ValueError: what it sends is no JSON
            self._tell(FeedState.AWAY)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_RETRY_S)

    def _tell(self, entry: Entry) -> None:
        if isinstance(entry, FeedState):
            self._state = entry
        for queue in self._watchers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(entry)
