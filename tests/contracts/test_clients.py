"""The Python clients on a real chain: what they send is done, what they read is what was done."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import pytest
from eth_abi.abi import encode

from nodes.chain.challenges import (
    ClaimState,
    OmissionAnswered,
    OmissionClaimed,
    OmissionProven,
    OmissionRegistry,
    claim_id_of,
    promise_digest,
    promise_signer,
)
from nodes.chain.client import Receipt
from nodes.chain.closes import (
    CloseBroken,
    CloseCommitted,
    CloseExpired,
    CloseKey,
    CloseMatched,
    CloseOpened,
    ClosePosted,
    CloseRegistry,
    CloseState,
    CloseSuperseded,
)
from nodes.chain.contracts import (
    CLOSE_REGISTRY,
    MEMBER_REGISTRY,
    OMISSION_REGISTRY,
    SETTLEMENT_REGISTRY,
)
from nodes.chain.deploy import (
    Addresses,
    check_deployment,
    complete_deployment,
    create,
    planned_addresses,
    rotate_key,
    set_api_url,
)
from nodes.chain.directory import Directory
from nodes.chain.errors import ChainReverted, WrongChain
from nodes.chain.evidence import Evidence
from nodes.chain.governance import found_quorum
from nodes.chain.settlement_events import (
    SettlementConfirmed,
    SettlementDisputed,
    SettlementExpired,
    SettlementFinal,
    SettlementProposed,
    SettlementResolved,
    SettlementSuperseded,
)
from nodes.chain.settlements import (
    ZERO_WORD,
    SettlementRegistry,
    SettlementState,
    SettlementTerms,
    Verdict,
    resolution_digest,
    sign_settlement,
)
from nodes.chain.signer import LocalSigner
from nodes.crypto.merkle import EMPTY_ROOT, inclusion_path, leaf_hash, root_of
from nodes.ids import member_word, pair_id
from tests.contracts.conftest import Contracts

SHORT_S, LONG_S = 1, 3_600
ROOT, TOTALS, BLIND = b"\x11" * 32, b"\x22" * 32, b"\x33" * 32
TXID, COMMITMENT = b"\x44" * 32, b"\x55" * 32


@dataclass
class Desk:
    """An acquirer and an issuer, and contracts with times that a test can wait for."""

    contracts: Contracts
    closes: CloseRegistry
    settlements: SettlementRegistry
    omissions: OmissionRegistry
    judges: list[LocalSigner]
    acquirer: str = ""
    issuer: str = ""

    @property
    def key(self) -> CloseKey:
        return CloseKey(self.acquirer, self.issuer, "CNY", date(2026, 11, 22))

    def signer(self, member: str) -> LocalSigner:
        return self.contracts.chain.operators[member]

    def send(self, member: str, build: Callable[..., dict[str, Any]], **arguments: Any) -> Receipt:
        client, signer = self.contracts.client, self.signer(member)
        nonce = client.nonce(signer.address)
        transaction = build(sender=signer.address, nonce=nonce, **arguments)
        raw, _ = signer.sign_transaction(transaction)
        receipt = client.wait_for_receipt(client.send_raw(raw))
        assert receipt.ok, client.revert_of(receipt.tx_hash)
        # What is asked for covers what is used with room to spare.
        assert receipt.gas_used * 1.4 < transaction["gas"]
        return receipt

    def commit(self, member: str, revision: int, root: bytes = ROOT) -> Receipt:
        commitment = self.closes.commitment(member, self.key, revision, root, TOTALS, BLIND)
        build = self.closes.build_commit_tx
        return self.send(member, build, key=self.key, revision=revision, commitment=commitment)

    def reveal(self, member: str, revision: int, root: bytes = ROOT) -> Receipt:
        opening = {"close_root": root, "totals_hash": TOTALS, "blind": BLIND}
        build = self.closes.build_reveal_tx
        return self.send(member, build, key=self.key, revision=revision, **opening)

    def round(self, revision: int, issuers_root: bytes = ROOT) -> None:
        self.commit(self.acquirer, revision)
        self.commit(self.issuer, revision, issuers_root)
        self.reveal(self.acquirer, revision)
        self.reveal(self.issuer, revision, issuers_root)

    def terms(self, **changes: Any) -> SettlementTerms:
        right = {
            "close": self.key,
            "close_revision": 0,
            "totals_hash": TOTALS,
            "statement_hash": b"\x66" * 32,
            "supersedes": self.settlements.current(self.key) or ZERO_WORD,
            "nonce": self.settlements.next_nonce(self.acquirer, self.issuer),
            "deadline": int(time.time()) + LONG_S,
        }
        return SettlementTerms(**(right | changes))

    def propose(self, **changes: Any) -> bytes:
        terms = self.terms(**changes)
        settlement = self.settlements.settlement_id(terms)
        signature = sign_settlement(self.signer(self.acquirer), settlement)
        build = self.settlements.build_propose_tx
        # Anybody may send it: here the other one.
        self.send(self.issuer, build, terms=terms, signature=signature)
        return settlement

    def confirm(self, settlement: bytes) -> None:
        signature = sign_settlement(self.signer(self.issuer), settlement)
        build = self.settlements.build_confirm_tx
        self.send(self.acquirer, build, settlement_id=settlement, signature=signature)

    def evidence(self, member: str) -> Evidence:
        """Anchors a log of three leaves, the second about TXID."""
        leaves = [b"\x01" * 320, self._leaf(member), b"\x02" * 320]
        hashes = [leaf_hash(leaf) for leaf in leaves]
        build = self.contracts.anchors.build_anchor_tx
        arguments = {"seq": 1, "size": 3, "prev_root": EMPTY_ROOT, "root": root_of(hashes)}
        client, signer = self.contracts.client, self.signer(member)
        nonce = client.nonce(signer.address)
        transaction = build(sender=signer.address, nonce=nonce, proof=[], **arguments)
        raw, _ = signer.sign_transaction(transaction)
        assert client.wait_for_receipt(client.send_raw(raw)).ok
        return Evidence(leaves[1], 1, 1, tuple(inclusion_path(1, hashes)))

    def _leaf(self, member: str) -> bytes:
        return encode(
            ["uint256", "uint256", *["bytes32"] * 5, "uint256", "bytes32", "uint256"],
            [
                1,
                2,
                member_word(member),
                TXID,
                COMMITMENT,
                b"\x77" * 32,
                pair_id(self.acquirer, self.issuer),
                1,
                b"T1".ljust(32, b"\0"),
                1,
            ],
        )


def _founded(contracts: Contracts, window_s: int) -> Desk:
    """Close-, Settlement- and OmissionRegistry with these times, and three arbiters."""
    client, deployer = contracts.client, contracts.chain.deployer
    judges = [LocalSigner(secrets.token_bytes(32)) for _ in range(3)]
    judges.sort(key=lambda judge: judge.address.lower())
    windows = ["address", "uint64", "uint64"]
    registry, anchors = contracts.chain.member_registry, contracts.anchors.address
    closes = create(client, deployer, CLOSE_REGISTRY, windows, [registry, window_s, LONG_S])
    settlements = create(
        client,
        deployer,
        SETTLEMENT_REGISTRY,
        ["address", "address", "uint64", "address[]", "uint32"],
        [closes, anchors, window_s, [judge.address for judge in judges], 2],
    )
    omissions = create(
        client,
        deployer,
        OMISSION_REGISTRY,
        [*windows, "uint64"],
        [anchors, window_s, LONG_S, LONG_S],
    )
    return Desk(
        contracts,
        CloseRegistry(client, closes),
        SettlementRegistry(client, settlements),
        OmissionRegistry(client, omissions),
        judges,
    )


@pytest.fixture(scope="session")
def patient(contracts: Contracts) -> Desk:
    """Times that never run out in a test."""
    return _founded(contracts, LONG_S)


@pytest.fixture(scope="session")
def brisk(contracts: Contracts) -> Desk:
    """Times that a test can wait for."""
    return _founded(contracts, SHORT_S)


def _with_members(founded: Desk) -> Desk:
    founded.acquirer, founded.issuer = (founded.contracts.new_id() for _ in range(2))
    founded.contracts.chain.add_member(founded.acquirer, roles=["acquirer"])
    founded.contracts.chain.add_member(founded.issuer, roles=["issuer"])
    return founded


@pytest.fixture
def desk(patient: Desk) -> Desk:
    """Two new members with all the time they want."""
    return _with_members(patient)


@pytest.fixture
def hasty(brisk: Desk) -> Desk:
    """Two new members whose times are over soon."""
    return _with_members(brisk)


class TestCloses:
    def test_a_close_breaks_is_corrected_and_is_in_force(self, desk: Desk) -> None:
        start = desk.contracts.client.block_number() + 1
        assert desk.closes.latest(desk.key) is None
        assert desk.closes.round(desk.key, 0).state is CloseState.NONE
        desk.round(0, issuers_root=b"\x12" * 32)
        latest = desk.closes.latest(desk.key)
        assert latest is not None
        assert (latest.revision, latest.state) == (0, CloseState.BROKEN)
        assert latest.issuer.close_root == b"\x12" * 32
        assert desk.closes.confirmed(desk.key) is None

        desk.commit(desk.issuer, 1)
        one = desk.closes.round(desk.key, 1)
        assert one.state is CloseState.COMMITTING
        assert one.acquirer.commitment is None
        assert one.issuer.commitment is not None
        assert one.issuer.close_root is None
        desk.commit(desk.acquirer, 1)
        desk.reveal(desk.issuer, 1)
        receipt = desk.reveal(desk.acquirer, 1)
        assert [type(e) for e in desk.closes.decode(receipt)] == [
            ClosePosted,
            CloseMatched,
            CloseSuperseded,
        ]
        confirmed = desk.closes.confirmed(desk.key)
        assert confirmed is not None
        assert (confirmed.revision, confirmed.close_root, confirmed.totals_hash) == (
            1,
            ROOT,
            TOTALS,
        )
        assert desk.closes.round(desk.key, 0).state is CloseState.SUPERSEDED
        assert desk.closes.revisions(desk.key) == 2

        events = list(desk.closes.events_since(start, key=desk.key))
        assert [type(event) for event in events] == [
            *(CloseOpened, CloseCommitted, CloseCommitted, ClosePosted, ClosePosted, CloseBroken),
            *(CloseOpened, CloseCommitted, CloseCommitted, ClosePosted, ClosePosted, CloseMatched),
            CloseSuperseded,
        ]
        opened = events[0]
        assert isinstance(opened, CloseOpened)
        assert (opened.key, opened.close_id) == (desk.key, desk.key.close_id)
        assert events == [
            e for e in desk.closes.events_since(start) if e.close_id == desk.key.close_id
        ]

    def test_an_overdue_revision_is_expired_and_says_who_was_silent(self, hasty: Desk) -> None:
        hasty.commit(hasty.acquirer, 0)
        time.sleep(SHORT_S + 2)
        receipt = hasty.send(hasty.issuer, hasty.closes.build_expire_tx, key=hasty.key)
        (expired,) = hasty.closes.decode(receipt)
        assert isinstance(expired, CloseExpired)
        assert (expired.acquirer_silent, expired.issuer_silent) == (False, True)
        assert hasty.closes.round(hasty.key, 0).state is CloseState.EXPIRED

    def test_a_wrong_transaction_is_named_before_it_is_sent(self, desk: Desk) -> None:
        build = desk.closes.build_reveal_tx
        sender = desk.signer(desk.acquirer).address
        opening = {"close_root": ROOT, "totals_hash": TOTALS, "blind": BLIND}
        transaction = build(sender=sender, nonce=0, key=desk.key, revision=0, **opening)
        with pytest.raises(ChainReverted, match="UnknownClose"):
            desk.closes.check_tx(transaction)

    def test_it_obeys_the_networks_directory(self, desk: Desk) -> None:
        assert desk.closes.member_registry() == desk.contracts.chain.member_registry
        assert desk.settlements.close_registry() == desk.closes.address
        assert desk.omissions.anchor_registry() == desk.contracts.anchors.address


class TestSettlements:
    def test_signed_by_both(self, desk: Desk) -> None:
        desk.round(0)
        start = desk.contracts.client.block_number() + 1
        assert desk.settlements.pending(desk.key) is None
        settlement = desk.propose()
        assert desk.settlements.pending(desk.key) == settlement
        assert desk.settlements.current(desk.key) is None
        desk.confirm(settlement)
        assert desk.settlements.pending(desk.key) is None
        assert desk.settlements.current(desk.key) == settlement
        build = desk.settlements.build_finalize_tx
        early = build(sender=desk.signer(desk.issuer).address, nonce=0, settlement_id=settlement)
        with pytest.raises(ChainReverted, match="StillDisputable"):
            desk.settlements.check_tx(early)
        record = desk.settlements.record(settlement)
        assert record is not None
        assert record.state is SettlementState.CONFIRMED
        assert (record.acquirer, record.issuer, record.proposer) == (
            desk.acquirer,
            desk.issuer,
            desk.acquirer,
        )
        assert (record.close_id, record.totals_hash) == (desk.key.close_id, TOTALS)
        events = list(desk.settlements.events_since(start, key=desk.key))
        assert [type(event) for event in events] == [
            SettlementProposed,
            SettlementConfirmed,
        ]
        assert desk.settlements.record(b"\x01" * 32) is None

    def test_final_when_the_time_for_disputes_is_over(
        self, desk: Desk, contracts: Contracts
    ) -> None:
        desk.round(0)
        brief = create(
            contracts.client,
            contracts.chain.deployer,
            SETTLEMENT_REGISTRY,
            ["address", "address", "uint64", "address[]", "uint32"],
            [desk.closes.address, contracts.anchors.address, SHORT_S, [], 0],
        )
        swift = replace(desk, settlements=SettlementRegistry(contracts.client, brief))
        settlement = swift.propose()
        swift.confirm(settlement)
        time.sleep(SHORT_S + 2)
        build = swift.settlements.build_finalize_tx
        receipt = swift.send(swift.acquirer, build, settlement_id=settlement)
        assert [type(e) for e in swift.settlements.decode(receipt)] == [SettlementFinal]
        record = swift.settlements.record(settlement)
        assert record is not None
        assert record.state is SettlementState.FINAL

    def test_disputed_with_a_leaf_and_resolved(self, desk: Desk) -> None:
        desk.round(0)
        settlement = desk.propose()
        evidence = desk.evidence(desk.issuer)
        desk.confirm(settlement)
        build = desk.settlements.build_dispute_tx
        arguments = {"settlement_id": settlement, "evidence": evidence, "reason_hash": b"\x01" * 32}
        receipt = desk.send(desk.issuer, build, **arguments)
        (disputed,) = desk.settlements.decode(receipt)
        assert isinstance(disputed, SettlementDisputed)
        assert (disputed.by, disputed.leaf_member, disputed.txid) == (
            desk.issuer,
            desk.issuer,
            TXID,
        )
        deadline = int(time.time()) + LONG_S
        digest = resolution_digest(
            chain_id=desk.contracts.client.chain_id(),
            registry=desk.settlements.address,
            settlement_id=settlement,
            verdict=Verdict.ANNULLED,
            reason_hash=b"\x02" * 32,
            deadline=deadline,
        )
        receipt = desk.send(
            desk.acquirer,
            desk.settlements.build_resolve_tx,
            settlement_id=settlement,
            verdict=Verdict.ANNULLED,
            reason_hash=b"\x02" * 32,
            deadline=deadline,
            signatures=[judge.sign_digest(digest) for judge in desk.judges[1:]],
        )
        (resolved,) = desk.settlements.decode(receipt)
        assert isinstance(resolved, SettlementResolved)
        record = desk.settlements.record(settlement)
        assert record is not None
        assert (record.state, record.verdict) == (SettlementState.RESOLVED, Verdict.ANNULLED)
        assert desk.settlements.arbiters() == (tuple(j.address for j in desk.judges), 2)

    def test_not_signed_in_time_and_replaced(self, desk: Desk) -> None:
        desk.round(0)
        start = desk.contracts.client.block_number() + 1
        late = desk.propose(deadline=int(time.time()) + 5)
        time.sleep(6.5)
        build = desk.settlements.build_expire_tx
        desk.send(desk.issuer, build, settlement_id=late)
        waiting = desk.propose()
        desk.propose(statement_hash=b"\x67" * 32)
        states = [desk.settlements.record(each) for each in (late, waiting)]
        assert [record.state for record in states if record] == [
            SettlementState.EXPIRED,
            SettlementState.SUPERSEDED,
        ]
        events = list(desk.settlements.events_since(start, key=desk.key))
        assert [type(event) for event in events] == [
            *(SettlementProposed, SettlementExpired, SettlementProposed),
            *(SettlementSuperseded, SettlementProposed),
        ]


def promise_key(desk: Desk) -> LocalSigner:
    """The acquirer's promise key, registered by its operator."""
    promiser = LocalSigner(secrets.token_bytes(32))
    rotate_key(
        desk.contracts.client,
        desk.signer(desk.acquirer),
        desk.contracts.chain.member_registry,
        desk.acquirer,
        "promise",
        bytes.fromhex(promiser.address[2:]),
    )
    return promiser


class TestPromises:
    def claim(self, desk: Desk, promiser: LocalSigner, txid: bytes) -> bytes:
        deadline = desk.contracts.client.block().timestamp
        time.sleep(1.1)
        digest = promise_digest(
            chain_id=desk.contracts.client.chain_id(),
            registry=desk.omissions.address,
            member_id=desk.acquirer,
            txid=txid,
            commitment=COMMITMENT,
            merge_deadline=deadline,
        )
        signature = promiser.sign_digest(digest)
        assert promise_signer(digest, signature) == promiser.address
        receipt = desk.send(
            desk.issuer,
            desk.omissions.build_claim_tx,
            member_id=desk.acquirer,
            txid=txid,
            commitment=COMMITMENT,
            merge_deadline=deadline,
            signature=signature,
        )
        (claimed,) = desk.omissions.decode(receipt)
        assert isinstance(claimed, OmissionClaimed)
        assert (claimed.member_id, claimed.txid) == (desk.acquirer, txid)
        return claimed.claim_id

    def test_answered_by_the_leaf(self, desk: Desk) -> None:
        promiser = promise_key(desk)
        evidence = desk.evidence(desk.acquirer)
        claim_id = self.claim(desk, promiser, TXID)
        assert claim_id == claim_id_of(desk.acquirer, TXID, COMMITMENT)
        build = desk.omissions.build_answer_tx
        receipt = desk.send(desk.acquirer, build, claim_id=claim_id, evidence=evidence)
        (answered,) = desk.omissions.decode(receipt)
        assert isinstance(answered, OmissionAnswered)
        assert (answered.anchor_seq, answered.index) == (1, 1)
        claim = desk.omissions.claim(desk.acquirer, TXID, COMMITMENT)
        assert claim is not None
        assert claim.state is ClaimState.ANSWERED
        assert claim.claimant == desk.signer(desk.issuer).address

    def test_proven_when_nobody_answers(self, hasty: Desk) -> None:
        desk, promiser = hasty, promise_key(hasty)
        start = desk.contracts.client.block_number() + 1
        claim_id = self.claim(desk, promiser, b"\x45" * 32)
        time.sleep(SHORT_S + 2)
        desk.send(desk.issuer, desk.omissions.build_conclude_tx, claim_id=claim_id)
        events = list(desk.omissions.events_since(start, member_id=desk.acquirer))
        assert [type(event) for event in events] == [OmissionClaimed, OmissionProven]
        claim = desk.omissions.claim_by_id(claim_id)
        assert claim is not None
        assert claim.state is ClaimState.PROVEN
        assert desk.omissions.claim(desk.acquirer, b"\x46" * 32, COMMITMENT) is None
        assert desk.omissions.max_merge_delay_s() == LONG_S

    def test_the_directory_knows_the_key(self, desk: Desk) -> None:
        promiser = promise_key(desk)
        member = desk.contracts.member(desk.acquirer)
        assert member.promise_key == promiser.address
        first = member.promise_keys[0].first
        assert member.promise_key_at(first) == promiser.address
        assert member.promise_key_at(first - 1) is None
        assert member.operator_at(first) == member.operator
        assert desk.contracts.member(desk.issuer).promise_key is None


def test_an_evidence_is_of_a_whole_leaf() -> None:
    with pytest.raises(ValueError, match="320 bytes, not 319"):
        Evidence(bytes(319), 0, 1, ())


def test_a_quorum_takes_governance_over(contracts: Contracts) -> None:
    client, owner = contracts.client, contracts.chain.deployer
    registry = create(client, owner, MEMBER_REGISTRY, ["address"], [owner.address])
    governors = [LocalSigner(secrets.token_bytes(32)) for _ in range(3)]
    quorum = found_quorum(client, owner, registry, governors, 2)
    listed, threshold = quorum.governors()
    assert {*listed} == {governor.address for governor in governors}
    assert threshold == 2
    with pytest.raises(ChainReverted, match="UnknownMember"):
        set_api_url(client, owner, registry, "aurora", "https://mine")
    row = (member_word("aurora"), 1, "Aurora", "u", [], owner.address, b"\1" * 32, b"\2" * 32)
    action = quorum.prepare(MEMBER_REGISTRY, registry, "register", row)
    with pytest.raises(ChainReverted, match="TooFewSignatures"):
        quorum.execute(owner, action, [quorum.sign(action, governors[2])])
    quorum.execute(owner, action, [quorum.sign(action, g) for g in (governors[2], governors[0])])
    directory = Directory(client, registry)
    directory.refresh()
    assert directory.member("aurora") is not None


def test_a_deployment_that_was_broken_off_goes_on(contracts: Contracts) -> None:
    client, owner = contracts.client, contracts.chain.deployer
    planned = planned_addresses(owner.address, client.nonce(owner.address))
    create(client, owner, MEMBER_REGISTRY, ["address"], [owner.address])
    complete_deployment(client, owner, planned)
    check_deployment(client, planned)
    before = client.nonce(owner.address)
    complete_deployment(client, owner, planned)
    assert client.nonce(owner.address) == before
    # Where the deployer has done something else meanwhile it says so, before it sends anything.
    elsewhere = planned_addresses(owner.address, before + 1)
    with pytest.raises(WrongChain, match="MemberRegistry is to stand at"):
        complete_deployment(client, owner, elsewhere)
    assert client.nonce(owner.address) == before
    mixed = Addresses(
        planned.member_registry,
        planned.anchor_registry,
        contracts.chain.close_registry,
    )
    with pytest.raises(WrongChain, match="CloseRegistry obeys other members"):
        check_deployment(client, mixed)
