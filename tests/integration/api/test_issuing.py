"""What issuers do of their own, over the API: accounts, corrections, products, rules, questions."""

from __future__ import annotations

import itertools
import time
from typing import Any

import httpx
import psycopg
import pytest

from nodes.api.client import NodeClient
from nodes.authorization.model import Kind, Outcome, TerminalAnswer
from nodes.cards.model import IssuedCard
from tests.factories.network import ACQUIRER, MERCHANT
from tests.integration.api.running import KEYS, TwoNodes, run
from tests.integration.api.test_authorization import problem_of, through_gateway

_keys = itertools.count(1)


def post(
    nodes: TwoNodes, path: str, body: dict[str, Any], role: str = "operator", key: str | None = ""
) -> httpx.Response:
    """POST at the issuer; `key` "": a new Idempotency-Key, None: none."""
    if key == "":
        key = f"issuing-{next(_keys):04d}"
    headers = {} if key is None else {"Idempotency-Key": key}
    with nodes.issuer.http(role) as client:
        return client.post(path, json=body, headers=headers)


def made(answer: httpx.Response, status: int = 201) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    document: dict[str, Any] = answer.json()
    return document


def get(nodes: TwoNodes, path: str, **params: Any) -> dict[str, Any]:
    with nodes.issuer.http("reader") as client:
        answer = client.get(path, params=params)
    return made(answer, 200)


def buy(
    nodes: TwoNodes, card: IssuedCard, amount: int, kind: Kind = Kind.PURCHASE
) -> TerminalAnswer:
    request = nodes.network.request(card, amount, kind)
    if kind is Kind.AUTHORIZATION:
        request = nodes.network.request(
            card, amount, kind, pin_block=nodes.network.pin_block("123456", card.pan)
        )
    [answer] = run(through_gateway(nodes, request))
    assert isinstance(answer, TerminalAnswer)
    return answer


def txid_of(answer: TerminalAnswer) -> str:
    assert answer.txid is not None
    return answer.txid.hex()


def product(nodes: TwoNodes, product_id: str, **terms: Any) -> None:
    body = {"product_id": product_id, "name": product_id, "terms": terms}
    made(post(nodes, "/v1/products", body))


def card_of(nodes: TwoNodes, product_id: str, balance: int) -> IssuedCard:
    body = {
        "expiry": "4912",
        "service_code": "220",
        "pin": "123456",
        "currency": "CNY",
        "product_id": product_id,
    }
    answer = made(post(nodes, "/v1/cards", body))
    token = answer["card_token"]
    shown = get(nodes, f"/v1/cards/{token}")
    load = {"amount": balance, "currency": "CNY", "reference": "first load"}
    made(post(nodes, f"/v1/cards/{token}/loads", load))
    return IssuedCard(
        bytes.fromhex(token), answer["pan"], answer["pan_masked"], "4912", shown["account_id"]
    )


# --- accounts ----------------------------------------------------------------------------------


def test_an_account_shows_holds_windows_and_its_versions(nodes: TwoNodes) -> None:
    card = nodes.network.card(10_000)
    rule = {
        "scope": "account",
        "subject": str(card.account_id),
        "name": "50.00 a day",
        "limit": {"window": "day", "measure": "amount", "maximum": 5_000},
    }
    made(post(nodes, "/v1/rules", rule))
    held = buy(nodes, card, 3_000, Kind.AUTHORIZATION)
    assert held.outcome is Outcome.APPROVED
    path = f"/v1/accounts/{card.account_id}"
    shown = get(nodes, path)
    assert (shown["balance"], shown["held"], shown["available"]) == (10_000, 3_000, 7_000)
    state = shown["card_account"]
    assert [(hold["txid"], hold["amount"]) for hold in state["holds"]] == [(txid_of(held), 3_000)]
    [window] = state["windows"]
    assert (window["rule_name"], window["used"], window["maximum"]) == ("50.00 a day", 3_000, 5_000)
    assert window["resets_at"].endswith("Z")
    assert [one["card_token"] for one in state["cards"]] == [card.card_token.hex()]

    declined = buy(nodes, card, 2_001)
    assert declined.outcome is Outcome.AMOUNT_LIMIT
    first = get(nodes, f"{path}/versions", limit=2)
    second = get(nodes, f"{path}/versions", limit=2, cursor=first["next"])
    versions = first["items"] + second["items"]
    assert [one["version"] for one in versions] == [4, 3, 2, 1]
    assert second["next"] is None
    assert versions[0]["reason"]["code"] == "amount_limit"
    assert "50.00 a day" in versions[0]["reason"]["text"]
    assert [one["transaction"] and one["transaction"]["kind"] for one in versions] == [
        "purchase",
        "authorization",
        None,
        "load",
    ]

    detail = get(nodes, f"/v1/transactions/{txid_of(declined)}")["decision"]
    assert (detail["requested"], detail["approved"], detail["account_version"]) == (2_001, 0, 4)
    assert detail["reason"]["values"] == {
        "limit": 5_000,
        "used": 3_000,
        "amount": 2_001,
        "window": "day",
    }
    with nodes.issuer.http("reader") as client:
        problem_of(client.get("/v1/accounts/999999999"), 404)
        problem_of(client.get("/v1/accounts/999999999/versions"), 404)


def test_what_became_of_a_purchase_is_shown_with_it(nodes: TwoNodes) -> None:
    card = nodes.network.card(10_000)
    bought = buy(nodes, card, 900)
    refund = nodes.network.request(card, 400, Kind.REFUND, rrn=bought.rrn, pin=None)
    [back] = run(through_gateway(nodes, refund))
    shown = get(nodes, f"/v1/transactions/{txid_of(bought)}")
    decision = shown["decision"]
    assert decision["parts"] == [{"account_id": card.account_id, "purse": "main", "amount": 900}]
    assert (decision["requested"], decision["approved"]) == (900, 900)
    assert (decision["balance_after"], decision["available_after"]) == (9_100, 9_100)
    assert decision["progress"]["refunded"] == 400
    [related] = shown["related_items"]
    assert (related["txid"], related["kind"]) == (txid_of(back), "refund")
    assert related["is_original"] is False
    [original] = get(nodes, f"/v1/transactions/{txid_of(back)}")["related_items"]
    assert original["is_original"] is True


def test_an_account_is_frozen_opened_and_closed(nodes: TwoNodes) -> None:
    card = nodes.network.card(500)
    path = f"/v1/accounts/{card.account_id}/status"
    assert made(post(nodes, path, {"status": "frozen", "reason": "court"}), 200)["status"] == (
        "frozen"
    )
    assert buy(nodes, card, 1).outcome is Outcome.ACCOUNT_FROZEN
    assert get(nodes, f"/v1/cards/{card.card_token.hex()}")["account_status"] == "frozen"
    problem_of(post(nodes, path, {"status": "closed", "reason": "ended"}), 409)
    made(post(nodes, path, {"status": "open", "reason": "lifted"}), 200)
    assert buy(nodes, card, 500).outcome is Outcome.APPROVED
    made(post(nodes, path, {"status": "closed", "reason": "ended"}), 200)
    problem_of(post(nodes, path, {"status": "open", "reason": "again"}), 409)
    events = get(nodes, f"/v1/cards/{card.card_token.hex()}")["events"]
    assert [event["event"] for event in events[:2]] == ["account closed", "account open"]
    problem_of(post(nodes, "/v1/accounts/999999999/status", {"status": "open", "reason": "x"}), 404)
    problem_of(post(nodes, path, {"status": "melted", "reason": "x"}), 422)


# --- money by the issuer -----------------------------------------------------------------------


def test_a_transfer_needs_a_key_and_moves_once(nodes: TwoNodes) -> None:
    product(nodes, "giving", transfers=True)
    giver, taker = card_of(nodes, "giving", 1_000), nodes.network.card(0)
    path = f"/v1/cards/{giver.card_token.hex()}/transfers"
    body = {
        "to_card_token": taker.card_token.hex(),
        "amount": 300,
        "currency": "CNY",
        "reference": "lunch",
    }
    problem_of(post(nodes, path, body, key=None), 422)
    first = post(nodes, path, body, key="transfer-1")
    assert made(first)["to_balance"] == 300
    assert post(nodes, path, body, key="transfer-1").content == first.content
    problem_of(post(nodes, path, body | {"amount": 301}, key="transfer-1"), 409)
    refused = problem_of(post(nodes, path, body | {"amount": 701}), 409)
    assert refused["reason"]["values"]["available"] == 700
    assert "701" in refused["detail"]
    back = f"/v1/cards/{taker.card_token.hex()}/transfers"
    document = problem_of(post(nodes, back, body | {"to_card_token": giver.card_token.hex()}), 409)
    assert document["type"].endswith(":transfer-not-permitted")
    problem_of(post(nodes, path, body | {"to_card_token": "00" * 16}), 404)
    txid = made(first)["txid"]
    assert get(nodes, f"/v1/transactions/{txid}")["kind"] == "transfer"


def test_what_a_load_is_refused_for_is_said(nodes: TwoNodes) -> None:
    product(nodes, "gift", reloadable=False, max_balance=1_000)
    card = card_of(nodes, "gift", 900)
    body = {"amount": 10, "currency": "CNY", "reference": "more"}
    path = f"/v1/cards/{card.card_token.hex()}/loads"
    refused = problem_of(post(nodes, path, body), 409)
    assert refused["type"].endswith(":not-reloadable")
    problem_of(post(nodes, path, body | {"purse": "meal"}), 422)
    problem_of(
        post(
            nodes,
            "/v1/cards",
            {
                "expiry": "4912",
                "service_code": "220",
                "currency": "CNY",
                "product_id": "nothing",
            },
        ),
        422,
    )


def test_an_adjustment_is_made_by_one_key_and_approved_by_another(nodes: TwoNodes) -> None:
    card = nodes.network.card(1_000)
    body = {
        "account_id": card.account_id,
        "amount": -250,
        "currency": "CNY",
        "reason": "fee charged twice",
    }
    problem_of(post(nodes, "/v1/adjustments", body, key=None), 422)
    problem_of(post(nodes, "/v1/adjustments", body | {"amount": 0}), 422)
    problem_of(post(nodes, "/v1/adjustments", body | {"account_id": 999_999_999}), 404)
    proposed = post(nodes, "/v1/adjustments", body, key="adjust-01")
    assert post(nodes, "/v1/adjustments", body, key="adjust-01").content == proposed.content
    number = made(proposed)["adjustment_id"]
    assert made(proposed)["state"] == "proposed"
    path = f"/v1/adjustments/{number}"
    refused = problem_of(post(nodes, f"{path}/approve", {}), 403)
    assert refused["type"].endswith(":maker-is-checker")
    problem_of(post(nodes, f"{path}/reject", {}), 403)
    posted = made(post(nodes, f"{path}/approve", {}, role="admin", key="approve-1"), 200)
    assert (posted["state"], posted["checked_by"]) == ("posted", "key:admin")
    again = made(post(nodes, f"{path}/approve", {}, role="admin", key="approve-1"), 200)
    assert again == posted
    problem_of(post(nodes, f"{path}/approve", {}, role="admin"), 409)
    problem_of(post(nodes, f"{path}/reject", {}, role="admin"), 409)
    assert get(nodes, path) == posted
    assert get(nodes, f"/v1/cards/{card.card_token.hex()}")["balance"] == 750
    other = made(post(nodes, "/v1/adjustments", body))["adjustment_id"]
    rejected = made(post(nodes, f"/v1/adjustments/{other}/reject", {}, role="admin"), 200)
    assert rejected["state"] == "rejected"
    listed = get(nodes, "/v1/adjustments", account_id=card.account_id)["items"]
    assert [one["adjustment_id"] for one in listed] == [other, number]
    assert get(nodes, "/v1/adjustments", account_id=card.account_id, state="posted")["items"] == [
        posted
    ]
    problem_of(post(nodes, "/v1/adjustments/999999999/approve", {}), 404)


# --- products and rules ------------------------------------------------------------------------


def test_a_product_is_shown_as_it_was_made(nodes: TwoNodes) -> None:
    terms = {
        "purses": [
            {"name": "meal", "mccs": ["5811-5814"], "fallback": ["main"]},
            {"name": "main", "mccs": [], "fallback": []},
        ],
        "uses": 10,
        "over_capture_percent": {"5812": 20},
    }
    body = {"product_id": "meal-card", "name": "Meal card 餐", "terms": terms}
    shown = made(post(nodes, "/v1/products", body))
    assert shown["terms"] | terms == shown["terms"]
    problem_of(post(nodes, "/v1/products", body), 409)
    assert shown in get(nodes, "/v1/products")["items"]
    wrong = body | {"product_id": "wrong", "terms": terms | {"uses": 0, "hold_seconds": 0}}
    refused = problem_of(post(nodes, "/v1/products", wrong), 422)
    assert [fault["at"] for fault in refused["errors"]] == ["uses", "hold_seconds"]
    problem_of(post(nodes, "/v1/products", body | {"terms": {"reloadeable": True}}), 422)


def test_a_rule_is_made_listed_and_ended(nodes: TwoNodes) -> None:
    card = nodes.network.card(1_000)
    token = card.card_token.hex()
    body = {
        "scope": "card",
        "subject": token,
        "name": "no groceries",
        "when": {"mccs": ["5411"], "weekdays": [1, 2, 3, 4, 5, 6, 7]},
    }
    rule = made(post(nodes, "/v1/rules", body))
    assert rule["effective_from"] == rule["created_at"]
    assert buy(nodes, card, 1).outcome is Outcome.RULE_DECLINED
    listed = get(nodes, "/v1/rules", scope="card", subject=token)["items"]
    assert listed == [rule]
    path = f"/v1/rules/{rule['rule_id']}/end"
    ended = made(post(nodes, path, {}), 200)
    assert ended["ended_by"] == "key:operator"
    assert ended["effective_to"] >= rule["effective_from"]
    assert buy(nodes, card, 1).outcome is Outcome.APPROVED
    problem_of(post(nodes, path, {}), 409)
    problem_of(post(nodes, "/v1/rules/rule-unknown/end", {}), 404)
    problem_of(post(nodes, "/v1/rules", body | {"subject": "00" * 16}), 422)
    refused = problem_of(post(nodes, "/v1/rules", body | {"when": {"mccs": ["54"]}}), 422)
    assert refused["errors"][0]["at"] == "when.mccs"
    future = made(post(nodes, "/v1/rules", body | {"effective_from": "2049-01-01T00:00:00+08:00"}))
    assert future["effective_from"] == "2048-12-31T16:00:00Z"


def test_a_key_makes_a_rule_once(nodes: TwoNodes) -> None:
    body = {
        "scope": "card",
        "subject": nodes.network.card(1_000).card_token.hex(),
        "name": "small ones",
        "limit": {"window": "day", "measure": "amount", "maximum": 500},
    }
    first, again = [made(post(nodes, "/v1/rules", body, key="rule-once-1")) for _ in range(2)]
    assert first == again
    assert get(nodes, "/v1/rules", scope="card", subject=body["subject"])["items"] == [first]
    problem_of(post(nodes, "/v1/rules", body | {"name": "other"}, key="rule-once-1"), 409)
    path = f"/v1/rules/{first['rule_id']}/end"
    ended = [made(post(nodes, path, {}, key="rule-once-2"), 200) for _ in range(2)]
    assert ended[0] == ended[1]
    problem_of(post(nodes, path, {}, key=None), 409)
    body = {"product_id": "keyed", "name": "Keyed", "terms": {}}
    shown = [made(post(nodes, "/v1/products", body, key="product-once")) for _ in range(2)]
    assert shown[0] == shown[1]


def test_a_products_later_terms_need_a_second_person(nodes: TwoNodes) -> None:
    product(nodes, "growing")
    path = "/v1/products/growing/terms"
    body = {"terms": {"max_balance": 5_000}, "reason": "the bank asks for it"}
    proposed = made(post(nodes, path, body))
    assert (proposed["version"], proposed["state"], proposed["checked_by"]) == (2, "proposed", None)
    assert proposed["terms"]["max_balance"] == 5_000
    problem_of(post(nodes, path, body, key=None), 422)
    problem_of(post(nodes, f"{path}/2/approve", {}), 403)
    approved = made(post(nodes, f"{path}/2/approve", {}, role="admin"), 200)
    assert (approved["state"], approved["checked_by"]) == ("approved", "key:admin")
    assert approved["effective_from"] > approved["checked_at"]
    other = made(post(nodes, path, body | {"effective_from": "2049-01-01T00:00:00+08:00"}))
    rejected = made(post(nodes, f"{path}/3/reject", {}, role="admin"), 200)
    assert (rejected["state"], rejected["effective_from"]) == ("rejected", other["effective_from"])
    page = get(nodes, path, limit=1)
    assert [one["version"] for one in page["items"]] == [3]
    assert get(nodes, path, cursor=page["next"])["items"] == [approved]
    for _ in range(100):
        shown = get(nodes, "/v1/products/growing")
        if shown["version"] == 2:
            break
        time.sleep(0.05)
    assert shown["terms"]["max_balance"] == 5_000
    assert shown in get(nodes, "/v1/products")["items"]
    problem_of(post(nodes, f"{path}/4/approve", {}), 404)
    problem_of(post(nodes, "/v1/products/none/terms", body), 404)
    wrong = {"terms": {"time_zone": "UTC"}, "reason": "no"}
    refused = problem_of(post(nodes, path, wrong), 422)
    assert [fault["at"] for fault in refused["errors"]] == ["time_zone"]


def test_a_rule_of_a_product_says_from_when_and_shadow_declines_nothing(nodes: TwoNodes) -> None:
    product(nodes, "watched")
    card = card_of(nodes, "watched", 1_000)
    body = {
        "scope": "product",
        "subject": "watched",
        "name": "none at all",
        "limit": {"window": "transaction", "measure": "amount", "maximum": 0},
        "shadow": True,
    }
    rule = made(post(nodes, "/v1/rules", body))
    assert rule["effective_from"] > rule["created_at"]
    answer = buy(nodes, card, 10)
    for _ in range(100):
        decision = get(nodes, f"/v1/transactions/{txid_of(answer)}")["decision"]
        if decision["shadow"]:
            break
        answer = buy(nodes, card, 1)
    assert answer.outcome is Outcome.APPROVED
    assert decision["shadow"][0]["rule_id"] == rule["rule_id"]


def test_a_back_test_over_the_api(nodes: TwoNodes) -> None:
    card = nodes.network.card(1_000)
    for _ in range(3):
        buy(nodes, card, 100)
    body = {
        "scope": "card",
        "subject": card.card_token.hex(),
        "name": "two a day",
        "limit": {"window": "day", "measure": "count", "maximum": 2},
    }
    tried = made(post(nodes, "/v1/rules/backtest", body), 200)
    assert (tried["examined"], tried["declined_count"], tried["declined_amount"]) == (3, 1, 100)
    assert tried["complete"] is True
    assert tried["declined"][0]["reason"]["text"].startswith('Rule "two a day"')
    assert get(nodes, "/v1/rules", scope="card", subject=card.card_token.hex())["items"] == []
    problem_of(post(nodes, "/v1/rules/backtest", body | {"limit": None}), 422)
    problem_of(post(nodes, "/v1/rules/backtest", body | {"subject": "x"}), 422)


# --- simulation --------------------------------------------------------------------------------


def test_a_simulation_over_the_client_posts_nothing(nodes: TwoNodes) -> None:
    card = nodes.network.card(1_000)

    async def ask(**changes: Any) -> dict[str, Any]:
        async with NodeClient(nodes.issuer.url, api_key=KEYS["reader"]) as client:
            question = {"card_token": card.card_token.hex(), "amount": 400, "currency": "CNY"}
            found: dict[str, Any] = await client.simulate(question | changes)
            return found

    told = run(ask())
    assert (told["simulated"], told["outcome"], told["amount"]) == (True, "approved", 400)
    assert told["assumed"] == ["The PIN was taken as right."]
    assert (told["before"]["balance"], told["after"]["balance"]) == (1_000, 600)
    told = run(ask(amount=1_001, merchant_id=MERCHANT))
    assert told["outcome"] == "insufficient_funds"
    assert told["reason"]["values"]["available"] == 1_000
    assert "1001" in told["reason"]["text"]
    shown = get(nodes, f"/v1/accounts/{card.account_id}")
    assert (shown["balance"], shown["card_account"]["version"]) == (1_000, 1)
    with nodes.issuer.http("reader") as client:
        body = {"card_token": card.card_token.hex(), "amount": 1, "currency": "CNY"}
        problem_of(client.post("/v1/simulations", json=body | {"account_id": 1}), 422)
        problem_of(client.post("/v1/simulations", json=body | {"amount": 0}), 422)
        problem_of(client.post("/v1/simulations", json=body | {"card_token": "00" * 16}), 404)
        problem_of(client.post("/v1/simulations", json=body | {"kind": "reversal"}), 422)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/products", {"product_id": "x", "name": "x", "terms": {}}),
        ("/v1/simulations", {"account_id": 1, "amount": 1, "currency": "CNY"}),
        ("/v1/accounts/1/status", {"status": "frozen", "reason": "x"}),
    ],
)
def test_an_acquirer_has_none_of_this(nodes: TwoNodes, path: str, body: dict[str, Any]) -> None:
    with nodes.acquirer.http("operator") as client:
        problem_of(client.post(path, json=body), 404)


def test_a_disputed_payment_is_not_refunded_and_the_account_shows_it(nodes: TwoNodes) -> None:
    network = nodes.network
    card = network.card(1_000)
    paid = network.one(network.request(card, 400))
    assert paid.txid is not None
    body = {"txid": paid.txid.hex(), "amount": 150, "reason": "goods never came"}
    problem_of(post(nodes, "/v1/disputes", body, key=None), 422)
    problem_of(post(nodes, "/v1/disputes", body | {"txid": "00" * 32}), 404)
    over = problem_of(post(nodes, "/v1/disputes", body | {"amount": 401}), 409)
    assert over["type"].endswith(":over-original-amount")
    opened = made(post(nodes, "/v1/disputes", body, key="dispute-1"))
    assert made(post(nodes, "/v1/disputes", body, key="dispute-1")) == opened
    assert (opened["amount"], opened["disputed"], opened["closed_at"]) == (150, 150, None)
    assert opened["state"] == "open"
    account = get(nodes, f"/v1/accounts/{card.account_id}")["card_account"]
    assert account["disputed"] == [{"txid": body["txid"], "amount": 150, "paid": True}]
    assert account["receivable"] == 0
    refund = network.request(card, 10, Kind.REFUND, rrn=paid.rrn)
    refused = network.one(refund)
    assert refused.outcome is Outcome.UNDER_DISPUTE
    assert refused.txid is not None
    told = get(nodes, f"/v1/transactions/{refused.txid.hex()}")["decision"]["reason"]
    assert "150" in told["text"]
    path = f"/v1/disputes/{opened['dispute_id']}"
    closed = made(post(nodes, f"{path}/close", {"reason": "withdrawn"}), 200)
    assert (closed["disputed"], closed["closing_reason"]) == (0, "withdrawn")
    assert closed["state"] == "dropped"
    assert get(nodes, path) == closed
    problem_of(post(nodes, f"{path}/close", {"reason": "withdrawn"}), 409)
    problem_of(post(nodes, "/v1/disputes/999999999/close", {"reason": "x"}), 404)
    assert get(nodes, "/v1/disputes", txid=body["txid"])["items"] == [closed]
    assert get(nodes, "/v1/disputes", account_id=card.account_id, open=True)["items"] == []
    with psycopg.connect(network.issuer_db.dsn) as connection:
        actions = connection.execute(
            "SELECT action FROM events WHERE action LIKE 'dispute.%' ORDER BY event_id"
        ).fetchall()
    assert actions[-2:] == [("dispute.added",), ("dispute.changed",)]


def test_a_dispute_that_a_reversal_ends_is_listed_as_reversed(nodes: TwoNodes) -> None:
    network = nodes.network
    card = network.card(1_000)
    asked = network.request(card, 400)
    paid = network.one(asked)
    assert paid.txid is not None
    body = {"txid": paid.txid.hex(), "reason": "goods never came"}
    opened = made(post(nodes, "/v1/disputes", body))
    assert network.one(network.reversal_of(asked)).outcome is Outcome.APPROVED
    [listed] = get(nodes, "/v1/disputes", account_id=card.account_id, open=False)["items"]
    assert listed["dispute_id"] == opened["dispute_id"]
    assert (listed["state"], listed["closed_by"], listed["disputed"]) == ("reversed", ACQUIRER, 0)
    assert get(nodes, "/v1/disputes", account_id=card.account_id, open=True)["items"] == []
