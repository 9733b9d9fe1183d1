"""The network that a campaign works on: the sandbox's own, after real business days.

Its processes are then stopped, but for PostgreSQL and the chain: what an owner does to the books of
a member is done to the very database that the member's node has written.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psycopg

from nodes.anchoring.chain_view import TrustedChain
from nodes.anchoring.checkpoint import Origin
from nodes.anchoring.note import NoteSigner
from nodes.chain.anchors import Anchored
from nodes.chain.client import ChainClient
from nodes.chain.errors import ChainError
from nodes.chain.signer import LocalSigner
from nodes.reconciliation.ledger_check import read_anchors
from sandbox.launcher import Running, running
from sandbox.network import ACQUIRER, MEMBERS, MERCHANT, DemoDirectory, State
from sandbox.postgres import EmbeddedPostgres, die_with_parent
from sandbox.traffic import BusinessDay

Say = Callable[[str], None]
#: A day's last row must be anchored within this time.
_ANCHORED_WITHIN_S = 240.0


class SceneError(RuntimeError):
    """The network can't be made, or its days didn't go as they should."""


@dataclass(frozen=True)
class Ticket:
    """Where a scene is, for other processes."""

    path: Path
    state: State
    port: int
    rpc_url: str

    def scene(self) -> Scene:
        """The scene; whoever made it keeps it up."""
        demo = DemoDirectory(self.path)
        return Scene(
            demo, self.state, EmbeddedPostgres(demo.postgres, port=self.port), self.rpc_url
        )


@dataclass
class Scene:
    """Databases and chain of a network whose nodes have stopped."""

    directory: DemoDirectory
    state: State
    postgres: EmbeddedPostgres
    rpc_url: str

    def ticket(self) -> Ticket:
        """What another process needs to work on the same scene."""
        return Ticket(self.directory.path, self.state, self.postgres.port, self.rpc_url)

    @cached_property
    def client(self) -> ChainClient:
        """A client of the network's chain."""
        return ChainClient(self.rpc_url, timeout_s=30.0)

    @property
    def anchor_registry(self) -> str:
        """The AnchorRegistry's address."""
        return self.state.contracts["AnchorRegistry"]

    @cached_property
    def view(self) -> TrustedChain:
        """What verifiers ask."""
        return TrustedChain(
            self.client, self.anchor_registry, self.state.contracts["OmissionRegistry"]
        )

    def origin(self, member_id: str) -> Origin:
        """The origin of a member's log."""
        return Origin(self.state.chain_id, self.anchor_registry.lower(), member_id)

    def anchors(self, member_id: str) -> dict[int, Anchored]:
        """A member's anchors as the chain has them now."""
        return read_anchors(self.view.registry, member_id)

    def secret(self, owner: str, name: str) -> bytes:
        """A key of a member, of governance or of the arbiters."""
        return self.directory.keystore(owner).secret(name)

    def operator(self, member_id: str) -> LocalSigner:
        """A member's chain key."""
        return LocalSigner(self.secret(member_id, "operator"))

    def note_signer(self, member_id: str) -> NoteSigner:
        """A member's note key."""
        return NoteSigner(self.secret(member_id, "note"))

    def copy(self, member_id: str, name: str) -> str:
        """A new database with a member's books as they were; its superuser's DSN."""
        with psycopg.connect(self.postgres.superuser_dsn(), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{member_id}"')
        return self.postgres.superuser_dsn(name)

    def drop(self, name: str) -> None:
        """Delete such a copy."""
        with psycopg.connect(self.postgres.superuser_dsn(), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@contextmanager
def played(path: Path, say: Say, *, days: int) -> Iterator[Scene]:
    """A network founded in `path` after `days` business days, everything anchored, nodes stopped.

    Raises SceneError and the errors of sandbox.launcher. `path` keeps what was made.
    """
    play(path, say, days=days)
    say("Starting PostgreSQL and the chain alone")
    with reopened(path) as scene:
        yield scene


def play(path: Path, say: Say, *, days: int) -> None:
    """Found a network in `path`, play its days, and stop it."""
    demo = DemoDirectory(path)
    with (
        demo.locked(fresh=True) as state,
        running(demo, state, say, console=False) as network,
    ):
        for number in range(1, days + 1):
            say(f"Playing business day {number} of {days}")
            day = asyncio.run(BusinessDay(demo, state, lambda step: None).play())
            lost = [step for step in day.steps if not step.held]
            if lost:
                raise SceneError(f"{lost[0].label}: {lost[0].note}")
            await_anchored(network)


@contextmanager
def reopened(path: Path) -> Iterator[Scene]:
    """PostgreSQL and the chain of a network that was played in `path`."""
    demo = DemoDirectory(path)
    with demo.locked() as state:
        postgres = EmbeddedPostgres(demo.postgres)
        postgres.start()
        try:
            with _chain(demo, state) as rpc_url:
                yield Scene(demo, state, postgres, rpc_url)
        finally:
            postgres.stop()


def await_anchored(network: Running) -> None:
    """Until the merchant's node has its acquirer's feed, every row and event of every member is
    sealed, and every batch anchored."""
    deadline = time.monotonic() + _ANCHORED_WITHIN_S
    pause = 0.3
    while not (_fed(network) and all(_quiet(network, m.member_id) for m in MEMBERS)):
        if time.monotonic() > deadline:
            raise SceneError("the members haven't anchored their logs in time")
        time.sleep(pause)


def _fed(network: Running) -> bool:
    """Whether the merchant's own node has recorded what its acquirer has."""
    own = [m.merchant_id for m in network.network.directory.plan.merchants if m.member_id]
    counts = []
    for member, side in ((ACQUIRER, "acquirer"), (MERCHANT, "merchant")):
        with psycopg.connect(network.network.dsn(member, "worker")) as connection:
            counts.append(
                connection.execute(
                    "SELECT count(*) FROM transactions WHERE side = %s AND merchant_id = ANY(%s)",
                    (side, own),
                ).fetchone()
            )
    return counts[0] == counts[1]


def _quiet(network: Running, member_id: str) -> bool:
    with psycopg.connect(network.network.dsn(member_id, "worker")) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM transactions AS t WHERE NOT EXISTS (SELECT FROM"
            " log_leaves AS l WHERE l.transaction_id = t.transaction_id))"
            " + (SELECT count(*) FROM events AS e WHERE NOT EXISTS (SELECT FROM log_leaves AS l"
            " WHERE l.transaction_id = -e.event_id))"
            " + (SELECT count(*) FROM batches AS b LEFT JOIN anchor_submissions AS a USING (seq)"
            " WHERE a.state IS DISTINCT FROM 'ANCHORED')"
        ).fetchone()
    return row == (0,)


@contextmanager
def _chain(demo: DemoDirectory, state: State) -> Iterator[str]:
    rpc_url = f"http://127.0.0.1:{state.ports['chain']}"
    with (demo.log / "chain-again.log").open("ab") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "nodes.chain.embedded"),
                *("--data", str(demo.chain / "data"), "--port", str(state.ports["chain"])),
                *("--genesis", str(demo.chain / "genesis.json"), "--log-level", "warning"),
            ],
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent(15),
        )
    try:
        deadline, client = time.monotonic() + 60, ChainClient(rpc_url)
        while True:
            try:
                client.chain_id()
                break
            except ChainError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SceneError("the chain does not start again") from None
                time.sleep(0.1)
        yield rpc_url
    finally:
        process.terminate()
        process.wait(20)
