"""Callers' keys of the HTTP API: a merchant's beside a terminal's, and replays between fronts."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from nodes.acquiring.online import delivering
from sandbox.cards.merchant import MerchantClient, Signer
from tests.conftest import Cluster
from tests.factories.network import MERCHANT, TERMINAL
from tests.integration.api.running import TwoNodes, two_nodes
from tests.integration.gateway.running import play
from tests.integration.gateway.test_http_api import LOCAL, front, payment, virtual

_numbers = itertools.count(1)
OTHER = "OTHERSHOP000001"


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[TwoNodes]:
    with two_nodes(cluster) as both:
        yield both


@asynccontextmanager
async def merchant_s(nodes: TwoNodes, merchant_id: str = MERCHANT) -> AsyncIterator[MerchantClient]:
    """A client whose key is the whole merchant's."""
    signer = Signer(f"chain-{next(_numbers)}")
    body = {
        "key_id": signer.key_id,
        "merchant_id": merchant_id,
        "algorithm": "ES256",
        "public_key": signer.public_key,
    }
    with nodes.acquirer.http() as api:
        answer = api.post("/v1/front-keys", json=body)
        assert answer.status_code == 201, answer.text
        assert answer.json()["terminal_id"] is None
    async with front(nodes) as shop:
        client = MerchantClient(str(shop._http.base_url), signer)
        try:
            yield client
        finally:
            await client.close()


def kind_of(answer: Any) -> str:
    return str(answer.json()["type"].rpartition(":")[2])


def test_a_merchant_s_key_names_one_of_its_terminals(nodes: TwoNodes) -> None:
    card = virtual(nodes)
    with nodes.acquirer.http() as api:
        body = {"terminal_id": "SHOP0002", "merchant_id": MERCHANT}
        assert api.post("/v1/terminals", json=body).status_code == 201

    async def scenario() -> None:
        async with merchant_s(nodes) as chain:
            nameless = await chain.post("/v1/payments", payment(card, 100), "chain-0001")
            assert (nameless.status_code, kind_of(nameless)) == (422, "terminal-missing")
            assert nameless.json()["at"] == "$.terminal_id"
            for number, terminal in enumerate((TERMINAL, "SHOP0002")):
                named = payment(card, 100, terminal_id=terminal)
                # The same Idempotency-Key at two terminals is two requests.
                bought = (await chain.post("/v1/payments", named, "chain-0002")).json()
                assert bought["approved"], bought
                assert nodes.network.balance(card) == 9_900 - 60 * number
                follow = {
                    "rrn": bought["rrn"],
                    "amount": 40,
                    "currency": "CNY",
                    "local_time": LOCAL,
                    "pan": card.pan,
                    "terminal_id": terminal,
                }
                back = await chain.post("/v1/refunds", follow, f"chain-back-{number}")
                assert back.json()["approved"], back.text
            order = await chain.post(
                "/v1/orders",
                {"amount": 5, "currency": "CNY", "local_time": LOCAL, "terminal_id": "SHOP0002"},
                "chain-order-1",
            )
            assert order.status_code == 201, order.text
            path = f"/v1/orders/{order.json()['order_id']}"
            assert (await chain.get(path)).json()["state"] == "open"
            async with front(nodes) as till:  # of another terminal of the merchant
                assert (await till.get(path)).status_code == 404
                wrong = payment(card, 1, terminal_id="SHOP0002")
                told = await till.post("/v1/payments", wrong, "till-0001")
                assert (told.status_code, kind_of(told)) == (422, "terminal-of-another")

    play(scenario)


def test_a_merchant_s_key_does_nothing_at_another_merchant_s_terminal(nodes: TwoNodes) -> None:
    card = virtual(nodes)
    merchant = {
        "merchant_id": OTHER,
        "name": "Other shop",
        "mcc": "5411",
        "country": "CN",
        "currency": "CNY",
    }
    with nodes.acquirer.http() as api:
        assert api.post("/v1/merchants", json=merchant).status_code == 201

    async def scenario() -> None:
        async with merchant_s(nodes, OTHER) as other:
            body = payment(card, 100, terminal_id=TERMINAL)
            told = (await other.post("/v1/payments", body, "other-0001")).json()
            assert (told["approved"], told["code"]) == (False, "03")
            body = payment(card, 100, terminal_id="NOTTHERE")
            told = (await other.post("/v1/payments", body, "other-0002")).json()
            assert (told["approved"], told["code"]) == (False, "58")
            wanted = {"amount": 5, "currency": "CNY", "local_time": LOCAL, "terminal_id": TERMINAL}
            order = await other.post("/v1/orders", wanted, "other-0003")
            assert (order.status_code, kind_of(order)) == (422, "terminal-unknown")
            assert nodes.network.balance(card) == 10_000

    play(scenario)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "terminal-or-merchant"),
        ({"merchant_id": MERCHANT, "terminal_id": TERMINAL}, "terminal-or-merchant"),
        ({"merchant_id": "N" * 15}, "merchant-unknown"),
        ({"terminal_id": "NOTTHERE"}, "terminal-unknown"),
    ],
)
def test_a_key_is_somebody_s(nodes: TwoNodes, change: dict[str, str], kind: str) -> None:
    signer = Signer("nobodys-1")
    body = {"key_id": "nobodys-1", "algorithm": "ES256", "public_key": signer.public_key}
    with nodes.acquirer.http() as api:
        told = api.post("/v1/front-keys", json=body | change)
        assert (told.status_code, kind_of(told)) == (422, kind)


def test_what_one_front_has_taken_no_other_takes(nodes: TwoNodes) -> None:
    card = virtual(nodes)

    async def scenario() -> None:
        async with front(nodes) as here, front(nodes) as there:
            body = msgspec.json.encode(payment(card, 100))
            sent = here.headers("POST", "/v1/payments", body, "fronts-0001")
            first = await here._http.post("/v1/payments", content=body, headers=sent)
            assert first.json()["approved"]
            for client in (there, here):
                again = await client._http.post("/v1/payments", content=body, headers=sent)
                assert (again.status_code, kind_of(again)) == (401, "signature-replayed")
            # The jti is the key's: another key may have the same.
            jti = here.headers("POST", "/v1/payments", body, "fronts-0002", jti="the-same-jti")
            other = there.headers("POST", "/v1/payments", body, "fronts-0003", jti="the-same-jti")
            for client, headers in ((here, jti), (there, other)):
                taken = await client._http.post("/v1/payments", content=body, headers=headers)
                assert taken.status_code == 200, taken.text
            engine, now_ms = nodes.network.acquirer_db.engine, nodes.network.clock.now_ms()
            assert delivering.forget_jtis(engine, now_ms + 200_000) == 0
            assert delivering.forget_jtis(engine, now_ms + 300_000) >= 3
            assert delivering.forget_jtis(engine, now_ms + 300_000) == 0

    play(scenario)


def test_a_key_that_uses_too_many_jtis_waits(nodes: TwoNodes, monkeypatch: Any) -> None:
    from gateway.http import signatures

    monkeypatch.setattr(signatures, "JTIS_OF_A_KEY", 2)

    async def scenario() -> None:
        async with front(nodes) as greedy:
            seen = [(await greedy.get("/v1/orders/AAAAAAAAAAAAAAAA")).status_code for _ in "abc"]
            assert seen == [404, 404, 401]

    play(scenario)
