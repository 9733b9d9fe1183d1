"""A console before two made-up institutions and a real chain, for the browser tests."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher

from console.app import create_app
from console.settings import ConsoleSettings
from nodes.anchoring.note import NoteSigner
from tests.browser.books import ACQUIRER, ISSUER, Books, Day
from tests.browser.fake_node import API_KEY, FakeNode, Server
from tests.factories.chain import ChainFixture, ed25519_public, start_chain

PASSWORD = "correct horse battery staple"
#: Cheap parameters: the tests are about what is done with the hash.
_HASHER = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)


@dataclass
class ConsoleNetwork:
    """Everything that a browser test talks to."""

    url: str
    nodes: dict[str, FakeNode]
    servers: dict[str, Server]
    chain: ChainFixture
    day: Day
    settings: ConsoleSettings
    now: datetime

    def node(self, member_id: str = ISSUER) -> FakeNode:
        return self.nodes[member_id]

    def anchored(self, member_id: str = ISSUER, outcome: str = "approved") -> dict[str, Any]:
        """A purchase with a proof."""
        node = self.nodes[member_id]
        return next(
            item
            for item in map(node.item, range(len(node.books.leaves)))
            if item["anchor_state"] == "ANCHORED"
            and item["outcome"] == outcome
            and item["kind"] == "purchase"
        )


def settings_for(
    nodes: list[dict[str, Any]], chain: ChainFixture, port: int, state_file: Path | None
) -> ConsoleSettings:
    """A console's settings with three people (`people`)."""
    return ConsoleSettings.model_validate(
        {
            "port": port,
            "secret": secrets.token_hex(32),
            "nodes": nodes,
            "users": people(),
            "rpc_url": chain.rpc_url,
            "anchor_registry": chain.anchor_registry,
            "member_registry": chain.member_registry,
            "state_file": state_file,
        }
    )


def people() -> list[dict[str, Any]]:
    """ada (admin, every institution), otto (operator of both), rita (reader of the acquirer)."""
    password = _HASHER.hash(PASSWORD)
    plans: tuple[tuple[str, str, list[str]], ...] = (
        ("ada", "admin", ["*"]),
        ("otto", "operator", [ISSUER, ACQUIRER]),
        ("rita", "reader", [ACQUIRER]),
    )
    return [
        {"username": name, "password_argon2": password, "role": role, "members": members}
        for name, role, members in plans
    ]


@contextmanager
def console_network(directory: Path, *, transactions: int = 420) -> Iterator[ConsoleNetwork]:
    """Start chain, two nodes with a morning's traffic, and the console before them."""
    chain = start_chain(directory)
    servers: dict[str, Server] = {}
    try:
        now = datetime.now(UTC)
        day = Day()
        nodes, members = _nodes(chain, day, now, transactions)
        entries = []
        for member in members:
            server = Server(nodes[member["member_id"]].app).start() if _ours(member) else None
            if server:
                servers[member["member_id"]] = server
                entries.append(
                    {
                        "member_id": member["member_id"],
                        "name": member["name"],
                        "roles": member["roles"],
                        "api_url": server.url,
                        "api_key": API_KEY,
                    }
                )
        settings = settings_for(entries, chain, 8080, directory / "console.sqlite")
        console = Server(create_app(settings)).start()
        servers["console"] = console
        yield ConsoleNetwork(console.url, nodes, servers, chain, day, settings, now)
    finally:
        for server in reversed(list(servers.values())):
            server.stop()
        chain.stop()


def _ours(member: dict[str, Any]) -> bool:
    return member["member_id"] in (ISSUER, ACQUIRER, "borealis")


def _nodes(
    chain: ChainFixture, day: Day, now: datetime, transactions: int
) -> tuple[dict[str, FakeNode], list[dict[str, Any]]]:
    plans: tuple[tuple[str, str, list[str], list[str], str], ...] = (
        (ISSUER, "Aurora Bank", ["issuer"], ["62230010"], "issuer"),
        (ACQUIRER, "Meridian Acquiring", ["acquirer"], [], "acquirer"),
        ("borealis", "Borealis Pay", ["issuer"], ["622400"], "issuer"),
        ("harbor", "Harbor Stores", ["merchant"], [], ""),
    )
    members: list[dict[str, Any]] = []
    books: dict[str, Books] = {}
    for member_id, name, roles, bins, side in plans:
        signer = NoteSigner(secrets.token_bytes(32))
        message = ed25519_public()
        operator = chain.add_member(
            member_id, name=name, roles=roles, bins=bins, note_key=signer.public_key,
            message_key=message,
        )  # fmt: skip
        members.append(
            {
                "member_id": member_id,
                "name": name,
                "roles": roles,
                "bins": bins,
                "api_url": "http://127.0.0.1:9",
                "operator": operator.address,
                "note_key": signer.public_key.hex(),
                "message_key": message.hex(),
                "active": True,
            }
        )
        if side:
            books[member_id] = Books(member_id, name, side, chain, operator, signer)
    traffic = day.traffic(now - timedelta(seconds=20), 64, transactions)
    for member_id in (ISSUER, ACQUIRER):
        _fill(books[member_id], traffic, now)
    nodes = {member_id: FakeNode(found, members, now) for member_id, found in books.items()}
    return nodes, members


def _fill(books: Books, traffic: list[Any], now: datetime) -> None:
    """Six anchored batches, one that waits, and a few rows that aren't sealed."""
    for entry in traffic:
        books.record(entry)
    share = (len(traffic) - 8) // 7
    for number in range(7):
        last = books.rows[min((number + 1) * share, len(traffic)) - 1]
        batch = books.seal(last.at + timedelta(seconds=1.2), count=share)
        if number < 6:
            books.anchor(batch, last.at + timedelta(seconds=1.6))
