"""A terminal's life over the API: details, algorithms, certificates, another merchant, the end."""

from __future__ import annotations

import itertools
from typing import Any

import httpx
import pytest

from gateway.terminal_keys.authority import authority_certificate, certify
from gateway.terminal_keys.ring import MASTER_KEY
from nodes.acquiring.fleet.model import ChangeKind, FleetOutcome, Move
from nodes.acquiring.fleet.operations import MOVE_REST_MS, Ordered, change_terminal
from nodes.crypto import sm2
from nodes.crypto.hsm import SoftwareHsm
from tests.factories.network import MERCHANT
from tests.integration.api.running import TwoNodes
from tests.integration.api.test_cards import problem_of
from tests.integration.api.test_terminals import act, changes_after, enrolled, new_terminal

_numbers = itertools.count(1)
HSM = SoftwareHsm({MASTER_KEY: bytes(range(16))})
DAY_MS = 86_400_000


def pair() -> tuple[bytes, bytes]:
    return sm2.provider().generate()


def another_merchant(client: httpx.Client, currency: str = "CNY") -> str:
    merchant_id = f"LANTERN{next(_numbers):08d}"
    body = {
        "merchant_id": merchant_id,
        "name": "Lantern",
        "mcc": "5812",
        "country": "CN",
        "currency": currency,
    }
    assert client.post("/v1/merchants", json=body).status_code == 201
    return merchant_id


def trusted(client: httpx.Client, now_ms: int, hsm: SoftwareHsm = HSM) -> dict[str, Any]:
    body = {"certificate": authority_certificate(hsm, now_ms).text()}
    answer = client.post("/v1/terminal-authorities", json=body)
    assert answer.status_code == 201, answer.text
    again = client.post("/v1/terminal-authorities", json=body)
    assert again.json() == answer.json()
    return dict(answer.json())


def test_details_are_replaced_and_checked_against_the_parameters(nodes: TwoNodes) -> None:
    with nodes.acquirer.http("operator") as client:
        name = enrolled(client)["terminal_id"]
        body = {"store": "Pier 9", "label": "Bar", "capabilities": ["chip", "offline", "qr"]}
        after = act(client, name, "details", body | {"reason": "moved inside"}).json()
        assert {k: after[k] for k in body} == body
        assert (after["key_generation"], after["parameters_version"]) == (1, 1)
        again = act(client, name, "details", body | {"reason": "moved inside"})
        assert problem_of(again, 409)["type"].endswith("already-so")
        # Its floor limit needs a chip.
        bare = act(client, name, "details", body | {"capabilities": [], "reason": "no reader"})
        found = problem_of(bare, 422)
        assert [error["at"] for error in found["errors"]] == ["body.parameters.floor_limit"]
        problem_of(act(client, name, "details", body), 422)


def test_other_algorithms_come_with_the_next_key(nodes: TwoNodes) -> None:
    after = changes_after(nodes, 0)["next"]
    with nodes.acquirer.http("operator") as client:
        name = enrolled(client)["terminal_id"]
        body = {"suite": "AES", "management": "dukpt", "reason": "DUKPT from today"}
        changed = act(client, name, "suite", body).json()
        assert (changed["suite"], changed["management"], changed["key_generation"]) == (
            "AES",
            "dukpt",
            2,
        )
        problem_of(act(client, name, "suite", body), 409)
        wrong = act(client, name, "suite", body | {"suite": "SM"})
        assert [e["at"] for e in problem_of(wrong, 422)["errors"]] == ["body.management"]
    records = changes_after(nodes, after)["items"]
    [record] = [one for one in records if one["terminal_id"] == name]
    assert (record["suite"], record["management"], record["key_generation"]) == (2, "dukpt", 2)


def test_a_certificate_is_one_of_the_acquirer_s_authorities(nodes: TwoNodes) -> None:
    now_ms = nodes.network.clock.now_ms()
    other = SoftwareHsm({MASTER_KEY: bytes(range(1, 17))})
    with nodes.acquirer.http("operator") as client:
        authority = trusted(client, now_ms)
        assert authority["status"] == "active"
        body = new_terminal(suite="SM", management="sm2")
        name, (_, public) = body["terminal_id"], pair()
        good = certify(HSM, name, public, now_ms)
        for certificate, said in (
            (certify(other, name, public, now_ms), "signed by no terminal authority"),
            (certify(HSM, "ANOTHER1", public, now_ms), "names another terminal"),
            (certify(HSM, name, public, now_ms - 9 * DAY_MS, 8), "doesn't hold now"),
            (certify(HSM, name, public, now_ms + DAY_MS), "doesn't hold now"),
            (authority_certificate(HSM, now_ms), "names another terminal"),
        ):
            sent = body | {"certificate": certificate.text()}
            found = problem_of(client.post("/v1/terminals", json=sent), 422)
            [error] = found["errors"]
            assert error["at"] == "body.certificate"
            assert said in error["message"]
        changed = good.text().replace("A", "B", 1)
        assert client.post("/v1/terminals", json=body | {"certificate": changed}).status_code == 422
        keyless = body | {"certificate": good.text(), "with_key": False}
        found = problem_of(client.post("/v1/terminals", json=keyless), 422)
        assert [error["at"] for error in found["errors"]] == ["body.with_key"]
        made = client.post("/v1/terminals", json=body | {"certificate": good.text()})
        assert made.status_code == 201, made.text
        shown = made.json()["certificate"]
        assert shown["serial"] == good.serial.hex()
        assert "Countersign terminals" in shown["issuer"]

        # A new certificate is a change of the terminal's; an ended authority's is none.
        renewed = certify(HSM, name, pair()[1], now_ms)
        asked = {"suite": "SM", "management": "sm2", "reason": "renewal"}
        after = act(client, name, "suite", asked | {"certificate": renewed.text()}).json()
        assert after["certificate"]["serial"] == renewed.serial.hex()
        assert after["key_generation"] == 2
        path = f"/v1/terminal-authorities/{authority['fingerprint']}/end"
        assert client.post(path, json={}).status_code == 200
        third = certify(HSM, name, pair()[1], now_ms)
        refused = act(client, name, "suite", asked | {"certificate": third.text()})
        assert "signed by no" in problem_of(refused, 422)["errors"][0]["message"]
        states = {
            a["fingerprint"]: a["status"]
            for a in client.get("/v1/terminal-authorities?limit=500").json()["items"]
        }
        assert states[authority["fingerprint"]] == "ended"
        missing = client.post(f"/v1/terminal-authorities/{'0' * 64}/end", json={})
        problem_of(missing, 404)


def test_what_may_not_certify_is_no_authority(nodes: TwoNodes) -> None:
    now_ms = nodes.network.clock.now_ms()
    leaf = certify(HSM, "T0000001", pair()[1], now_ms)
    old = authority_certificate(HSM, now_ms - 30 * 365 * DAY_MS)
    with nodes.acquirer.http("operator") as client:
        for text, said in (
            (leaf.text(), "may not certify"),
            (old.text(), "doesn't hold now"),
            ("no certificate", "not a CERTIFICATE"),
            ("x" * 9_000, "at most 8192"),
        ):
            sent = {"certificate": text}
            found = problem_of(client.post("/v1/terminal-authorities", json=sent), 422)
            assert said in found["errors"][0]["message"]
    with nodes.acquirer.http("reader") as client:
        body = {"certificate": authority_certificate(HSM, now_ms).text()}
        problem_of(client.post("/v1/terminal-authorities", json=body), 403)


def test_a_terminal_goes_to_another_merchant_when_it_has_rested(nodes: TwoNodes) -> None:
    with nodes.acquirer.http("operator") as client:
        name = enrolled(client)["terminal_id"]
        public = "11" * 64
        key = {"key_id": f"till-{name}", "terminal_id": name, "algorithm": "SM2"}
        assert client.post("/v1/front-keys", json=key | {"public_key": public}).status_code == 201
        to = another_merchant(client)
        body = {"merchant_id": to, "store": "Quay", "label": "", "reason": "sold"}

        def refused(**changes: Any) -> str:
            problem = problem_of(act(client, name, "merchant", body | changes), 409)
            return str(problem["type"].rpartition(":")[2])

        assert refused() == "terminal-in-use"
        act(client, name, "disable", {"reason": "sold"})
        assert refused() == "terminal-in-use", "it hasn't rested"
        assert refused(merchant_id=another_merchant(client, "USD")) == "currency-differs"
        assert refused(merchant_id=MERCHANT) == "already-so"
        problem_of(act(client, name, "merchant", body | {"merchant_id": "N" * 15}), 422)
        later = Ordered("test", "sold", nodes.network.clock.now_ms() + MOVE_REST_MS)
        move = Move(merchant_id=to, store="Quay", label="")
        engine = nodes.acquirer.node.engine
        done = change_terminal(engine, name, ChangeKind.MOVED, order=later, content=move)
        assert done.outcome is FleetOutcome.DONE
        moved = client.get(f"/v1/terminals/{name}").json()
        assert (moved["merchant_id"], moved["store"], moved["status"]) == (to, "Quay", "disabled")
        keys = client.get("/v1/front-keys?limit=500").json()["items"]
        [shown] = [k for k in keys if k["key_id"] == key["key_id"]]
        assert shown["status"] == "revoked"
        assert act(client, name, "enable", {"reason": "in use"}).json()["status"] == "active"
        history = client.get(f"/v1/terminals/{name}/history").json()["items"]
        assert [one["kind"] for one in history] == ["enabled", "moved", "disabled", "enrolled"]


def test_a_retired_terminal_stays_so(nodes: TwoNodes) -> None:
    with nodes.acquirer.http("operator") as client:
        body = new_terminal()
        name = body["terminal_id"]
        assert client.post("/v1/terminals", json=body).status_code == 201
        assert act(client, name, "retire", {"reason": "broken"}).json()["status"] == "retired"
        for what, sent in (
            ("enable", {"reason": "no"}),
            ("retire", {"reason": "no"}),
            ("keys", {"reason": "no"}),
            ("details", {"store": "", "label": "", "capabilities": ["chip"], "reason": "no"}),
        ):
            found = problem_of(act(client, name, what, sent), 409)
            assert found["type"].endswith("terminal-retired")
        problem_of(client.post("/v1/terminals", json=body), 409)

        def listed(status: str) -> set[str]:
            page = client.get("/v1/terminals", params={"status": status, "limit": 200}).json()
            return {one["terminal_id"] for one in page["items"]}

        assert name in listed("retired")
        assert name not in listed("disabled") | listed("active")


@pytest.mark.parametrize("what", ["details", "suite", "merchant", "retire"])
def test_readers_change_nothing(nodes: TwoNodes, what: str) -> None:
    bodies = {
        "details": {"store": "", "label": "", "capabilities": [], "reason": "why"},
        "suite": {"suite": "SM", "reason": "why"},
        "merchant": {"merchant_id": MERCHANT, "reason": "why"},
        "retire": {"reason": "why"},
    }
    with nodes.acquirer.http("reader") as client:
        problem_of(act(client, "T0000001", what, bodies[what]), 403)
