"""Cards and acquiring over the API, with everything that may be wrong in a body."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from nodes.authorization.model import Outcome
from nodes.cards.model import IssuedCard
from nodes.crypto.pan import is_valid_pan, random_pan
from tests.factories.network import BIN
from tests.integration.api.running import TwoNodes, run
from tests.integration.api.test_authorization import problem_of, through_gateway

NEW_CARD: dict[str, Any] = {
    "expiry": "4912",
    "service_code": "220",
    "pin": "123456",
    "currency": "CNY",
}


def issue(nodes: TwoNodes, **changes: Any) -> httpx.Response:
    with nodes.issuer.http("operator") as client:
        return client.post("/v1/cards", json=NEW_CARD | changes)


def load(nodes: TwoNodes, token: str, key: str | None, **changes: Any) -> httpx.Response:
    body = {"amount": 5_000, "currency": "CNY", "reference": "payroll 薪资"} | changes
    headers = {} if key is None else {"Idempotency-Key": key}
    with nodes.issuer.http("operator") as client:
        return client.post(f"/v1/cards/{token}/loads", json=body, headers=headers)


def test_a_card_issued_and_loaded_here_pays(nodes: TwoNodes) -> None:
    made = issue(nodes).json()
    assert is_valid_pan(made["pan"])
    assert made["pan"].startswith(BIN)
    token = made["card_token"]
    assert load(nodes, token, "key-0001-a").status_code == 201
    card = IssuedCard(bytes.fromhex(token), made["pan"], made["pan_masked"], made["expiry"], 0)
    [answer] = run(through_gateway(nodes, nodes.network.request(card, 1_200)))
    assert answer.outcome is Outcome.APPROVED
    with nodes.issuer.http("reader") as client:
        shown = client.get(f"/v1/cards/{token}")
        listed = client.get("/v1/cards").json()["items"]
    assert shown.json()["available"] == 3_800
    assert made["pan"] not in shown.text
    assert token in [entry["card_token"] for entry in listed]
    assert [event["event"] for event in shown.json()["events"]] == ["issued"]
    assert shown.json()["events"][0]["actor"] == "key:operator"


def test_a_key_issues_one_card_however_often_and_fast_it_is_sent(nodes: TwoNodes) -> None:
    body = NEW_CARD | {"making": {"form": "virtual"}, "service_code": "101"}

    def send(key: str, **changes: Any) -> httpx.Response:
        headers = {"Idempotency-Key": key}
        with nodes.issuer.http("operator") as client:
            return client.post("/v1/cards", json=body | changes, headers=headers)

    with ThreadPoolExecutor(6) as pool:
        sent = list(pool.map(send, ["card-once-1"] * 6))
    assert {answer.status_code for answer in sent} == {201}, sent[0].text
    answers = [answer.json() for answer in sent]
    same = [{k: v for k, v in one.items() if k != "personalization"} for one in answers]
    assert same == [same[0]] * 6
    assert is_valid_pan(same[0]["pan"])
    assert same[0]["cvv2"]
    with nodes.issuer.http("reader") as client:
        events = client.get(f"/v1/cards/{same[0]['card_token']}").json()["events"]
    assert [event["event"] for event in events] == ["issued"]
    for change in ({"pin": "654321"}, {"expiry": "4911"}, {"pan": random_pan(BIN)}):
        assert problem_of(send("card-once-1", **change), 409)["type"].endswith(":key-reused")
    assert send("card-once-2").json()["pan"] != same[0]["pan"]


def test_a_given_number_is_issued_once_and_not_repeated_in_the_answer(nodes: TwoNodes) -> None:
    pan = random_pan(BIN)
    made = issue(nodes, pan=pan)
    assert made.status_code == 201
    assert pan not in made.text
    again = issue(nodes, pan=pan)
    assert problem_of(again, 409)["type"].endswith("pan-taken")
    assert pan not in again.text


def test_a_load_happens_once_a_key(nodes: TwoNodes) -> None:
    token = issue(nodes).json()["card_token"]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: load(nodes, token, "same-key-1" + token), range(6)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["txid"] for answer in answers}) == 1
    other = load(nodes, token, "same-key-1" + token, amount=1)
    assert problem_of(other, 409)["type"].endswith("key-reused")
    with nodes.issuer.http("reader") as client:
        assert client.get(f"/v1/cards/{token}").json()["balance"] == 5_000
    problem_of(load(nodes, token, None), 422)
    problem_of(load(nodes, token, "short"), 422)
    problem_of(load(nodes, "0" * 32, "another-key-1"), 404)
    problem_of(load(nodes, "zz", "another-key-1"), 404)


def test_statuses_follow_their_transitions(nodes: TwoNodes) -> None:
    token = issue(nodes).json()["card_token"]

    def change(status: str) -> httpx.Response:
        with nodes.issuer.http("operator") as client:
            body = {"status": status, "reason": "asked for by the holder"}
            return client.post(f"/v1/cards/{token}/status", json=body)

    assert change("blocked").status_code == 200
    assert change("active").status_code == 200
    assert change("stolen").status_code == 200
    assert problem_of(change("active"), 409)["type"].endswith("transition-refused")
    problem_of(load(nodes, token, "too-late-" + token), 409)
    with nodes.issuer.http("reader") as client:
        events = client.get(f"/v1/cards/{token}").json()["events"]
    assert [event["event"] for event in events] == ["stolen", "active", "blocked", "issued"]


BAD_CARDS: dict[str, dict[str, Any]] = {
    "no expiry": {"expiry": None},
    "a month that isn't": {"expiry": "4913"},
    "digits of another script": {"expiry": "٤٩١٢"},
    "a currency unknown": {"currency": "XXX"},
    "a PIN too short": {"pin": "123"},
    "a PIN as a number": {"pin": 123456},
    "a wrong check digit": {"pan": BIN + "00000000"},
    "a number outside the BINs": {"pan": "4111111111111111"},
    "an unknown key": {"colour": "blue"},
    "an overdraft": {"overdraft_limit": 1},
    "a float": {"overdraft_limit": 0.0},
    "a true": {"overdraft_limit": False},
}


@pytest.mark.parametrize("name", BAD_CARDS)
def test_bad_cards_are_refused_without_quoting_them(nodes: TwoNodes, name: str) -> None:
    body = NEW_CARD | BAD_CARDS[name]
    with nodes.issuer.http("operator") as client:
        answer = client.post("/v1/cards", json=body)
    problem_of(answer, 422)
    for secret in (str(body["pin"]), str(body.get("pan"))):
        assert secret not in answer.text


BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "no JSON": (b"{pan: 1}", 400),
    "a duplicate key": (b'{"amount":1,"amount":2,"currency":"CNY","reference":"x"}', 422),
    "NaN": (b'{"amount":NaN,"currency":"CNY","reference":"x"}', 400),
    "a float": (b'{"amount":1.0,"currency":"CNY","reference":"x"}', 422),
    "an exponent": (b'{"amount":1e400,"currency":"CNY","reference":"x"}', 422),
    "over 64 bits": (b'{"amount":9223372036854775808,"currency":"CNY","reference":"x"}', 422),
    "a long number": (b'{"amount":' + b"9" * 5_000 + b',"currency":"CNY","reference":"x"}', 422),
    "a negative amount": (b'{"amount":-1,"currency":"CNY","reference":"x"}', 422),
    "zero": (b'{"amount":0,"currency":"CNY","reference":"x"}', 422),
    "a NUL": (b'{"amount":1,"currency":"CNY","reference":"x\\u0000"}', 422),
    "a bidirectional override": (b'{"amount":1,"currency":"CNY","reference":"\\u202eabc"}', 422),
    "a surrogate": (b'{"amount":1,"currency":"CNY","reference":"\\udc00"}', 422),
    "a NUL in a key": (b'{"amount":1,"currency":"CNY","reference":"x","\\u0000":1}', 422),
    "nested deep": (b"[" * 60_000, 422),
    "nested deep in a key": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 422),
    "latin-1": ('{"amount":1,"currency":"CNY","reference":"é"}'.encode("latin-1"), 400),
    "a list": (b"[]", 422),
    "a string": (b'"x"', 422),
    "null": (b"null", 422),
    "too large": (b'{"reference":"' + b"x" * (1 << 17) + b'"}', 413),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_are_refused_and_nothing_is_loaded(nodes: TwoNodes, name: str) -> None:
    body, status = BAD_BODIES[name]
    token = issue(nodes).json()["card_token"]
    with nodes.issuer.http("operator") as client:
        headers = {"Content-Type": "application/json", "Idempotency-Key": "bad-body-" + token}
        answer = client.post(f"/v1/cards/{token}/loads", content=body, headers=headers)
        problem_of(answer, status)
        assert client.get(f"/v1/cards/{token}").json()["balance"] == 0


def test_other_media_and_bodies_where_none_belong(nodes: TwoNodes) -> None:
    with nodes.issuer.http("operator") as client:
        problem_of(client.post("/v1/cards", data={"expiry": "4912"}), 415)
        problem_of(client.post("/v1/cards", content=b"{}", headers={"Content-Type": ""}), 415)
        problem_of(client.request("GET", "/v1/cards", content=b"{}"), 400)
        problem_of(client.put("/v1/cards", json={}), 405)
        problem_of(client.delete("/v1/cards"), 405)


def test_an_acquirer_issues_no_cards_and_an_issuer_has_no_merchants(nodes: TwoNodes) -> None:
    merchant = {
        "merchant_id": "M" * 15,
        "name": "A shop",
        "mcc": "5411",
        "country": "CN",
        "currency": "CNY",
    }
    with nodes.acquirer.http("operator") as acquirer, nodes.issuer.http("operator") as issuer:
        problem_of(acquirer.post("/v1/cards", json=NEW_CARD), 404)
        problem_of(issuer.post("/v1/merchants", json=merchant), 404)
        assert acquirer.post("/v1/merchants", json=merchant).status_code == 201
        problem_of(acquirer.post("/v1/merchants", json=merchant), 409)
        problem_of(acquirer.post("/v1/merchants", json=merchant | {"name": "\u202eshop"}), 422)
        problem_of(acquirer.post("/v1/merchants", json=merchant | {"merchant_id": "short"}), 422)
        terminal = {"terminal_id": "T" * 8, "merchant_id": "N" * 15}
        problem_of(acquirer.post("/v1/terminals", json=terminal), 422)
        terminal["merchant_id"] = "M" * 15
        assert acquirer.post("/v1/terminals", json=terminal).status_code == 201
        problem_of(acquirer.post("/v1/terminals", json=terminal), 409)
        shown = acquirer.get("/v1/terminals", params={"merchant_id": "M" * 15}).json()["items"]
        assert [entry["terminal_id"] for entry in shown] == ["T" * 8]
        names = [m["name"] for m in acquirer.get("/v1/merchants").json()["items"]]
        assert "A shop" in names
