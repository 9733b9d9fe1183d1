"""A member that has given receipts: its real node with a real log, the part of its gateway that
prints them, and a console before both."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from console.app import create_app
from console.settings import ConsoleSettings
from gateway.http.receipts import ReceiptService
from gateway.http.status import StatusServer
from gateway.metrics import Metrics
from nodes.anchoring.operations.promising import promise_transaction
from nodes.anchoring.receipt import Promise
from nodes.chain.challenges import OmissionRegistry
from nodes.chain.deploy import Terms
from nodes.ledger.model import TransactionRecord
from tests.browser.fake_node import Server
from tests.browser.fleet import Loop
from tests.browser.network import people
from tests.conftest import Cluster
from tests.factories.chain import start_chain
from tests.factories.evidence import LogMember, make_member
from tests.factories.ledger import ACQUIRER, LedgerFactory
from tests.factories.receipts import Promising, make_promising
from tests.integration.api.running import KEYS, RunningNode
from tests.integration.api.served_log import served

#: By name of a receipt, how its promise stands (record_wording.RECEIPT_STATES).
STATES = {
    "kept": "anchored",
    "waiting": "promised",
    "sealed": "sealed",
    "overdue": "overdue",
    "claimed": "claimed",
    "silent": "none",
}


@dataclass
class Receipts:
    """The console, the node behind it, and receipts by name."""

    url: str
    member: LogMember
    node: RunningNode
    promises: dict[str, Promise] = field(default_factory=dict)
    records: dict[str, TransactionRecord] = field(default_factory=dict)

    @property
    def home(self) -> str:
        return f"{self.url}/i/{ACQUIRER}"

    def link(self, name: str) -> str:
        """What the code on a receipt says."""
        return f"{self.node.url}/r#{self.promises[name].encode()}"


@contextmanager
def promising_network(cluster: Cluster, directory: Path) -> Iterator[Receipts]:
    """Receipts in every state, on a chain where an accused has an hour to answer."""
    (directory / "chain").mkdir()
    chain = start_chain(directory / "chain", terms=Terms(answer_s=3_600))
    database = cluster.new_database()
    try:
        member = make_member(database, chain, ("acquirer",), member_id=ACQUIRER)
        promising = make_promising(member)
        address = chain.omission_registry
        with served(member, secrets={"promise": promising.key}, omission_registry=address) as node:
            made = Receipts("", member, node)
            _give(made, promising)
            loop, printer = Loop(), StatusServer(Metrics(), dict, ReceiptService(node.url).routes())
            port = loop.run(printer.start("127.0.0.1", 0))
            settings = _settings(member, node, directory, f"http://127.0.0.1:{port}")
            server = Server(create_app(settings)).start()
            made.url = server.url
            try:
                yield made
            finally:
                server.stop()
                loop.run(printer.close())
                loop.stop()
    finally:
        cluster.drop(database)
        chain.stop()


def _give(made: Receipts, promising: Promising) -> None:
    member = made.member
    books = LedgerFactory(member.database.engine, "acquirer")
    quick = Promising(promising.key, replace(promising.promiser, merge_delay_s=1))

    def give(name: str, by: Promising) -> None:
        [record] = books.add(1)
        made.records[name] = record
        promise = promise_transaction(member.database.engine, by.promiser, record.txid)
        assert promise is not None
        made.promises[name] = promise

    give("kept", promising)
    [made.records["silent"]] = books.add(1)
    member.anchor_all()
    give("sealed", promising)
    member.seal()
    give("waiting", promising)
    for name in ("overdue", "claimed"):
        give(name, quick)
    _claim(made)


def _claim(made: Receipts) -> None:
    """Governance, which the chain lets send, takes the overdue promise to the chain."""
    chain, promise = made.member.chain, made.promises["claimed"]
    while time.time() <= promise.merge_deadline + 1.5:
        time.sleep(0.2)
    client = chain.client()
    registry = OmissionRegistry(client, chain.omission_registry)
    claim = registry.build_claim_tx(
        sender=chain.deployer.address,
        nonce=client.next_nonce(chain.deployer.address),
        member_id=promise.member_id,
        txid=promise.txid,
        commitment=promise.commitment,
        merge_deadline=promise.merge_deadline,
        signature=promise.signature,
    )
    raw, tx_hash = chain.deployer.sign_transaction(claim)
    client.send_raw(raw)
    client.wait_for_receipt(tx_hash)
    found = registry.claim(promise.member_id, promise.txid, promise.commitment)
    assert found is not None


def _settings(
    member: LogMember, node: RunningNode, directory: Path, gateway_url: str
) -> ConsoleSettings:
    entry = {
        "member_id": ACQUIRER,
        "name": "Meridian Acquiring",
        "roles": ["acquirer"],
        "api_url": node.url,
        "api_key": KEYS["reader"],
        "gateway_url": gateway_url,
    }
    prints = people()[0] | {
        "username": "olga",
        "role": "operator",
        "node_keys": {ACQUIRER: KEYS["operator"]},
    }
    return ConsoleSettings.model_validate(
        {
            "port": 8080,
            "secret": secrets.token_hex(32),
            "nodes": [entry],
            "users": [people()[0], prints],
            "rpc_url": member.chain.rpc_url,
            "anchor_registry": member.chain.anchor_registry,
            "member_registry": member.chain.member_registry,
            "omission_registry": member.chain.omission_registry,
            "state_file": directory / "console.sqlite",
        }
    )
