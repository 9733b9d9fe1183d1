"""An acquirer with its gateway, HTTP front and terminal simulator, and a console before it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from eth_utils.address import to_canonical_address

from console.app import create_app
from console.settings import ConsoleSettings
from gateway.app import Gateway
from gateway.http.server import HttpFront
from gateway.settings import GatewaySettings
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY, tmk_name
from nodes.chain.directory import KeyPeriod
from nodes.chain.signer import LocalSigner
from nodes.crypto.emv import TRANSPORT_KEY
from nodes.crypto.keystore import Keystore
from sandbox.terminals.service import SimulatorService
from sandbox.terminals.surroundings import Api, Surroundings
from tests.browser.fake_node import Server
from tests.browser.issuing import console_settings
from tests.browser.network import people
from tests.conftest import Cluster
from tests.factories.network import (
    ACQUIRER,
    EMV_KEYS,
    GATEWAY_ZONE,
    ISSUER,
    MERCHANT,
    TERMINAL,
)
from tests.factories.pos import secret, tmk
from tests.integration.api.running import GATEWAY, KEYS, SEEDS, TwoNodes, public, two_nodes
from tests.integration.gateway.running import document

T = TypeVar("T")
SECRETS = {
    MASTER_KEY: secret(MASTER_KEY),
    ZONE_KEY: GATEWAY_ZONE,
    tmk_name(TERMINAL): tmk(TERMINAL),
    "message": SEEDS[GATEWAY],
}
_SIMULATOR_KEY = "simulator-key-of-the-test"
_PROMISE_KEY = bytes(range(1, 33))


class Loop:
    """An event loop in a thread of its own: Playwright's runs in the test's."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(60)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@dataclass
class Fleet:
    url: str
    nodes: TwoNodes
    gateway: Gateway
    loop: Loop

    @property
    def home(self) -> str:
        return f"{self.url}/i/{ACQUIRER}"


@contextmanager
def fleet_network(cluster: Cluster, directory: Path) -> Iterator[Fleet]:
    """Nodes, gateway, simulator, console."""
    loop = Loop()
    with two_nodes(cluster) as nodes:
        _promise(nodes)
        made = document(
            nodes.acquirer.url,
            public(ACQUIRER),
            key_id=GATEWAY,
            terminals=[{"terminal_id": TERMINAL, "merchant_id": MERCHANT}],
            fleet_poll_s=0.1,
            fleet_report_s=0.2,
        )
        gateway = Gateway(GatewaySettings.model_validate(made), Keystore(SECRETS, "memory"))
        loop.run(gateway.start())
        shop = document(
            nodes.acquirer.url, public(ACQUIRER), key_id=GATEWAY, terminals=[], api_port=0
        )
        front = HttpFront(GatewaySettings.model_validate(shop), Keystore(SECRETS, "memory"))
        loop.run(front.start())
        around = Surroundings(
            host="127.0.0.1",
            ports=gateway.ports,
            acquirer=Api(nodes.acquirer.url, KEYS["operator"]),
            issuers={ISSUER: Api(nodes.issuer.url, KEYS["operator"])},
            transport={ISSUER: EMV_KEYS[TRANSPORT_KEY]},
            master=secret(MASTER_KEY),
            merchants=(MERCHANT,),
            terminals=((TERMINAL, MERCHANT, tmk(TERMINAL)),),
            names={MERCHANT: "Harbor Stores"},
            front=f"http://127.0.0.1:{front.port}",
        )
        simulator = SimulatorService(around, _SIMULATOR_KEY)
        port = loop.run(simulator.start("127.0.0.1", 0))
        settings = _console(nodes, port, gateway.http_port, directory)
        server = Server(create_app(settings)).start()
        try:
            yield Fleet(server.url, nodes, gateway, loop)
        finally:
            server.stop()
            loop.run(simulator.close())
            loop.run(front.close())
            loop.run(gateway.close())
            loop.stop()


def _promise(nodes: TwoNodes) -> None:
    """Let the acquirer's node sign promises, so that receipts have codes; there is no chain here
    that could answer them."""
    node = nodes.acquirer.node
    node.settings = node.settings.model_copy(update={"omission_registry": "0x" + "cc" * 20})
    own = {"message": SEEDS[ACQUIRER], "note": bytes(32), "promise": _PROMISE_KEY}
    node.keystore = Keystore(own, "test")
    address = to_canonical_address(LocalSigner(_PROMISE_KEY).address)
    known = nodes.directory.known
    known[ACQUIRER] = replace(known[ACQUIRER], promise_keys=(KeyPeriod(address, 0, None),))


def _console(nodes: TwoNodes, simulator: int, gateway: int, directory: Path) -> ConsoleSettings:
    entries = [
        {
            "member_id": member_id,
            "name": name,
            "roles": [role],
            "api_url": node.url,
            "api_key": KEYS["reader"],
        }
        for member_id, name, role, node in (
            (ACQUIRER, "Meridian Acquiring", "acquirer", nodes.acquirer),
            (ISSUER, "Aurora Bank", "issuer", nodes.issuer),
        )
    ]
    entries[0]["gateway_url"] = f"http://127.0.0.1:{gateway}"
    password = people()[0]["password_argon2"]
    users = [
        {
            "username": "olga",
            "password_argon2": password,
            "role": "operator",
            "members": ["*"],
            "node_keys": {ACQUIRER: KEYS["operator"]},
        },
        {"username": "rita", "password_argon2": password, "role": "reader", "members": ["*"]},
    ]
    made = console_settings(entries, users)
    made["state_file"] = directory / "console.sqlite"
    made["simulator"] = {"url": f"http://127.0.0.1:{simulator}", "key": _SIMULATOR_KEY}
    return ConsoleSettings.model_validate(made)
