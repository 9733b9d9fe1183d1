"""Closes, settlements and omission claims between two members, on every engine: their clients, real
signatures, and time as the chain's blocks have it. Each rule by itself: tests/contracts/."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from nodes.anchoring.leaf import Leaf, LeafKind, encode_leaf
from nodes.chain.anchors import EMPTY_ROOT, AnchorRegistry
from nodes.chain.challenges import ClaimState, OmissionRegistry, promise_digest, sign_promise
from nodes.chain.client import ChainClient, Receipt
from nodes.chain.closes import CloseKey, CloseRegistry, CloseState
from nodes.chain.deploy import Addresses, Terms, check_deployment, rotate_key
from nodes.chain.evidence import Evidence
from nodes.chain.settlements import (
    SettlementRegistry,
    SettlementState,
    SettlementTerms,
    Verdict,
    resolution_digest,
    sign_settlement,
)
from nodes.chain.signer import LocalSigner
from nodes.crypto.merkle import inclusion_path, leaf_hash, root_of
from nodes.ids import pair_id
from tests.factories.chain import ENGINES, ChainFixture, open_engine

DISPUTE_S, ANSWER_S = 10, 6
DAY = date(2026, 11, 20)
ROOT, OTHER_ROOT, TOTALS = b"\x11" * 32, b"\x12" * 32, b"\x13" * 32


@dataclass
class Pair:
    """An acquirer and an issuer on one chain, with the contracts that they agree through."""

    chain: ChainFixture
    client: ChainClient
    arbiter: LocalSigner
    acquirer: str
    issuer: str
    promise_secret: bytes

    @property
    def closes(self) -> CloseRegistry:
        return CloseRegistry(self.client, self.chain.close_registry)

    @property
    def settlements(self) -> SettlementRegistry:
        return SettlementRegistry(self.client, self.chain.settlement_registry)

    @property
    def omissions(self) -> OmissionRegistry:
        return OmissionRegistry(self.client, self.chain.omission_registry)

    def operator(self, member_id: str) -> LocalSigner:
        return self.chain.operators[member_id]

    def send(
        self, signer: LocalSigner, build: Callable[..., dict[str, Any]], **arguments: Any
    ) -> Receipt:
        """Signs what a client builds, sends it and waits for it."""
        nonce = self.client.nonce(signer.address)
        raw, _ = signer.sign_transaction(build(sender=signer.address, nonce=nonce, **arguments))
        return self.client.wait_for_receipt(self.client.send_raw(raw))

    def refusal(
        self, signer: LocalSigner, build: Callable[..., dict[str, Any]], **arguments: Any
    ) -> str:
        """The name under which a transaction is refused, mined."""
        receipt = self.send(signer, build, **arguments)
        assert not receipt.ok
        return self.client.revert_of(receipt.tx_hash).reason

    def close(self, key: CloseKey, revision: int, acquirers: bytes, issuers: bytes) -> None:
        """Both commit, then both reveal."""
        roots = {self.acquirer: acquirers, self.issuer: issuers}
        blinds = {member: secrets.token_bytes(32) for member in roots}
        for member, root in roots.items():
            commitment = self.closes.commitment(member, key, revision, root, TOTALS, blinds[member])
            assert self.send(
                self.operator(member),
                self.closes.build_commit_tx,
                key=key,
                revision=revision,
                commitment=commitment,
            ).ok
        for member, root in roots.items():
            assert self.send(
                self.operator(member),
                self.closes.build_reveal_tx,
                key=key,
                revision=revision,
                close_root=root,
                totals_hash=TOTALS,
                blind=blinds[member],
            ).ok

    def settlement(self, key: CloseKey) -> SettlementTerms:
        return SettlementTerms(
            close=key,
            close_revision=0,
            totals_hash=TOTALS,
            statement_hash=b"\x14" * 32,
            supersedes=bytes(32),
            nonce=self.settlements.next_nonce(self.acquirer, self.issuer),
            deadline=self.client.block().timestamp + 600,
        )

    def settle(self, key: CloseKey) -> bytes:
        """The settlement of a confirmed close, signed by both; its identity."""
        terms = self.settlement(key)
        identity = self.settlements.settlement_id(terms)
        for build, member, arguments in (
            (self.settlements.build_propose_tx, self.acquirer, {"terms": terms}),
            (self.settlements.build_confirm_tx, self.issuer, {"settlement_id": identity}),
        ):
            signature = sign_settlement(self.operator(member), identity)
            assert self.send(self.chain.deployer, build, signature=signature, **arguments).ok
        return identity

    def anchor(self, txid: bytes, commitment: bytes) -> Evidence:
        """The first leaf of the acquirer's log, anchored with a second one; the proof of it."""
        leaves = [
            encode_leaf(
                Leaf(
                    kind=LeafKind.ACQUIRER,
                    member_id=self.acquirer,
                    txid=leaf_txid,
                    commitment=commitment,
                    private_commitment=b"\x15" * 32,
                    pair_id=pair_id(self.acquirer, self.issuer),
                    pair_seq=number,
                    terminal_id="T0000001",
                    terminal_seq=number,
                )
            )
            for number, leaf_txid in enumerate((txid, secrets.token_bytes(32)), 1)
        ]
        hashes = [leaf_hash(encoded) for encoded in leaves]
        receipt = self.send(
            self.operator(self.acquirer),
            AnchorRegistry(self.client, self.chain.anchor_registry).build_anchor_tx,
            seq=1,
            size=2,
            prev_root=EMPTY_ROOT,
            root=root_of(hashes),
            proof=[],
        )
        assert receipt.ok
        return Evidence(leaves[0], 0, 1, tuple(inclusion_path(0, hashes)))

    def promise(self, txid: bytes, commitment: bytes, deadline: int) -> dict[str, Any]:
        """What a receipt carries: the acquirer's signed promise."""
        digest = promise_digest(
            chain_id=self.chain.chain_id,
            registry=self.chain.omission_registry,
            member_id=self.acquirer,
            txid=txid,
            commitment=commitment,
            merge_deadline=deadline,
        )
        return {
            "member_id": self.acquirer,
            "txid": txid,
            "commitment": commitment,
            "merge_deadline": deadline,
            "signature": sign_promise(self.promise_secret, digest),
        }

    def wait_for(self, timestamp: int) -> None:
        """Until a block made now is later than that."""
        time.sleep(max(0.0, timestamp - time.time()) + 1.5)


@pytest.fixture(scope="module", params=ENGINES)
def network(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ChainFixture, LocalSigner]]:
    """All contracts, with short times, and their one arbiter."""
    arbiter = LocalSigner(secrets.token_bytes(32))
    terms = Terms(
        commit_s=60,
        reveal_s=60,
        dispute_s=DISPUTE_S,
        answer_s=ANSWER_S,
        arbiters=(arbiter.address,),
        arbiter_threshold=1,
    )
    chain = open_engine(request.param, tmp_path_factory.mktemp("agreements"), terms=terms)
    yield chain, arbiter
    chain.stop()


@pytest.fixture
def pair(network: tuple[ChainFixture, LocalSigner]) -> Pair:
    """Two new members."""
    chain, arbiter = network
    suffix = secrets.token_hex(4)
    acquirer, issuer = f"acquirer-{suffix}", f"issuer-{suffix}"
    operator = chain.add_member(acquirer)
    chain.add_member(issuer, roles=["issuer"])
    secret = secrets.token_bytes(32)
    client = chain.client()
    address = bytes.fromhex(LocalSigner(secret).address[2:])
    rotate_key(client, operator, chain.member_registry, acquirer, "promise", address)
    return Pair(chain, client, arbiter, acquirer, issuer, secret)


def test_all_contracts_stand_on_this_chain(network: tuple[ChainFixture, LocalSigner]) -> None:
    chain, _ = network
    addresses = Addresses(
        chain.member_registry,
        chain.anchor_registry,
        chain.close_registry,
        chain.settlement_registry,
        chain.omission_registry,
    )
    check_deployment(chain.client(), addresses)


def test_unequal_closes_break_and_the_corrected_ones_are_confirmed(pair: Pair) -> None:
    key = CloseKey(pair.acquirer, pair.issuer, "CNY", DAY)
    start = pair.client.block_number()
    pair.close(key, 0, ROOT, OTHER_ROOT)
    assert pair.closes.round(key, 0).state is CloseState.BROKEN
    assert pair.closes.confirmed(key) is None
    pair.close(key, 1, OTHER_ROOT, OTHER_ROOT)
    assert pair.closes.round(key, 0).state is CloseState.SUPERSEDED
    confirmed = pair.closes.confirmed(key)
    assert confirmed is not None
    assert (confirmed.revision, confirmed.close_root) == (1, OTHER_ROOT)
    events = [type(event).__name__ for event in pair.closes.events_since(start, key=key)]
    assert events == [
        *("CloseOpened", "CloseCommitted", "CloseCommitted"),
        *("ClosePosted", "ClosePosted", "CloseBroken"),
        *("CloseOpened", "CloseCommitted", "CloseCommitted"),
        *("ClosePosted", "ClosePosted", "CloseMatched", "CloseSuperseded"),
    ]


def test_nobody_can_reveal_first_and_nobody_can_copy(pair: Pair) -> None:
    key = CloseKey(pair.acquirer, pair.issuer, "CNY", DAY)
    blind = secrets.token_bytes(32)
    commitment = pair.closes.commitment(pair.acquirer, key, 0, ROOT, TOTALS, blind)
    commit = {"key": key, "revision": 0, "commitment": commitment}
    reveal = {"key": key, "revision": 0, "close_root": ROOT, "totals_hash": TOTALS, "blind": blind}
    first, second = pair.operator(pair.acquirer), pair.operator(pair.issuer)
    assert pair.send(first, pair.closes.build_commit_tx, **commit).ok
    refused = pair.refusal(first, pair.closes.build_reveal_tx, **reveal)
    assert refused == "CounterpartyNotCommitted"
    assert pair.send(second, pair.closes.build_commit_tx, **commit).ok
    assert pair.send(first, pair.closes.build_reveal_tx, **reveal).ok
    refused = pair.refusal(second, pair.closes.build_reveal_tx, **reveal)
    assert refused == "CommitmentMismatch"


def test_a_settlement_is_final_once_nobody_may_dispute_it(pair: Pair) -> None:
    key = CloseKey(pair.acquirer, pair.issuer, "CNY", DAY)
    pair.close(key, 0, ROOT, ROOT)
    terms = pair.settlement(key)
    signature = sign_settlement(pair.arbiter, pair.settlements.settlement_id(terms))
    refused = pair.refusal(
        pair.chain.deployer, pair.settlements.build_propose_tx, terms=terms, signature=signature
    )
    assert refused == "SignerNotParty"
    identity = pair.settle(key)
    record = pair.settlements.record(identity)
    assert record is not None
    assert record.state is SettlementState.CONFIRMED
    early = pair.refusal(
        pair.chain.deployer, pair.settlements.build_finalize_tx, settlement_id=identity
    )
    assert early == "StillDisputable"
    pair.wait_for(record.disputable_until)
    done = pair.send(
        pair.chain.deployer, pair.settlements.build_finalize_tx, settlement_id=identity
    )
    assert done.ok
    record = pair.settlements.record(identity)
    assert record is not None
    assert record.state is SettlementState.FINAL
    assert pair.settlements.current(key) == identity


def test_a_dispute_with_an_anchored_leaf_is_resolved_by_arbiters(pair: Pair) -> None:
    key = CloseKey(pair.acquirer, pair.issuer, "CNY", DAY)
    evidence = pair.anchor(b"\x21" * 32, b"\x22" * 32)
    pair.close(key, 0, ROOT, ROOT)
    identity = pair.settle(key)
    reason = b"\x23" * 32
    disputed = pair.send(
        pair.operator(pair.issuer),
        pair.settlements.build_dispute_tx,
        settlement_id=identity,
        evidence=evidence,
        reason_hash=reason,
    )
    assert disputed.ok
    deadline = pair.client.block().timestamp + 600
    verdict = {
        "settlement_id": identity,
        "verdict": Verdict.UPHELD,
        "reason_hash": reason,
        "deadline": deadline,
    }
    digest = resolution_digest(
        chain_id=pair.chain.chain_id, registry=pair.chain.settlement_registry, **verdict
    )
    outsider = pair.operator(pair.acquirer)
    for signer, expected in ((outsider, False), (pair.arbiter, True)):
        resolved = pair.send(
            pair.chain.deployer,
            pair.settlements.build_resolve_tx,
            signatures=[sign_settlement(signer, digest)],
            **verdict,
        )
        assert resolved.ok is expected
    record = pair.settlements.record(identity)
    assert record is not None
    assert (record.state, record.verdict) == (SettlementState.RESOLVED, Verdict.UPHELD)


def test_an_omission_is_proven_and_a_kept_promise_is_answered(pair: Pair) -> None:
    kept, left_out = (b"\x31" * 32, b"\x32" * 32), (b"\x33" * 32, b"\x34" * 32)
    evidence = pair.anchor(*kept)
    now = pair.client.block().timestamp
    early = pair.promise(*kept, now + 600)
    refused = pair.refusal(pair.chain.deployer, pair.omissions.build_claim_tx, **early)
    assert refused == "PromiseNotDue"
    due = pair.client.block().timestamp + 1
    pair.wait_for(due)
    claims = {}
    for promised in (kept, left_out):
        promise = pair.promise(*promised, due)
        assert pair.send(pair.chain.deployer, pair.omissions.build_claim_tx, **promise).ok
        claim = pair.omissions.claim(pair.acquirer, *promised)
        assert claim is not None
        assert claim.state is ClaimState.CLAIMED
        claims[promised] = claim
        if promised == kept:
            assert pair.send(
                pair.operator(pair.acquirer),
                pair.omissions.build_answer_tx,
                claim_id=claim.claim_id,
                evidence=evidence,
            ).ok
    open_claim = claims[left_out]
    pair.wait_for(open_claim.answer_deadline)
    conclude = pair.omissions.build_conclude_tx
    assert pair.send(pair.chain.deployer, conclude, claim_id=open_claim.claim_id).ok
    answered, proven = (pair.omissions.claim(pair.acquirer, *promised) for promised in claims)
    assert answered is not None
    assert proven is not None
    assert (answered.state, proven.state) == (ClaimState.ANSWERED, ClaimState.PROVEN)
