"""The signed hops: gateway to acquirer, acquirer to issuer, over real HTTP."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest

from gateway.node_link import HttpNodeLink
from nodes.api.client import NodeClient, NodeRefused, NodeUnreachable
from nodes.api.server import BoundedHeadProtocol
from nodes.authorization.batching import LedgerUnavailable
from nodes.authorization.model import (
    AuthorizationBatch,
    AuthorizationRequest,
    Kind,
    Outcome,
    TerminalBatch,
    TerminalRequest,
)
from nodes.authorization.service import Authorizer, IssuerUnreachable
from nodes.crypto.http_signatures import MessageMac, SignatureRefused, parse_head, verify_answer
from tests.factories.network import ACQUIRER, ISSUER
from tests.integration.api.running import (
    GATEWAY,
    MERCHANT_MEMBER,
    OUTSIDER,
    SEEDS,
    RunningNode,
    TwoNodes,
    public,
    run,
    signer,
)

TERMINAL_REQUESTS, AUTHORIZATIONS = "/v1/terminal-requests", "/v1/authorizations"


async def through_gateway(nodes: TwoNodes, *requests: TerminalRequest, **more: Any) -> Any:
    async with nodes.acquirer.client(GATEWAY) as client:
        return await client.terminal_requests(requests, **more)


def test_a_purchase_goes_over_both_hops_and_stands_in_both_books(nodes: TwoNodes) -> None:
    card = nodes.network.card(10_000)
    [answer] = run(through_gateway(nodes, nodes.network.request(card, 2_500)))
    assert answer.outcome is Outcome.APPROVED
    assert nodes.network.balance(card) == 7_500
    with nodes.issuer.http() as issuer, nodes.acquirer.http() as acquirer:
        issued = issuer.get(f"/v1/transactions/{answer.txid.hex()}").json()
        acquired = acquirer.get(f"/v1/transactions/{answer.txid.hex()}").json()
    assert (issued["side"], acquired["side"]) == ("issuer", "acquirer")
    for name in ("txid", "commitment", "amount", "approval_code", "outcome", "pair_seq"):
        assert issued[name] == acquired[name]


def test_a_batch_is_answered_in_its_order_and_a_repeat_gets_equal_answers(
    nodes: TwoNodes,
) -> None:
    card, poor = nodes.network.card(10_000), nodes.network.card(0)
    requests = [
        nodes.network.request(card, 100),
        nodes.network.request(poor, 100),
        nodes.network.request(card, 0, Kind.BALANCE_INQUIRY),
        nodes.network.request(card, 200, pin="999999"),
    ]
    first = run(through_gateway(nodes, *requests))
    assert [a.outcome for a in first] == [
        Outcome.APPROVED,
        Outcome.INSUFFICIENT_FUNDS,
        Outcome.APPROVED,
        Outcome.PIN_WRONG,
    ]
    assert run(through_gateway(nodes, *requests)) == first
    assert nodes.network.balance(card) == 9_900


def test_an_issuer_that_is_away_is_answered_so_and_not_before_the_deadline_is_near(
    nodes: TwoNodes,
) -> None:
    card = nodes.network.card(10_000)
    known = nodes.directory.known[ISSUER]
    free = socket.socket()
    free.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
    nodes.directory.add(ISSUER, "issuer", f"http://127.0.0.1:{free.getsockname()[1]}")
    try:
        deadline = int(time.time() * 1000) + 700
        request = nodes.network.request(card, 100, deadline_ms=deadline)
        [answer] = run(through_gateway(nodes, request))
        assert answer.outcome is Outcome.ISSUER_UNAVAILABLE
    finally:
        free.close()
        nodes.directory.known[ISSUER] = known
    assert nodes.network.balance(card) == 10_000


def test_an_issuer_whose_answers_are_signed_by_another_key_is_not_believed(
    nodes: TwoNodes,
) -> None:
    card = nodes.network.card(10_000)
    known = nodes.directory.known[ISSUER]
    try:
        nodes.directory.known[ISSUER] = replace(known, message_key=public(OUTSIDER))
        request = nodes.network.request(card, 100, deadline_ms=int(time.time() * 1000) + 700)
        [answer] = run(through_gateway(nodes, request))
        assert answer.outcome is Outcome.ISSUER_UNAVAILABLE
    finally:
        nodes.directory.known[ISSUER] = known


def post(
    node: RunningNode,
    path: str,
    body: bytes,
    name: str | None,
    *,
    key_id: str | None = None,
    url: str | None = None,
    **headers: str,
) -> httpx.Response:
    """A raw POST, signed by `name` as its own or as another key id."""
    fields = {"Content-Type": "application/json"}
    if name is not None:
        uri = (url or node.url) + path
        fields |= signer(name, key_id).sign_request("POST", uri, body, int(time.time()))
    fields |= {key.replace("_", "-"): value for key, value in headers.items()}
    with node.http(None) as client:
        return client.post(path, content=body, headers=fields)


def terminal_body(nodes: TwoNodes, *requests: TerminalRequest) -> bytes:
    return msgspec.json.encode(TerminalBatch(list(requests)))


def problem_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["type"].startswith("urn:countersign:problem:")
    return document


def test_answers_and_refusals_are_signed_as_answers_to_their_request(nodes: TwoNodes) -> None:
    for body in (terminal_body(nodes, nodes.network.request(nodes.network.card(5), 1)), b"{}"):
        now = int(time.time())
        sent = signer(GATEWAY).sign_request(
            "POST", nodes.acquirer.url + TERMINAL_REQUESTS, body, now
        )
        with nodes.acquirer.http(None) as client:
            answer = client.post(
                TERMINAL_REQUESTS,
                content=body,
                headers=sent | {"Content-Type": "application/json"},
            )
        head = parse_head(sent["Signature-Input"], sent["Signature"])
        arguments: dict[str, Any] = {
            "status": answer.status_code,
            "body": answer.content,
            "request_signature": head.field,
            "key_id": ACQUIRER,
            "public_key": public(ACQUIRER),
            "now_s": now,
        }
        verify_answer(answer.headers, **arguments)
        with pytest.raises(SignatureRefused):
            verify_answer(answer.headers, **(arguments | {"body": answer.content + b" "}))


def by_hmac(nodes: TwoNodes, name: str, key_id: str, body: bytes) -> tuple[httpx.Response, Any]:
    """A call with an HMAC under what a party shares with the acquirer's node, and its head."""
    mac = MessageMac(key_id, SEEDS[name], public(ACQUIRER))
    now = int(time.time())
    sent = mac.sign_request("POST", nodes.acquirer.url + TERMINAL_REQUESTS, body, now)
    headers = sent | {"Content-Type": "application/json"}
    with nodes.acquirer.http(None) as client:
        answer = client.post(TERMINAL_REQUESTS, content=body, headers=headers)
    return answer, (mac, parse_head(sent["Signature-Input"], sent["Signature"]), now)


def test_a_gateway_may_use_an_hmac_and_gets_one(nodes: TwoNodes) -> None:
    """ADR 15. Refusals of requests that were let in have one too."""
    good = terminal_body(nodes, nodes.network.request(nodes.network.card(5), 1))
    for body, status, algorithm in ((good, 200, "hmac-sha256"), (b"{}", 422, "hmac-sha256")):
        answer, (mac, head, now) = by_hmac(nodes, GATEWAY, GATEWAY, body)
        assert answer.status_code == status
        found = parse_head(answer.headers["signature-input"], answer.headers["signature"])
        assert found.algorithm == algorithm
        verify_answer(
            answer.headers,
            status=status,
            body=answer.content,
            request_signature=head.field,
            key_id=ACQUIRER,
            public_key=public(ACQUIRER),
            now_s=now,
            mac=mac.mac,
        )


def test_nobody_but_a_gateway_may_use_an_hmac(nodes: TwoNodes) -> None:
    body = terminal_body(nodes, nodes.network.request(nodes.network.card(5), 1))
    for name, key_id, problem in (
        (OUTSIDER, GATEWAY, "signature-wrong"),
        (ISSUER, ISSUER, "signature-algorithm"),
    ):
        answer, (_, head, now) = by_hmac(nodes, name, key_id, body)
        assert problem_of(answer, 401)["type"].endswith(problem)
        # Whoever it was, the refusal is the node's: by its signature.
        verify_answer(
            answer.headers,
            status=401,
            body=answer.content,
            request_signature=head.field,
            key_id=ACQUIRER,
            public_key=public(ACQUIRER),
            now_s=now,
        )


def test_the_gateways_own_link_takes_a_purchase_over_both_hops(nodes: TwoNodes) -> None:
    card = nodes.network.card(10_000)

    async def pay() -> Any:
        link = HttpNodeLink(
            nodes.acquirer.url,
            key_id=GATEWAY,
            message_seed=SEEDS[GATEWAY],
            node_key=public(ACQUIRER),
            acquirer=ACQUIRER,
            deadline_s=10,
        )
        try:
            return await link.terminal_requests([nodes.network.request(card, 2_500)], 10)
        finally:
            await link.close()

    [answer] = run(pay())
    assert answer.outcome is Outcome.APPROVED
    assert nodes.network.balance(card) == 7_500


def test_a_replayed_call_is_refused(nodes: TwoNodes) -> None:
    body = terminal_body(nodes, nodes.network.request(nodes.network.card(5), 1))
    sent = signer(GATEWAY).sign_request(
        "POST", nodes.acquirer.url + TERMINAL_REQUESTS, body, int(time.time())
    ) | {"Content-Type": "application/json"}
    with nodes.acquirer.http(None) as client:
        assert client.post(TERMINAL_REQUESTS, content=body, headers=sent).status_code == 200
        again = client.post(TERMINAL_REQUESTS, content=body, headers=sent)
    assert problem_of(again, 401)["type"].endswith("signature-replayed")


def test_who_may_call_what(nodes: TwoNodes) -> None:
    body = terminal_body(nodes, nodes.network.request(nodes.network.card(5), 1))
    refused = {
        "unsigned": (None, None, 401),
        "an unknown member": (OUTSIDER, None, 401),
        "a member that isn't registered under another's name": (OUTSIDER, ISSUER, 401),
        "a member instead of a gateway": (ISSUER, None, 403),
        "the gateway's name with a wrong key": (OUTSIDER, GATEWAY, 401),
    }
    for who, (name, key_id, status) in refused.items():
        answer = post(nodes.acquirer, TERMINAL_REQUESTS, body, name, key_id=key_id)
        assert answer.status_code == status, who
        problem_of(answer, status)
    # A gateway is its own node's: another node doesn't know it.
    problem_of(post(nodes.issuer, TERMINAL_REQUESTS, body, GATEWAY), 401)
    # An issuer isn't an acquirer's gateway, and an API key opens no batch endpoint.
    with nodes.acquirer.http("admin") as client:
        headers = {"Content-Type": "application/json"}
        problem_of(client.post(TERMINAL_REQUESTS, content=body, headers=headers), 401)


def test_a_revoked_member_is_refused(nodes: TwoNodes) -> None:
    nodes.directory.add("borealis", "acquirer", "http://127.0.0.1:1", active=False)
    answer = post(nodes.issuer, AUTHORIZATIONS, b'{"requests":[]}', "borealis")
    assert problem_of(answer, 403)["type"].endswith("member-revoked")


def test_a_call_meant_for_another_node_is_refused(nodes: TwoNodes) -> None:
    body = b'{"requests":[]}'
    # Signed for the acquirer's address, carried to the issuer: the signature doesn't fit.
    answer = post(nodes.issuer, AUTHORIZATIONS, body, ACQUIRER, url=nodes.acquirer.url)
    problem_of(answer, 401)
    # And with the Host field of the one it was meant for, it isn't taken either.
    host = nodes.acquirer.url.removeprefix("http://")
    answer = post(nodes.issuer, AUTHORIZATIONS, body, ACQUIRER, url=nodes.acquirer.url, Host=host)
    problem_of(answer, 421)


def authorization(nodes: TwoNodes, **changes: Any) -> AuthorizationRequest:
    """An acquirer's request as the issuer gets it, built by the acquirer's own code."""
    seen: list[AuthorizationRequest] = []

    class Recorder:
        async def authorize(self, issuer: str, requests: Any, deadline_ms: int) -> Any:
            seen.extend(requests)
            raise IssuerUnreachable

    recorder = Authorizer(
        nodes.network.acquirer_db.dsn,
        ACQUIRER,
        Recorder(),
        make_issuer=None,
        make_acquirer=nodes.network.make_acquirer,
    )
    run(recorder.accept([nodes.network.request(nodes.network.card(5_000), 10)]))
    recorder.close()
    return msgspec.structs.replace(seen[0], **changes)


def test_an_acquirer_speaks_for_itself_alone(nodes: TwoNodes) -> None:
    good = authorization(nodes)
    for request, name, status in (
        (good, MERCHANT_MEMBER, 403),  # a member, but no acquirer
        (msgspec.structs.replace(good, acquirer="borealis"), ACQUIRER, 403),
        (good, ISSUER, 403),
    ):
        body = msgspec.json.encode(AuthorizationBatch([request]))
        problem_of(post(nodes.issuer, AUTHORIZATIONS, body, name), status)
    body = msgspec.json.encode(AuthorizationBatch([good]))
    answer = post(nodes.issuer, AUTHORIZATIONS, body, ACQUIRER)
    assert answer.json()["answers"][0]["outcome"] == "approved"


def test_a_node_without_the_role_says_so(nodes: TwoNodes) -> None:
    body = msgspec.json.encode(AuthorizationBatch([authorization(nodes)]))
    problem_of(post(nodes.acquirer, AUTHORIZATIONS, body, ACQUIRER), 404)


def spoilt(body: bytes, **changes: Any) -> bytes:
    """A batch of one with members of its request set to JSON fragments."""
    text = json.loads(body)
    request = text["requests"][0]
    for key in changes:
        request.pop(key, None)
    head = json.dumps(request)[:-1]
    extra = ",".join(f'"{key}":{value}' for key, value in changes.items())
    return f'{{"requests":[{head},{extra}}}]}}'.encode()


BAD_VALUES: dict[str, tuple[dict[str, str], int]] = {
    "a float as money": ({"amount": "12.5"}, 422),
    "a whole float as money": ({"amount": "100.0"}, 422),
    "money in exponent form": ({"amount": "1e3"}, 422),
    "money in quotes": ({"amount": '"100"'}, 422),
    "NaN": ({"amount": "NaN"}, 400),
    "Infinity": ({"amount": "Infinity"}, 400),
    "2 to the 63": ({"amount": str(1 << 63)}, 422),
    "2 to the 64": ({"amount": str(1 << 64)}, 422),
    "a thousand digits": ({"amount": "9" * 1000}, 422),
    "a hundred thousand digits": ({"deadline_ms": "9" * 100_000}, 422),
    "below 64 bits": ({"deadline_ms": str(-(1 << 63) - 1)}, 422),
    "true as money": ({"amount": "true"}, 422),
    "null as money": ({"amount": "null"}, 422),
    "an unknown kind": ({"kind": '"gift"'}, 422),
    "an unknown field": ({"surprise": "1"}, 422),
    "a NUL": ({"stan": '"0000\\u0000"'}, 422),
    "a NUL in the terminal": ({"terminal_id": '"T000\\u0000001"'}, 422),
    "a bidirectional override": ({"merchant_id": '"\\u202eMERIDIAN000000"'}, 422),
    "an isolate": ({"merchant_id": '"\\u2066MERIDIAN000000"'}, 422),
    "an unpaired surrogate": ({"merchant_id": '"\\ud800"'}, 422),
    "base64 that is none": ({"fingerprint": '"***"'}, 422),
    "nested deep": ({"pan": "[" * 3_000 + "]" * 3_000}, 422),
    "nested very deep": ({"pan": "[" * 100_000 + "]" * 100_000}, 422),
    "a list as a request's field": ({"pan": "[]"}, 422),
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_bad_values_are_refused_with_a_problem_and_nothing_is_posted(
    nodes: TwoNodes, name: str
) -> None:
    changes, status = BAD_VALUES[name]
    card = nodes.network.card(1_000)
    body = spoilt(terminal_body(nodes, nodes.network.request(card, 100)), **changes)
    answer = post(nodes.acquirer, TERMINAL_REQUESTS, body, GATEWAY)
    problem_of(answer, status)
    assert card.pan not in answer.text
    assert nodes.network.balance(card) == 1_000


BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "no JSON": (b"hello", 400),
    "half of it": (b'{"requests":[', 400),
    "two documents": (b'{"requests":[]}{"requests":[]}', 400),
    "another encoding": ('{"requests":"é"}'.encode("latin-1"), 400),
    "UTF-16": ('{"requests":[]}'.encode("utf-16"), 400),
    "a byte order mark": (b'\xef\xbb\xbf{"requests":[]}', 400),
    "a list": (b"[]", 422),
    "a number": (b"7", 422),
    "no requests": (b'{"requests":[]}', 422),
    "requests missing": (b"{}", 422),
    "requests null": (b'{"requests":null}', 422),
    "an unknown key": (b'{"requests":[],"x":1}', 422),
    "trailing comma": (b'{"requests":[],}', 400),
    "deep nesting alone": (b"[" * 200_000, 422),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_are_refused_with_a_problem(nodes: TwoNodes, name: str) -> None:
    body, status = BAD_BODIES[name]
    for node, path, caller in (
        (nodes.acquirer, TERMINAL_REQUESTS, GATEWAY),
        (nodes.issuer, AUTHORIZATIONS, ACQUIRER),
    ):
        problem_of(post(node, path, body, caller), status)


def test_a_duplicate_key_is_refused_wherever_it_stands(nodes: TwoNodes) -> None:
    card = nodes.network.card(1_000)
    body = terminal_body(nodes, nodes.network.request(card, 100))
    twice = {
        "in a request": body.replace(b'"amount":100', b'"amount":1,"amount":100'),
        "with the same value": body.replace(b'"amount":100', b'"amount":100,"amount":100'),
        "written otherwise": body.replace(b'"amount":100', b'"amount":100,"am\\u006funt":100'),
        "of the batch": b'{"requests":[],' + body[1:],
    }
    for where, spoiled in twice.items():
        answer = post(nodes.acquirer, TERMINAL_REQUESTS, spoiled, GATEWAY)
        assert problem_of(answer, 422)["type"].endswith("json-duplicate-key"), where
    assert nodes.network.balance(card) == 1_000


def test_another_spelling_of_the_same_batch_is_taken(nodes: TwoNodes) -> None:
    card = nodes.network.card(1_000)
    body = terminal_body(nodes, nodes.network.request(card, 100))
    document = json.loads(body)
    request = {key: document["requests"][0][key] for key in reversed(document["requests"][0])}
    request = {key: value for key, value in request.items() if value is not None}
    pretty = json.dumps({"requests": [request]}, indent=2).encode()
    answer = post(nodes.acquirer, TERMINAL_REQUESTS, pretty, GATEWAY)
    assert answer.json()["answers"][0]["outcome"] == "approved"


def test_too_large_too_many_and_not_json(nodes: TwoNodes) -> None:
    huge = b'{"requests":[' + b" " * (1 << 20) + b"]}"
    problem_of(post(nodes.acquirer, TERMINAL_REQUESTS, huge, GATEWAY), 413)
    one = terminal_body(nodes, nodes.network.request(nodes.network.card(5), 1))
    many = b'{"requests":[' + b",".join([one[13:-2]] * 257) + b"]}"
    problem_of(post(nodes.acquirer, TERMINAL_REQUESTS, many, GATEWAY), 422)
    for media in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=x"):
        answer = post(nodes.acquirer, TERMINAL_REQUESTS, one, GATEWAY, Content_Type=media)
        problem_of(answer, 415)
    answer = post(nodes.acquirer, TERMINAL_REQUESTS, one, GATEWAY, Content_Encoding="gzip")
    problem_of(answer, 415)
    with nodes.acquirer.http() as client:
        refused = client.get(TERMINAL_REQUESTS)
    problem_of(refused, 405)
    assert refused.headers["allow"] == "POST"


def test_an_altered_body_or_digest_is_refused(nodes: TwoNodes) -> None:
    card = nodes.network.card(1_000)
    body = terminal_body(nodes, nodes.network.request(card, 100))
    sent = signer(GATEWAY).sign_request(
        "POST", nodes.acquirer.url + TERMINAL_REQUESTS, body, int(time.time())
    ) | {"Content-Type": "application/json"}
    with nodes.acquirer.http(None) as client:
        altered = body.replace(b'"amount":100', b'"amount":999')
        answer = client.post(TERMINAL_REQUESTS, content=altered, headers=sent)
    assert problem_of(answer, 401)["type"].endswith("digest-mismatch")
    assert nodes.network.balance(card) == 1_000


def test_the_client_tells_what_is_known_of_a_failed_call(nodes: TwoNodes) -> None:
    request = nodes.network.request(nodes.network.card(5), 1)

    async def refused_connection() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
            async with NodeClient(url, signer=signer(GATEWAY)) as client:
                await client.terminal_requests([request])

    with pytest.raises(NodeUnreachable) as unreachable:
        run(refused_connection())
    assert not unreachable.value.sent

    async def foreign_answer() -> None:
        async with NodeClient(
            nodes.acquirer.url, signer=signer(GATEWAY), peer=public(OUTSIDER)
        ) as client:
            await client.terminal_requests([request])

    with pytest.raises(NodeUnreachable) as unreachable:
        run(foreign_answer())
    assert unreachable.value.sent

    async def refused() -> None:
        async with nodes.acquirer.client(ISSUER) as client:
            await client.terminal_requests([request])

    with pytest.raises(NodeRefused) as refusal:
        run(refused())
    assert refusal.value.status == 403
    assert request.pan not in str(refusal.value) + str(refusal.value.problem)


def test_a_trickling_body_is_given_up_and_others_are_served_meanwhile(nodes: TwoNodes) -> None:
    host, port = nodes.acquirer.url.removeprefix("http://").split(":")
    head = (
        f"POST {TERMINAL_REQUESTS} HTTP/1.1\r\nHost: {host}:{port}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    )
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(head.encode())
        began = time.monotonic()
        assert run(through_gateway(nodes, nodes.network.request(nodes.network.card(5), 1)))
        slow.settimeout(5)
        answer = b""
        while part := slow.recv(65536):  # until the node closes the connection
            answer += part
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"body-too-slow" in answer
        assert 0.8 < time.monotonic() - began < 5


def test_a_trickling_head_is_given_up(nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHeadProtocol, "head_timeout_s", 0.3)
    host, port = nodes.acquirer.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.settimeout(5)
        slow.sendall(b"POST /v1/term")
        began = time.monotonic()
        assert slow.recv(10) == b""
        assert time.monotonic() - began < 3
    with socket.create_connection((host, int(port))) as endless:
        endless.settimeout(5)
        endless.sendall(b"GET / HTTP/1.1\r\n" + b"X-Filler: " + b"a" * 200_000)
        with contextlib.suppress(ConnectionResetError):
            assert endless.recv(10) in (b"", b"HTTP/1.1 4")


def test_a_database_that_goes_away_leaves_the_outcome_open_and_a_repeat_settles_it(
    nodes: TwoNodes,
) -> None:
    card = nodes.network.card(1_000)
    body = terminal_body(nodes, nodes.network.request(card, 100))
    real = nodes.acquirer.node.authorizer

    class Failing:
        """Loses the connection after the work was done, as a cut before the commit's answer."""

        async def accept(self, requests: Any) -> Any:
            await real.accept(requests)
            raise LedgerUnavailable("connection lost")

    nodes.acquirer.node.authorizer = Failing()
    try:
        open_ = problem_of(post(nodes.acquirer, TERMINAL_REQUESTS, body, GATEWAY), 504)
    finally:
        nodes.acquirer.node.authorizer = real
    assert open_["type"].endswith("outcome-unknown")
    answer = post(nodes.acquirer, TERMINAL_REQUESTS, body, GATEWAY)
    assert answer.json()["answers"][0]["outcome"] == "approved"
    assert nodes.network.balance(card) == 900


def test_a_defect_is_a_problem_too_and_its_text_goes_nowhere(
    nodes: TwoNodes, capsys: pytest.CaptureFixture[str]
) -> None:
    card = nodes.network.card(1_000)
    body = terminal_body(nodes, nodes.network.request(card, 100))
    real = nodes.acquirer.node.authorizer

    class Broken:
        async def accept(self, requests: Any) -> Any:
            raise RuntimeError(f"cannot handle {requests[0].pan}")

    nodes.acquirer.node.authorizer = Broken()
    try:
        answer = post(nodes.acquirer, TERMINAL_REQUESTS, body, GATEWAY)
    finally:
        nodes.acquirer.node.authorizer = real
    problem_of(answer, 500)
    said = answer.text + "".join(capsys.readouterr())
    assert card.pan not in said
    assert "RuntimeError" in said, "the log names the type and the place"
