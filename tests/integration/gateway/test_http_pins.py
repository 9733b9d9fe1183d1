"""A PIN over the HTTP API: sealed in the pad, checked by the issuer, in the clear nowhere."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.terminal_keys.enrolment import gateway_public_key
from gateway.terminal_keys.ring import MASTER_KEY
from nodes.crypto.hsm import SoftwareHsm
from sandbox.cards.merchant import MerchantClient
from sandbox.cards.pin_pad import KeyRefused, PinPad
from tests.conftest import Cluster
from tests.factories.pos import secret
from tests.integration.api.running import TwoNodes, two_nodes
from tests.integration.gateway.running import play
from tests.integration.gateway.test_http_api import LOCAL, front
from tests.integration.gateway.test_http_keys import kind_of

GATEWAY_KEY = gateway_public_key(SoftwareHsm({MASTER_KEY: secret(MASTER_KEY)}))
PIN = "123456"


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[TwoNodes]:
    with two_nodes(cluster) as both:
        yield both


async def opened(shop: MerchantClient, key: str) -> PinPad:
    pad = PinPad(GATEWAY_KEY)
    answer = await shop.post("/v1/pin-keys", pad.request(), key)
    assert answer.status_code == 201, answer.text
    pad.accept(shop.signer.key_id, answer.json())
    return pad


def stripe(pan: str, amount: int, pin: dict[str, str] | None) -> dict[str, Any]:
    card = {"entry": "stripe", "track2": f"{pan}D49122200000000"}
    body = {"amount": amount, "currency": "CNY", "local_time": LOCAL}
    return body | {"card": card if pin is None else card | {"pin": pin}}


def test_the_issuer_checks_the_pin(nodes: TwoNodes) -> None:
    issued = nodes.network.card(10_000)

    async def scenario() -> None:
        async with front(nodes) as shop:
            pad = await opened(shop, "pin-key-0001")
            good, bad = pad.seal(PIN, issued.pan), pad.seal("654321", issued.pan)
            paid = (
                await shop.post("/v1/payments", stripe(issued.pan, 100, good), "pin-0001")
            ).json()
            assert paid["outcome"] == "approved", paid
            wrong = await shop.post("/v1/payments", stripe(issued.pan, 100, bad), "pin-0002")
            assert (wrong.json()["outcome"], wrong.json()["code"]) == ("pin_wrong", "55")
            lacking = await shop.post("/v1/payments", stripe(issued.pan, 100, None), "pin-0003")
            assert lacking.json()["outcome"] == "pin_required"
            # A retry with the PIN sealed anew, under another key, is the same request.
            fresh = (await opened(shop, "pin-key-0002")).seal(PIN, issued.pan)
            again = await shop.post("/v1/payments", stripe(issued.pan, 100, fresh), "pin-0001")
            assert again.json() == paid
            other = await shop.post("/v1/payments", stripe(issued.pan, 100, bad), "pin-0001")
            assert kind_of(other) == "idempotency-key-reused"
            assert nodes.network.balance(issued) == 9_900

    play(scenario)


def test_a_block_that_can_t_be_is_refused_before_the_issuer(nodes: TwoNodes) -> None:
    issued, other = nodes.network.card(10_000), nodes.network.card(10_000)

    async def scenario() -> None:
        async with front(nodes) as shop, front(nodes) as thief:
            pad = await opened(shop, "pin-key-0003")
            sealed = pad.seal(PIN, issued.pan)
            for client, pan, pin, kind in (
                (shop, other.pan, sealed, "pin-block-invalid"),
                (thief, issued.pan, sealed, "pin-block-invalid"),
                (shop, issued.pan, sealed | {"session": "0" * 48}, "pin-key-expired"),
                (shop, issued.pan, sealed | {"session": "f" * 48}, "pin-key-expired"),
                (shop, issued.pan, sealed | {"session": "zz"}, "schema"),
                (shop, issued.pan, sealed | {"block": "AAAA"}, "schema"),
            ):
                answer = await client.post("/v1/payments", stripe(pan, 100, pin), "refused-pin")
                assert (answer.status_code, kind_of(answer)) == (422, kind), answer.text
                assert answer.json()["at"].startswith("$.card.pin")
            typed = stripe(issued.pan, 100, sealed)
            typed["card"] = {"entry": "manual", "pan": issued.pan, "expiry": "4912", "pin": sealed}
            answer = await shop.post("/v1/payments", typed, "refused-pin")
            assert kind_of(answer) == "card-contradicts-itself"
            point = await shop.post("/v1/pin-keys", {"public_key": "11" * 64}, "pin-key-0004")
            assert kind_of(point) == "public-key-invalid"
            assert nodes.network.balance(issued) == 10_000

    play(scenario)


def test_a_pad_takes_the_gateway_s_key_alone(nodes: TwoNodes) -> None:
    async def scenario() -> None:
        async with front(nodes) as shop:
            pad = PinPad(GATEWAY_KEY)
            answer = (await shop.post("/v1/pin-keys", pad.request(), "pin-key-0005")).json()
            own = SoftwareHsm({"key": bytes(16)})
            mine = own.wrap_sm2(bytes.fromhex(pad.request()["public_key"]), ["key"])
            for change in (
                {
                    "key": base64.b64encode(mine).decode(),
                    "check_value": own.check_value("key").hex(),
                },
                {"session": "0" * 48},
                {"check_value": "00000000"},
            ):
                with pytest.raises(KeyRefused):
                    pad.accept(shop.signer.key_id, answer | change)
            with pytest.raises(KeyRefused):
                pad.accept("another-caller", answer)
            pad.accept(shop.signer.key_id, answer)

    play(scenario)
