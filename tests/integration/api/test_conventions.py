"""What every endpoint has, read off the schema: pages with cursors, keys that make repeats safe."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.terminal_keys.authority import authority_certificate
from gateway.terminal_keys.ring import MASTER_KEY
from nodes.acquiring.online.store import queue_delivery
from nodes.cards.model import CardForm, Making
from nodes.crypto.hsm import SoftwareHsm
from nodes.db.engine import transaction
from nodes.reconciliation.invariants import check_invariants
from tests.integration.api.running import TwoNodes
from tests.integration.api.test_authorization import problem_of
from tests.integration.api.test_terminal_changes import another_merchant, trusted

_keys = itertools.count(1)
#: Lists that go on behind a number of their own instead of behind a cursor.
KEYED = {
    "/v1/log/entries": "start: a log index (C2SP)",
    "/v1/feed": "after: a log index, which merchants keep",
    "/v1/terminals/changes": "after: the number of the last change, which gateways keep",
    "/v1/offline/hotlist": "after: the number of the last entry, which acquirers keep",
}


@pytest.fixture(scope="module")
def schema(nodes: TwoNodes) -> Iterator[dict[str, Any]]:
    with nodes.issuer.http(None) as client:
        yield client.get("/openapi.json").json()


def shape_of(schema: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    content = operation["responses"].get("200", {}).get("content", {})
    shape: dict[str, Any] = content.get("application/json", {}).get("schema", {})
    if "$ref" in shape:
        shape = schema["components"]["schemas"][shape["$ref"].rpartition("/")[2]]
    return shape


def parameters_of(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in operation.get("parameters", [])}


def test_every_list_has_pages_with_a_cursor(schema: dict[str, Any]) -> None:
    lists, without = 0, []
    for path, methods in schema["paths"].items():
        if "get" not in methods:
            continue
        shape = shape_of(schema, methods["get"])
        members = shape.get("properties", {})
        is_list = shape.get("type") == "array" or members.get("items", {}).get("type") == "array"
        if not is_list or path in KEYED:
            continue
        lists += 1
        names = set(parameters_of(methods["get"]))
        if not ({"limit", "cursor"} <= names and "next" in members):
            without.append(path)
    assert without == []
    assert lists >= 25
    assert set(schema["paths"]) >= set(KEYED)


def pages(client: Any, path: str, limit: int = 1) -> list[dict[str, Any]]:
    """All items, as one who follows the cursors gets them."""
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    for _ in range(200):
        params = {"limit": limit} | ({"cursor": cursor} if cursor is not None else {})
        page = client.get(path, params=params)
        assert page.status_code == 200, page.text
        document = page.json()
        assert len(document["items"]) <= limit
        items += document["items"]
        cursor = document["next"]
        if cursor is None:
            return items
    raise AssertionError("the pages have no end")


def test_keys_endpoints_authorities_and_members_are_read_page_by_page(nodes: TwoNodes) -> None:
    with nodes.acquirer.http("operator") as client:
        merchant_id = another_merchant(client)
        # As long as an id may be: its cursor must still be one.
        key_ids = [f"{letter}{'k' * 63}" for letter in "abc"]
        for key_id in key_ids:
            key = {"key_id": key_id, "merchant_id": merchant_id, "algorithm": "SM2"}
            answer = client.post("/v1/front-keys", json=key | {"public_key": "ab" * 64})
            assert answer.status_code == 201, answer.text
        shown = [one["key_id"] for one in pages(client, "/v1/front-keys")]
        assert shown == sorted(shown)
        assert set(shown) >= set(key_ids)

        made = set()
        for number in range(3):
            body = {"merchant_id": merchant_id, "url": f"https://shop.example/hook/{number}"}
            answer = client.post("/v1/webhook-endpoints", json=body)
            assert answer.status_code == 201, answer.text
            made.add(answer.json()["endpoint_id"])
        endpoints = pages(client, "/v1/webhook-endpoints", 2)
        assert {one["endpoint_id"] for one in endpoints} >= made
        assert len({one["endpoint_id"] for one in endpoints}) == len(endpoints)
        assert all(one["secret"] is None for one in endpoints)

        authority = trusted(client, nodes.network.clock.now_ms())
        authorities = [one["fingerprint"] for one in pages(client, "/v1/terminal-authorities")]
        assert authorities.count(authority["fingerprint"]) == 1
        assert authorities == sorted(authorities)

        members = [one["member_id"] for one in pages(client, "/v1/members")]
        assert members == [one.member_id for one in nodes.directory.members()]
        assert client.get("/v1/members", params={"cursor": "!!"}).status_code == 422


# --- keys ----------------------------------------------------------------------------------------

#: What changes something and has no Idempotency-Key, with the reason; or what changes nothing.
WITHOUT_KEY = {
    "/v1/transactions/{txid}/promise": "made once a transaction, then always the same",
    "/v1/transactions/{txid}/receipt": "the same promise",
    "/v1/receipts/claims": "a claim is one whoever brings it: (member, txid, C)",
    "/v1/rules/backtest": "changes nothing",
    "/v1/simulations": "changes nothing",
    "/v1/comparisons": "changes nothing",
    "/v1/case-steps": "members': each step has its key in the body, signed",
    "/v1/terminals/reports": "gateways': the last sighting stands",
    "/v1/front/key": "changes nothing",
    "/v1/front/jtis": "gateways': the jti is taken once, which is what it is for",
    "/v1/front/orders": "gateways': the caller's key is in the body",
    "/v1/front/orders/read": "changes nothing but what time has ended",
    "/v1/front/orders/claim": "gateways': an order is claimed by one attempt at a time",
    "/v1/terminal-requests": "gateways': each request has its own key",
    "/v1/terminal-services": "gateways': each request has its own key",
    "/v1/authorizations": "acquirers': each request has its own key",
}


def test_every_change_takes_an_idempotency_key(schema: dict[str, Any]) -> None:
    without, keyed = [], 0
    for path, methods in schema["paths"].items():
        for method in set(methods) & {"post", "put", "patch", "delete"}:
            if "Idempotency-Key".lower() in {n.lower() for n in parameters_of(methods[method])}:
                keyed += 1
                assert path not in WITHOUT_KEY
            elif path not in WITHOUT_KEY:
                without.append(f"{method} {path}")
    assert without == []
    assert keyed >= 40
    assert set(schema["paths"]) >= set(WITHOUT_KEY)


def repeated(
    client: httpx.Client, path: str, body: dict[str, Any], other: tuple[str, dict[str, Any]]
) -> dict[str, Any]:
    """Ask twice under one key, then for something else under it; the answer to the first."""
    headers = {"Idempotency-Key": f"key-{next(_keys):06d}"}
    first = client.post(path, json=body, headers=headers)
    assert first.status_code in (200, 201), first.text
    again = client.post(path, json=body, headers=headers)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    reused = problem_of(client.post(other[0], json=other[1], headers=headers), 409)
    assert reused["type"].endswith(":key-reused")
    document: dict[str, Any] = first.json()
    return document


def test_what_an_issuer_changes_is_done_once_a_key(nodes: TwoNodes) -> None:
    card, another = nodes.network.card(10_000), nodes.network.card(10_000)
    token, other = card.card_token.hex(), another.card_token.hex()
    account = f"/v1/accounts/{card.account_id}"
    with nodes.issuer.http("operator") as client:
        versions = f"{account}/versions"
        reason = "lost on the ferry"
        freeze, thaw = ({"status": s, "reason": reason} for s in ("frozen", "open"))
        repeated(client, f"{account}/status", freeze, (f"{account}/status", thaw))
        repeated(client, f"{account}/status", thaw, (f"{account}/status", freeze))
        blocked = {"status": "blocked", "reason": reason}
        path = f"/v1/cards/{token}/status"
        active = {"status": "active", "reason": reason}
        before = len(client.get(versions).json()["items"])
        repeated(client, path, blocked, (path, active))
        repeated(client, path, active, (path, blocked))
        # Without its key a repeat would be refused: a card isn't blocked twice.
        assert len(client.get(versions).json()["items"]) == before + 2

        codes = f"/v1/cards/{token}/codes"
        code = repeated(client, codes, {}, (f"/v1/cards/{other}/codes", {}))
        assert client.post(codes, json={}).json()["payload"] != code["payload"]

        path = f"/v1/cards/{token}/offline-key"
        key, second = ({"public_key": public_key().hex()} for _ in range(2))
        repeated(client, path, key, (path, second))


def test_a_script_is_queued_once_a_key(nodes: TwoNodes) -> None:
    card = nodes.network.card(100, making=Making(CardForm.CHIP))
    path = f"/v1/cards/{card.card_token.hex()}/scripts"
    with nodes.issuer.http("operator") as client:
        reset, block = (
            {"script": script, "reason": "limits changed"}
            for script in ("reset_offline", "block_application")
        )
        first = repeated(client, path, reset, (path, block))
        assert first == {"number": 1, "waiting": ["reset_offline"]}
        both = repeated(client, path, block, (path, reset))
        assert both == {"number": 2, "waiting": ["block_application", "reset_offline"]}


def test_terms_are_decided_once_a_key(nodes: TwoNodes) -> None:
    with nodes.issuer.http("operator") as maker, nodes.issuer.http("admin") as checker:
        body: dict[str, Any] = {"product_id": "decided", "name": "Decided", "terms": {}}
        assert maker.post("/v1/products", json=body).status_code == 201
        path = "/v1/products/decided/terms"
        for number in range(3):
            change = {"terms": {"max_balance": 1_000 + number}, "reason": "the bank asks for it"}
            headers = {"Idempotency-Key": f"key-{next(_keys):06d}"}
            assert maker.post(path, json=change, headers=headers).status_code == 201
        done = repeated(checker, f"{path}/2/approve", {}, (f"{path}/3/approve", {}))
        assert done["state"] == "approved"
        done = repeated(checker, f"{path}/3/reject", {}, (f"{path}/4/reject", {}))
        assert done["state"] == "rejected"


def test_a_rejection_is_done_once_a_key(nodes: TwoNodes) -> None:
    card = nodes.network.card(10_000)
    with nodes.issuer.http("operator") as maker, nodes.issuer.http("admin") as checker:

        def proposed(number: int) -> int:
            body = {
                "account_id": card.account_id,
                "amount": -number,
                "currency": "CNY",
                "reason": "a fee taken twice",
            }
            headers = {"Idempotency-Key": f"key-{next(_keys):06d}"}
            answer = maker.post("/v1/adjustments", json=body, headers=headers)
            return int(answer.json()["adjustment_id"])

        path, other = (f"/v1/adjustments/{proposed(n)}/reject" for n in (1, 2))
        assert repeated(checker, path, {}, (other, {}))["state"] == "rejected"
        # What is refused isn't kept: the maker's try leaves the key free for the checker.
        headers = {"Idempotency-Key": f"key-{next(_keys):06d}"}
        assert problem_of(maker.post(other, json={}, headers=headers), 403)
        assert checker.post(other, json={}, headers=headers).status_code == 200


def test_what_an_acquirer_sets_up_is_done_once_a_key(nodes: TwoNodes) -> None:
    with nodes.acquirer.http("operator") as client:
        merchant = {
            "merchant_id": f"KEYED{next(_keys):010d}",
            "name": "Keyed",
            "mcc": "5812",
            "country": "CN",
            "currency": "CNY",
        }
        renamed = merchant | {"name": "Renamed"}
        made = repeated(client, "/v1/merchants", merchant, ("/v1/merchants", renamed))
        assert made["name"] == "Keyed"
        key = {
            "key_id": f"till-{next(_keys)}",
            "merchant_id": merchant["merchant_id"],
            "algorithm": "SM2",
            "public_key": "cd" * 64,
        }
        changed = key | {"public_key": "ef" * 64}
        repeated(client, "/v1/front-keys", key, ("/v1/front-keys", changed))
        revoke = "/v1/front-keys/{}/revoke"
        repeated(client, revoke.format(key["key_id"]), {}, (revoke.format("another"), {}))

        hook = {"merchant_id": merchant["merchant_id"], "url": "https://shop.example/keyed"}
        elsewhere = hook | {"url": "https://shop.example/other"}
        path = "/v1/webhook-endpoints"
        endpoint = repeated(client, path, hook, (path, elsewhere))
        assert endpoint["secret"].startswith("whsec_")
        mine = [one for one in pages(client, path, 500) if one["url"] == hook["url"]]
        assert len(mine) == 1
        [(kept,)] = rows(
            nodes,
            "SELECT convert_from(answer, 'UTF8') FROM authorization_requests"
            " WHERE position(%s IN convert_from(answer, 'UTF8')) > 0",
            endpoint["endpoint_id"],
        )
        assert endpoint["secret"] not in kept

        replayed = delivery_to(nodes, endpoint["endpoint_id"])
        replay = "/v1/webhook-deliveries/{}/replay"
        repeated(client, replay.format(replayed), {}, (replay.format(replayed + 1), {}))
        end = f"{path}/{endpoint['endpoint_id']}/end"
        repeated(client, end, {}, (f"{path}/ANOTHER/end", {}))

        hsm = SoftwareHsm({MASTER_KEY: bytes(range(1, 17))})
        now_ms = nodes.network.clock.now_ms()
        body, more = (
            {"certificate": authority_certificate(one, now_ms).text()}
            for one in (hsm, SoftwareHsm({MASTER_KEY: bytes(range(2, 18))}))
        )
        path = "/v1/terminal-authorities"
        authority = repeated(client, path, body, (path, more))
        end = f"{path}/{authority['fingerprint']}/end"
        repeated(client, end, {}, (f"{path}/{'0' * 64}/end", {}))
    # Keys of changes that moved nothing are no violation of any invariant.
    assert check_invariants(nodes.network.acquirer_db.owner_engine) == []
    assert check_invariants(nodes.network.issuer_db.owner_engine) == []


def rows(nodes: TwoNodes, statement: str, *values: object) -> list[Any]:
    with psycopg.connect(nodes.network.acquirer_db.owner_dsn) as connection:
        return connection.execute(statement, values).fetchall()


def delivery_to(nodes: TwoNodes, endpoint_id: str) -> int:
    """A message that waits for an endpoint."""
    with transaction(nodes.network.acquirer_db.engine) as connection:
        queue_delivery(connection, f"msg_{endpoint_id}", endpoint_id, b"{}", 1)
    [(number,)] = rows(
        nodes, "SELECT delivery_id FROM webhook_deliveries WHERE endpoint_id = %s", endpoint_id
    )
    return int(number)


def public_key() -> bytes:
    """A card's: P-256, uncompressed."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
