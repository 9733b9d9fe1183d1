"""Promises on receipts and what becomes of broken ones: the OmissionRegistry contract
(docs/contracts.md).

A promise is signed by the member's promise key (MemberRegistry, kind "promise"): EIP-712 type
`Promise(bytes32 member,bytes32 txid,bytes32 commitment,uint64 mergeDeadline)`, in the domain of
nodes/chain/typed_data.py with the OmissionRegistry as verifying contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

from eth_abi.abi import decode, encode
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from nodes.chain.calls import ContractCalls, EventPlace, place_of
from nodes.chain.client import ChainClient, Log, Receipt
from nodes.chain.contracts import OMISSION_REGISTRY
from nodes.chain.evidence import Evidence
from nodes.chain.typed_data import sign_digest, signer_of, typed_digest
from nodes.ids import member_from_word, member_word

_PROMISE_TYPE = keccak(
    b"Promise(bytes32 member,bytes32 txid,bytes32 commitment,uint64 mergeDeadline)"
)
# About twice what each costs at most (docs/contracts.md, Gas).
_CLAIM_GAS = 450_000
_ANSWER_GAS = 250_000
_ANSWER_GAS_PER_NODE = 4_000
_CONCLUDE_GAS = 120_000


class ClaimState(IntEnum):
    """The contract's states of a claim."""

    NONE = 0
    CLAIMED = 1
    ANSWERED = 2
    PROVEN = 3


@dataclass(frozen=True, slots=True)
class Claim:
    """That a member left out a transaction. Deadlines in Unix seconds; an overdue claim is
    CLAIMED until somebody concludes it."""

    claim_id: bytes
    state: ClaimState
    member_id: str
    txid: bytes
    commitment: bytes
    merge_deadline: int
    answer_deadline: int
    claimant: str


@dataclass(frozen=True, slots=True)
class OmissionClaimed:
    """Somebody submitted a member's promise past its merge deadline."""

    claim_id: bytes
    member_id: str
    txid: bytes
    commitment: bytes
    merge_deadline: int
    answer_deadline: int
    claimant: str
    at: EventPlace


@dataclass(frozen=True, slots=True)
class OmissionAnswered:
    """The leaf is in the log: at `index`, in the tree of the member's anchor `anchor_seq`."""

    claim_id: bytes
    member_id: str
    txid: bytes
    anchor_seq: int
    index: int
    at: EventPlace


@dataclass(frozen=True, slots=True)
class OmissionProven:
    """Nobody answered in time."""

    claim_id: bytes
    member_id: str
    txid: bytes
    commitment: bytes
    at: EventPlace


OmissionEvent: TypeAlias = OmissionClaimed | OmissionAnswered | OmissionProven


def promise_digest(
    *,
    chain_id: int,
    registry: str,
    member_id: str,
    txid: bytes,
    commitment: bytes,
    merge_deadline: int,
) -> bytes:
    """What a promise key signs: that `txid` under `commitment` (C) is anchored in the member's log
    by `merge_deadline` (Unix seconds). `registry` is the OmissionRegistry's address."""
    struct_hash = keccak(
        encode(
            ["bytes32", "bytes32", "bytes32", "bytes32", "uint64"],
            [_PROMISE_TYPE, member_word(member_id), txid, commitment, merge_deadline],
        )
    )
    return typed_digest(chain_id=chain_id, contract=registry, struct_hash=struct_hash)


def sign_promise(key: bytes, digest: bytes) -> bytes:
    """A promise key's signature (65 bytes) over a `promise_digest`."""
    return sign_digest(key, digest)


def promise_signer(digest: bytes, signature: bytes) -> str | None:
    """The address that signed a promise; None if the contract wouldn't take the signature."""
    return signer_of(digest, signature)


def claim_id_of(member_id: str, txid: bytes, commitment: bytes) -> bytes:
    """A claim's identity: one (member, txid, C) is claimed once."""
    types = ["bytes32", "bytes32", "bytes32"]
    return bytes(keccak(encode(types, [member_word(member_id), txid, commitment])))


class OmissionRegistry:
    """The contract at one address, read and written through one client."""

    def __init__(self, client: ChainClient, address: str) -> None:
        self._calls: ContractCalls[OmissionEvent] = ContractCalls(
            client, OMISSION_REGISTRY, address, _DECODERS
        )
        self.address = self._calls.address
        self._client = client

    def member_registry(self) -> str:
        """The address of the MemberRegistry that this contract obeys."""
        return to_checksum_address(self._calls.read("members"))

    def anchor_registry(self) -> str:
        """The address of the AnchorRegistry whose roots count here."""
        return to_checksum_address(self._calls.read("anchors"))

    def max_merge_delay_s(self) -> int:
        """The farthest merge deadline (seconds from the promise) that outlives a key's
        retirement."""
        return int(self._calls.read("maxMergeDelay"))

    def claim(self, member_id: str, txid: bytes, commitment: bytes) -> Claim | None:
        """The claim about a transaction; None if there is none."""
        return self.claim_by_id(claim_id_of(member_id, txid, commitment))

    def claim_by_id(self, claim_id: bytes) -> Claim | None:
        """A claim by its identity; None if there is none."""
        state, merge, answer, member, txid, commitment, claimant = self._calls.read(
            "claimOf", claim_id
        )
        if state == ClaimState.NONE:
            return None
        return Claim(
            claim_id=claim_id,
            state=ClaimState(state),
            member_id=member_from_word(bytes(member)),
            txid=bytes(txid),
            commitment=bytes(commitment),
            merge_deadline=merge,
            answer_deadline=answer,
            claimant=to_checksum_address(claimant),
        )

    def build_claim_tx(
        self,
        *,
        sender: str,
        nonce: int,
        member_id: str,
        txid: bytes,
        commitment: bytes,
        merge_deadline: int,
        signature: bytes,
        gas_price: int | None = None,
        chain_id: int | None = None,
    ) -> dict[str, Any]:
        """The unsigned claim, by anybody, with the promise that the receipt carries."""
        return self._calls.build(
            "claim",
            [member_word(member_id), txid, commitment, merge_deadline, signature],
            sender=sender,
            nonce=nonce,
            gas=_CLAIM_GAS,
            gas_price=gas_price,
            chain_id=chain_id,
        )

    def build_answer_tx(
        self,
        *,
        sender: str,
        nonce: int,
        claim_id: bytes,
        evidence: Evidence,
        gas_price: int | None = None,
        chain_id: int | None = None,
    ) -> dict[str, Any]:
        """The unsigned answer, by anybody: the leaf and its inclusion proof."""
        return self._calls.build(
            "answer",
            [claim_id, evidence.arguments()],
            sender=sender,
            nonce=nonce,
            gas=_ANSWER_GAS + _ANSWER_GAS_PER_NODE * len(evidence.path),
            gas_price=gas_price,
            chain_id=chain_id,
        )

    def build_conclude_tx(
        self,
        *,
        sender: str,
        nonce: int,
        claim_id: bytes,
        gas_price: int | None = None,
        chain_id: int | None = None,
    ) -> dict[str, Any]:
        """The unsigned note, by anybody, that nobody answered in time: OmissionProven."""
        return self._calls.build(
            "conclude",
            [claim_id],
            sender=sender,
            nonce=nonce,
            gas=_CONCLUDE_GAS,
            gas_price=gas_price,
            chain_id=chain_id,
        )

    def check_tx(self, transaction: dict[str, Any]) -> None:
        """Runs a transaction without sending it: ChainReverted names what is wrong."""
        self._client.simulate(transaction)

    def decode(self, receipt: Receipt) -> list[OmissionEvent]:
        """The events that a transaction made here; none if it reverted."""
        return self._calls.decode(receipt)

    def events_since(
        self, from_block: int, to_block: int | None = None, *, member_id: str | None = None
    ) -> Iterator[OmissionEvent]:
        """All claims' events (or those about one member) from a block on, in the chain's order."""
        topics = [] if member_id is None else [None, member_word(member_id)]
        return self._calls.events(from_block, to_block, topics)


def _claimed(log: Log) -> OmissionClaimed:
    commitment, merge, answer, claimant = decode(
        ["bytes32", "uint64", "uint64", "address"], log.data
    )
    return OmissionClaimed(
        claim_id=log.topics[1],
        member_id=member_from_word(log.topics[2]),
        txid=log.topics[3],
        commitment=commitment,
        merge_deadline=merge,
        answer_deadline=answer,
        claimant=to_checksum_address(claimant),
        at=place_of(log),
    )


def _answered(log: Log) -> OmissionAnswered:
    anchor_seq, index = decode(["uint64", "uint64"], log.data)
    member_id = member_from_word(log.topics[2])
    return OmissionAnswered(
        log.topics[1], member_id, log.topics[3], anchor_seq, index, place_of(log)
    )


def _proven(log: Log) -> OmissionProven:
    (commitment,) = decode(["bytes32"], log.data)
    member_id = member_from_word(log.topics[2])
    return OmissionProven(log.topics[1], member_id, log.topics[3], commitment, place_of(log))


_DECODERS: dict[bytes, Callable[[Log], OmissionEvent]] = {
    keccak(b"OmissionClaimed(bytes32,bytes32,bytes32,bytes32,uint64,uint64,address)"): _claimed,
    keccak(b"OmissionAnswered(bytes32,bytes32,bytes32,uint64,uint64)"): _answered,
    keccak(b"OmissionProven(bytes32,bytes32,bytes32,bytes32)"): _proven,
}
