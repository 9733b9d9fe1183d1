"""An event loop's turns, shared: a burst of frames is worked off in small parts.

A loop hands out all that its sockets have before it lets anything leave. So a hundred frames that
come at once would all be decoded before the first call for them went out, and the node would
wait meanwhile, and the gateway then for the node.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

#: Does one piece of its owner's work. True: there is more, and its next turn comes after everybody
#: else's, so one that has much holds nobody up who has little.
Step = Callable[[], bool]


class Turns:
    """Lets those who have work do a step each, turn about, at most `size` in a turn of the loop."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._waiting: deque[Step] = deque()
        self._next: asyncio.Handle | None = None

    def do(self, step: Step) -> None:
        """Do it now, or in one of the next turns if this one has had its share."""
        self._waiting.append(step)
        if len(self._waiting) == 1:
            self._work()
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
        self._work()

    def _work(self) -> None:
        while self._waiting and self._left:
            self._left -= 1
            # Before the step: one that fails must not stop those behind it.
            self._go_on()
            step = self._waiting.popleft()
            if step():
                self._waiting.append(step)
