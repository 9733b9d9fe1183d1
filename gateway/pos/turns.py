"""An event loop's turns, shared: a burst of frames is worked off in small parts.

A loop hands out all that its sockets have before it lets anything leave. So a hundred frames that
come at once would all be decoded before the first call for them went out, and the node would
wait meanwhile, and the gateway then for the node.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """Does pieces of work in the order in which they came, at most `size` in a turn of the loop."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._waiting: deque[Callable[[], None]] = deque()
        self._next: asyncio.Handle | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Do it now, or in one of the next turns if this one has had its share."""
        if self._left and not self._waiting:
            self._left -= 1
            self._go_on()
            work()
        else:
            self._waiting.append(work)
            self._go_on()

    def close(self) -> None:
        """What waits is not done."""
        self._waiting.clear()
        if self._next is not None:
            self._next.cancel()

    def _go_on(self) -> None:
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._next = None
        self._left = self._size
        while self._waiting and self._left:
            self._left -= 1
            # Before the work: one that fails must not stop those behind it.
            self._go_on()
            self._waiting.popleft()()
