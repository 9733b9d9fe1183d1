"""A member with a database and a place on a real chain: what sealing and anchoring work with."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import dataclass

from nodes.anchoring.model import Batch, LogIdentity
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.operations import AnchorContext, confirm, publish, seal
from nodes.chain.anchors import AnchorRegistry
from nodes.clock import FixedClock
from tests.conftest import NodeDatabase
from tests.factories.chain import ChainFixture
from tests.factories.ledger import START_MS

_numbers = itertools.count(1)


@dataclass
class LogMember:
    """One member; ids are new for each, since a chain outlives a test's database."""

    database: NodeDatabase
    chain: ChainFixture
    context: AnchorContext
    signer: NoteSigner
    clock: FixedClock

    @property
    def member_id(self) -> str:
        return self.context.identity.member_id

    def seal(self, limit: int = 4_000) -> Batch | None:
        self.clock.advance(1_000)
        return seal(
            self.database.engine, self.context.identity, self.signer, self.clock, limit=limit
        )

    def anchor_all(self) -> int:
        """Seal what is there, publish and confirm; how many batches were anchored."""
        while self.seal():
            pass
        return self.settle()

    def settle(self) -> int:
        """Publish and confirm until nothing waits."""
        total = 0
        for _ in range(100):
            sent = publish(self.context)
            done = confirm(self.context)
            total += done
            if not sent and not done:
                break
        return total


def make_member(
    database: NodeDatabase, chain: ChainFixture, roles: tuple[str, ...], *, member_id: str = ""
) -> LogMember:
    """Register a new member on the chain and give it the database."""
    member_id = member_id or f"member-{next(_numbers)}-{secrets.token_hex(3)}"
    signer = NoteSigner(secrets.token_bytes(32))
    operator = chain.add_member(member_id, roles=roles, note_key=signer.public_key)
    client = chain.client()
    clock = FixedClock(START_MS)
    context = AnchorContext(
        engine=database.engine,
        identity=LogIdentity(member_id, chain.chain_id, chain.anchor_registry),
        client=client,
        registry=AnchorRegistry(client, chain.anchor_registry),
        signer=operator,
        clock=clock,
    )
    return LogMember(database, chain, context, signer, clock)
