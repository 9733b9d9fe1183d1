"""What every endpoint has, read off the schema: pages with cursors, keys that make repeats safe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.api.running import TwoNodes
from tests.integration.api.test_terminal_changes import another_merchant, trusted

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
