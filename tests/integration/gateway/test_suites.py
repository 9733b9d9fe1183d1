"""A purchase with PIN in every suite and dialect: TCP, gateway, both nodes, the PIN verified."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from gateway.app import Gateway
from gateway.iso8583.dialect import DIALECTS
from gateway.settings import GatewaySettings
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY
from nodes.crypto.keystore import Keystore
from sandbox.enrolled import certificate_text
from sandbox.terminal import Card, Terminal
from tests.conftest import Cluster
from tests.factories.network import ACQUIRER, GATEWAY_ZONE, MERCHANT, TERMINAL
from tests.factories.pos import secret
from tests.factories.suites import WAYS, keys, record, sm2_private
from tests.integration.api.running import GATEWAY, SEEDS, TwoNodes, public, two_nodes
from tests.integration.gateway.running import document, play


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[TwoNodes]:
    with two_nodes(cluster) as both:
        yield both


@asynccontextmanager
async def front(nodes: TwoNodes, way: str, dialect: str, *, cover: bool) -> AsyncIterator[Terminal]:
    """A gateway that listens in every dialect, and the enrolled terminal of one way."""
    known = replace(record(way), terminal_id=TERMINAL, merchant_id=MERCHANT)
    terminal = {
        "terminal_id": TERMINAL,
        "merchant_id": MERCHANT,
        "suite": int(known.suite),
        "management": known.management.value,
        "certificate": certificate_text(known, sm2_private(way)),
    }
    settings = GatewaySettings.model_validate(
        document(
            nodes.acquirer.url,
            public(ACQUIRER),
            key_id=GATEWAY,
            terminals=[terminal],
            listeners=[{"port": 0, "dialect": name} for name in DIALECTS if name != "bcd-tpdu"],
        )
    )
    secrets = {
        MASTER_KEY: secret(MASTER_KEY),
        ZONE_KEY: GATEWAY_ZONE,
        "message": SEEDS[GATEWAY],
    }
    gateway = Gateway(settings, Keystore(secrets, "memory"))
    await gateway.start()
    try:
        first = next(nodes.network.stans)
        async with Terminal(
            TERMINAL,
            MERCHANT,
            b"",
            "127.0.0.1",
            gateway.ports[dialect],
            keys=keys(known, sm2_private(way)),
            dialect=DIALECTS[dialect],
            cover=cover,
            batch=f"{first:06d}",
        ) as pos:
            yield pos
    finally:
        await gateway.close()


@pytest.mark.parametrize(
    ("way", "dialect", "cover"),
    [
        ("sm-certificate", "bcd-tpdu", True),
        ("sm-certificate", "ebcdic", False),
        ("sm-tmk", "ascii", True),
        ("aes-dukpt", "bcd-tpdu", True),
        ("aes-dukpt", "ascii", False),
        ("aes-tr31", "ebcdic", True),
        ("legacy-tr31", "bcd-tpdu", True),
        ("legacy-tr31", "ascii", False),
    ],
)
def test_the_issuer_verifies_the_pin_of_every_suite(
    nodes: TwoNodes, way: str, dialect: str, cover: bool
) -> None:
    card = nodes.network.card(10_000)
    read = Card(card.pan, "4912", "220")

    async def scenario() -> None:
        async with front(nodes, way, dialect, cover=cover) as pos:
            if pos.module.signs_on:
                assert pos.module.due
                assert (await pos.purchase(read, 100, "123456")).code == "A0"
                assert (await pos.sign_on()).approved
                assert not pos.module.due
            assert (await pos.echo()).code == "00"
            bought = await pos.purchase(read, 2_500, "123456", track2=cover)
            assert (bought.code, bought.authentic) == ("00", True)
            assert nodes.network.balance(card) == 7_500
            assert (await pos.resend(bought)).response == bought.response
            assert nodes.network.balance(card) == 7_500
            assert (await pos.purchase(read, 100, "654321")).code == "55"
            told = await pos.balance(read, "123456")
            assert told.balances == {"ledger": 7_500, "available": 7_500}
            undone = await pos.reversal(bought)
            assert (undone.mti, undone.code) == ("0410", "00")
            assert nodes.network.balance(card) == 10_000
            pos.bad_mac = True
            assert (await pos.purchase(read, 100, "123456")).code == "A0"
            assert nodes.network.balance(card) == 10_000

    play(scenario)


def test_every_way_is_tried() -> None:
    tried = {
        parameters[0]
        for mark in test_the_issuer_verifies_the_pin_of_every_suite.pytestmark  # type: ignore[attr-defined]
        for parameters in mark.args[1]
    }
    assert tried == set(WAYS)
