"""What merchants are told of besides transactions: the acquirer's refusals, expired orders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from nodes.acquiring.online import delivering
from nodes.authorization.operations.ordering import end_orders
from nodes.crypto.pan import luhn_digit
from sandbox.cards.wallet import Wallet
from tests.conftest import Cluster
from tests.factories.network import ACQUIRER, ISSUER, MERCHANT
from tests.integration.api.running import TwoNodes, two_nodes
from tests.integration.gateway.running import play
from tests.integration.gateway.test_http_api import LOCAL, front, payment, virtual

ENDPOINT = "B" * 16


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[TwoNodes]:
    with two_nodes(cluster) as both:
        with both.network.acquirer_db.engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO webhook_endpoints (endpoint_id, merchant_id, url, created_by,"
                " created_at) VALUES (%s, %s, 'https://shop.example/hook', 'test', now())",
                (ENDPOINT, MERCHANT),
            )
            connection.exec_driver_sql(
                "INSERT INTO webhook_scan (xact, transaction_id) VALUES"
                " (pg_snapshot_xmin(pg_current_snapshot()), 0)"
            )
        yield both


def told(nodes: TwoNodes) -> list[dict[str, Any]]:
    """The messages that have been queued since the last call, in order."""
    engine = nodes.network.acquirer_db.engine
    delivering.collect(engine, nodes.network.clock.now_ms())
    with nodes.network.acquirer_db.owner_engine.begin() as connection:
        rows = connection.exec_driver_sql(
            "SELECT body FROM webhook_deliveries ORDER BY delivery_id"
        ).all()
        connection.exec_driver_sql("DELETE FROM webhook_deliveries")
    return [json.loads(bytes(row[0])) for row in rows]


def test_a_refusal_of_the_acquirer_s_own_is_told_once(nodes: TwoNodes) -> None:
    card = virtual(nodes)
    stranger = "9999990000000001"[:-1]
    stranger += luhn_digit(stranger)

    async def scenario() -> None:
        async with front(nodes) as shop:
            body = payment(card, 700)
            body["card"] = {"entry": "manual", "pan": stranger, "expiry": "4912"}
            answers = [await shop.post("/v1/payments", body, "refused-0001") for _ in range(2)]
            assert [a.json()["outcome"] for a in answers] == ["issuer_unknown"] * 2
            assert answers[0].content == answers[1].content
            [message] = told(nodes)
            assert message["type"] == "purchase.refused"
            data = message["data"]
            assert (data["outcome"], data["amount"], data["merchant_id"], data["rrn"]) == (
                "issuer_unknown",
                700,
                MERCHANT,
                answers[0].json()["rrn"],
            )
            assert data["card"] == f"{stranger[:6]}******{stranger[-4:]}"
            assert stranger not in json.dumps(message)
            follow = {"rrn": "0" * 12, "amount": 5, "pan": card.pan, "currency": "CNY"}
            refund = await shop.post("/v1/refunds", follow | {"local_time": LOCAL}, "refused-0002")
            assert refund.json()["outcome"] == "original_not_found"
            assert [m["type"] for m in told(nodes)] == ["refund.refused"]
            assert told(nodes) == []
            bought = await shop.post("/v1/payments", payment(card, 100), "refused-0003")
            assert bought.json()["approved"]
            # What became a transaction is told as one, and not as a refusal too.
            assert [m["type"] for m in told(nodes)] == ["purchase.completed"]
        with nodes.acquirer.http() as api:
            found = api.get("/v1/refusals", params={"limit": 1}).json()
            assert found["items"][0]["outcome"] == "original_not_found"
            older = api.get("/v1/refusals", params={"cursor": found["next"]}).json()["items"]
            assert [one["outcome"] for one in older] == ["issuer_unknown"]
            assert api.get("/v1/refusals", params={"terminal_id": "ZZZZZZZZ"}).json()["items"] == []

    play(scenario)


def test_an_order_that_nobody_looks_at_expires_and_is_told_once(nodes: TwoNodes) -> None:
    card = nodes.network.card(10_000, service_code="201")
    engine, clock = nodes.network.acquirer_db.engine, nodes.network.clock

    async def scenario() -> None:
        async with front(nodes) as shop:
            wanted = {"amount": 500, "currency": "CNY", "local_time": LOCAL, "lifetime_s": 30}
            gone = (await shop.post("/v1/orders", wanted, "order-gone")).json()
            paid = (await shop.post("/v1/orders", wanted, "order-paid-1")).json()
            with nodes.issuer.http() as api:
                code = Wallet(api, card.card_token.hex()).show_code()
            path = f"/v1/orders/{paid['order_id']}/payments"
            assert (await shop._http.post(path, json={"code": code})).json()["approved"]
            assert [m["type"] for m in told(nodes)] == ["order.paid"]
            now_ms = clock.now_ms()
            assert end_orders(engine, ACQUIRER, now_ms) == 0
            assert end_orders(engine, ACQUIRER, now_ms + 31_000) == 1
            assert end_orders(engine, ACQUIRER, now_ms + 31_000) == 0
            [message] = told(nodes)
            assert message["type"] == "order.expired"
            assert message["data"]["order_id"] == gone["order_id"]
            assert (message["data"]["amount"], message["data"]["attempts"]) == (500, 0)
            assert told(nodes) == []
            state = (await shop.get(f"/v1/orders/{gone['order_id']}")).json()["state"]
            assert state == "expired"

    play(scenario)


def test_a_request_that_no_issuer_answered_is_told(nodes: TwoNodes) -> None:
    card = virtual(nodes)

    async def scenario() -> None:
        async with front(nodes) as shop:
            nodes.directory.add(ISSUER, "issuer", "http://127.0.0.1:1")
            try:
                answer = await shop.post("/v1/payments", payment(card, 300), "away-0001")
            finally:
                nodes.directory.add(ISSUER, "issuer", nodes.issuer.url)
            assert answer.json()["outcome"] == "issuer_unavailable"
            [message] = told(nodes)
            assert message["type"] == "purchase.refused"
            assert message["data"]["outcome"] == "issuer_unavailable"

    play(scenario)
