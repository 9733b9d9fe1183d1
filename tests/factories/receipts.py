"""A member that makes promises, on a chain whose windows a test can wait for."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from eth_utils.address import to_canonical_address

from nodes.anchoring.operations.promising import Promiser
from nodes.chain.deploy import rotate_key
from nodes.chain.signer import LocalSigner
from nodes.clock import SystemClock
from tests.factories.evidence import LogMember


@dataclass
class Promising:
    """A member's promise key, registered, and who promises with it."""

    key: bytes
    promiser: Promiser


def make_promising(member: LogMember, merge_delay_s: int = 3_600) -> Promising:
    """Give a member a promise key on the chain."""
    key = secrets.token_bytes(32)
    signer = LocalSigner(key)
    chain = member.chain
    rotate_key(
        chain.client(),
        chain.deployer,
        chain.member_registry,
        member.member_id,
        "promise",
        to_canonical_address(signer.address),
    )
    promiser = Promiser(
        member_id=member.member_id,
        signer=signer,
        chain_id=chain.chain_id,
        omission_registry=chain.omission_registry,
        merge_delay_s=merge_delay_s,
        clock=SystemClock(),
    )
    return Promising(key, promiser)
