"""A receipt whose proof carries the seals of real validators (sandbox/campaigns/sealed)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eth_utils.address import to_canonical_address

from nodes.anchoring.bundle import parse_bundle
from nodes.anchoring.cached_roots import CachedPromiseKey, CachedRoots
from nodes.anchoring.leaf import decode_leaf
from nodes.anchoring.receipt import Promise
from nodes.chain.challenges import promise_digest
from nodes.chain.signer import LocalSigner
from sandbox.campaigns.sealed_bundles import Recorded, recorded
from tests.unit.anchoring.chain_view import digest

OMISSIONS = "0x" + "cd" * 20
_SIGNER = LocalSigner(b"p" * 32)


@dataclass(frozen=True)
class SealedReceipt:
    """The promise, the proof that it leads to, and the keys as read before there was an anchor."""

    promise: Promise
    proof: bytes
    roots: CachedRoots
    network: Recorded


def sealed_receipt(name: str = "qbft", *, merge_deadline: int = 4_000_000_000) -> SealedReceipt:
    """Of the network's first entry; the deadline in seconds (UTC)."""
    network = recorded(name)
    proof = network.bundles[0]
    leaf = decode_leaf(parse_bundle(proof).leaf)
    signature = _SIGNER.sign_digest(
        promise_digest(
            chain_id=network.chain_id,
            registry=OMISSIONS,
            member_id=leaf.member_id,
            txid=leaf.txid,
            commitment=leaf.commitment,
            merge_deadline=merge_deadline,
        )
    )
    promise = Promise(
        leaf.member_id, leaf.txid, leaf.commitment, digest("fin 0"), merge_deadline, signature
    )
    key = CachedPromiseKey(to_canonical_address(_SIGNER.address), 0, None)
    members = {
        member_id: replace(member, anchors=(), promise_keys=(key,))
        for member_id, member in network.roots.members.items()
    }
    roots = replace(network.roots, omission_registry=OMISSIONS, members=members)
    return SealedReceipt(promise, proof, roots, network)
