"""The HTTP API: a real front, the real nodes of acquirer and issuer, PostgreSQL."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.server
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
import pytest

from gateway.http.server import HttpFront
from gateway.settings import GatewaySettings
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY
from nodes.acquiring.online import codes, delivering, webhooks
from nodes.acquiring.online.webhooks import UrlRefused
from nodes.cards.model import CardForm, IssuedCard, Making
from nodes.crypto.keystore import Keystore
from sandbox.cards.chip import Completion
from sandbox.cards.merchant import MerchantClient, Signer
from sandbox.cards.wallet import Wallet
from tests.conftest import Cluster
from tests.factories.network import ACQUIRER, GATEWAY_ZONE, MERCHANT, TERMINAL
from tests.factories.pos import secret
from tests.integration.api.running import GATEWAY, SEEDS, TwoNodes, public, two_nodes
from tests.integration.gateway.running import document, play
from tests.integration.gateway.test_card_entry import asked, personalized

LOCAL = "2026-11-23T10:15:00"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[TwoNodes]:
    with two_nodes(cluster) as both:
        yield both


@asynccontextmanager
async def front(nodes: TwoNodes, algorithm: str = "ES256") -> AsyncIterator[MerchantClient]:
    """A front before the acquirer's node, and a merchant's server whose key is enrolled."""
    settings = GatewaySettings.model_validate(
        document(nodes.acquirer.url, public(ACQUIRER), key_id=GATEWAY, terminals=[], api_port=0)
    )
    values = {
        MASTER_KEY: secret(MASTER_KEY),
        ZONE_KEY: GATEWAY_ZONE,
        "message": SEEDS[GATEWAY],
    }
    made = HttpFront(settings, Keystore(values, "memory"))
    await made.start()
    signer = Signer(f"shop-{next(_numbers)}", algorithm)
    enrolled = {
        "key_id": signer.key_id,
        "terminal_id": TERMINAL,
        "algorithm": algorithm,
        "public_key": signer.public_key,
    }
    with nodes.acquirer.http() as api:
        answer = api.post("/v1/front-keys", json=enrolled)
        assert answer.status_code == 201, answer.text
    client = MerchantClient(f"http://127.0.0.1:{made.port}", signer)
    try:
        yield client
    finally:
        await client.close()
        await made.close()


def virtual(nodes: TwoNodes, balance: int = 10_000) -> IssuedCard:
    making = Making(CardForm.VIRTUAL)
    return nodes.network.card(balance, pin=None, service_code="101", making=making)


def payment(card: IssuedCard, amount: int, **changes: Any) -> dict[str, Any]:
    """An online purchase."""
    shown = {"entry": "ecommerce", "pan": card.pan, "expiry": "4912", "cvv2": card.cvv2}
    body: dict[str, Any] = {"amount": amount, "currency": "CNY", "local_time": LOCAL}
    return body | {"card": shown} | changes


@pytest.mark.parametrize("algorithm", ["ES256", "SM2"])
def test_an_online_purchase_and_what_follows(nodes: TwoNodes, algorithm: str) -> None:
    card = virtual(nodes)

    async def scenario() -> None:
        async with front(nodes, algorithm) as shop:
            key = f"cart-{algorithm}-1"
            bought = await shop.post("/v1/payments", payment(card, 2_500), key)
            assert bought.status_code == 200, bought.text
            told = bought.json()
            assert (told["approved"], told["code"], told["amount"]) == (True, "00", 2_500)
            # A retry gets the stored answer; another content under the key is refused.
            again = await shop.post("/v1/payments", payment(card, 2_500), key)
            assert again.content == bought.content
            other = await shop.post("/v1/payments", payment(card, 2_501), key)
            assert (other.status_code, other.json()["type"].rpartition(":")[2]) == (
                409,
                "idempotency-key-reused",
            )
            assert nodes.network.balance(card) == 7_500

            follow = {
                "rrn": told["rrn"],
                "amount": 500,
                "currency": "CNY",
                "local_time": LOCAL,
                "pan": card.pan,
            }
            back = await shop.post("/v1/refunds", follow, f"{key}-refund")
            assert back.json()["approved"], back.text
            much = await shop.post("/v1/refunds", follow | {"amount": 2_001}, f"{key}-much")
            assert (much.json()["outcome"], much.json()["code"]) == ("over_original_amount", "64")
            assert nodes.network.balance(card) == 8_000

            lost = await shop.post("/v1/payments", payment(card, 700), f"{key}-lost")
            assert lost.json()["approved"]
            undo = {
                "idempotency_key": f"{key}-lost",
                "amount": 700,
                "currency": "CNY",
                "local_time": LOCAL,
                "pan": card.pan,
            }
            undone = await shop.post("/v1/reversals", undo, f"{key}-undo")
            assert undone.json()["approved"], undone.text
            assert nodes.network.balance(card) == 8_000
            wrong = payment(card, 100)
            wrong["card"]["cvv2"] = "000" if card.cvv2 != "000" else "001"
            refused = await shop.post("/v1/payments", wrong, f"{key}-cvv")
            assert (refused.json()["outcome"], refused.json()["code"]) == (
                "check_value_wrong",
                "82",
            )

    play(scenario)


def test_a_smart_terminal_reads_chips_and_codes(nodes: TwoNodes) -> None:
    issued = nodes.network.card(10_000, pin=None, service_code="201", making=Making(CardForm.CHIP))
    chip = personalized(issued)

    async def scenario() -> None:
        async with front(nodes) as shop:
            icc = asked(chip, 300)
            body = {
                "amount": 300,
                "currency": "CNY",
                "local_time": f"20{icc_day()}T10:00:00",
                "card": {
                    "entry": "contactless",
                    "track2": chip.track2,
                    "icc": base64.b64encode(icc).decode(),
                    "sequence": f"0{chip.psn}",
                },
            }
            told = (await shop.post("/v1/payments", body, "tap-0001")).json()
            assert told["approved"], told
            done = chip.complete(base64.b64decode(told["icc"]), approved=True)
            assert done.outcome is Completion.APPROVED
            with nodes.issuer.http() as api:
                payload = Wallet(api, issued.card_token.hex()).show_code()
            scanned = {"amount": 200, "currency": "CNY", "local_time": LOCAL, "code": payload}
            assert (await shop.post("/v1/payments", scanned, "scan-001")).json()["approved"]
            used = (await shop.post("/v1/payments", scanned, "scan-002")).json()
            assert (used["outcome"], used["code"]) == ("code_not_valid", "14")
            assert nodes.network.balance(issued) == 9_500

    play(scenario)


def icc_day() -> str:
    """YY-MM-DD of the simulated shops."""
    from tests.integration.gateway.test_card_entry import today

    day = today()
    return f"{day[:2]}-{day[2:4]}-{day[4:]}"


def test_nobody_else_is_taken_for_the_caller(nodes: TwoNodes) -> None:
    card = virtual(nodes)

    async def scenario() -> None:
        async with front(nodes) as shop:
            body = msgspec.json.encode(payment(card, 100))
            path, key = "/v1/payments", "signed-0001"

            async def told(headers: dict[str, str], sent: bytes = body) -> str:
                answer = await shop._http.post(path, content=sent, headers=headers)
                assert answer.status_code in (400, 401), answer.text
                assert answer.headers["content-type"] == "application/problem+json"
                return str(answer.json()["type"].rpartition(":")[2])

            plain = {"Content-Type": "application/json", "Idempotency-Key": key}
            assert await told(plain) == "signature-missing"
            assert await told(plain | {"JWS-Signature": "a.b.c"}) == "signature-malformed"
            good = shop.headers("POST", path, body, key)
            assert await told(good, body.replace(b"100", b"900")) == "signature-wrong"
            assert await told(good | {"Idempotency-Key": "signed-0002"}) == "signature-of-another"
            old = shop.headers("POST", path, body, key, iat=int(time.time()) - 90)
            assert await told(old) == "signature-expired"
            elsewhere = shop.headers("POST", "/v1/refunds", body, key)
            assert await told(elsewhere) == "signature-of-another"
            stranger = shop.headers("POST", path, body, key, kid="nobody")
            assert await told(stranger) == "key-unknown"
            assert await told(shop.headers("POST", path, body, key, alg="SM2")) == "algorithm-wrong"
            assert (await shop._http.post(path, content=body, headers=good)).status_code == 200
            assert await told(good) == "signature-replayed"
            assert nodes.network.balance(card) == 9_900
            with nodes.acquirer.http() as api:
                api.post(f"/v1/front-keys/{shop.signer.key_id}/revoke", json={}).raise_for_status()
            from gateway.http import front_link

            assert front_link.KEY_S <= 10

    play(scenario)


@pytest.mark.parametrize(
    ("change", "status", "kind", "at"),
    [
        ({"amount": 1.5}, 422, "schema", "$.amount"),
        ({"amount": 0}, 422, "schema", "$.amount"),
        ({"currency": "XXX"}, 422, "currency-not-permitted", "$.currency"),
        ({"local_time": "yesterday"}, 422, "schema", "$.local_time"),
        ({"surprise": 1}, 422, "schema", "$"),
        ({"card": None}, 422, "card-or-code", "$"),
        ({"card": None, "code": "no code at all"}, 422, "code-malformed", "$.code"),
        (
            {"card": {"entry": "ecommerce", "pan": "6223001000001230", "expiry": "4912"}},
            422,
            "card-number-invalid",
            "$.card.pan",
        ),
        (
            {"card": {"entry": "stripe", "pan": "6223001000001233", "expiry": "4912"}},
            422,
            "card-incomplete",
            "$.card.track2",
        ),
        ({"card": {"entry": "wishing"}}, 422, "schema", "$.card.entry"),
    ],
)
def test_what_is_wrong_is_named(
    nodes: TwoNodes, change: dict[str, Any], status: int, kind: str, at: str
) -> None:
    async def scenario() -> None:
        async with front(nodes) as shop:
            card = IssuedCard(b"", "6223001000001233", "", "4912", 0, cvv2="123")
            body = {k: v for k, v in (payment(card, 100) | change).items() if v is not None}
            answer = await shop.post("/v1/payments", body, "wrong-0001")
            told = answer.json()
            assert (answer.status_code, told["type"].rpartition(":")[2]) == (status, kind), told
            assert told["at"] == at
            assert "6223001" not in answer.text

    play(scenario)


def test_size_and_time_have_limits(nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.http import api, server

    monkeypatch.setattr(api, "BODY_S", 0.3)
    monkeypatch.setattr(server, "HEAD_S", 0.3)

    async def scenario() -> None:
        async with front(nodes) as shop:
            huge = await shop._http.post("/v1/payments", content=b"x" * 20_000)
            assert (huge.status_code, huge.json()["type"].rpartition(":")[2]) == (
                413,
                "body-too-large",
            )
            host, port = shop._http.base_url.host, shop._http.base_url.port
            assert port is not None
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"POST /v1/payments HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{")
            assert b" 408 " in await reader.readline()
            writer.close()
            slow, trickle = await asyncio.open_connection(host, port)
            trickle.write(b"POST /v1/pay")
            async with asyncio.timeout(5):
                assert await slow.read() == b""  # closed without a head
            missing = await shop._http.get("/v1/nothing")
            assert (missing.status_code, missing.json()["status"]) == (404, 404)
            health = await shop._http.get("/health")
            assert health.json()["status"] == "ok"

    play(scenario)


def test_an_order_is_paid_once_by_a_wallet(nodes: TwoNodes) -> None:
    card = nodes.network.card(10_000, service_code="201")

    async def scenario() -> None:
        async with front(nodes) as shop:
            wanted = {
                "amount": 1_250,
                "currency": "CNY",
                "local_time": LOCAL,
                "reference": "Table 7",
            }
            made = await shop.post("/v1/orders", wanted, "order-0001")
            assert made.status_code == 201, made.text
            order = made.json()
            again = await shop.post("/v1/orders", wanted, "order-0001")
            assert again.json()["order_id"] == order["order_id"]
            other = await shop.post("/v1/orders", wanted | {"amount": 1}, "order-0001")
            assert other.status_code == 409
            scanned = codes.read_order_code(order["qr"])
            assert (scanned.order_id, scanned.amount) == (order["order_id"], 1_250)
            assert codes.is_signed(scanned, public(ACQUIRER))
            assert not codes.is_signed(scanned._replace(amount=1), public(ACQUIRER))
            shown = await shop._http.get(f"/o/{order['order_id']}")
            assert "12.50 CNY" in shown.text
            assert "data:image/png" in shown.text

            with nodes.issuer.http() as api:
                wallet = Wallet(api, card.card_token.hex())
                bad = await shop._http.post(scanned.pay_url, json={"code": "not a code"})
                assert bad.status_code == 422
                # Several wallets at once: one pays.
                codes_shown = [wallet.show_code() for _ in range(4)]
                answers = await asyncio.gather(
                    *(shop._http.post(scanned.pay_url, json={"code": c}) for c in codes_shown)
                )
            paid = [a for a in answers if a.status_code == 200 and a.json()["approved"]]
            assert len(paid) == 1
            assert {a.status_code for a in answers} <= {200, 409}
            state = (await shop.get(f"/v1/orders/{order['order_id']}")).json()
            assert (state["state"], state["rrn"]) == ("paid", paid[0].json()["rrn"])
            assert nodes.network.balance(card) == 8_750
            late = await shop._http.post(scanned.pay_url, json={"code": codes_shown[0]})
            assert (late.status_code, late.json()["type"].rpartition(":")[2]) == (
                409,
                "order-paid",
            )
            assert "Paid" in (await shop._http.get(f"/o/{order['order_id']}")).text

    play(scenario)


def test_a_declined_attempt_leaves_the_order_open_until_its_time_is_over(nodes: TwoNodes) -> None:
    poor = nodes.network.card(100, service_code="201")

    async def scenario() -> None:
        async with front(nodes) as shop:
            wanted = {"amount": 500, "currency": "CNY", "local_time": LOCAL, "lifetime_s": 30}
            order = (await shop.post("/v1/orders", wanted, "order-poor")).json()
            url = codes.read_order_code(order["qr"]).pay_url
            with nodes.issuer.http() as api:
                code = Wallet(api, poor.card_token.hex()).show_code()
            told = (await shop._http.post(url, json={"code": code})).json()
            assert told["outcome"] == "insufficient_funds"
            path = f"/v1/orders/{order['order_id']}"
            assert (await shop.get(path)).json()["state"] == "open"
            with nodes.network.acquirer_db.owner_engine.begin() as connection:
                connection.exec_driver_sql("UPDATE orders SET expires_ms = 1 WHERE state = 'open'")
            assert (await shop.get(path)).json()["state"] == "expired"
            gone = await shop._http.post(url, json={"code": code})
            assert gone.json()["type"].rpartition(":")[2] == "order-expired"

    play(scenario)


# --- webhooks ------------------------------------------------------------------------------------


@contextmanager
def listening(status: int) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]], list[int]]]:
    """A merchant's server; `statuses[0]` is what it answers."""
    received: list[tuple[dict[str, str], bytes]] = []
    statuses = [status]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(statuses[0])
            if statuses[0] == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", received, statuses
    finally:
        server.shutdown()
        server.server_close()


def test_a_webhook_arrives_signed_once_and_is_tried_again(nodes: TwoNodes) -> None:
    card = virtual(nodes)
    engine = nodes.network.acquirer_db.engine
    seed = SEEDS[ACQUIRER]
    clock = nodes.network.clock

    def send(after_ms: int = 0, private: bool = True) -> int:
        now_ms = clock.now_ms() + after_ms
        return delivering.deliver_due(engine, seed, now_ms, private_allowed=private)

    async def scenario() -> None:
        with listening(503) as (url, received, statuses):
            with nodes.acquirer.http() as api:
                refused = api.post(
                    "/v1/webhook-endpoints", json={"merchant_id": MERCHANT, "url": url}
                )
                assert refused.status_code == 422  # http, and this node is no sandbox
                with engine.begin() as connection:
                    endpoint = "A" * 16
                    connection.exec_driver_sql(
                        "INSERT INTO webhook_endpoints (endpoint_id, merchant_id, url, created_by,"
                        " created_at) VALUES (%s, %s, %s, 'test', now())",
                        (endpoint, MERCHANT, url),
                    )
                    connection.exec_driver_sql(
                        "INSERT INTO webhook_scan (xact, transaction_id) VALUES"
                        " (pg_snapshot_xmin(pg_current_snapshot()), 0) ON CONFLICT DO NOTHING"
                    )
                async with front(nodes) as shop:
                    answer = await shop.post("/v1/payments", payment(card, 900), "hook-0001")
                    bought = answer.json()
                assert delivering.collect(engine, clock.now_ms()) == 1
                assert delivering.collect(engine, clock.now_ms()) == 0
                assert send(private=False) == 1  # a private address: not sent
                assert received == []
                log = api.get("/v1/webhook-deliveries").json()["items"]
                assert log[0]["last_error"] in (
                    "the URL must be https",
                    "the host has a private address",
                )
                assert send() == 0  # not due
                assert send(6_000) == 1
                assert log[0]["attempts"] == 1
                assert len(received) == 1
                statuses[0] = 302
                assert send(60_000) == 1  # a redirect is no delivery
                statuses[0] = 204
                assert send(300_000) == 1
                assert send(86_400_000) == 0
            headers, body = received[-1]
            assert len(received) == 3
            assert {h["webhook-id"] for h, _ in received} == {f"msg_{bought['txid']}"}
            content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            key = webhooks.secret_of(seed, "A" * 16)
            expected = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
            assert headers["webhook-signature"] == f"v1,{expected}"
            told = json.loads(body)
            assert (told["type"], told["data"]["amount"]) == ("purchase.completed", 900)
            assert card.pan not in body.decode()
            with nodes.acquirer.http() as api:
                [item] = api.get("/v1/webhook-deliveries").json()["items"]
                assert (item["attempts"], item["last_status"]) == (4, 204)
                assert item["delivered_at"] is not None
                again = api.post(f"/v1/webhook-deliveries/{item['delivery_id']}/replay", json={})
                assert again.status_code == 200
            assert send() == 1
            assert len(received) == 4

    play(scenario)


def test_standard_webhooks_vector() -> None:
    """Standard Webhooks 1.0, the specification's example of a signature."""
    secret_shown = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    key = base64.b64decode(secret_shown.removeprefix("whsec_"))
    value = webhooks.signature(
        key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert value == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert webhooks.shown_secret(key) == secret_shown


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "https://user:pass@example.com/",
        "https://",
        "ftp://example.com/",
        "https://example.com/#fragment",
        "https://example.com:notaport/",
    ],
)
def test_where_a_webhook_never_goes(url: str) -> None:
    with pytest.raises(UrlRefused):
        webhooks.check_url(url, private_allowed=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "localhost"])
def test_private_addresses_are_refused(host: str) -> None:
    with pytest.raises(UrlRefused):
        webhooks.resolve(host, 443, private_allowed=False)


def test_a_message_is_given_up_after_a_day() -> None:
    created, now, attempts, moments = 0, 0, 0, []
    while True:
        attempts += 1
        again = webhooks.next_attempt(created, attempts, now)
        if again is None:
            break
        moments.append(again)
        now = again
    assert moments[:3] == [5_000, 35_000, 155_000]
    assert 20 * 3_600_000 < moments[-1] <= 24 * 3_600_000


def test_the_openapi_document_has_examples_that_are_taken(nodes: TwoNodes) -> None:
    from gateway.http import bodies, openapi

    made = openapi.document("https://pay.example")
    assert set(made["paths"]) >= {"/v1/payments", "/v1/orders", "/v1/orders/{order_id}"}
    for operations in made["paths"].values():
        for operation in operations.values():
            [told] = [one for code, one in operation["responses"].items() if code < "300"]
            answer = told["content"]["application/json"]
            of = getattr(bodies, answer["schema"]["$ref"].rpartition("/")[2])
            # All of it is known to the answer's struct, and in its form.
            assert msgspec.to_builtins(msgspec.convert(answer["example"], of)) == answer["example"]
        if "post" not in operations:
            continue
        content = operations["post"]["requestBody"]["content"]["application/json"]
        name = content["schema"]["$ref"].rpartition("/")[2]
        msgspec.convert(content["example"], getattr(bodies, name))

    async def scenario() -> None:
        async with front(nodes) as shop:
            served = (await shop._http.get("/openapi.json")).json()
            assert served["openapi"] == "3.1.0"
            order_id = ""
            for number, (path, operations) in enumerate(served["paths"].items()):
                if "post" not in operations:
                    continue
                post = operations["post"]
                [status] = [code for code in post["responses"] if code < "300"]
                example = post["requestBody"]["content"]["application/json"]["example"]
                place = path.replace("{order_id}", order_id)
                if post["security"]:
                    answer = await shop.post(place, example, f"example-{number:04d}")
                else:
                    answer = await shop._http.post(place, json=example)
                assert answer.status_code == int(status), (path, answer.text)
                name = post["responses"][status]["content"]["application/json"]["schema"]["$ref"]
                msgspec.convert(answer.json(), getattr(bodies, name.rpartition("/")[2]))
                order_id = answer.json().get("order_id", order_id)
            assert order_id

    play(scenario)
