"""What the API shows: transactions, the log, accounts, overview, stream, roles, schema."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from nodes.anchoring import store as log_store
from nodes.anchoring.bundle import parse_bundle
from nodes.anchoring.model import AnchorState, FeedItem, LogIdentity, Submission
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.operations import seal
from nodes.api.client import NodeClient, NodeRefused, NodeUnreachable
from nodes.authorization.model import Kind, Outcome, TerminalAnswer
from nodes.crypto.merkle import verify_consistency, verify_inclusion
from tests.factories.network import ACQUIRER, ISSUER, MERCHANT, TERMINAL
from tests.integration.api.running import (
    GATEWAY,
    KEYS,
    MERCHANT_MEMBER,
    OUTSIDER,
    RunningNode,
    TwoNodes,
    run,
)
from tests.integration.api.test_authorization import problem_of, through_gateway

HOUR = timedelta(hours=1)


def purchase(nodes: TwoNodes, amount: int, **changes: Any) -> TerminalAnswer:
    card = nodes.network.card(10_000)
    [answer] = run(through_gateway(nodes, nodes.network.request(card, amount, **changes)))
    assert isinstance(answer, TerminalAnswer)
    return answer


def seal_all(node: RunningNode) -> int:
    """Seal what waits; the newest batch's number."""
    settings = node.node.settings
    identity = LogIdentity(settings.member_id, 20_260, settings.anchor_registry)
    batch, last = None, 0
    while batch := seal(node.node.engine, identity, NoteSigner(bytes(32)), node.node.clock):
        last = batch.seq
    assert last
    return last


def anchor(node: RunningNode, seq: int) -> None:
    """Write down what `publish` and `confirm` write once the chain has the anchor."""
    now = datetime.now(UTC)
    with log_store.transaction(node.node.engine) as connection:
        submission = Submission(seq, AnchorState.SUBMITTED, seq, b"\x11" * 32, b"raw")
        log_store.insert_submission(connection, submission, now)
        log_store.mark_anchored(
            connection,
            seq,
            tx_hash=b"\x11" * 32,
            block_number=77,
            block_hash=b"\x22" * 32,
            gas_used=90_000,
            at=now,
        )


def get(node: RunningNode, path: str, **params: Any) -> Any:
    with node.http("reader") as client:
        answer = client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(node: RunningNode, path: str, **params: Any) -> httpx.Response:
    with node.http("reader") as client:
        return client.get(path, params=params)


def test_a_transaction_is_shown_from_acceptance_to_its_proof(nodes: TwoNodes) -> None:
    answer = purchase(nodes, 1_250)
    assert answer.txid is not None
    path = f"/v1/transactions/{answer.txid.hex()}"
    shown = get(nodes.issuer, path)
    assert shown["anchor_state"] == "UNSEALED"
    assert shown["amount"] == 1_250
    assert shown["currency"] == "CNY"
    assert shown["approval_code"] == answer.approval_code
    assert shown["decided_at"].endswith("Z")
    assert [t["debit"]["kind"] for t in shown["transfers"]] == ["cardholder"]
    assert shown["transfers"][0]["balance_after"] == 8_750
    assert problem_of(refusal(nodes.issuer, path + "/proof"), 409)["state"] == "UNSEALED"

    seq = seal_all(nodes.issuer)
    assert get(nodes.issuer, path)["anchor_state"] == "SEALED"
    problem_of(refusal(nodes.issuer, path + "/proof"), 409)
    anchor(nodes.issuer, seq)
    shown = get(nodes.issuer, path)
    assert shown["anchor_state"] == "ANCHORED"
    assert shown["batch_seq"] == seq
    events = [entry["event"] for entry in shown["timeline"]]
    assert {"accepted", "decided", "recorded", "sealed", "submitted", "anchored"} <= set(events)
    with nodes.issuer.http("reader") as client:
        proof = client.get(path + "/proof")
    assert proof.headers["content-type"].startswith("text/plain")
    assert parse_bundle(proof.content).evidence.seq == seq


def test_a_refund_and_a_reversal_stand_in_their_originals_timeline(nodes: TwoNodes) -> None:
    card = nodes.network.card(10_000)
    bought, other = nodes.network.request(card, 900), nodes.network.request(card, 800)
    first, second = run(through_gateway(nodes, bought, other))
    refund = nodes.network.request(card, 400, Kind.REFUND, rrn=first.rrn, pin=None)
    back, reversed_ = run(through_gateway(nodes, refund, nodes.network.reversal_of(other)))
    assert [back.outcome, reversed_.outcome] == [Outcome.APPROVED, Outcome.APPROVED]
    for answer, later, event in ((first, back, "refund"), (second, reversed_, "reversal")):
        shown = get(nodes.issuer, f"/v1/transactions/{answer.txid.hex()}")
        assert event in [entry["event"] for entry in shown["timeline"]]
        if later.txid is not None and event == "refund":
            assert later.txid.hex() in shown["related"]
            again = get(nodes.issuer, f"/v1/transactions/{later.txid.hex()}")
            assert again["original_txid"] == answer.txid.hex()
            assert answer.txid.hex() in again["related"]


def test_paging_meets_every_transaction_once_even_while_more_come(nodes: TwoNodes) -> None:
    for amount in range(1, 8):
        purchase(nodes, amount)
    before = {i["txid"] for i in get(nodes.acquirer, "/v1/transactions", limit=500)["items"]}
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = get(nodes.acquirer, "/v1/transactions", **params)
        seen += [item["txid"] for item in page["items"]]
        purchase(nodes, 9)
        cursor = page["next"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen))
    assert set(seen) == before


def test_filters_select_what_they_say(nodes: TwoNodes) -> None:
    answer = purchase(nodes, 4_321)
    refused = purchase(nodes, 999_999)
    assert refused.outcome is Outcome.INSUFFICIENT_FUNDS

    def found(**params: Any) -> set[str]:
        page = get(nodes.acquirer, "/v1/transactions", limit=500, **params)
        return {item["txid"] for item in page["items"]}

    yes, no = answer.txid.hex(), refused.txid.hex()
    shown = get(nodes.acquirer, f"/v1/transactions/{yes}")
    now = datetime.now(UTC)
    both: list[dict[str, Any]] = [
        {"kind": "purchase"},
        {"side": "acquirer"},
        {"merchant_id": MERCHANT, "terminal_id": TERMINAL},
        {
            "from": (now - timedelta(hours=1)).isoformat(),
            "to": (now + timedelta(hours=1)).isoformat(),
        },
    ]
    for params in both:
        assert {yes, no} <= found(**params), params
    only: list[dict[str, Any]] = [
        {"outcome": "approved", "min_amount": 4_321, "max_amount": 4_321},
        {"rrn": answer.rrn},
        {"txid": yes},
        {"card_token": shown["card_token"]},
    ]
    for params in only:
        assert yes in found(**params), params
        assert no not in found(**params), params
    neither: list[dict[str, Any]] = [
        {"side": "issuer"},
        {"kind": "refund"},
        {"merchant_id": "NOSUCHMERCHANT1"},
        {"to": (now - timedelta(days=1)).isoformat()},
        {"from": (now + timedelta(days=1)).isoformat()},
    ]
    for params in neither:
        assert not {yes, no} & found(**params), params


BAD_QUERIES = [
    ("/v1/transactions", {"limit": "0"}),
    ("/v1/transactions", {"limit": "501"}),
    ("/v1/transactions", {"limit": "many"}),
    ("/v1/transactions", {"cursor": "!!!"}),
    ("/v1/transactions", {"cursor": "AAAA"}),
    ("/v1/transactions", {"cursor": base64.urlsafe_b64encode(b"9" * 30).decode()}),
    ("/v1/transactions", {"kind": "gift"}),
    ("/v1/transactions", {"txid": "zz"}),
    ("/v1/transactions", {"merchant_id": "a\0b"}),
    ("/v1/transactions", {"merchant_id": "\u202ea"}),
    ("/v1/transactions", {"from": "yesterday"}),
    ("/v1/transactions", {"from": "2026-01-01T00:00:00"}),
    ("/v1/transactions", {"min_amount": str(1 << 63)}),
    ("/v1/transactions", {"min_amount": "1.5"}),
    ("/v1/transactions", {"merchant": "misspelt"}),
    ("/v1/transactions", {"limit": ["1", "2"]}),
    ("/v1/batches/0", {}),
    (f"/v1/batches/{1 << 63}", {}),
    ("/v1/batches/x", {}),
    ("/v1/log/entries", {"start": "5", "end": "1"}),
    ("/v1/log/entries", {}),
    ("/v1/overview", {"minutes": "0"}),
    ("/v1/overview", {"minutes": str(10**30)}),
]


@pytest.mark.parametrize(("path", "params"), BAD_QUERIES)
def test_bad_queries_are_refused_with_a_problem(
    nodes: TwoNodes, path: str, params: dict[str, Any]
) -> None:
    problem_of(refusal(nodes.issuer, path, **params), 422)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/nothing",
        "/v1/transactions/xyz",
        "/v1/transactions/" + "0" * 64,
        "/v1/transactions/" + "0" * 64 + "/proof",
        "/v1/transactions/%00",
        "/v1/transactions/" + "F" * 64,
        "/v1/batches/999999",
        "/v1/cards/" + "0" * 32,
        "/v1/log/inclusion?index=10000000&size=10000001",
        "/v1/log/consistency?first=1&second=100000000",
        "/docs/vendor/../../app.py",
        "/docs/vendor/%2e%2e/%2e%2e/app.py",
    ],
)
def test_what_is_not_there_is_404_with_a_problem(nodes: TwoNodes, path: str) -> None:
    with nodes.issuer.http("reader") as client:
        answer = client.get(path)
    problem_of(answer, 404)


def test_log_proofs_hold_under_the_pure_verifier(nodes: TwoNodes) -> None:
    for amount in (10, 20):
        purchase(nodes, amount)
        seal_all(nodes.acquirer)
    batches = get(nodes.acquirer, "/v1/batches")["items"]
    new, old = batches[0], batches[1]
    assert new["prev_root"] == old["root"]
    proof = get(nodes.acquirer, "/v1/log/consistency", first=old["size"], second=new["size"])
    path = [bytes.fromhex(word) for word in proof["proof"]]
    roots = bytes.fromhex(old["root"]), bytes.fromhex(new["root"])
    assert verify_consistency(old["size"], new["size"], *roots, path)
    index = new["first_index"]
    proof = get(nodes.acquirer, "/v1/log/inclusion", index=index, size=new["size"])
    path = [bytes.fromhex(word) for word in proof["proof"]]
    leaf = bytes.fromhex(proof["leaf_hash"])
    assert verify_inclusion(index, new["size"], leaf, path, roots[1])
    entries = get(nodes.acquirer, "/v1/log/entries", start=index, end=new["size"])
    assert entries["entries"][0]["leaf_hash"] == proof["leaf_hash"]
    detail = get(nodes.acquirer, f"/v1/batches/{new['seq']}")
    assert detail["state"] == "SEALED"
    assert f"\n{new['size']}\n" in detail["checkpoint"]
    members = get(nodes.acquirer, f"/v1/batches/{new['seq']}/transactions")["items"]
    assert [item["log_index"] for item in members] == list(range(index, new["size"]))
    anchor(nodes.acquirer, new["seq"])
    with nodes.acquirer.http("reader") as client:
        checkpoint = client.get("/v1/log/checkpoint").text
    assert checkpoint == detail["checkpoint"]


def test_accounts_are_current_before_and_after_sealing(nodes: TwoNodes) -> None:
    def merchant_balance() -> int:
        [account] = get(nodes.acquirer, "/v1/accounts", kind="merchant")["items"]
        return int(account["balance"])

    before = merchant_balance()
    purchase(nodes, 700)
    assert merchant_balance() == before + 700
    seal_all(nodes.acquirer)
    assert merchant_balance() == before + 700
    accounts = get(nodes.acquirer, "/v1/overview")["accounts"]
    assert sum(entry["balance"] for entry in accounts) == 0


def test_the_overview_counts_what_happened(nodes: TwoNodes) -> None:
    before = get(nodes.acquirer, "/v1/overview", minutes=30)
    purchase(nodes, 300)
    purchase(nodes, 888_888)
    after = get(nodes.acquirer, "/v1/overview", minutes=30)
    assert after["side"] == "acquirer"
    assert len(after["volume"]) == 30
    for name, change in (("approved", 1), ("declined", 1), ("amount", 300)):
        change_of_volume = sum(m[name] for m in after["volume"]) - sum(
            m[name] for m in before["volume"]
        )
        assert change_of_volume == change, name
        assert after["totals"][name] - before["totals"][name] == change, name
    funds = "insufficient_funds"
    assert after["declines"][funds] == before["declines"].get(funds, 0) + 1
    assert after["log"]["unsealed"] == before["log"]["unsealed"] + 2
    assert after["log"]["lag_seconds"] > 0
    assert after["open_work"] == {"pending_requests": 0, "pending_reversals": 0}


def test_the_merchant_gets_its_feed_and_nobody_else_does(nodes: TwoNodes) -> None:
    with nodes.acquirer.http("operator") as client:
        made = client.post(
            "/v1/merchants",
            json={
                "merchant_id": "HARBOR000000001",
                "name": "Harbor Stores 港",
                "mcc": "5411",
                "country": "CN",
                "currency": "CNY",
                "member_id": MERCHANT_MEMBER,
            },
        )
        assert made.status_code == 201, made.text
        terminal = {"terminal_id": "H0000001", "merchant_id": "HARBOR000000001"}
        assert client.post("/v1/terminals", json=terminal).status_code == 201
    card = nodes.network.card(10_000)
    request = nodes.network.request(
        card, 600, terminal_id="H0000001", merchant_id="HARBOR000000001"
    )
    [answer] = run(through_gateway(nodes, request))
    assert answer.outcome is Outcome.APPROVED
    purchase(nodes, 50)  # another merchant's
    seal_all(nodes.acquirer)

    async def taken(name: str) -> list[FeedItem]:
        async with nodes.acquirer.client(name) as client:
            return await client.feed(-1)

    items = run(taken(MERCHANT_MEMBER))
    assert [item.txid for item in items] == [answer.txid]
    encoded = msgspec.json.encode(items).decode()
    assert card.pan not in encoded
    assert card.pan_masked not in encoded
    assert card.card_token.hex() not in encoded
    for name, status in ((ISSUER, 403), (GATEWAY, 403), (OUTSIDER, 401)):
        with pytest.raises((NodeRefused, NodeUnreachable)) as refused:
            run(taken(name))
        assert isinstance(refused.value, NodeRefused), name
        assert refused.value.status == status, name
    with nodes.acquirer.http("admin") as client:
        problem_of(client.get("/v1/feed"), 403)


def test_a_member_gets_the_proofs_of_its_own_transactions_alone(nodes: TwoNodes) -> None:
    answer = purchase(nodes, 77)
    anchor(nodes.issuer, seal_all(nodes.issuer))
    path = f"/v1/transactions/{answer.txid.hex()}/proof"

    async def fetched(name: str) -> str:
        async with nodes.issuer.client(name) as client:
            return await client.get_text(path)

    assert run(fetched(ACQUIRER)).startswith("c2sp.org/tlog-proof@v1\n")
    with pytest.raises(NodeRefused) as refused:
        run(fetched(MERCHANT_MEMBER))
    assert refused.value.status == 404


class Listener:
    """Reads a node's stream in a thread."""

    def __init__(self, node: RunningNode, last_event_id: str | None = None) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.ready = threading.Event()
        self.error: Exception | None = None
        self._node = node
        self._last = last_event_id
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        assert self.ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(5)

    def _run(self) -> None:
        self._task = self._loop.create_task(self._read())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)

    async def _read(self) -> None:
        try:
            async with NodeClient(self._node.url, api_key=KEYS["reader"]) as client:
                path = "/v1/transactions/stream"
                async for name, data in client.stream(path, last_event_id=self._last):
                    self.events.append((name, json.loads(data)))
                    self.ready.set()
        except (NodeRefused, NodeUnreachable) as error:
            self.error = error
            self.ready.set()

    def wait_for(self, txid: str) -> dict[str, Any]:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for name, item in list(self.events):
                if name == "transaction" and item["txid"] == txid:
                    return item
            time.sleep(0.02)
        raise AssertionError("the transaction did not come")


def test_every_listener_of_the_stream_sees_new_transactions_as_the_list_shows_them(
    nodes: TwoNodes,
) -> None:
    old = purchase(nodes, 5)
    with Listener(nodes.issuer) as one, Listener(nodes.issuer) as two:
        answer = purchase(nodes, 6)
        seen = [listener.wait_for(answer.txid.hex()) for listener in (one, two)]
        [listed] = get(nodes.issuer, "/v1/transactions", txid=answer.txid.hex())["items"]
        assert seen == [listed, listed]
        assert old.txid.hex() not in [i.get("txid") for _, i in one.events]
    with Listener(nodes.issuer) as again:
        more = purchase(nodes, 7)
        again.wait_for(more.txid.hex())


def test_a_stream_goes_on_where_the_last_one_ended(nodes: TwoNodes) -> None:
    with nodes.issuer.http("reader") as client:
        with client.stream("GET", "/v1/transactions/stream") as first:
            start = next(line for line in first.iter_lines() if line.startswith("id: "))
    missed = [purchase(nodes, amount).txid.hex() for amount in (11, 12, 13)]
    with Listener(nodes.issuer, start.removeprefix("id: ")) as listener:
        for txid in missed:
            listener.wait_for(txid)
        order = [item["txid"] for name, item in listener.events if name == "transaction"]
        assert [txid for txid in order if txid in missed] == missed
    for wrong in ("x", "1", "1-" + "9" * 19, "-1-1"):
        with nodes.issuer.http(
            "reader",
        ) as client:
            answer = client.get("/v1/transactions/stream", headers={"Last-Event-ID": wrong})
        problem_of(answer, 422)


def test_an_open_stream_does_not_keep_a_node_from_stopping(cluster: Any) -> None:
    from tests.integration.api.running import two_nodes

    with two_nodes(cluster) as both, Listener(both.issuer) as listener:
        began = time.monotonic()
        both.issuer.stop()
        assert time.monotonic() - began < 3
        assert listener.error is None


def test_health_readiness_and_metrics(nodes: TwoNodes) -> None:
    purchase(nodes, 5)
    with nodes.issuer.http(None) as client:
        assert client.get("/v1/health").json() == {"status": "ok"}
        ready = client.get("/v1/ready")
        metrics = client.get("/metrics").text
    assert ready.status_code == 200
    assert ready.json() == {"ready": True, "checks": {"database": True, "directory": True}}
    assert 'countersign_outcomes_total{outcome="approved",route="/v1/authorizations"}' in metrics
    assert "countersign_log_unsealed_rows" in metrics
    known = nodes.directory.known.pop(ISSUER)
    try:
        with nodes.issuer.http(None) as client:
            away = client.get("/v1/ready")
    finally:
        nodes.directory.known[ISSUER] = known
    assert away.status_code == 503
    assert away.json()["checks"]["directory"] is False


def test_info_and_members(nodes: TwoNodes) -> None:
    info = get(nodes.issuer, "/v1/info")
    assert (info["member_id"], info["chain_id"]) == (ISSUER, 20_260)
    assert {m["member_id"] for m in get(nodes.issuer, "/v1/members")["items"]} >= {ISSUER, ACQUIRER}


@pytest.fixture(scope="module")
def schema(nodes: TwoNodes) -> Iterator[dict[str, Any]]:
    with nodes.issuer.http(None) as client:
        yield client.get("/openapi.json").json()


def test_the_schema_covers_every_endpoint_the_batch_ones_too(schema: dict[str, Any]) -> None:
    for path, name in (
        ("/v1/terminal-requests", "Terminal"),
        ("/v1/terminal-services", "Service"),
        ("/v1/authorizations", "Authorization"),
    ):
        operation = schema["paths"][path]["post"]
        body = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert body.endswith(f"/{name}Batch")
        assert operation["security"] == [{"messageSignature": []}]
    text = json.dumps(schema)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(schema["components"]["schemas"])
    request = schema["components"]["schemas"]["TerminalRequest"]
    assert request["properties"]["amount"] == {"type": "integer"}
    assert "HTTPValidationError" not in text


def test_every_operation_with_every_caller(nodes: TwoNodes, schema: dict[str, Any]) -> None:
    """Nothing opens to a stranger, and a foreign member sees only what is meant for members."""
    open_to_all = {"/v1/health", "/v1/ready", "/metrics", "/checkpoint"}
    #: Open too, and there is no such tile or receipt: a wrong key is answered like an unknown txid.
    open_to_askers = {
        "/tile/{level}/{place}",
        "/v1/receipts/{txid}/proof",
        "/v1/receipts/{txid}/roots",
        "/v1/receipts/claims",
        "/v1/receipts/claims/{claim_id}",
    }
    for_members = {
        "/v1/members",
        "/v1/info",
        "/v1/log/checkpoint",
        "/v1/log/entries",
        "/v1/log/consistency",
        "/v1/log/inclusion",
        "/v1/transactions/{txid}/proof",
        "/v1/feed",
        "/tile/entries/{place}",
        "/v1/case-events",
        "/v1/case-steps",
    }
    hot = {"/v1/terminal-requests", "/v1/terminal-services", "/v1/authorizations"}

    async def as_member(name: str, method: str, path: str) -> int:
        async with nodes.issuer.client(name) as client:
            try:
                if method == "post":
                    await client.post_json(path, {})
                else:
                    await client._call("GET", path)
            except NodeRefused as refused:
                return refused.status
        return 200

    for path, methods in schema["paths"].items():
        for method in methods:
            concrete = path.format(
                txid="0" * 64,
                card_token="0" * 32,
                seq=1,
                account_id=1,
                adjustment_id=1,
                dispute_id=1,
                rule_id="rule-0",
                level=0,
                place="000",
                close_id=1,
                break_ref="0" * 64,
                terminal_id="T0000001",
                epoch=1,
                settlement_id=1,
                order_id="0" * 32,
                delivery_id=1,
                endpoint_id=1,
                key_id="key-0",
                event_id=1,
                product_id="product-0",
                version=1,
                fingerprint="0" * 64,
            )
            nodes.issuer.server.front.keeper.forget_failures()
            if path == "/v1/transactions/stream":
                continue  # below: it doesn't end by itself
            if path == "/v1/comparisons":
                continue  # not JSON: tests/integration/clearing/test_cases.py
            with nodes.issuer.http(None) as client:
                json_body = {"json": {}} if method == "post" else {}
                stranger = client.request(method, concrete, **json_body).status_code
                wrong_key = client.request(
                    method, concrete, headers={"Authorization": "Bearer nonsense"}, **json_body
                ).status_code
            if path in open_to_all:
                # Before the first anchor there is no checkpoint.
                assert stranger in ((200, 404) if path == "/checkpoint" else (200,)), path
                continue
            if path in open_to_askers:
                assert stranger in (404, 422), path
                continue
            assert stranger == 401, path
            assert wrong_key == 401, path
            foreign = run(as_member(MERCHANT_MEMBER, method, concrete))
            if path in for_members:
                assert foreign in (200, 404, 422), (path, foreign)
            elif path not in hot:
                assert foreign == 403, (path, foreign)
            if method == "post" and path not in hot:
                # A simulation changes nothing: whoever reads may ask. Only its body is wrong here.
                expected = 422 if path == "/v1/simulations" else 403
                with nodes.issuer.http("reader") as client:
                    assert client.post(concrete, json={}).status_code == expected, path
    with nodes.issuer.http(None) as client:
        problem_of(client.get("/v1/transactions/stream"), 401)


def test_too_many_failures_are_slowed_down_and_right_keys_still_work(cluster: Any) -> None:
    from tests.integration.api.running import two_nodes

    with two_nodes(cluster) as both, both.issuer.http(None) as client:
        wrong = {"Authorization": "Bearer wrong"}
        statuses = [client.get("/v1/info", headers=wrong).status_code for _ in range(40)]
        assert set(statuses) == {401, 429}
        last = client.get("/v1/info", headers=wrong)
        assert int(last.headers["retry-after"]) >= 1
        right = {"Authorization": f"Bearer {KEYS['reader']}"}
        assert client.get("/v1/info", headers=right).status_code == 200


def test_answers_carry_the_security_headers(nodes: TwoNodes) -> None:
    with nodes.issuer.http("reader") as client:
        answers = [client.get(path) for path in ("/v1/info", "/nothing", "/v1/health", "/docs")]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers.get("server") is None
