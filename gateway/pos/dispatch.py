"""Waiting requests to the acquirer's node: whatever waits goes out in one call.

Nobody waits before an idle node: a call starts at once. While one is under way, another starts
when enough waits to be worth its own round of signatures and commits, or when something has
waited `_LINGER_S`; it carries all that waited meanwhile. What is known of a request decides its
end:

- it never reached the node: 96 at once, nothing happened;
- it may have reached the node, no answer came: the same requests again (the node knows their
  keys) until the deadline, then silence, because only the terminal's reversal is right then;
- the decision came after the deadline: silence, too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import structlog

from gateway.metrics import Metrics
from gateway.pos.response_codes import Refusal
from gateway.pos.session import Address
from nodes.authorization.model import TerminalAnswer, TerminalRequest
from nodes.authorization.services import ServiceAnswer, ServiceRequest

_log = structlog.get_logger("gateway.dispatch")

#: So many requests are worth a call beside those that are under way,
_WORTH = 32
#: and so long they wait for company there (seconds); about as long as a call takes.
_LINGER_S = 0.010
#: So many answers are delivered before what came of them may leave.
_AT_A_TIME = 16
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0


class NodeFailure(Exception):
    """No answers. `divide`: one of the requests may be the reason; smaller batches may do."""

    def __init__(self, *, divide: bool = False) -> None:
        super().__init__()
        self.divide = divide


class NodeNotReached(NodeFailure):
    """The node did not get the requests, or says that it did nothing with them."""


class NodeUndecided(NodeFailure):
    """The node may have got the requests; what became of them is unknown."""


#: What terminals ask of the node, and what it answers.
Request = TerminalRequest | ServiceRequest
Decision = TerminalAnswer | ServiceAnswer


class NodeLink(Protocol):
    """The way to the acquirer's node."""

    async def terminal_requests(
        self, requests: Sequence[TerminalRequest], timeout_s: float
    ) -> list[TerminalAnswer]:
        """One answer for each request, in order. Raises NodeNotReached or NodeUndecided."""
        ...


@runtime_checkable
class ServicesLink(Protocol):
    """The way to the node for what isn't a payment."""

    async def terminal_services(
        self, requests: Sequence[ServiceRequest], timeout_s: float
    ) -> list[ServiceAnswer]:
        """One answer for each request, in order. Raises NodeNotReached or NodeUndecided."""
        ...


class Exchange(Protocol):
    """One kind of call to the node: NodeLink.terminal_requests, or the like for services."""

    async def __call__(self, requests: Sequence[Any], timeout_s: float) -> Sequence[Decision]:
        """One answer for each request, in order. Raises NodeNotReached or NodeUndecided."""
        ...


class Waiting:
    """One request on its way. Moments are of the event loop's clock, in seconds."""

    __slots__ = ("_done", "address", "arrived", "deadline", "request")

    def __init__(
        self,
        request: Request,
        address: Address,
        arrived: float,
        deadline: float,
        done: Callable[[Waiting, Decision | Refusal | None], None],
    ) -> None:
        self.request = request
        self.address = address
        self.arrived = arrived
        self.deadline = deadline
        self._done: Callable[[Waiting, Decision | Refusal | None], None] | None = done

    def finish(self, result: Decision | Refusal | None) -> None:
        """Tell who waits, once: the decision, why the gateway refuses, or None for silence."""
        done, self._done = self._done, None
        if done is not None:
            done(self, result)


class Dispatcher:
    """The queue before the node; one for all connections of a gateway, on one event loop.

    `exchange`: the call, if it isn't link.terminal_requests. `in_flight` calls at a time,
    `max_batch` requests a call, `max_waiting` requests in the queue
    and none longer than `max_wait_s` (seconds): beyond that the gateway is overloaded.
    """

    def __init__(
        self,
        link: NodeLink,
        metrics: Metrics,
        *,
        max_batch: int,
        in_flight: int,
        max_waiting: int,
        max_wait_s: float,
        exchange: Exchange | None = None,
    ) -> None:
        self._link = link
        self._exchange_with = exchange
        self._metrics = metrics
        self._max_batch = max_batch
        self._in_flight = in_flight
        self._free = in_flight
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._queue: deque[Waiting] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._kick: asyncio.Handle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Requests in the queue, those in flight not counted."""
        return len(self._queue)

    def submit(self, item: Waiting) -> bool:
        """Take a request; False if too many wait already (nothing was done then)."""
        if self._closed or len(self._queue) >= self._max_waiting:
            return False
        self._queue.append(item)
        if self._free and self._kick is None:
            # Not at once: what other connections have ready in this turn goes along.
            self._kick = asyncio.get_running_loop().call_soon(self._start)
        elif self._sweep is None:
            self._arm()
        return True

    async def close(self) -> None:
        """Stop: what waits is refused, what is in flight ends without an answer."""
        self._closed = True
        for handle in (self._kick, self._linger, self._sweep):
            if handle is not None:
                handle.cancel()
        while self._queue:
            item = self._queue.popleft()
            item.finish(Refusal.OVERLOADED)
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _start(self) -> None:
        self._kick = None
        while self._free and self._queue and not self._closed and self._is_worth_a_call():
            count = min(self._max_batch, len(self._queue))
            batch = [self._queue.popleft() for _ in range(count)]
            self._free -= 1
            call = asyncio.get_running_loop().create_task(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        if self._queue and self._sweep is None:
            self._arm()

    def _is_worth_a_call(self) -> bool:
        """Whether to call now; if not, it is looked at again when the oldest has waited."""
        if self._free == self._in_flight or len(self._queue) >= min(_WORTH, self._max_batch):
            return True
        loop = asyncio.get_running_loop()
        due = self._queue[0].arrived + _LINGER_S
        if due <= loop.time():
            return True
        if self._linger is None:
            self._linger = loop.call_at(due, self._lingered)
        return False

    def _lingered(self) -> None:
        self._linger = None
        self._start()

    def _arm(self) -> None:
        when = self._queue[0].arrived + self._max_wait_s
        self._sweep = asyncio.get_running_loop().call_at(when, self._refuse_stale)

    def _refuse_stale(self) -> None:
        self._sweep = None
        limit = asyncio.get_running_loop().time() - self._max_wait_s
        while self._queue and self._queue[0].arrived <= limit:
            item = self._queue.popleft()
            item.finish(Refusal.OVERLOADED)
        if self._queue:
            self._arm()

    async def _call(self, batch: list[Waiting]) -> None:
        try:
            await self._exchange(batch)
        except Exception as error:  # noqa: BLE001 (a call must never end the gateway)
            # Undecided for those that were not answered: silence. The type only, for a message
            # of an unexpected error might quote a request.
            _log.error("node_call_failed", error=type(error).__name__, requests=len(batch))
            self._metrics.node_calls.labels("failed").inc()
        finally:
            # Whoever hasn't been told anything hears nothing any more.
            for item in batch:
                item.finish(None)
            self._free += 1
            if not self._closed:
                self._start()

    def _deliver(self, item: Waiting, answer: Decision) -> None:
        try:
            item.finish(answer)
        except Exception as error:  # noqa: BLE001 (one bad answer must not cost the others theirs)
            _log.error("answer_failed", error=type(error).__name__)
            self._metrics.unanswered.labels("failed").inc()

    async def _exchange(self, batch: list[Waiting]) -> None:
        """Ask until every request of the batch is finished, one call after the other."""
        loop = asyncio.get_running_loop()
        groups = [_Group(batch, ready=loop.time())]
        while groups:
            group = min(groups, key=lambda other: other.ready)
            groups.remove(group)
            await asyncio.sleep(max(0.0, group.ready - loop.time()))
            group.items = self._in_time(group.items)
            if not group.items:
                continue
            failure = await self._ask(group.items)
            if failure is None:
                continue
            group.undecided = group.undecided or isinstance(failure, NodeUndecided)
            if failure.divide and len(group.items) > 1:
                # One request that the node stumbles over must not cost the others their answers.
                groups += group.halves()
            elif group.undecided:
                group.ready = loop.time() + group.pause
                group.pause = min(2 * group.pause, _LONGEST_PAUSE_S)
                groups.append(group)
            else:
                _log.warning("node_not_reached", requests=len(group.items))
                for item in group.items:
                    item.finish(Refusal.NODE_UNAVAILABLE)

    async def _ask(self, items: list[Waiting]) -> NodeFailure | None:
        """One call; None if it brought the answers, and they are delivered then."""
        metrics = self._metrics
        metrics.node_batch.observe(len(items))
        left = max(item.deadline for item in items) - asyncio.get_running_loop().time()
        try:
            exchange: Exchange = self._exchange_with or self._link.terminal_requests
            answers = await exchange([item.request for item in items], left)
            if len(answers) != len(items):
                raise NodeUndecided  # which answer is whose is anybody's guess
        except NodeFailure as failure:
            undecided = isinstance(failure, NodeUndecided)
            metrics.node_calls.labels("undecided" if undecided else "not_reached").inc()
            return failure
        metrics.node_calls.labels("answered").inc()
        for place, (item, answer) in enumerate(zip(items, answers, strict=True), 1):
            self._deliver(item, answer)
            if not place % _AT_A_TIME:
                # The first answers leave, and the next requests come, while the last are sealed.
                await asyncio.sleep(0)
        return None

    def _in_time(self, items: list[Waiting]) -> list[Waiting]:
        """Those whose terminals still wait; the others hear nothing any more."""
        now = asyncio.get_running_loop().time()
        late = [item for item in items if item.deadline <= now]
        if not late:
            return items
        _log.warning("node_undecided", requests=len(late))
        for item in late:
            item.finish(None)
        return [item for item in items if item.deadline > now]


class _Group:
    """Requests that are asked for together: `undecided` if they may be known to the node."""

    __slots__ = ("items", "pause", "ready", "undecided")

    def __init__(self, items: list[Waiting], ready: float, undecided: bool = False) -> None:
        self.items = items
        self.ready = ready
        self.undecided = undecided
        self.pause = _FIRST_PAUSE_S

    def halves(self) -> list[_Group]:
        middle = len(self.items) // 2
        parts = (self.items[:middle], self.items[middle:])
        return [_Group(part, self.ready, self.undecided) for part in parts]
