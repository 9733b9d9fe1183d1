"""Two institutions with real databases, served over real HTTP, on a real chain; and their days."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, cast

import msgspec
import psycopg

from nodes.authorization.model import Kind, Outcome
from nodes.authorization.store.answers import insert_shares
from nodes.bootstrap import Node
from nodes.chain.client import ChainClient
from nodes.chain.closes import CloseRegistry, CloseRound
from nodes.chain.deploy import Terms
from nodes.chain.signer import Signer
from nodes.clearing import case_queries, queries
from nodes.clearing.model import CloseStage, DayKey
from nodes.clearing.operations.posting import chain_key
from nodes.crypto.answer_signature import AnswerSigner, sign_answers
from nodes.crypto.commitment import SharedFacts, shared_commitment
from nodes.crypto.keystore import Keystore
from nodes.crypto.pan import PanVault
from nodes.day_jobs import DayJobs
from nodes.db.engine import transaction
from nodes.db.writes import Writes, execute
from nodes.ledger.model import TransactionRecord
from nodes.ledger.store import record_transactions
from tests.conftest import Cluster, NodeDatabase
from tests.factories.chain import ChainFixture, start_chain
from tests.factories.ledger import ACQUIRER, ISSUER, LedgerFactory
from tests.integration.api.running import (
    SEEDS,
    NodeUnderTest,
    RunningNode,
    StaticChain,
    StaticDirectory,
    listener,
    public,
    settings_of,
    start,
)

DAY = date(2026, 9, 22)
KEY = DayKey(ACQUIRER, ISSUER, "CNY", DAY)


class MovableClock:
    """The machine's clock, and as far ahead of it as a test wants."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms


@dataclass
class JobNode:
    """What the jobs need of a node."""

    settings: Any
    member_id: str
    keystore: Keystore
    engine: Any
    chain: ChainClient
    signer: Signer
    clock: MovableClock
    directory: StaticDirectory


@dataclass
class Institution:
    """One of the two, with its ledger factory, its served API and its jobs."""

    member_id: str
    database: NodeDatabase
    books: LedgerFactory
    api: RunningNode
    jobs: DayJobs
    node: JobNode

    def write(self, *records: TransactionRecord) -> None:
        """Record transactions; an acquirer's with the issuer's signatures over them."""
        with transaction(self.database.engine) as connection:
            record_transactions(connection, records)
            if self.member_id == ACQUIRER:
                writes = Writes()
                numbered = [record for record in records if record.pair_seq > 0]
                signed = [(r.txid, r.commitment, r.pair_seq) for r in numbered]
                shares = sign_answers(AnswerSigner(SEEDS[ISSUER]), signed)
                numbers = [record.transaction_id for record in numbered]
                insert_shares(writes, list(zip(numbers, shares, strict=True)))
                execute(connection, writes)

    def stage(self, revision: int = 0, key: DayKey = KEY) -> CloseStage | None:
        with transaction(self.database.engine) as connection:
            staged = queries.close_of(connection, key, revision)
        return staged.stage if staged else None

    def cases(self, close_id: int | None = None) -> list[case_queries.CaseFile]:
        with transaction(self.database.engine) as connection:
            return case_queries.case_files(connection, close_id=close_id, detail=True)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database.owner_dsn) as connection:
            return connection.execute(query).fetchall()


@dataclass
class Pair:
    """Both, and the chain between them."""

    acquirer: Institution
    issuer: Institution
    chain: ChainFixture
    clock: MovableClock

    def both(self, count: int, **changes: Any) -> list[tuple[TransactionRecord, TransactionRecord]]:
        """Transactions that stand alike in both books."""
        pairs = [self.pair(**changes) for _ in range(count)]
        self.acquirer.write(*(mine for mine, _ in pairs))
        self.issuer.write(*(theirs for _, theirs in pairs))
        return pairs

    def pair(self, **changes: Any) -> tuple[TransactionRecord, TransactionRecord]:
        """A transaction as each of the two would write it; nothing is written."""
        mine = resealed(self.acquirer.books.record(), **changes)
        theirs = resealed(self.issuer.books.record(), **changes)
        assert (mine.txid, mine.commitment) == (theirs.txid, theirs.commitment)
        return mine, theirs

    def round(self, revision: int = 0, key: DayKey = KEY) -> CloseRound:
        registry = CloseRegistry(self.chain.client(), self.chain.close_registry)
        return registry.round(chain_key(key), revision)

    def work(self, rings: int = 12) -> None:
        """Ring every bell of both workers in turn until nothing is left to do."""
        for _ in range(rings):
            done = 0
            for one in (self.acquirer, self.issuer):
                done += one.jobs.close() + one.jobs.post() + one.jobs.reconcile()
                done += one.jobs.settle()
            if not done:
                return
        raise AssertionError(f"still at work after {rings} rings")


def resealed(record: TransactionRecord, **changes: Any) -> TransactionRecord:
    """The record with other values, and the C that they lead to."""
    changed = msgspec.structs.replace(record, **changes)
    facts = SharedFacts(
        changed.amount,
        changed.currency.encode(),
        Kind(changed.kind).word,
        changed.transmitted_ms,
        changed.merchant_id.encode(),
        Outcome(changed.outcome).word,
        changed.original_txid or b"",
        changed.card_token or b"",
    )
    commitment = shared_commitment(changed.txid, facts, changed.salt_fin, changed.salt_pii or b"")
    return msgspec.structs.replace(changed, commitment=commitment)


@contextmanager
def institutions(
    cluster: Cluster, directory: Path, *, terms: Terms | None = None, **changes: Any
) -> Iterator[Pair]:
    """Two institutions that share nothing but the chain and the node API. `changes`: of their
    settings; they make statements of their closes only with `settles=True` among them."""
    chain = start_chain(directory, terms=terms)
    if changes.pop("settles", False):
        changes["settlement_registry"] = chain.settlement_registry
    databases = cluster.new_database(), cluster.new_database()
    members, clock, runner = StaticDirectory(), MovableClock(), asyncio.Runner()
    made: list[Institution] = []
    try:
        for (member_id, role), database in zip(
            [(ACQUIRER, "acquirer"), (ISSUER, "issuer")], databases, strict=True
        ):
            made.append(
                _institution(member_id, role, database, chain, members, clock, runner, changes)
            )
        yield Pair(made[0], made[1], chain, clock)
    finally:
        for one in made:
            one.api.stop()
        runner.close()
        for database in databases:
            cluster.drop(database)
        chain.stop()


def _institution(
    member_id: str,
    role: str,
    database: NodeDatabase,
    chain: ChainFixture,
    members: StaticDirectory,
    clock: MovableClock,
    runner: asyncio.Runner,
    changes: dict[str, Any],
) -> Institution:
    listening: socket.socket = listener()
    settings = settings_of(member_id, role, listening.getsockname()[1], database)
    settings = settings.model_copy(
        update={
            "close_registry": chain.close_registry,
            "rpc_url": chain.rpc_url,
        }
        | changes
    )
    members.add(member_id, role, settings.api_url)
    operator = chain.add_member(member_id, roles=(role,), message_key=public(member_id))
    keystore = Keystore({"message": SEEDS[member_id], "note": bytes(32)}, "test")
    served = NodeUnderTest(
        settings=settings,
        clock=cast(Any, clock),
        engine=database.engine,
        keystore=keystore,
        directory=members,
        chain=StaticChain(),
        authorizer=None,
        vault=PanVault(bytes(32), bytes(32)),
        hsm_keys={},
    )
    node = JobNode(
        settings, member_id, keystore, database.engine, chain.client(), operator, clock, members
    )
    return Institution(
        member_id,
        database,
        LedgerFactory(database.engine, cast(Any, role)),
        start(served, listening),
        DayJobs(cast(Node, node), runner),
        node,
    )
