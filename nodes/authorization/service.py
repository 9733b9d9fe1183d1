"""The authorization service of one node: batches in, answers out, whatever its roles."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from nodes.authorization.batching import Batcher, Connection, LedgerUnavailable
from nodes.authorization.model import (
    AuthorizationAnswer,
    AuthorizationRequest,
    Outcome,
    TerminalAnswer,
    TerminalRequest,
)
from nodes.authorization.operations.accepting import Acquirer, Forward, open_batch
from nodes.authorization.operations.issuing import Issuer, authorize_batch, unrecorded
from nodes.authorization.operations.recording import Closing, close_batch

T = TypeVar("T")


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

    `make_issuer` and `make_acquirer` give an instance for each working thread; None where the
    node hasn't that role.
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
        self._issuing: Batcher[AuthorizationRequest, AuthorizationAnswer] | None = None
        self._opening: Batcher[TerminalRequest, TerminalAnswer | Forward] | None = None
        self._closing: Batcher[Closing, TerminalAnswer] | None = None
        if make_issuer is not None:
            issuers = _PerThread(make_issuer)
            self._issuing = Batcher(
                dsn,
                lambda c, items: authorize_batch(c, issuers.get(), items),
                _failed_authorization,
                name="issuing",
            )
        if make_acquirer is not None:
            acquirers = _PerThread(make_acquirer)
            self._opening = Batcher(
                dsn,
                lambda c, items: _open_in_waves(c, acquirers.get(), items),
                _failed_request,
                name="opening",
            )
            self._closing = Batcher(
                dsn,
                lambda c, items: close_batch(c, acquirers.get(), items),
                _failed_closing,
                name="closing",
                # The issuer has decided: to refuse these for overload would be untrue.
                max_waiting=None,
            )

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
        if self._opening is None or self._closing is None:
            raise NotThisRole("acquirer")
        opened = await self._opening.submit(requests)
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
        if self._closing is None:
            raise NotThisRole("acquirer")
        requests = [forward.request for forward in asked]
        answers: Sequence[AuthorizationAnswer | None]
        try:
            if issuer == self._member_id:
                answers = await self.authorize(requests)
            else:
                deadline = min(request.deadline_ms for request in requests)
                answers = await self._link.authorize(issuer, requests, deadline)
        except (IssuerUnreachable, LedgerUnavailable, NotThisRole):
            answers = [None] * len(asked)
        closings = [
            Closing(forward.key, forward.pending, answer)
            for forward, answer in zip(asked, answers, strict=True)
        ]
        told = await self._closing.submit(closings)
        return {forward.key: answer for forward, answer in zip(asked, told, strict=True)}

    def close(self) -> None:
        """Let running batches end."""
        for batcher in (self._issuing, self._opening, self._closing):
            if batcher is not None:
                batcher.close()


def _failed_authorization(request: AuthorizationRequest) -> AuthorizationAnswer:
    return unrecorded(request, Outcome.SYSTEM_ERROR, 0)


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
    waiting = list(range(len(requests)))
    while waiting:
        taken: list[int] = []
        seen: set[tuple[str, str, str, str]] = set()
        later: list[int] = []
        for position in waiting:
            r = requests[position]
            name = (r.terminal_id, r.business_date, r.batch, r.stan)
            (later if name in seen else taken).append(position)
            seen.add(name)
        opened = open_batch(connection, acquirer, [requests[p] for p in taken])
        results.update(zip(taken, opened, strict=True))
        waiting = later
    return [results[position] for position in range(len(requests))]


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
