"""The fleet's API: enrolment, parameters, keys, disabling, and what gateways take and report."""

from __future__ import annotations

import itertools
from typing import Any

import httpx
import pytest

from nodes.api.client import NodeClient, NodeRefused
from tests.factories.network import MERCHANT, TERMINAL
from tests.integration.api.running import GATEWAY, TwoNodes, run
from tests.integration.api.test_cards import problem_of

_numbers = itertools.count(1)
PARAMETERS = {
    "currency": "CNY",
    "receipt_language": "en",
    "receipt_width_mm": 80,
    "floor_limit": 5_000,
    "offline_per_transaction": 20_000,
    "offline_count_per_card": 3,
    "offline_per_card": 100_000,
    "offline_per_terminal": 2_000_000,
    "offline_hours": 24,
    "hotlist_max_age_hours": 24,
    "no_cvm_limit": 50_000,
}


def new_terminal(**changes: Any) -> dict[str, Any]:
    return {
        "terminal_id": f"F{next(_numbers):07d}",
        "merchant_id": MERCHANT,
        "store": "Pier 3",
        "label": "Till 2",
        "suite": "AES",
        "capabilities": ["chip", "offline", "printer"],
        "parameters": PARAMETERS,
        "with_key": True,
        **changes,
    }


def enrolled(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/terminals", json=new_terminal(**changes))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def act(client: httpx.Client, terminal_id: str, what: str, body: Any, key: str = "") -> Any:
    headers = {"Idempotency-Key": key or f"key-{next(_numbers):08d}"}
    return client.post(f"/v1/terminals/{terminal_id}/{what}", json=body, headers=headers)


def changes_after(nodes: TwoNodes, after: int) -> dict[str, Any]:
    async def asked() -> Any:
        async with nodes.acquirer.client(GATEWAY) as client:
            return await client.get_json("/v1/terminals/changes", after=after)

    return dict(run(asked()))


def test_an_enrolled_terminal_has_its_parameters_its_first_key_and_a_history(
    nodes: TwoNodes,
) -> None:
    with nodes.acquirer.http("operator") as client:
        made = enrolled(client)
        assert (made["suite"], made["key_generation"], made["status"]) == ("AES", 1, "active")
        assert made["parameters"] == PARAMETERS
        assert made["key_checks"] == []
        shown = client.get(f"/v1/terminals/{made['terminal_id']}").json()
        assert shown == made
        [first] = client.get(f"/v1/terminals/{made['terminal_id']}/history").json()["items"]
        assert (first["kind"], first["actor"], first["enabled"]) == (
            "enrolled",
            "key:operator",
            True,
        )
        bare = enrolled(client, parameters=None, with_key=False, capabilities=[])
        assert (bare["key_generation"], bare["parameters"]["currency"]) == (0, "CNY")


def test_bad_enrolments_are_refused_and_named(nodes: TwoNodes) -> None:
    with nodes.acquirer.http("operator") as client:
        flawed = PARAMETERS | {"floor_limit": 30_000, "offline_per_card": 10}
        answer = client.post("/v1/terminals", json=new_terminal(parameters=flawed))
        found = problem_of(answer, 422)
        assert {error["at"] for error in found["errors"]} == {
            "body.parameters.floor_limit",
            "body.parameters.offline_per_transaction",
        }
        problem_of(client.post("/v1/terminals", json=new_terminal(merchant_id="N" * 15)), 422)
        problem_of(client.post("/v1/terminals", json=new_terminal(suite="RC4")), 422)
        problem_of(client.post("/v1/terminals", json=new_terminal(capabilities=["wings"])), 422)
        problem_of(client.post("/v1/terminals", json=new_terminal(terminal_id="changes")), 422)
        problem_of(client.post("/v1/terminals", json=new_terminal(terminal_id=TERMINAL)), 409)
        sm2 = new_terminal(suite="SM", management="sm2", certificate="01")
        for certificate in ("01", ""):
            body = sm2 | {"certificate": certificate}
            found = problem_of(client.post("/v1/terminals", json=body), 422)
            assert [error["at"] for error in found["errors"]] == ["body.certificate"]
        problem_of(client.post("/v1/terminals", json=sm2 | {"sm2_public_key": "ab"}), 422)
        dukpt = new_terminal(suite="LEGACY", management="dukpt")
        assert problem_of(client.post("/v1/terminals", json=dukpt), 422)["type"].endswith(
            "keys-invalid"
        )
        no_chip = new_terminal(capabilities=["offline"])
        assert "floor_limit" in client.post("/v1/terminals", json=no_chip).text


def test_the_same_key_does_the_same_once_and_nothing_else(nodes: TwoNodes) -> None:
    with nodes.acquirer.http("operator") as client:
        body = new_terminal()
        headers = {"Idempotency-Key": f"enrol-{body['terminal_id']}"}
        first = client.post("/v1/terminals", json=body, headers=headers)
        again = client.post("/v1/terminals", json=body, headers=headers)
        assert (first.status_code, again.status_code) == (201, 201)
        assert first.json() == again.json()
        other = client.post("/v1/terminals", json=body | {"store": "Pier 4"}, headers=headers)
        assert problem_of(other, 409)["type"].endswith("key-reused")
        name = body["terminal_id"]
        key = f"keys-{name}"
        for _ in range(2):
            assert (
                act(client, name, "keys", {"reason": "yearly"}, key).json()["key_generation"] == 2
            )
        assert len(client.get(f"/v1/terminals/{name}/history").json()["items"]) == 2


def test_parameters_replace_the_version_that_was_seen(nodes: TwoNodes) -> None:
    with nodes.acquirer.http("operator") as client:
        name = enrolled(client)["terminal_id"]
        body = {
            "parameters": PARAMETERS | {"floor_limit": 0},
            "based_on": 1,
            "reason": "no offline",
        }
        assert act(client, name, "parameters", body).json()["parameters_version"] == 2
        assert problem_of(act(client, name, "parameters", body), 409)["type"].endswith("moved-on")
        again = act(client, name, "parameters", body | {"based_on": 2})
        assert problem_of(again, 409)["type"].endswith("already-so")
        missing = {k: v for k, v in PARAMETERS.items() if k != "offline_hours"}
        problem_of(act(client, name, "parameters", body | {"parameters": missing}), 422)
        problem_of(act(client, "NOTTHERE", "parameters", body), 404)


def test_disabling_needs_a_reason_and_stands_in_the_history(nodes: TwoNodes) -> None:
    with nodes.acquirer.http("operator") as client:
        name = enrolled(client)["terminal_id"]
        problem_of(act(client, name, "disable", {"reason": ""}), 422)
        assert act(client, name, "disable", {"reason": "stolen"}).json()["status"] == "disabled"
        problem_of(act(client, name, "disable", {"reason": "again"}), 409)
        found = client.get("/v1/terminals", params={"status": "disabled"}).json()["items"]
        assert name in {entry["terminal_id"] for entry in found}
        assert act(client, name, "enable", {"reason": "found"}).json()["status"] == "active"
        kinds = [c["kind"] for c in client.get(f"/v1/terminals/{name}/history").json()["items"]]
        assert kinds == ["enabled", "disabled", "enrolled"]


def test_readers_look_and_don_t_touch_and_gateways_alone_take_changes(nodes: TwoNodes) -> None:
    with nodes.acquirer.http("operator") as client:
        name = enrolled(client)["terminal_id"]
        problem_of(client.get("/v1/terminals/changes"), 403)
        problem_of(client.post("/v1/terminals/reports", json={"sightings": []}), 403)
    with nodes.acquirer.http("reader") as client:
        assert client.get(f"/v1/terminals/{name}").status_code == 200
        for what in ("disable", "enable", "keys"):
            problem_of(act(client, name, what, {"reason": "why not"}), 403)
        problem_of(client.post("/v1/terminals", json=new_terminal()), 403)
    with nodes.issuer.http("operator") as client:
        problem_of(client.post("/v1/terminals", json=new_terminal()), 404)


def test_pages_and_filters_find_each_terminal_once(nodes: TwoNodes) -> None:
    store = f"Store {next(_numbers)}"
    with nodes.acquirer.http("operator") as client:
        made = [enrolled(client, store=store)["terminal_id"] for _ in range(5)]
        seen: list[str] = []
        cursor: str | None = None
        while True:
            params = {"store": store, "limit": 2, **({"cursor": cursor} if cursor else {})}
            page = client.get("/v1/terminals", params=params).json()
            seen += [entry["terminal_id"] for entry in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
    assert seen == sorted(made)


def test_a_gateway_follows_the_changes_by_number(nodes: TwoNodes) -> None:
    after = changes_after(nodes, 0)["next"]
    with nodes.acquirer.http("operator") as client:
        first, second = enrolled(client)["terminal_id"], enrolled(client)["terminal_id"]
        page = changes_after(nodes, after)
        assert [item["terminal_id"] for item in page["items"]] == [first, second]
        act(client, first, "disable", {"reason": "stolen"})
        [item] = changes_after(nodes, page["next"])["items"]
        assert (item["terminal_id"], item["enabled"], item["suite"]) == (first, False, 2)
    assert changes_after(nodes, item["change_id"]) == {"items": [], "next": item["change_id"]}


def test_a_terminal_without_enrolment_can_be_disabled_too(nodes: TwoNodes) -> None:
    after = changes_after(nodes, 0)["next"]
    with nodes.acquirer.http("operator") as client:
        before = client.get(f"/v1/terminals/{TERMINAL}").json()
        assert (before["key_generation"], before["parameters_version"]) == (0, 0)
        assert act(client, TERMINAL, "disable", {"reason": "test"}).json()["status"] == "disabled"
        assert [i["terminal_id"] for i in changes_after(nodes, after)["items"]] == [TERMINAL]
        assert act(client, TERMINAL, "enable", {"reason": "test"}).json()["status"] == "active"


def test_what_a_gateway_reports_is_shown(nodes: TwoNodes) -> None:
    async def report(*sightings: dict[str, Any]) -> Any:
        async with nodes.acquirer.client(GATEWAY) as client:
            return await client.post_json("/v1/terminals/reports", {"sightings": list(sightings)})

    with nodes.acquirer.http("operator") as client:
        name = enrolled(client)["terminal_id"]
        seen = {"terminal_id": name, "last_seen_ms": 1_790_000_000_000, "batch": "000007"}
        unknown = {"terminal_id": "ZZZZZZZZ", "last_seen_ms": 1}
        assert run(report(seen, unknown)) == {"known": 1}
        run(report({"terminal_id": name, "last_sign_on_ms": 1_789_000_000_000}))
        check = {"terminal_id": name, "key_generation": 1, "check_value": "A1B2C3D4"}
        run(report(check))
        run(report(check))
        shown = client.get(f"/v1/terminals/{name}").json()
        assert shown["last_seen_at"] == "2026-09-21T14:13:20Z"
        assert shown["last_sign_on_at"].startswith("2026-09-10")
        assert (shown["batch"], shown["gateway"], shown["keys_differ"]) == (
            "000007",
            GATEWAY,
            False,
        )
        assert [c["check_value"] for c in shown["key_checks"]] == ["A1B2C3D4"]
        run(report(check | {"check_value": "FFFFFFFF"}))
        assert client.get(f"/v1/terminals/{name}").json()["keys_differ"] is True


def test_a_report_that_is_none_is_refused(nodes: TwoNodes) -> None:
    async def report(document: Any) -> None:
        client: NodeClient
        async with nodes.acquirer.client(GATEWAY) as client:
            await client.post_json("/v1/terminals/reports", document)

    for sighting in (
        {"terminal_id": "T0000001", "check_value": "xyz"},
        {"terminal_id": "T0000001", "last_seen_ms": -1},
        {"terminal_id": "T0000001", "pan": "6223001000000000"},
        {"terminal_id": "short"},
    ):
        with pytest.raises(NodeRefused) as refused:
            run(report({"sightings": [sighting]}))
        assert refused.value.status == 422


def test_each_change_is_an_event_of_the_log(nodes: TwoNodes) -> None:
    with nodes.acquirer.http("operator") as client:
        name = enrolled(client)["terminal_id"]
        act(client, name, "disable", {"reason": "reported stolen"})
    engine = nodes.acquirer.node.engine
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT action, actor, detail FROM events WHERE subject = %s ORDER BY event_id", (name,)
        ).all()
    assert [row[0] for row in rows if row[1] != "node"] == [
        "terminal.enrolled",
        "terminal.disabled",
    ]
    assert "reported stolen" in rows[-1][2]
