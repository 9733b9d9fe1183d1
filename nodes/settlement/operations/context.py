"""What settlement works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine

from nodes.chain.client import ChainClient
from nodes.chain.evidence import Evidence
from nodes.chain.settlements import SettlementRegistry
from nodes.chain.signer import OperatorSigner
from nodes.clock import Clock, to_datetime


@dataclass(frozen=True)
class SettlementContext:
    """One for each node."""

    engine: Engine
    member_id: str
    client: ChainClient
    registry: SettlementRegistry
    signer: OperatorSigner
    clock: Clock
    #: The anchored leaf of a transaction in this member's log; None if none is anchored.
    evidence: Callable[[bytes], Evidence | None]
    #: Propose and countersign without being ordered to.
    automatic: bool = True
    #: How long both have to sign, seconds.
    due_s: int = 7 * 86_400

    def now(self) -> datetime:
        """The moment, UTC."""
        return to_datetime(self.clock.now_ms())

    def deadline(self) -> datetime:
        """By when a proposal that is made now must have both signatures; whole seconds."""
        return self.now().replace(microsecond=0) + timedelta(seconds=self.due_s)
