"""From a terminal's bytes to the issuer's ledger: gateway, acquirer's and issuer's real nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from gateway.app import Gateway
from gateway.settings import GatewaySettings
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY, tmk_name
from nodes.cards.model import IssuedCard
from nodes.crypto.keystore import Keystore
from sandbox.terminal import PURCHASE, Card, Terminal
from tests.conftest import Cluster
from tests.factories.network import ACQUIRER, BIN, GATEWAY_ZONE, MERCHANT, TERMINAL
from tests.factories.pos import luhn, secret, tmk
from tests.integration.api.running import GATEWAY, SEEDS, TwoNodes, public, two_nodes
from tests.integration.gateway.running import document, play


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[TwoNodes]:
    with two_nodes(cluster) as both:
        yield both


@asynccontextmanager
async def front(nodes: TwoNodes) -> AsyncIterator[Terminal]:
    """A gateway before the acquirer's node, and its terminal, signed on."""
    terminals = [{"terminal_id": TERMINAL, "merchant_id": MERCHANT}]
    settings = GatewaySettings.model_validate(
        document(nodes.acquirer.url, public(ACQUIRER), key_id=GATEWAY, terminals=terminals)
    )
    secrets = {
        MASTER_KEY: secret(MASTER_KEY),
        ZONE_KEY: GATEWAY_ZONE,
        tmk_name(TERMINAL): tmk(TERMINAL),
        "message": SEEDS[GATEWAY],
    }
    gateway = Gateway(settings, Keystore(secrets, "memory"))
    await gateway.start()
    try:
        first = next(nodes.network.stans)
        async with Terminal(
            TERMINAL,
            MERCHANT,
            tmk(TERMINAL),
            "127.0.0.1",
            gateway.pos_port,
            batch=f"{first:06d}",  # a batch a test: trace numbers may begin anew
        ) as pos:
            assert (await pos.sign_on()).approved
            yield pos
    finally:
        await gateway.close()


def plastic(card: IssuedCard) -> Card:
    """What a terminal reads off an issued card."""
    return Card(card.pan, "4912", "220")


def test_the_money_follows_the_messages(nodes: TwoNodes) -> None:
    card = nodes.network.card(10_000)

    async def scenario() -> None:
        async with front(nodes) as pos:
            bought = await pos.purchase(plastic(card), 2_500, "123456")
            assert (bought.code, bought.authentic) == ("00", True)
            assert len(bought.fields[38]) == 6
            assert nodes.network.balance(card) == 7_500

            for _ in range(3):  # retries of the same message
                assert (await pos.resend(bought)).response == bought.response
            assert nodes.network.balance(card) == 7_500

            told = await pos.balance(plastic(card), "123456")
            assert told.balances == {"ledger": 7_500, "available": 7_500}

            back = await pos.refund(plastic(card), 500, bought.rrn)
            assert back.code == "00"
            assert nodes.network.balance(card) == 8_000
            too_much = await pos.refund(plastic(card), 2_001, bought.rrn)
            assert too_much.code == "64"

            second = await pos.purchase(plastic(card), 1_000, "123456")
            undone = await pos.reversal(second)
            assert (undone.mti, undone.code) == ("0410", "00")
            assert nodes.network.balance(card) == 8_000
            assert (await pos.resend(undone)).response == undone.response
            assert nodes.network.balance(card) == 8_000

    play(scenario)


def test_what_the_issuer_declines(nodes: TwoNodes) -> None:
    card = nodes.network.card(1_000)

    async def scenario() -> None:
        async with front(nodes) as pos:
            read = plastic(card)
            assert (await pos.purchase(read, 1_001, "123456")).code == "51"
            assert (await pos.purchase(read, 100, "654321")).code == "55"
            stranger = Card(luhn(f"{BIN}7777777"), "4912")
            assert (await pos.purchase(stranger, 100, "123456")).code == "14"
            nowhere = Card(luhn("999999000000001"), "4912")
            assert (await pos.purchase(nowhere, 100, "123456")).code == "15"
            assert (await pos.refund(read, 100, "999999999999")).code == "25"
            for _ in range(2):
                await pos.purchase(read, 100, "654321")
            assert (await pos.purchase(read, 100, "123456")).code == "75"
            assert nodes.network.balance(card) == 1_000

    play(scenario)


def test_other_content_under_the_same_key_is_94(nodes: TwoNodes) -> None:
    card = nodes.network.card(10_000)

    async def scenario() -> None:
        async with front(nodes) as pos:
            first = await pos.purchase(plastic(card), 100, "123456")
            assert first.approved
            pos.stan -= 1
            assert (await pos.purchase(plastic(card), 101, "123456")).code == "94"
            assert nodes.network.balance(card) == 9_900
            assert (await pos.resend(first)).response == first.response

    play(scenario)


def test_a_reversal_before_its_original_bars_it(nodes: TwoNodes) -> None:
    card = nodes.network.card(10_000)

    async def scenario() -> None:
        async with front(nodes) as pos:
            late = pos.seal(pos.request("0200", PURCHASE, plastic(card), 700, "123456"))
            undone = await pos.reversal(late)
            assert (undone.mti, undone.code) == ("0410", "00")
            assert (await pos.send_frame(late)).code == "05"
            assert nodes.network.balance(card) == 10_000

    play(scenario)


def test_a_repeat_after_a_new_sign_on_is_still_the_same_message(nodes: TwoNodes) -> None:
    card = nodes.network.card(10_000)

    async def scenario() -> None:
        async with front(nodes) as pos:
            message = pos.request("0200", PURCHASE, plastic(card), 300, "123456")
            first = await pos.exchange(message)
            assert first.approved
            assert (await pos.sign_on()).approved
            again = await pos.exchange(message)
            assert again.fields == first.fields
            assert nodes.network.balance(card) == 9_700

    play(scenario)


def test_many_in_one_segment_stand_in_the_ledger_once_each(nodes: TwoNodes) -> None:
    card = nodes.network.card(10_000)

    async def scenario() -> None:
        async with front(nodes) as pos:
            frames = [
                pos.seal(pos.request("0200", PURCHASE, plastic(card), 10, "123456"))
                for _ in range(50)
            ]
            await pos.send(b"".join(frames) * 2)  # each of them twice
            assert pos._reader is not None
            answers: list[bytes] = []
            for _ in range(100):
                prefix = await pos._reader.readexactly(2)
                answers.append(await pos._reader.readexactly(int.from_bytes(prefix, "big")))
            assert len(set(answers)) == 50
            assert nodes.network.balance(card) == 10_000 - 50 * 10

    play(scenario)
