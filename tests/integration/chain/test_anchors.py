"""Anchors, written and read through a node's client."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from nodes.anchoring.block_reader import BlockReader
from nodes.anchoring.verifier import verify
from nodes.chain.anchors import EMPTY_ROOT, Anchored, AnchorRegistry
from nodes.chain.client import Receipt
from nodes.chain.deploy import deploy
from nodes.chain.errors import ChainReverted, WrongChain
from nodes.chain.signer import LocalSigner
from tests.factories.chain import ChainFixture, start_chain
from tests.factories.logs import consistency_proof, leaf_hashes, tree_hash
from tests.factories.sealed_bundles import anchored_bundles


def publish(
    evm: ChainFixture, registry: AnchorRegistry, operator: LocalSigner, **arguments: Any
) -> Receipt:
    client = evm.client()
    transaction = registry.build_anchor_tx(
        sender=operator.address, nonce=client.nonce(operator.address), **arguments
    )
    raw, _ = operator.sign_transaction(transaction)
    return client.wait_for_receipt(client.send_raw(raw))


def test_one_process_seals_nothing(tmp_path: Path) -> None:
    """Bundles of the embedded chain stay as they are: DEV_FINALITY, without a block."""
    chain = start_chain(tmp_path)
    try:
        bundles, roots = anchored_bundles(chain, company=0)
        reader = BlockReader(chain.client())
        assert [reader.sealed(raw) for raw in bundles] == bundles
        assert {verify(raw, roots).details["finality"] for raw in bundles} == {"DEV_FINALITY"}
    finally:
        chain.stop()


def anchor_all(evm: ChainFixture, member_id: str, sizes: list[int]) -> list[Anchored]:
    """Registers a member and anchors its log at these sizes."""
    operator = evm.add_member(member_id)
    registry = AnchorRegistry(evm.client(), evm.anchor_registry)
    leaves = leaf_hashes(sizes[-1])
    events, old = [], 0
    for seq, size in enumerate(sizes, start=1):
        receipt = publish(
            evm,
            registry,
            operator,
            seq=seq,
            size=size,
            prev_root=tree_hash(leaves[:old]) if old else EMPTY_ROOT,
            root=tree_hash(leaves[:size]),
            proof=consistency_proof(old, leaves[:size]) if old else [],
            meta_hash=bytes([seq]) * 32,
        )
        event = registry.decode_anchored(receipt)
        assert event is not None
        assert event.tx_hash == receipt.tx_hash
        events.append(event)
        old = size
    return events


@pytest.fixture
def registry(evm: ChainFixture) -> AnchorRegistry:
    return AnchorRegistry(evm.client(), evm.anchor_registry)


def test_a_member_without_anchors(evm: ChainFixture, registry: AnchorRegistry) -> None:
    for member_id in ("nobody", f"m-{secrets.token_hex(6)}"):
        assert registry.head(member_id) is None
        assert registry.anchor(member_id, 1) is None
        assert registry.covering(member_id, 0) is None
        assert list(registry.anchors_since(0, member_id=member_id)) == []


def test_an_anchor_reads_back_as_it_was_written(
    evm: ChainFixture, registry: AnchorRegistry
) -> None:
    member_id = f"m-{secrets.token_hex(6)}"
    events = anchor_all(evm, member_id, [1, 4, 9])
    assert registry.member_registry() == evm.member_registry
    for event in events:
        anchor = registry.anchor(member_id, event.seq)
        assert anchor is not None
        for name in ("seq", "size", "prev_root", "root", "meta_hash", "block_number", "tx_hash"):
            assert getattr(anchor, name) == getattr(event, name)
        block = evm.client().block(anchor.block_number)
        assert (anchor.block_hash, anchor.timestamp) == (block.hash, block.timestamp)
    head = registry.head(member_id)
    assert head is not None
    assert (head.seq, head.size, head.root) == (3, 9, events[-1].root)
    for seq in (0, 4, -1, 2**64, 2**70):
        assert registry.anchor(member_id, seq) is None


def test_the_first_anchor_that_covers_a_leaf(evm: ChainFixture, registry: AnchorRegistry) -> None:
    member_id = f"m-{secrets.token_hex(6)}"
    sizes = [1, 4, 9, 10, 30]
    anchor_all(evm, member_id, sizes)
    for index in range(30):
        expected = next(seq for seq, size in enumerate(sizes, start=1) if size > index)
        assert registry.covering_seq(member_id, index) == expected
    assert registry.covering_seq(member_id, 30) is None
    covering = registry.covering(member_id, 5)
    assert covering is not None
    assert covering.size == 9


def test_anchors_since_a_block(evm: ChainFixture, registry: AnchorRegistry) -> None:
    start = evm.client().block_number() + 1
    one, two = f"m-{secrets.token_hex(6)}", f"m-{secrets.token_hex(6)}"
    events = anchor_all(evm, one, [2, 3]) + anchor_all(evm, two, [5])
    assert list(registry.anchors_since(start)) == events
    assert list(registry.anchors_since(start, member_id=two)) == events[2:]
    assert list(registry.anchors_since(events[1].block_number, events[1].block_number)) == [
        events[1]
    ]


def test_a_receipt_proves_nothing_without_the_event(evm: ChainFixture) -> None:
    """A call into nothing succeeds, and another contract's event is not this one's."""
    operator = evm.add_member(f"m-{secrets.token_hex(6)}")
    arguments: dict[str, Any] = {
        "seq": 1,
        "size": 3,
        "prev_root": EMPTY_ROOT,
        "root": tree_hash(leaf_hashes(3)),
        "proof": [],
    }
    client = evm.client()
    nowhere = AnchorRegistry(client, LocalSigner(secrets.token_bytes(32)).address)
    receipt = publish(evm, nowhere, operator, **arguments)
    assert receipt.ok
    assert nowhere.decode_anchored(receipt) is None
    with pytest.raises(WrongChain):
        nowhere.head("aurora")

    registry = AnchorRegistry(client, evm.anchor_registry)
    right = publish(evm, registry, operator, **arguments)
    assert registry.decode_anchored(right) is not None
    look_alike = AnchorRegistry(client, deploy(client, evm.deployer).anchor_registry)
    assert look_alike.decode_anchored(right) is None
    again = publish(evm, registry, operator, **arguments)
    assert not again.ok
    assert registry.decode_anchored(again) is None


def test_a_transaction_can_be_tried_before_it_is_sent(
    evm: ChainFixture, registry: AnchorRegistry
) -> None:
    operator = evm.add_member(f"m-{secrets.token_hex(6)}")
    arguments: dict[str, Any] = {
        "size": 3,
        "prev_root": EMPTY_ROOT,
        "root": tree_hash(leaf_hashes(3)),
        "proof": [],
    }
    right = registry.build_anchor_tx(sender=operator.address, nonce=0, seq=1, **arguments)
    registry.check_anchor_tx(right)
    assert "type" not in right
    assert right["chainId"] == evm.chain_id
    wrong = registry.build_anchor_tx(sender=operator.address, nonce=0, seq=2, **arguments)
    with pytest.raises(ChainReverted, match="WrongSequence"):
        registry.check_anchor_tx(wrong)


def test_the_gas_limit_is_enough_for_the_longest_proof(
    evm: ChainFixture, registry: AnchorRegistry
) -> None:
    member_id = f"m-{secrets.token_hex(6)}"
    operator = evm.add_member(member_id)
    leaves = leaf_hashes(700)
    common: dict[str, Any] = {"meta_hash": b"\xff" * 32}
    first = tree_hash(leaves[:255])
    publish(
        evm,
        registry,
        operator,
        seq=1,
        size=255,
        prev_root=EMPTY_ROOT,
        root=first,
        proof=[],
        **common,
    )
    proof = consistency_proof(255, leaves)
    receipt = publish(
        evm,
        registry,
        operator,
        seq=2,
        size=700,
        prev_root=first,
        root=tree_hash(leaves),
        proof=proof,
        **common,
    )
    assert receipt.ok
    limit = registry.build_anchor_tx(
        sender=operator.address, nonce=0, seq=3, size=701, prev_root=first, root=first, proof=proof
    )["gas"]
    # Old recent blocks cost 256 look-ups more than this one did.
    assert receipt.gas_used + 256 * 200 < limit
