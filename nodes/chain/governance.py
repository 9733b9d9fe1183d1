"""Governance by k of n: actions of the GovernanceQuorum contract (docs/contracts.md).

The quorum becomes the MemberRegistry's owner. Whoever prepares an action hands its digest to the
governors; any address may send what enough of them have signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import encode
from eth_hash.auto import keccak
from eth_utils.address import to_canonical_address, to_checksum_address

from nodes.chain.client import ChainClient, Receipt
from nodes.chain.contracts import GOVERNANCE_QUORUM, MEMBER_REGISTRY
from nodes.chain.deploy import create, send
from nodes.chain.signer import DigestSigner, Signer
from nodes.chain.typed_data import signer_of, typed_digest

_ACTION_TYPE = keccak(b"Action(address target,bytes data,uint256 nonce,uint64 deadline)")


@dataclass(frozen=True, slots=True)
class Action:
    """One call in the quorum's name. nonce: the quorum's next number; deadline: Unix seconds."""

    target: str
    data: bytes
    nonce: int
    deadline: int

    def digest(self, *, chain_id: int, quorum: str) -> bytes:
        """What each governor signs (EIP-712)."""
        types = ["bytes32", "address", "bytes32", "uint256", "uint64"]
        target = to_canonical_address(self.target)
        values = [_ACTION_TYPE, target, keccak(self.data), self.nonce, self.deadline]
        return typed_digest(
            chain_id=chain_id, contract=quorum, struct_hash=keccak(encode(types, values))
        )


class Quorum:
    """The contract at one address."""

    def __init__(self, client: ChainClient, address: str) -> None:
        self.address = to_checksum_address(address)
        self._client = client
        self._contract = client.contract(GOVERNANCE_QUORUM, address)

    def governors(self) -> tuple[tuple[str, ...], int]:
        """(The governors' addresses, how many of them have to sign.)"""
        listed = self._client.read(self._contract.functions.governors())
        threshold = self._client.read(self._contract.functions.threshold())
        return tuple(map(to_checksum_address, listed)), threshold

    def nonce(self) -> int:
        """The number of its next action."""
        found: int = self._client.read(self._contract.functions.nonce())
        return found

    def prepare(self, name: str, target: str, function: str, *arguments: Any) -> Action:
        """The quorum's next action: a function of one of our contracts at `target`, to be sent
        within a day of the newest block."""
        contract = self._client.contract(name, target)
        data = bytes.fromhex(contract.encode_abi(function, args=list(arguments))[2:])
        deadline = self._client.block().timestamp + 86_400
        return Action(to_checksum_address(target), data, self.nonce(), deadline)

    def sign(self, action: Action, governor: DigestSigner) -> bytes:
        """A governor's signature."""
        return governor.sign_digest(self._digest(action))

    def execute(self, sender: Signer, action: Action, signatures: Sequence[bytes]) -> Receipt:
        """Sends an action and waits for it; signatures in any order. ChainReverted names what is
        wrong, with the quorum or at the target."""
        digest = self._digest(action)
        ordered = sorted(signatures, key=lambda made: (signer_of(digest, made) or "").lower())
        data = self._contract.encode_abi(
            "execute", args=[action.target, action.data, action.nonce, action.deadline, ordered]
        )
        return send(self._client, sender, {"to": self.address, "data": data})

    def _digest(self, action: Action) -> bytes:
        return action.digest(chain_id=self._client.chain_id(), quorum=self.address)


def found_quorum(
    client: ChainClient,
    owner: Signer,
    member_registry: str,
    governors: Sequence[DigestSigner],
    threshold: int,
) -> Quorum:
    """Deploys a quorum and hands the MemberRegistry over to it; `owner` is its present governance.

    The governors sign the acceptance, so a quorum that can't act never becomes the owner.
    """
    listed = sorted((governor.address for governor in governors), key=str.lower)
    address = create(client, owner, GOVERNANCE_QUORUM, ["address[]", "uint32"], [listed, threshold])
    quorum = Quorum(client, address)
    registry = client.contract(MEMBER_REGISTRY, member_registry)
    data = registry.encode_abi("transferOwnership", args=[address])
    send(client, owner, {"to": registry.address, "data": data})
    action = quorum.prepare(MEMBER_REGISTRY, member_registry, "acceptOwnership")
    signatures = [quorum.sign(action, governor) for governor in governors[:threshold]]
    quorum.execute(owner, action, signatures)
    return quorum
