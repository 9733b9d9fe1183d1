"""AnchorRegistry: a member's log can only grow, and only its active operator grows it."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from eth_abi.abi import encode

from nodes.chain.contracts import ANCHOR_REGISTRY, artifact
from nodes.chain.deploy import NO_ADDRESS, revoke_member, rotate_key, send
from nodes.chain.errors import ChainRefused, ChainReverted
from nodes.chain.signer import LocalSigner
from nodes.crypto.merkle import EMPTY_ROOT
from tests.contracts.conftest import Contracts, Log
from tests.factories.logs import consistency_proof, leaf_hashes, tree_hash


def other_root(seed: bytes = b"another") -> bytes:
    return tree_hash(leaf_hashes(7, seed))


def test_a_log_grows_anchor_by_anchor(log: Log) -> None:
    events = [log.anchor(size) for size in (1, 2, 7, 8, 100)]

    assert [(event.seq, event.size) for event in events] == [
        (1, 1),
        (2, 2),
        (3, 7),
        (4, 8),
        (5, 100),
    ]
    assert events[0].prev_root == EMPTY_ROOT
    assert [event.prev_root for event in events[1:]] == [event.root for event in events[:-1]]
    assert {event.member_id for event in events} == {log.member_id}
    assert events[3].meta_hash == bytes([8]) * 32
    head = log.contracts.anchors.head(log.member_id)
    assert head is not None
    assert (head.seq, head.size, head.root) == (5, 100, events[4].root)


def test_an_anchor_costs_little_and_hardly_more_with_a_longer_log(log: Log) -> None:
    log.anchor(1_000)
    costs = []
    for size in (1_001, 2_500):
        receipt = log.send(log.transaction(**log.arguments(size)))
        assert receipt.ok
        log.anchored.append(size)
        costs.append(receipt.gas_used)
    assert max(costs) < 130_000


class TestWrongSender:
    def test_somebody_unknown(self, log: Log) -> None:
        stranger = LocalSigner(secrets.token_bytes(32)).address
        refused = log.refusal(3, sender=stranger)
        assert refused.reason == "NotOperator"
        assert refused.arguments == {"sender": stranger}

    def test_governance(self, log: Log, contracts: Contracts) -> None:
        assert log.refusal(3, sender=contracts.chain.deployer.address).reason == "NotOperator"

    def test_another_member_only_ever_anchors_its_own_log(
        self, log: Log, contracts: Contracts
    ) -> None:
        log.anchor(3)
        other = contracts.new_log()
        refused = log.refusal(5, sender=other.operator.address)
        assert refused.reason == "WrongSequence"
        assert refused.arguments == {"expected": 1, "given": 2}

    def test_an_operator_that_was_replaced(self, log: Log, contracts: Contracts) -> None:
        log.anchor(3)
        successor = LocalSigner(secrets.token_bytes(32))
        rotate_key(
            contracts.client,
            contracts.chain.deployer,
            contracts.chain.member_registry,
            log.member_id,
            "operator",
            bytes.fromhex(successor.address[2:]),
        )
        assert log.refusal(5).reason == "NotOperator"
        log.operator = successor
        assert log.anchor(5).seq == 2

    def test_a_revoked_member(self, log: Log, contracts: Contracts) -> None:
        log.anchor(3)
        chain = contracts.chain
        revoke_member(contracts.client, chain.deployer, chain.member_registry, log.member_id)
        refused = log.refusal(5)
        assert refused.reason == "MemberRevoked"
        # What it anchored before stays.
        anchored = contracts.anchors.anchor(log.member_id, 1)
        assert anchored is not None
        assert anchored.size == 3


class TestWrongSequence:
    @pytest.mark.parametrize("seq", [0, 1, 3, 2**64 - 1])
    def test_any_but_the_next(self, log: Log, seq: int) -> None:
        log.anchor(3)
        refused = log.refusal(5, seq=seq)
        assert refused.reason == "WrongSequence"
        assert refused.arguments == {"expected": 2, "given": seq}

    @pytest.mark.parametrize("seq", [0, 2])
    def test_the_first_is_one(self, log: Log, seq: int) -> None:
        assert log.refusal(5, seq=seq).reason == "WrongSequence"

    def test_the_same_anchor_twice(self, log: Log) -> None:
        again = log.arguments(5)
        log.anchor(5)
        assert log.mined_refusal(5, **again).reason == "WrongSequence"


class TestWrongPreviousRoot:
    def test_after_an_anchor(self, log: Log) -> None:
        event = log.anchor(3)
        refused = log.refusal(5, prev_root=other_root())
        assert refused.reason == "WrongPreviousRoot"
        assert refused.arguments == {"expected": event.root, "given": other_root()}

    @pytest.mark.parametrize("prev_root", [bytes(32), other_root()])
    def test_before_the_first(self, log: Log, prev_root: bytes) -> None:
        refused = log.refusal(3, prev_root=prev_root)
        assert refused.reason == "WrongPreviousRoot"
        assert refused.arguments["expected"] == EMPTY_ROOT


class TestWrongSize:
    @pytest.mark.parametrize("size", [0, 1, 4, 5])
    def test_not_growing(self, log: Log, size: int) -> None:
        log.anchor(5)
        refused = log.refusal(8, size=size)
        assert refused.reason == "SizeNotGrowing"
        assert refused.arguments == {"headSize": 5, "given": size}

    def test_an_empty_first_anchor(self, log: Log) -> None:
        assert log.refusal(3, size=0).reason == "SizeNotGrowing"

    @pytest.mark.parametrize("size", [6, 9, 2**64 - 1])
    def test_a_size_of_another_shape_than_the_trees(self, log: Log, size: int) -> None:
        # Sizes of the same shape (7 and 8 above 5) can't be told apart by any RFC 9162 proof:
        # docs/contracts.md, "What an anchor doesn't say".
        log.anchor(5)
        assert log.refusal(8, size=size).reason == "InconsistentTree"


class TestForkedTree:
    def test_a_rewritten_leaf(self, log: Log) -> None:
        log.anchor(5)
        fork = leaf_hashes(9, log.member_id.encode())
        fork[2] = other_root()
        refused = log.mined_refusal(9, root=tree_hash(fork), proof=consistency_proof(5, fork))
        assert refused.reason == "InconsistentTree"
        assert refused.arguments == {"headSize": 5, "size": 9}

    def test_a_dropped_leaf(self, log: Log) -> None:
        log.anchor(5)
        fork = leaf_hashes(10, log.member_id.encode())
        del fork[4]
        refused = log.refusal(9, root=tree_hash(fork), proof=consistency_proof(5, fork))
        assert refused.reason == "InconsistentTree"

    def test_a_root_that_the_proof_does_not_lead_to(self, log: Log) -> None:
        log.anchor(5)
        assert log.refusal(9, root=other_root()).reason == "InconsistentTree"

    def test_no_proof(self, log: Log) -> None:
        log.anchor(5)
        assert log.refusal(9, proof=[]).reason == "InconsistentTree"

    def test_every_node_of_the_proof_counts(self, log: Log) -> None:
        log.anchor(5)
        right = log.arguments(12)
        for place in range(len(right["proof"])):
            proof = list(right["proof"])
            proof[place] = bytes([proof[place][0] ^ 1]) + proof[place][1:]
            assert log.refusal(12, proof=proof).reason == "InconsistentTree"
            del proof[place]
            assert log.refusal(12, proof=proof).reason == "InconsistentTree"
        assert log.refusal(12, proof=[*right["proof"], other_root()]).reason == "InconsistentTree"

    def test_the_first_anchor_takes_no_proof(self, log: Log) -> None:
        assert log.refusal(3, proof=[other_root()]).reason == "InconsistentTree"


class TestRecentBlock:
    @pytest.mark.parametrize("block_hash", [bytes(32), b"\x11" * 32])
    def test_a_hash_of_no_block(self, log: Log, block_hash: bytes) -> None:
        refused = log.refusal(3, recent_block_hash=block_hash)
        assert refused.reason == "UnknownBlockHash"
        assert refused.arguments == {"blockHash": block_hash}

    @pytest.mark.timeout(600)  # at a block a second
    def test_blocks_count_for_256_blocks(self, log: Log, contracts: Contracts) -> None:
        client, chain = contracts.client, contracts.chain
        start = client.block().number
        # A call runs in the newest block's own place, so the 256 before that one are known.
        while client.block().number < start + 256:
            missing = start + 256 - client.block().number
            nonce = client.nonce(chain.deployer.address)
            sent = [_empty_transaction(contracts, nonce + n) for n in range(min(missing, 50))]
            for tx_hash in sent:
                client.wait_for_receipt(tx_hash)
        # A chain that makes blocks by the clock may make one in between: then once more.
        while True:
            newest = client.block().number
            known, too_old = (
                log.transaction(
                    **log.arguments(3), recent_block_hash=client.block(newest - age).hash
                )
                for age in (256, 257)
            )
            answers = [_answer(contracts, transaction) for transaction in (known, too_old)]
            if client.block().number == newest:
                break
        assert answers == [None, "UnknownBlockHash"]


def _answer(contracts: Contracts, transaction: dict[str, Any]) -> str | None:
    """The reason for which an anchor would be refused; None if it would not."""
    try:
        contracts.anchors.check_anchor_tx(transaction)
    except ChainReverted as refused:
        return refused.reason
    return None


def _empty_transaction(contracts: Contracts, nonce: int) -> bytes:
    signer, client = contracts.chain.deployer, contracts.client
    raw, _ = signer.sign_transaction(
        {
            "to": signer.address,
            "value": 0,
            "data": b"",
            "gas": 21_000,
            "gasPrice": client.gas_price(),
            "chainId": contracts.chain.chain_id,
            "nonce": nonce,
        }
    )
    return client.send_raw(raw)


def test_a_mined_refusal_leaves_the_head_and_the_next_anchor_works(log: Log) -> None:
    log.anchor(3)
    assert log.mined_refusal(6, seq=7).reason == "WrongSequence"
    assert log.anchor(6).seq == 2


def test_signed_bytes_can_not_be_used_twice(log: Log, contracts: Contracts) -> None:
    raw, tx_hash = log.operator.sign_transaction(log.transaction(**log.arguments(3)))
    first = contracts.client.wait_for_receipt(contracts.client.send_raw(raw))
    assert contracts.client.send_raw(raw) == tx_hash
    assert contracts.client.receipt(tx_hash) == first
    head = contracts.anchors.head(log.member_id)
    assert head is not None
    assert head.seq == 1


def test_members_do_not_disturb_each_other(contracts: Contracts) -> None:
    one, two = contracts.new_log(), contracts.new_log()
    one.anchor(3)
    two.anchor(5)
    one.anchor(9)
    assert contracts.anchors.head(two.member_id) != contracts.anchors.head(one.member_id)
    assert two.anchor(6).seq == 2


def test_a_registry_needs_a_member_registry(contracts: Contracts) -> None:
    data = artifact(ANCHOR_REGISTRY).bytecode + encode(["address", "address"], [NO_ADDRESS] * 2)
    with pytest.raises(ChainReverted, match="ZeroRegistry"):
        send(contracts.client, contracts.chain.deployer, {"data": "0x" + data.hex()})


def test_value_is_not_taken(log: Log, contracts: Contracts) -> None:
    transaction = log.transaction(**log.arguments(3)) | {"value": 1}
    with pytest.raises((ChainReverted, ChainRefused)):
        contracts.anchors.check_anchor_tx(transaction)
