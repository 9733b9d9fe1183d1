"""The authorization service of one node: batches in, answers out, whatever its roles."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from nodes.authorization.batching import Batcher, Connection, LedgerUnavailable
from nodes.authorization.engine import AcquirerMemory, AcquiringEngine, IssuingEngine
from nodes.authorization.model import (
    AuthorizationAnswer,
    AuthorizationRequest,
    Outcome,
    TerminalAnswer,
    TerminalRequest,
)
from nodes.authorization.operations.accepting import Acquirer, open_batch
from nodes.authorization.operations.deciding import Issuer
from nodes.authorization.operations.pending import Closing, Forward
from nodes.authorization.operations.recording import close_batch
from nodes.authorization.services import ServiceAnswer, ServiceRequest
from nodes.authorization.terminal_services import TerminalServices

T = TypeVar("T")

#: How long an issuer is asked (reliability.md, Service levels: issuer time-out 2 s, then 91).
ISSUER_PATIENCE_MS = 2_000


class IssuerUnreachable(Exception):
    """No answer of an issuer came before the deadline; whether it decided isn't known."""


class NotThisRole(Exception):
    """The node hasn't the role that was asked of it."""


class IssuerLink(Protocol):
    """The way to other issuers' nodes."""

    async def authorize(
        self, issuer: str, requests: list[AuthorizationRequest], deadline_ms: int
    ) -> list[AuthorizationAnswer]:
        """One answer a request, in order; IssuerUnreachable if none came by the deadline."""
        ...


class Authorizer:
    """Merges concurrent calls into batches and runs them as issuer, as acquirer, or both.

    `make_acquirer` gives an instance for each working thread; None where the node hasn't that
    role, as with `make_issuer`.
    """

    def __init__(
        self,
        dsn: str,
        member_id: str,
        link: IssuerLink,
        *,
        make_issuer: Callable[[], Issuer] | None,
        make_acquirer: Callable[[], Acquirer] | None,
    ) -> None:
        self._member_id = member_id
        self._link = link
        self._issuing: IssuingEngine | None = None
        self._route: Callable[[str], str | None] = lambda pan: None
        # Of the event loop; threads have their own.
        acquirer = make_acquirer() if make_acquirer is not None else None
        self._clock = acquirer.clock if acquirer is not None else None
        memory = AcquirerMemory()
        if make_issuer is not None:
            self._issuing = IssuingEngine(
                dsn,
                make_issuer(),
                acquirer=acquirer,
                careful_acquirer=make_acquirer() if make_acquirer is not None else None,
                memory=memory,
            )
            if acquirer is not None:
                self._route = acquirer.route
        self._acquiring: AcquiringEngine | None = None
        self._services: TerminalServices | None = None
        if make_acquirer is not None and acquirer is not None:
            acquirers = _PerThread(make_acquirer)
            opening: Batcher[TerminalRequest, TerminalAnswer | Forward] = Batcher(
                dsn,
                lambda c, items: _open_in_waves(c, acquirers.get(), items),
                _failed_request,
                name="opening",
            )
            closing: Batcher[Closing, TerminalAnswer] = Batcher(
                dsn,
                lambda c, items: close_batch(c, acquirers.get(), items),
                _failed_closing,
                name="closing",
                # The issuer has decided: to refuse these for overload would be untrue.
                max_waiting=None,
            )
            self._acquiring = AcquiringEngine(
                dsn, acquirer, memory, opening=opening, closing=closing
            )
            self._services = TerminalServices(dsn, make_acquirer(), self.accept)

    async def authorize(
        self, requests: Sequence[AuthorizationRequest]
    ) -> list[AuthorizationAnswer]:
        """The issuer's answers. Raises NotThisRole, Overloaded or LedgerUnavailable."""
        if self._issuing is None:
            raise NotThisRole("issuer")
        return await self._issuing.submit(requests)

    async def accept(self, requests: Sequence[TerminalRequest]) -> list[TerminalAnswer]:
        """What the acquirer's terminals are told. Raises NotThisRole, Overloaded,
        LedgerUnavailable (ask again with the same keys).
        """
        if self._acquiring is None:
            raise NotThisRole("acquirer")
        own = [r for r in requests if self._is_on_us(r)]
        if not own:
            return await self._accept_others(requests)
        others = [r for r in requests if not self._is_on_us(r)]
        here, there = await asyncio.gather(self._accept_own(own), self._accept_others(others))
        told_here, told_there = iter(here), iter(there)
        return [next(told_here) if self._is_on_us(r) else next(told_there) for r in requests]

    async def serve(self, requests: Sequence[ServiceRequest]) -> list[ServiceAnswer]:
        """What terminals are told that asked for something beside payments. Raises NotThisRole,
        LedgerUnavailable (ask again with the same keys).
        """
        if self._services is None:
            raise NotThisRole("acquirer")
        return await self._services.serve(requests)

    def _is_on_us(self, request: TerminalRequest) -> bool:
        return self._route(request.pan) == self._member_id

    async def _accept_own(self, requests: Sequence[TerminalRequest]) -> list[TerminalAnswer]:
        """The card's issuer is this very node: one commit for both sides."""
        if self._issuing is None:
            raise NotThisRole("issuer")
        results: dict[int, TerminalAnswer] = {}
        for wave in _waves(requests):
            answers = await self._issuing.submit_on_us([requests[place] for place in wave])
            results.update(zip(wave, answers, strict=True))
        return [results[place] for place in range(len(requests))]

    async def _accept_others(self, requests: Sequence[TerminalRequest]) -> list[TerminalAnswer]:
        if self._acquiring is None:
            raise NotThisRole("acquirer")
        opened = await self._acquiring.open(requests)
        forwards: dict[str, list[Forward]] = defaultdict(list)
        for result in opened:
            if isinstance(result, Forward):
                forwards[result.request.issuer].append(result)
        told: dict[bytes, TerminalAnswer] = {}
        done = await asyncio.gather(
            *(self._ask(issuer, asked) for issuer, asked in forwards.items())
        )
        for answers in done:
            told.update(answers)
        return [told[r.key] if isinstance(r, Forward) else r for r in opened]

    async def _ask(self, issuer: str, asked: list[Forward]) -> dict[bytes, TerminalAnswer]:
        """Send a batch to its issuer and close it with what comes back."""
        if self._acquiring is None:
            raise NotThisRole("acquirer")
        requests = [forward.request for forward in asked]
        answers: Sequence[AuthorizationAnswer | None]
        try:
            if issuer == self._member_id:
                answers = await self.authorize(requests)
            else:
                deadline = min(request.deadline_ms for request in requests)
                if self._clock is not None:
                    # An issuer that is down or late: the terminal hears 91 in time.
                    deadline = min(deadline, self._clock.now_ms() + ISSUER_PATIENCE_MS)
                answers = await self._link.authorize(issuer, requests, deadline)
        except (IssuerUnreachable, LedgerUnavailable, NotThisRole):
            answers = [None] * len(asked)
        closings = [
            Closing(forward, answer) for forward, answer in zip(asked, answers, strict=True)
        ]
        told = await self._acquiring.close_requests(closings)
        return {forward.key: answer for forward, answer in zip(asked, told, strict=True)}

    def close(self) -> None:
        """Let running batches end."""
        for part in (self._issuing, self._acquiring, self._services):
            if part is not None:
                part.close()


def _failed_request(request: TerminalRequest) -> TerminalAnswer:
    return TerminalAnswer(outcome=Outcome.SYSTEM_ERROR, rrn="0" * 12, currency=request.currency)


def _failed_closing(closing: Closing) -> TerminalAnswer:
    # The request stays pending, so the recovery reverses it: what the terminal is told is true.
    request = closing.pending.request
    return TerminalAnswer(
        outcome=Outcome.SYSTEM_ERROR, rrn=request.rrn, currency=request.currency, txid=request.txid
    )


def _open_in_waves(
    connection: Connection, acquirer: Acquirer, requests: Sequence[TerminalRequest]
) -> list[TerminalAnswer | Forward]:
    """open_batch for any requests: those of one (terminal, date, batch, STAN) one after another."""
    results: dict[int, TerminalAnswer | Forward] = {}
    for wave in _waves(requests):
        opened = open_batch(connection, acquirer, [requests[place] for place in wave])
        results.update(zip(wave, opened, strict=True))
    return [results[place] for place in range(len(requests))]


def _waves(requests: Sequence[TerminalRequest]) -> Iterator[list[int]]:
    """Places of requests such that no wave has two of one (terminal, date, batch, STAN)."""
    waiting = list(range(len(requests)))
    while waiting:
        taken: list[int] = []
        later: list[int] = []
        seen: set[tuple[str, str, str, str]] = set()
        for place in waiting:
            r = requests[place]
            name = (r.terminal_id, r.business_date, r.batch, r.stan)
            (later if name in seen else taken).append(place)
            seen.add(name)
        yield taken
        waiting = later


class _PerThread(Generic[T]):
    """One instance a thread: what holds caches and key schedules isn't shared."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._local = threading.local()

    def get(self) -> T:
        instance: T | None = getattr(self._local, "instance", None)
        if instance is None:
            instance = self._local.instance = self._make()
        return instance
