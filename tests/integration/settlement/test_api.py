"""Statements and orders over the nodes' served APIs."""

from __future__ import annotations

from typing import Any

import httpx

from nodes.chain.deploy import Terms
from tests.integration.clearing.institutions import KEY, Institution, Pair
from tests.integration.clearing.test_audit import anchor_both
from tests.integration.clearing.test_day_close import PAID
from tests.integration.settlement.conftest import Make
from tests.integration.settlement.statements import close_id
from tests.integration.settlement.test_statements import arbiters

UNKNOWN = "ab" * 32


def call(
    one: Institution, path: str, body: Any = None, *, role: str = "operator", key: str = "the-key-1"
) -> httpx.Response:
    with one.api.http(role) as http:
        if body is None:
            return http.get(path)
        return http.post(path, json=body, headers={"Idempotency-Key": key})


def only(one: Institution) -> dict[str, Any]:
    page = call(one, "/v1/settlements", role="reader").json()
    assert len(page["items"]) == 1
    found: dict[str, Any] = page["items"][0]
    return found


def problem(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition(":")[2]


def test_one_institution_proposes_and_the_other_countersigns(settling: Make) -> None:
    pair = settling(settlement="manual")
    pair.both(3, **PAID)
    pair.work()
    acquirer, issuer = pair.acquirer, pair.issuer
    body = {"close_id": close_id(acquirer)}
    assert call(acquirer, "/v1/settlements", body, role="reader").status_code == 403
    answer = call(acquirer, "/v1/settlements", body)
    assert answer.status_code == 202
    placed = answer.json()
    assert (placed["action"], placed["state"]) == ("propose", "waiting")
    assert call(acquirer, "/v1/settlements", body).json() == placed  # the same key again
    assert problem(call(acquirer, "/v1/settlements", body, key="the-key-2")) == "order-waiting"
    assert problem(call(acquirer, "/v1/settlements", {"close_id": 999})) == "key-reused"
    unknown = call(acquirer, "/v1/settlements", {"close_id": 999}, key="the-key-3")
    assert (unknown.status_code, problem(unknown)) == (404, "close-unknown")
    pair.work()
    order = call(acquirer, f"/v1/settlement-orders/{placed['order_id']}").json()
    mine, theirs = only(acquirer), only(issuer)
    assert (order["state"], order["settlement_id"]) == ("done", mine["settlement_id"])
    assert mine["settlement_id"] == theirs["settlement_id"]
    assert (mine["actions"], theirs["actions"]) == ([], ["countersign"])
    assert (theirs["acquirer_signed"], theirs["issuer_signed"]) == (True, False)
    assert theirs["state"] == "PROPOSED"
    path = f"/v1/settlements/{theirs['settlement_id']}"
    assert problem(call(acquirer, f"{path}/countersign", {}, key="the-key-4")) == "not-to-sign"
    answer = call(issuer, f"{path}/countersign", {})
    assert answer.status_code == 202
    assert only(issuer)["order"]["action"] == "countersign"
    pair.work()
    for one in (acquirer, issuer):
        detail = call(one, path, role="reader").json()
        assert detail["state"] == "CONFIRMED"
        assert detail["acquirer_signed"]
        assert detail["issuer_signed"]
        assert detail["actions"] == ["dispute"]
        assert detail["net"] == abs(detail["debits"] - detail["credits"])
        assert detail["gross"] == detail["debits"] + detail["credits"]
        assert {detail["payer"], detail["payee"]} == {KEY.acquirer, KEY.issuer}
        assert [step["state"] for step in detail["steps"]][-2:] == ["PROPOSED", "CONFIRMED"]
        [signature] = [s for s in detail["signatures"] if s["member"] == one.member_id]
        assert len(signature["signature"]) == 130
        [close] = call(one, "/v1/closes", role="reader").json()["items"]
        assert close["settlement_state"] == "CONFIRMED"
    again = call(acquirer, "/v1/settlements", body, key="the-key-5")
    assert (again.status_code, problem(again)) == (409, "already-settled")
    filtered = call(acquirer, "/v1/settlements?state=FINAL", role="reader").json()
    assert filtered["items"] == []
    assert call(acquirer, f"/v1/settlements/{UNKNOWN}").status_code == 404
    assert call(acquirer, "/v1/settlement-orders/999").status_code == 404
    assert len(call(acquirer, "/v1/settlement-orders?limit=1").json()["items"]) == 1


def test_a_dispute_and_what_arbiters_sign_go_over_the_api(settling: Make) -> None:
    judges = arbiters()
    pair = settling(terms=Terms(arbiters=tuple(one.address for one in judges), arbiter_threshold=2))
    pair.both(3, **PAID)
    pair.work()
    anchor_both(pair)
    issuer = pair.issuer
    path = f"/v1/settlements/{only(issuer)['settlement_id']}"
    [(txid,)] = issuer.rows("SELECT min(txid) FROM transactions")
    disputing = {"txid": txid.hex(), "reason": "paid twice"}
    assert call(issuer, f"{path}/dispute", disputing).status_code == 202
    pair.work()
    detail = call(issuer, path).json()
    assert (detail["state"], detail["actions"]) == ("DISPUTED", ["resolve"])
    assert (detail["dispute"]["by"], detail["dispute"]["reason"]) == (KEY.issuer, "paid twice")
    assert call(pair.acquirer, path).json()["dispute"]["reason"] is None
    question = {"verdict": "UPHELD", "reason": "once", "deadline": "2030-01-01T00:00:00Z"}
    with issuer.api.http("reader") as http:
        asked = http.get(f"{path}/resolution", params=question)
    assert asked.status_code == 200, asked.text
    to_sign = asked.json()
    assert to_sign["threshold"] == 2
    assert [a.lower() for a in to_sign["arbiters"]] == [j.address.lower() for j in judges]
    digest = bytes.fromhex(to_sign["digest"])
    signatures = [judge.sign_digest(digest).hex() for judge in judges[:2]]
    body = question | {"signatures": signatures}
    assert call(issuer, f"{path}/resolve", body, key="the-key-2").status_code == 403
    answer = call(issuer, f"{path}/resolve", body, role="admin", key="the-key-2")
    assert answer.status_code == 202
    pair.work()
    for one in (pair.acquirer, issuer):
        detail = call(one, path).json()
        assert (detail["state"], detail["verdict"]) == ("RESOLVED", "UPHELD")


def test_without_a_settlement_registry_nothing_can_be_ordered(pair: Pair) -> None:
    settings = pair.acquirer.api.node.settings
    pair.acquirer.api.node.settings = settings.model_copy(update={"settlement_registry": None})
    answer = call(pair.acquirer, "/v1/settlements", {"close_id": 1})
    assert (answer.status_code, problem(answer)) == (404, "settlement-off")
