"""What an issuer's engine has under way: calls that wait, and the batch made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

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
