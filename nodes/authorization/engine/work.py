"""What an issuer's engine has under way: calls that wait, and the batch made of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from nodes.authorization.batching import Overloaded
from nodes.authorization.model import (
    LOOKING_UP,
    AuthorizationAnswer,
    TerminalAnswer,
    TerminalRequest,
)
from nodes.authorization.operations.asking import Asked
from nodes.authorization.operations.deciding import Decided
from nodes.authorization.operations.opening import Opening
from nodes.authorization.operations.pending import Forward
from nodes.authorization.operations.recording import Recording
from nodes.authorization.operations.supplying import names_others
from nodes.db.writes import Writes


@dataclass
class Call:
    """One caller's requests; `answers` has those that need no decision already."""

    asked: list[tuple[int, Asked]]
    answers: list[AuthorizationAnswer | None]
    future: asyncio.Future[list[AuthorizationAnswer]]


@dataclass
class OnUsCall:
    """Terminals' requests of which this institution is acquirer and issuer."""

    requests: Sequence[TerminalRequest]
    future: asyncio.Future[list[TerminalAnswer]]


@dataclass
class OnUs:
    """What a batch on us writes at the acquirer's side."""

    requests: list[TerminalRequest]
    opening: Opening
    recording: Recording

    def told(self) -> list[TerminalAnswer]:
        """What the terminals are told."""
        told = iter(self.recording.told)
        return [next(told) if isinstance(r, Forward) else r for r in self.opening.results]


@dataclass
class Work:
    """A batch under way."""

    calls: Sequence[Call | OnUsCall]
    asked: list[Asked]
    decided: list[Decided] = field(default_factory=list)
    #: What it writes, numbered from memory; None: to be numbered in the database.
    staged: Writes | None = None
    written: asyncio.Future[None] | None = None
    on_us: OnUs | None = None
    #: Its answers have been let out.
    given: bool = False

    @property
    def size(self) -> int:
        """How many requests."""
        return len(self.asked) if self.on_us is None else len(self.on_us.requests)

    def account_ids(self) -> list[int]:
        """The accounts that its decisions are about."""
        rows = [one.record for one in self.decided if one.record is not None]
        return [row.decision.account.account_id for row in rows if row.decision.account is not None]

    def by_key(self) -> dict[bytes, Decided]:
        return {one.asked.key: one for one in self.decided if one.record is not None}


def must_follow(call: Call | OnUsCall) -> bool:
    """A follow-up may name what is being written."""
    if isinstance(call, OnUsCall):
        return any(request.kind in LOOKING_UP for request in call.requests)
    return names_others([one for _, one in call.asked])


class Waiting:
    """Calls in the order in which they came; no more than `max_waiting` requests wait at a time."""

    def __init__(self, max_batch: int, max_waiting: int) -> None:
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._calls: deque[Call | OnUsCall] = deque()
        self._requests = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    @property
    def first(self) -> Call | OnUsCall:
        """The next one."""
        return self._calls[0]

    def put(self, call: Call | OnUsCall, requests: int) -> None:
        """Let a call of so many requests wait. Raises Overloaded."""
        if self._requests + requests > self._max_waiting:
            raise Overloaded
        self._calls.append(call)
        self._requests += requests

    def put_back(self, work: Work) -> None:
        """What was taken last is the next again."""
        self._calls.extendleft(reversed(work.calls))
        self._requests += work.size

    def take(self) -> Work:
        """The next batch of an acquirer's calls; follow-ups are among themselves."""
        calls: list[Call] = []
        count = 0
        while self._calls:
            call = self._calls[0]
            if isinstance(call, OnUsCall):
                break
            if calls and count + len(call.asked) > self._max_batch:
                break
            if calls and must_follow(call) != must_follow(calls[0]):
                break
            self._calls.popleft()
            calls.append(call)
            count += len(call.asked)
        self._requests -= count
        return Work(calls, [one for call in calls for _, one in call.asked])

    def take_on_us(self) -> list[OnUsCall]:
        """The next calls on us that can share a batch: no two name one request."""
        calls: list[OnUsCall] = []
        count = 0
        seen: set[tuple[str, str, str, str]] = set()
        while self._calls:
            call = self._calls[0]
            if not isinstance(call, OnUsCall):
                break
            names = {(r.terminal_id, r.business_date, r.batch, r.stan) for r in call.requests}
            if calls and (count + len(names) > self._max_batch or not seen.isdisjoint(names)):
                break
            if calls and must_follow(call) != must_follow(calls[0]):
                break
            self._calls.popleft()
            calls.append(call)
            seen |= names
            count += len(call.requests)
        self._requests -= count
        return calls
