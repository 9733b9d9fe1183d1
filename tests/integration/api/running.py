"""Two nodes' APIs served over real HTTP on real databases: an issuer's and an acquirer's."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from nodes.api.app import create_app
from nodes.api.client import NodeClient, NodePeer
from nodes.api.issuer_link import HttpIssuerLink
from nodes.api.server import NodeServer, server
from nodes.authorization.service import Authorizer
from nodes.chain.directory import Member
from nodes.chain.errors import ChainUnavailable
from nodes.clock import Clock, SystemClock
from nodes.crypto.emv import SoftwareEmvHsm
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.http_signatures import MessageSigner
from nodes.crypto.keystore import Keystore
from nodes.crypto.pan import PanVault
from nodes.settings import ApiKey, NodeSettings
from tests.conftest import Cluster
from tests.factories.network import ACQUIRER, BIN, EMV_KEYS, ISSUER, Network

T = TypeVar("T")

#: API key by role, the same at each node.
KEYS = {role: f"{role}-key-of-the-test" for role in ("reader", "operator", "admin")}
GATEWAY = "gateway:front"
MERCHANT_MEMBER = "harbor"
OUTSIDER = "mallory"
SEEDS = {
    name: hashlib.sha256(name.encode()).digest()
    for name in (ISSUER, ACQUIRER, MERCHANT_MEMBER, GATEWAY, OUTSIDER, "borealis")
}


def public(name: str) -> bytes:
    """The message key of a member, or of the gateway."""
    return Ed25519PrivateKey.from_private_bytes(SEEDS[name]).public_key().public_bytes_raw()


def signer(name: str, key_id: str | None = None) -> MessageSigner:
    """The signer of a member, or of the gateway."""
    return MessageSigner(key_id or name, SEEDS[name])


@dataclass
class StaticDirectory:
    """The members, as a Directory would know them."""

    known: dict[str, Member] = field(default_factory=dict)

    def add(self, member_id: str, role: str, api_url: str, *, active: bool = True) -> None:
        self.known[member_id] = Member(
            member_id=member_id,
            name=member_id.title(),
            roles=frozenset({role}),
            api_url=api_url,
            bins=(BIN,) if member_id == ISSUER else (),
            operator="0x" + "11" * 20,
            note_key=bytes(32),
            message_key=public(member_id),
            active=active,
        )

    def member(self, member_id: str) -> Member | None:
        return self.known.get(member_id)

    def members(self) -> tuple[Member, ...]:
        return tuple(self.known.values())


class StaticChain:
    """A chain that is there."""

    def chain_id(self) -> int:
        return 20_260

    def request(self, method: str, params: Sequence[object]) -> object:
        raise ChainUnavailable(f"{method} is not for this chain")


@dataclass
class NodeUnderTest:
    """What create_app wants."""

    settings: NodeSettings
    clock: Clock
    engine: Engine
    keystore: Keystore
    directory: StaticDirectory
    chain: StaticChain
    authorizer: Any
    vault: PanVault
    hsm_keys: dict[str, bytes]
    link: Any = None

    def make_hsm(self) -> SoftwareHsm:
        return SoftwareHsm(self.hsm_keys)

    def make_emv_hsm(self) -> SoftwareEmvHsm:
        return SoftwareEmvHsm(EMV_KEYS if "issuer" in self.settings.roles else {})

    def make_vault(self) -> PanVault:
        return self.vault


def settings_of(member_id: str, role: str, port: int, database: Any) -> NodeSettings:
    """A node's settings."""
    return NodeSettings(
        member_id=member_id,
        roles=[role],  # type: ignore[list-item]
        port=port,
        api_url=f"http://127.0.0.1:{port}",
        dsn=database.dsn,
        worker_dsn=database.worker_dsn,
        jobs_url="",
        rpc_url="http://127.0.0.1:1",
        member_registry="0x" + "aa" * 20,
        anchor_registry="0x" + "bb" * 20,
        keystore=Path("unused"),
        passphrase_file=Path("unused"),
        gateways={GATEWAY: public(GATEWAY).hex()} if role == "acquirer" else {},
        api_keys=[
            ApiKey(name=role_, role=role_, sha256=hashlib.sha256(key.encode()).hexdigest())  # type: ignore[arg-type]
            for role_, key in KEYS.items()
        ],
    )


@dataclass
class RunningNode:
    """A node under test and its server."""

    node: NodeUnderTest
    url: str
    server: NodeServer
    thread: threading.Thread

    def http(self, role: str | None = "admin", **more: Any) -> httpx.Client:
        """A plain HTTP client with the key of a role, or without any."""
        headers = {} if role is None else {"Authorization": f"Bearer {KEYS[role]}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=10, trust_env=False, **more)

    def client(self, name: str, **more: Any) -> NodeClient:
        """A signing client that takes only this node's answers."""
        peer = NodePeer(self.node.settings.member_id, public(self.node.settings.member_id))
        return NodeClient(self.url, signer=signer(name), peer=peer, **more)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()


def start(node: NodeUnderTest, listening: socket.socket, **more: Any) -> RunningNode:
    """Serve a node on a bound socket; returns once it answers."""
    front = create_app(node, **more)
    made = server(front, "127.0.0.1", node.settings.port)
    made.config.loop = "asyncio"
    thread = threading.Thread(target=made.run, args=([listening],), daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not made.started:
        assert time.monotonic() < deadline
        assert thread.is_alive()
        time.sleep(0.01)
    return RunningNode(node, node.settings.api_url, made, thread)


def listener() -> socket.socket:
    """A socket on a free port of the loopback."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", 0))
    return made


@dataclass
class TwoNodes:
    """Issuer and acquirer, and the business that the factory opened with them."""

    network: Network
    directory: StaticDirectory
    issuer: RunningNode
    acquirer: RunningNode


@contextmanager
def two_nodes(cluster: Cluster, **more: Any) -> Iterator[TwoNodes]:
    """Both nodes, served; the acquirer reaches the issuer over HTTP alone."""
    databases = cluster.new_database(), cluster.new_database()
    issuer_db, acquirer_db = databases
    # Signatures and deadlines between the nodes go by the machine's clock.
    network = Network(issuer_db, acquirer_db, clock=SystemClock())  # type: ignore[arg-type]
    directory = StaticDirectory()
    sockets = listener(), listener()
    running: list[RunningNode] = []
    link = HttpIssuerLink(directory, ACQUIRER, SEEDS[ACQUIRER])
    over_http = Authorizer(
        acquirer_db.dsn, ACQUIRER, link, make_issuer=None, make_acquirer=network.make_acquirer
    )
    assert network.link.issuer is not None
    parts: list[tuple[str, str, Any, Any]] = [
        (ISSUER, "issuer", issuer_db, network.link.issuer),
        (ACQUIRER, "acquirer", acquirer_db, over_http),
    ]
    for (member_id, role, database, authorizer), listening in zip(parts, sockets, strict=True):
        settings = settings_of(member_id, role, listening.getsockname()[1], database)
        directory.add(member_id, role, settings.api_url)
        node = NodeUnderTest(
            settings=settings,
            clock=network.clock,
            engine=database.engine,
            keystore=Keystore({"message": SEEDS[member_id], "note": bytes(32)}, "test"),
            directory=directory,
            chain=StaticChain(),
            authorizer=authorizer,
            vault=network.vault,
            hsm_keys=network._issuer_keys,
            link=link if role == "acquirer" else None,
        )
        running.append(start(node, listening, **more))
    directory.add(MERCHANT_MEMBER, "merchant", "http://127.0.0.1:1")
    try:
        yield TwoNodes(network, directory, *running)
    finally:
        for one in running:
            one.stop()
        over_http.close()
        network.close()
        for database in databases:
            cluster.drop(database)


def run(call: Coroutine[Any, Any, T]) -> T:
    """A coroutine from a test that isn't one."""
    return asyncio.run(call)
