"""Scenarios of the terminal simulator against a real gateway and real nodes; and how mistakes in
them are named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

import sandbox
from gateway.app import Gateway
from gateway.http.server import HttpFront
from gateway.settings import GatewaySettings
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY, tmk_name
from nodes.authorization.store import hotlist
from nodes.crypto.emv import TRANSPORT_KEY
from nodes.crypto.keystore import Keystore
from sandbox.terminals.playing import Result, play
from sandbox.terminals.reading import load_scenario, read_scenario
from sandbox.terminals.surroundings import Api, NotThere, Surroundings
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

SCENARIOS = sorted((Path(sandbox.__file__).parent / "scenarios").glob("*.yaml"))
SECRETS = {
    MASTER_KEY: secret(MASTER_KEY),
    ZONE_KEY: GATEWAY_ZONE,
    tmk_name(TERMINAL): tmk(TERMINAL),
    "message": SEEDS[GATEWAY],
}


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[TwoNodes]:
    with two_nodes(cluster) as both:
        yield both


@asynccontextmanager
async def surroundings(nodes: TwoNodes) -> AsyncIterator[Surroundings]:
    """A gateway that follows the acquirer's fleet, and the keys of everybody."""
    made = document(
        nodes.acquirer.url,
        public(ACQUIRER),
        key_id=GATEWAY,
        terminals=[{"terminal_id": TERMINAL, "merchant_id": MERCHANT}],
        listeners=[{"port": 0, "dialect": "ascii"}, {"port": 0, "dialect": "ebcdic"}],
        fleet_poll_s=0.1,
    )
    gateway = Gateway(GatewaySettings.model_validate(made), Keystore(SECRETS, "memory"))
    await gateway.start()
    online = document(
        nodes.acquirer.url, public(ACQUIRER), key_id=GATEWAY, terminals=[], api_port=0
    )
    shop = HttpFront(GatewaySettings.model_validate(online), Keystore(SECRETS, "memory"))
    await shop.start()
    copying = asyncio.create_task(_copy_hotlists(nodes))
    try:
        yield Surroundings(
            host="127.0.0.1",
            ports=gateway.ports,
            acquirer=Api(nodes.acquirer.url, KEYS["operator"]),
            issuers={ISSUER: Api(nodes.issuer.url, KEYS["operator"])},
            transport={ISSUER: EMV_KEYS[TRANSPORT_KEY]},
            master=secret(MASTER_KEY),
            merchants=(MERCHANT,),
            terminals=((TERMINAL, MERCHANT, tmk(TERMINAL)),),
            front=f"http://127.0.0.1:{shop.port}",
        )
    finally:
        copying.cancel()
        await asyncio.gather(copying, return_exceptions=True)
        await shop.close()
        await gateway.close()


async def _copy_hotlists(nodes: TwoNodes) -> None:
    """What the acquirer's worker does with issuers' hotlists, only more often."""
    client = nodes.issuer.client(ACQUIRER)
    try:
        while True:
            asked_ms = nodes.network.clock.now_ms()
            entries = await client.hotlist(0)
            with psycopg.connect(nodes.network.acquirer_db.dsn) as connection:
                rows = [(e.version, e.card_key_id, e.listed, e.reason, e.at_ms) for e in entries]
                hotlist.copy_entries(connection, ISSUER, rows)
                hotlist.checked(connection, ISSUER, asked_ms)
            await asyncio.sleep(0.2)
    finally:
        await client.close()


def played(nodes: TwoNodes, text: str | Path) -> list[Result]:
    scenario = load_scenario(text) if isinstance(text, Path) else read_scenario(text, "test.yaml")

    async def run() -> list[Result]:
        async with asyncio.timeout(120), surroundings(nodes) as around:
            return await play(scenario, around)

    return asyncio.run(run())


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_shipped_scenarios_hold(nodes: TwoNodes, path: Path) -> None:
    results = played(nodes, path)
    assert [f"{r.step.line}: {r.told}" for r in results if not r.held] == []
    assert len(results) == len(load_scenario(path).steps)


def test_a_step_that_doesn_t_hold_is_told_and_ends_the_scenario(nodes: TwoNodes) -> None:
    results = played(
        nodes,
        """
        cards: {ann: {form: chip, balance: 10.00}}
        terminal: {id: T0000001}
        steps:
          - sign_on
          - pay: {card: ann, amount: 10.01, pin: "123456"}
          - echo
        """,
    )
    assert [(r.held, r.told) for r in results][1:] == [
        (False, "51; chip: declined; expected 00"),
    ]


def test_what_the_network_lacks_is_said(nodes: TwoNodes) -> None:
    with pytest.raises(NotThere, match="no terminal NOTTHERE"):
        played(nodes, "terminal: {id: NOTTHERE}\nsteps: [sign_on]")
    with pytest.raises(NotThere, match="no issuer nobody"):
        played(nodes, "cards: {a: {issuer: nobody}}\nsteps: [sign_on]")
    [_, result] = played(
        nodes,
        "cards: {a: {form: plain}}\nsteps: [sign_on, pay: {card: a, by: tap, amount: 1}]",
    )
    assert (result.held, "has no chip" in result.told) == (False, True)
    with pytest.raises(NotThere, match=r"network\.json"):
        Surroundings.of({"gateways": []})
