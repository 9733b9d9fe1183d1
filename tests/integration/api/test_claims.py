"""An overdue promise that somebody without an account on the chain brings to a member's node."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from nodes.anchoring.operations.answering import ClaimWatch, answer_claims
from nodes.anchoring.operations.promising import Promiser, promise_transaction
from nodes.anchoring.receipt import Promise
from nodes.api import auth
from nodes.chain.challenges import Claim, ClaimState, OmissionRegistry, claim_id_of
from nodes.chain.deploy import Terms
from nodes.claims import operations, store
from nodes.claims.model import ClaimOrder, OrderState
from nodes.claims.operations import RelayContext, relay_claims
from nodes.clock import SystemClock
from nodes.db.engine import transaction
from tests.conftest import Cluster, NodeDatabase
from tests.factories.chain import ChainFixture, start_chain
from tests.factories.evidence import LogMember, make_member
from tests.factories.ledger import LedgerFactory
from tests.factories.receipts import make_promising
from tests.integration.api.running import RunningNode
from tests.integration.api.served_log import served

CLAIMS = "/v1/receipts/claims"


@pytest.fixture(scope="module")
def quick_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainFixture]:
    """A chain on which an accused has three seconds to answer."""
    chain = start_chain(tmp_path_factory.mktemp("quick"), terms=Terms(answer_s=3))
    yield chain
    chain.stop()


@dataclass
class Relay:
    """Another member's node, its worker's job, and who promised."""

    accused: LogMember
    books: LedgerFactory
    promiser: Promiser
    member: LogMember
    node: RunningNode
    omissions: OmissionRegistry

    def bring(self, body: dict[str, Any], timeout_s: float = 5) -> httpx.Response:
        return httpx.post(self.node.url + CLAIMS, json=body, timeout=timeout_s, trust_env=False)

    def state(self, claim_id: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.node.url}{CLAIMS}/{claim_id}", trust_env=False)
        assert answer.status_code == 200, answer.text
        assert answer.headers["access-control-allow-origin"] == "*"
        found: dict[str, Any] = answer.json()
        return found

    def work(self) -> int:
        context = self.member.context
        return relay_claims(
            RelayContext(
                context.engine, context.client, self.omissions, context.signer, SystemClock()
            )
        )

    def work_until(self, claim_id: str, state: str) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while (found := self.state(claim_id))["state"] != state:
            assert time.monotonic() < deadline, found
            self.work()
            time.sleep(0.3)
        return found

    def claim_now(self, promise: Promise) -> None:
        """Somebody brings it, and the worker claims."""
        brought = self.bring(body_of(promise))
        assert brought.status_code == 202
        self.work_until(brought.json()["claim_id"], "claimed")

    def order(self, claim_id: bytes) -> ClaimOrder | None:
        with transaction(self.member.database.engine) as connection:
            return store.order_of(connection, claim_id)

    def claim(self, promise: Promise) -> Claim | None:
        return self.omissions.claim(promise.member_id, promise.txid, promise.commitment)

    def sendings(self) -> list[tuple[str, str]]:
        with transaction(self.member.database.engine) as connection:
            return connection.execute(
                "SELECT purpose, state FROM chain_outbox ORDER BY purpose"
            ).fetchall()


@pytest.fixture
def relay(cluster: Cluster, database: NodeDatabase, quick_chain: ChainFixture) -> Iterator[Relay]:
    accused = make_member(database, quick_chain, ("acquirer",))
    other = cluster.new_database()
    try:
        member = make_member(other, quick_chain, ("acquirer",))
        address = quick_chain.omission_registry
        with served(member, omission_registry=address) as node:
            yield Relay(
                accused,
                LedgerFactory(database.engine, "acquirer"),
                make_promising(accused).promiser,
                member,
                node,
                OmissionRegistry(quick_chain.client(), address),
            )
    finally:
        cluster.drop(other)


def promised(relay: Relay, delay_s: int = 1) -> Promise:
    """A promise of a transaction that isn't in the log; overdue unless `delay_s` is long."""
    [record] = relay.books.add(1)
    promiser = replace(relay.promiser, merge_delay_s=delay_s)
    promise = promise_transaction(relay.accused.database.engine, promiser, record.txid)
    assert promise is not None
    while delay_s == 1 and time.time() <= promise.merge_deadline + 1.5:
        time.sleep(0.2)
    return promise


def body_of(promise: Promise) -> dict[str, Any]:
    return {
        "member_id": promise.member_id,
        "txid": promise.txid.hex(),
        "commitment": promise.commitment.hex(),
        "merge_deadline": promise.merge_deadline,
        "signature": promise.signature.hex(),
    }


def problem_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    document["type"] = document["type"].rsplit(":", 1)[1]
    return document


def test_an_omission_is_proven_by_another_members_node(relay: Relay) -> None:
    promise = promised(relay)
    brought = relay.bring(body_of(promise))
    assert brought.status_code == 202, brought.text
    assert brought.headers["access-control-allow-origin"] == "*"
    claim_id = brought.json()["claim_id"]
    assert bytes.fromhex(claim_id) == claim_id_of(
        promise.member_id, promise.txid, promise.commitment
    )
    assert brought.json()["state"] == "queued"
    assert relay.work() == 1
    claimed = relay.work_until(claim_id, "claimed")
    claim = relay.claim(promise)
    assert claim is not None
    assert (claim.state, claim.claimant) == (
        ClaimState.CLAIMED,
        relay.member.context.signer.address,
    )
    assert claimed["answer_by"] == claim.answer_deadline
    again = relay.bring(body_of(promise))
    assert (again.status_code, again.json()) == (202, claimed)

    proven = relay.work_until(claim_id, "proven")
    assert proven["reason"] is None
    claim = relay.claim(promise)
    assert claim is not None
    assert claim.state is ClaimState.PROVEN
    assert relay.sendings() == [("omission-claim", "DONE"), ("omission-conclude", "DONE")]
    assert relay.work() == 0


def test_who_kept_its_promise_answers_and_the_claim_ends(relay: Relay) -> None:
    promise = promised(relay)
    relay.accused.anchor_all()
    claim_id = relay.bring(body_of(promise)).json()["claim_id"]
    relay.work_until(claim_id, "claimed")
    assert answer_claims(relay.accused.context, relay.omissions, ClaimWatch()) == 1
    relay.work_until(claim_id, "answered")
    assert relay.sendings() == [("omission-claim", "DONE")]
    assert relay.work() == 0


def test_a_claim_ends_only_behind_its_own_transaction(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The accused answers while the claim is not final: the chain may still lose both."""
    promise = promised(relay)
    relay.accused.anchor_all()
    monkeypatch.setattr(relay.member.context.client, "is_final", lambda *_: False)
    claim_id = relay.bring(body_of(promise)).json()["claim_id"]
    assert relay.work() == 1
    deadline = time.monotonic() + 20
    while relay.claim(promise) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert relay.work() == 0
    assert relay.state(claim_id)["state"] == "queued"
    assert answer_claims(relay.accused.context, relay.omissions, ClaimWatch()) == 1
    assert relay.work() == 0
    assert relay.state(claim_id)["state"] == "queued"
    assert relay.sendings() == [("omission-claim", "SUBMITTED")]
    monkeypatch.undo()
    relay.work_until(claim_id, "answered")
    assert relay.sendings() == [("omission-claim", "DONE")]


def test_what_stands_on_the_chain_already_is_concluded(relay: Relay) -> None:
    promise, chain = promised(relay), relay.accused.chain
    client, sender = chain.client(), chain.deployer
    raw, tx_hash = sender.sign_transaction(
        relay.omissions.build_claim_tx(
            sender=sender.address,
            nonce=client.next_nonce(sender.address),
            member_id=promise.member_id,
            txid=promise.txid,
            commitment=promise.commitment,
            merge_deadline=promise.merge_deadline,
            signature=promise.signature,
        )
    )
    client.send_raw(raw)
    assert client.wait_for_receipt(tx_hash).ok
    brought = relay.bring(body_of(promise))
    assert (brought.status_code, brought.json()["state"]) == (202, "claimed")
    relay.work_until(brought.json()["claim_id"], "proven")
    assert relay.sendings() == [("omission-conclude", "DONE")]


def test_a_claim_that_was_lost_with_its_worker_is_sent_once(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed and stored, then the process ends before the chain has it: the same bytes go out."""
    promise = promised(relay)
    claim_id = relay.bring(body_of(promise)).json()["claim_id"]
    send_raw = type(relay.member.context.client).send_raw

    def dies(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(relay.member.context.client), "send_raw", dies)
    with pytest.raises(KeyboardInterrupt):
        relay.work()
    monkeypatch.setattr(type(relay.member.context.client), "send_raw", send_raw)
    assert relay.sendings() == [("omission-claim", "SUBMITTED")]
    relay.work_until(claim_id, "claimed")
    deadline = time.monotonic() + 20
    while relay.sendings() == [("omission-claim", "SUBMITTED")]:
        assert time.monotonic() < deadline
        relay.work()
    assert ("omission-claim", "DONE") in relay.sendings()


def test_a_refused_claim_is_replaced_by_a_valid_one(relay: Relay) -> None:
    promise = promised(relay)
    claim_id = claim_id_of(promise.member_id, promise.txid, promise.commitment)
    order = ClaimOrder(
        *(claim_id, promise.member_id, promise.txid, promise.commitment),
        *(promise.merge_deadline, promise.signature),
    )
    refused = replace(
        order,
        merge_deadline=promise.merge_deadline - 100,
        signature=bytes(65),
        state=OrderState.REFUSED,
        reason="PromiseTooOld",
    )
    with transaction(relay.member.database.engine) as connection:
        assert store.keep_order(connection, refused, datetime.now(UTC))
    assert relay.state(claim_id.hex())["reason"] == "PromiseTooOld"

    brought = relay.bring(body_of(promise))
    assert (brought.status_code, brought.json()["state"]) == (202, "queued")
    assert relay.order(claim_id) == order
    relay.work_until(claim_id.hex(), "claimed")  # only the new signature is good for it


def test_a_claim_that_is_brought_twice_at_once_stays_claimed(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second call has seen neither order nor claim when the first one's claim is sent."""
    promise = promised(relay)
    claim_id = claim_id_of(promise.member_id, promise.txid, promise.commitment)
    keep_order = store.keep_order

    def overtaken(connection: store.Connection, order: ClaimOrder, at: datetime) -> bool:
        monkeypatch.setattr(store, "keep_order", keep_order)
        relay.claim_now(promise)
        return keep_order(connection, order, at)

    monkeypatch.setattr(store, "keep_order", overtaken)
    brought = relay.bring(body_of(promise), timeout_s=40)
    assert (brought.status_code, brought.json()["state"]) == (202, "claimed")
    kept = relay.order(claim_id)
    assert kept is not None
    assert kept.state is OrderState.CLAIMED
    assert kept.answer_by == brought.json()["answer_by"]


def test_a_claim_that_another_sends_meanwhile_is_followed(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No claim stood when the call looked for one; when it asks the contract, one does."""
    promise = promised(relay)
    claim_by_id = OmissionRegistry.claim_by_id

    def overtaken(registry: OmissionRegistry, wanted: bytes) -> Claim | None:
        found = claim_by_id(registry, wanted)
        monkeypatch.setattr(OmissionRegistry, "claim_by_id", claim_by_id)
        relay.claim_now(promise)
        return found

    monkeypatch.setattr(OmissionRegistry, "claim_by_id", overtaken)
    brought = relay.bring(body_of(promise), timeout_s=40)
    assert (brought.status_code, brought.json()["state"]) == (202, "claimed")


def test_what_the_contract_refuses_is_not_taken(relay: Relay) -> None:
    early = promised(relay, 3_600)
    refused = problem_of(relay.bring(body_of(early)), 409)
    assert (refused["type"], refused["reason"]) == ("claim-refused", "PromiseNotDue")
    assert "not due" in refused["detail"]
    due = promised(relay)
    for changed in (
        {"signature": due.signature[:-2].hex() + "ff" + due.signature[-1:].hex()},
        {"commitment": bytes(32).hex()},
        {"member_id": relay.member.member_id},
        {"merge_deadline": due.merge_deadline - 1},
    ):
        refused = problem_of(relay.bring(body_of(due) | changed), 409)
        assert refused["type"] == "claim-refused"
        assert refused["reason"] == "NotPromiseKey"
    for promise in (early, due):
        claim_id = claim_id_of(promise.member_id, promise.txid, promise.commitment).hex()
        answer = httpx.get(f"{relay.node.url}{CLAIMS}/{claim_id}", trust_env=False)
        assert problem_of(answer, 404)["type"] == "claim-unknown"
    assert relay.work() == 0
    assert relay.sendings() == []


def test_malformed_claims_are_refused_and_name_the_place(relay: Relay) -> None:
    good = body_of(replace(promised(relay, 3_600), merge_deadline=1))
    for name, value in (
        ("member_id", "Somebody!"),
        ("txid", "12"),
        ("commitment", "zz" * 32),
        ("merge_deadline", -1),
        ("signature", "00"),
    ):
        refused = relay.bring(good | {name: value})
        assert refused.status_code == 422, name
        assert name in refused.text
    assert relay.bring(good | {"salt_fin": "00" * 32}).status_code == 422


def test_the_page_may_ask_from_anywhere(relay: Relay) -> None:
    asked = httpx.options(
        relay.node.url + CLAIMS,
        headers={"Origin": "null", "Access-Control-Request-Method": "POST"},
        trust_env=False,
    )
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == "*"
    assert asked.headers["access-control-allow-headers"] == "content-type"
    early = body_of(promised(relay, 3_600))
    url, txid = relay.node.url, early["txid"]
    with httpx.Client(base_url=url, trust_env=False) as client:
        answers = [
            relay.bring(early),
            relay.bring({}),
            client.post(CLAIMS, content=b"{", headers={"Content-Type": "application/json"}),
            client.post(CLAIMS, content=b"{}", headers={"Content-Type": "text/plain"}),
            client.get(f"{CLAIMS}/{'00' * 32}"),
            client.get(f"/v1/receipts/{txid}/proof"),
            client.get(f"/v1/receipts/{txid}/roots", params={"key": "00" * 32}),
        ]
        elsewhere = client.get("/v1/health")
    assert [one.status_code for one in answers] == [409, 422, 400, 415, 404, 422, 404]
    for answer in answers:
        assert answer.headers.get_list("access-control-allow-origin") == ["*"], answer.url
    assert "access-control-allow-origin" not in elsewhere.headers


def test_who_asks_too_often_is_told_on_any_page(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MAX_IN_FLIGHT", 0)
    refused = relay.bring({})
    assert problem_of(refused, 429)["type"] == "too-many-at-once"
    assert refused.headers.get_list("access-control-allow-origin") == ["*"]


def test_only_so_many_are_under_way(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "MOST_OPEN", 1)
    first, second = promised(relay), promised(relay)
    assert relay.bring(body_of(first)).status_code == 202
    full = relay.bring(body_of(second))
    assert problem_of(full, 503)["type"] == "claims-full"
    assert full.headers["retry-after"] == "60"
    assert relay.bring(body_of(first)).status_code == 202
