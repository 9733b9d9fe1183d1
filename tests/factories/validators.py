"""Networks of real validators for tests: sandbox.validators with the contracts deployed.

Tests that need one are skipped where the engine hasn't been built: `make validators-engine`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nodes.anchoring import queries
from nodes.anchoring.model import Submission
from nodes.anchoring.operations import confirm, publish
from nodes.anchoring.store import transaction
from nodes.chain.anchors import AnchorRegistry
from nodes.chain.client import ChainClient
from nodes.chain.errors import ChainError
from nodes.chain.signer import LocalSigner
from sandbox.validators import engine
from sandbox.validators.network import ValidatorNetwork
from tests.conftest import NodeDatabase
from tests.factories.chain import ChainFixture, deploy_on
from tests.factories.evidence import LogMember, make_member
from tests.factories.ledger import LedgerFactory

ENGINES = Path(__file__).parents[2] / engine.ENGINES
Anchors = list[tuple[int, int, bytes]]


@dataclass
class Validators:
    """A network that makes blocks, and the contracts on it."""

    network: ValidatorNetwork
    chain: ChainFixture

    def client(self, index: int, finality_depth: int = 0) -> ChainClient:
        """A client of one validator; anchors are final after N/2 + 1 blocks unless told."""
        depth = finality_depth or self.network.finality_depth
        return ChainClient(self.network.rpc_urls[index], finality_depth=depth, timeout_s=2)

    def registry(self, index: int) -> AnchorRegistry:
        """The anchors as one validator tells of them."""
        return AnchorRegistry(self.client(index), self.chain.anchor_registry)

    def member(self, database: NodeDatabase, index: int, member_id: str = "") -> ValidatorMember:
        """A new member whose node asks one validator."""
        made = make_member(database, self.chain, ("acquirer",), member_id=member_id)
        return ValidatorMember(
            self, self.moved(made, index), LedgerFactory(database.engine, "acquirer")
        )

    def moved(self, member: LogMember, index: int) -> LogMember:
        """The member, its node asking another validator."""
        client = self.client(index)
        registry = AnchorRegistry(client, self.chain.anchor_registry)
        return replace(member, context=replace(member.context, client=client, registry=registry))

    def agree(self, *indexes: int) -> bool:
        """Whether these validators have the same block at the lowest of their heights."""
        clients = [self.client(index) for index in indexes]
        lowest = min(client.block_number() for client in clients)
        return len({client.block(lowest).hash for client in clients}) == 1


@dataclass
class ValidatorMember:
    """A member and its node's jobs, as the worker runs them: again and again."""

    validators: Validators
    log: LogMember
    books: LedgerFactory

    def seal(self, rows: int = 1) -> int:
        """Seals so many new rows; the batch's number."""
        self.books.add(rows)
        batch = self.log.seal()
        assert batch is not None
        return batch.seq

    def work(self) -> None:
        """One ring of publish and of confirm; outages wait for the next one."""
        for job in (publish, confirm):
            try:
                job(self.log.context)
            except ChainError:
                return

    def work_until(self, holds: Callable[[], bool], timeout_s: float = 60.0) -> float:
        """Works until something holds; the seconds that it took."""
        started = time.monotonic()
        while True:
            self.work()
            if holds():
                return time.monotonic() - started
            assert time.monotonic() - started < timeout_s, "the time is over"
            time.sleep(0.1)

    def drain(self, timeout_s: float = 60.0) -> float:
        """Works until every sealed batch is anchored for good; the seconds that it took."""
        return self.work_until(lambda: self.anchored_seq() == self.sealed()[-1][0], timeout_s)

    def anchored_seq(self) -> int:
        """The last batch that this database holds for final."""
        with transaction(self.log.database.engine) as connection:
            return queries.last_anchored_seq(connection)

    def submission(self, seq: int) -> Submission:
        """What was signed for a batch."""
        with transaction(self.log.database.engine) as connection:
            found = queries.submission(connection, seq)
        assert found is not None
        return found

    def sealed(self) -> Anchors:
        """The batches of the database."""
        with transaction(self.log.database.engine) as connection:
            return [(b.seq, b.size, b.root) for b in queries.batches(connection, 1, 1_000)]

    def head_seq(self, index: int) -> int:
        """The number of the newest anchor, as one validator tells of it."""
        head = self.validators.registry(index).head(self.log.member_id)
        return head.seq if head else 0

    def anchors(self, index: int) -> Anchors:
        """The anchors' events, as one validator tells of them."""
        events = self.validators.registry(index).anchors_since(0, member_id=self.log.member_id)
        return [(event.seq, event.size, event.root) for event in events]


@contextmanager
def running_validators(directory: Path, count: int = 4) -> Iterator[Validators]:
    """A network with the contracts on it; skips the test where the engine isn't there."""
    try:
        program = engine.built(ENGINES)
    except engine.EngineUnavailable as reason:
        pytest.skip(str(reason))
    with ValidatorNetwork(directory, program, count=count) as network:
        deployer = LocalSigner(network.deployer_key)
        url, depth = network.rpc_urls[0], network.finality_depth
        yield Validators(network, deploy_on(url, deployer, finality_depth=depth))


def wait_until(holds: Callable[[], bool], timeout_s: float = 30.0) -> float:
    """Asks until something holds; the seconds that it took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < timeout_s, "the time is over"
        time.sleep(0.05)
    return time.monotonic() - started
