"""Settlements that both parties sign: the SettlementRegistry contract (docs/contracts.md).

A receipt alone proves nothing: a step counts once its decoded event is there, see `decode`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from eth_abi.abi import encode
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from nodes.chain.calls import ContractCalls
from nodes.chain.client import ChainClient, Receipt
from nodes.chain.closes import CloseKey
from nodes.chain.contracts import SETTLEMENT_REGISTRY
from nodes.chain.evidence import Evidence
from nodes.chain.settlement_events import DECODERS, SettlementEvent
from nodes.chain.signer import DigestSigner
from nodes.chain.typed_data import typed_digest
from nodes.ids import member_from_word, member_word

ZERO_WORD = bytes(32)
_SETTLEMENT_TYPE = keccak(
    b"Settlement(bytes32 acquirer,bytes32 issuer,bytes32 currency,uint32 businessDate,"
    b"uint32 closeRevision,bytes32 totalsHash,bytes32 statementHash,bytes32 supersedes,"
    b"uint256 nonce,uint64 deadline)"
)
_RESOLUTION_TYPE = keccak(
    b"Resolution(bytes32 settlementId,uint8 verdict,bytes32 reasonHash,uint64 deadline)"
)
_WORDS = ["bytes32", "bytes32", "bytes32", "uint32", "uint32", *["bytes32"] * 3]
_SETTLEMENT_TYPES = ["bytes32", *_WORDS, "uint256", "uint64"]
# About twice what each costs at most (docs/contracts.md, Gas).
_PROPOSE_GAS = 700_000
_CONFIRM_GAS = 350_000
_DISPUTE_GAS = 250_000
_RESOLVE_GAS = 200_000
_GAS_PER_NODE = 4_000
_GAS_PER_SIGNATURE = 40_000
_SHORT_GAS = 150_000


class SettlementState(IntEnum):
    """The contract's states of a settlement."""

    NONE = 0
    PROPOSED = 1
    CONFIRMED = 2
    DISPUTED = 3
    RESOLVED = 4
    FINAL = 5
    EXPIRED = 6
    SUPERSEDED = 7


class Verdict(IntEnum):
    """What arbiters say of a dispute. ANNULLED: the parties sign another settlement."""

    NONE = 0
    UPHELD = 1
    ANNULLED = 2


@dataclass(frozen=True, slots=True)
class SettlementTerms:
    """What both parties sign.

    close_revision and totals_hash: the confirmed close in force. statement_hash: commits to payer,
    payee and amount, which stay off the chain. supersedes: the settlement of this close that is in
    force, ZERO_WORD for the first. nonce: `next_nonce`. deadline: Unix seconds, until when both
    have to sign, at most 30 days away.
    """

    close: CloseKey
    close_revision: int
    totals_hash: bytes
    statement_hash: bytes
    supersedes: bytes
    nonce: int
    deadline: int

    def words(self) -> list[Any]:
        """The terms as the contract takes them."""
        return [
            *self.close.words(),
            self.close_revision,
            self.totals_hash,
            self.statement_hash,
            self.supersedes,
            self.nonce,
            self.deadline,
        ]


@dataclass(frozen=True, slots=True)
class SettlementRecord:
    """A settlement as the contract holds it now. `proposer` is the member that signed first;
    `disputable_until` (Unix seconds) is 0 before the confirmation."""

    settlement_id: bytes
    state: SettlementState
    verdict: Verdict
    acquirer: str
    issuer: str
    proposer: str
    close_id: bytes
    close_revision: int
    totals_hash: bytes
    statement_hash: bytes
    supersedes: bytes
    nonce: int
    deadline: int
    disputable_until: int


def settlement_id(terms: SettlementTerms, *, chain_id: int, registry: str) -> bytes:
    """A settlement's identity: the EIP-712 digest that both parties sign."""
    struct_hash = keccak(encode(_SETTLEMENT_TYPES, [_SETTLEMENT_TYPE, *terms.words()]))
    return typed_digest(chain_id=chain_id, contract=registry, struct_hash=struct_hash)


def resolution_digest(
    *,
    chain_id: int,
    registry: str,
    settlement_id: bytes,
    verdict: Verdict,
    reason_hash: bytes,
    deadline: int,
) -> bytes:
    """What arbiters sign to end a dispute, by `deadline` (Unix seconds)."""
    types = ["bytes32", "bytes32", "uint8", "bytes32", "uint64"]
    values = [_RESOLUTION_TYPE, settlement_id, int(verdict), reason_hash, deadline]
    return typed_digest(
        chain_id=chain_id, contract=registry, struct_hash=keccak(encode(types, values))
    )


def sign_settlement(signer: DigestSigner, digest: bytes) -> bytes:
    """A party's (or arbiter's) signature of 65 bytes."""
    return signer.sign_digest(digest)


class SettlementRegistry:
    """The contract at one address, read and written through one client.

    The `build_..._tx` functions give unsigned transactions (legacy, type 0), ready for a Signer.
    `price` may hold `gas_price` and `chain_id`; what isn't given is asked of the chain.
    """

    def __init__(self, client: ChainClient, address: str) -> None:
        self._calls: ContractCalls[SettlementEvent] = ContractCalls(
            client, SETTLEMENT_REGISTRY, address, DECODERS
        )
        self.address = self._calls.address
        self._client = client

    def close_registry(self) -> str:
        """The address of the CloseRegistry whose closes are settled here."""
        return to_checksum_address(self._calls.read("closes"))

    def arbiters(self) -> tuple[tuple[str, ...], int]:
        """(The arbiters' addresses, how many of them resolve a dispute.)"""
        judges, threshold = self._calls.read("arbiters")
        return tuple(to_checksum_address(judge) for judge in judges), threshold

    def next_nonce(self, acquirer: str, issuer: str) -> int:
        """The number of the pair's next proposal."""
        return int(self._calls.read("nonceOf", member_word(acquirer), member_word(issuer)))

    def current(self, key: CloseKey) -> bytes | None:
        """The settlement of a close that both signed last; None if there is none."""
        return _id_or_none(self._calls.read("currentOf", key.close_id))

    def pending(self, key: CloseKey) -> bytes | None:
        """The proposal of a close that waits for its second signature; None if none does."""
        return _id_or_none(self._calls.read("pendingOf", key.close_id))

    def settlement_id(self, terms: SettlementTerms) -> bytes:
        """`settlement_id` for this chain and contract."""
        return settlement_id(terms, chain_id=self._client.chain_id(), registry=self.address)

    def resolution_digest(
        self, settlement_id: bytes, verdict: Verdict, reason_hash: bytes, deadline: int
    ) -> bytes:
        """`resolution_digest` for this chain and contract."""
        return resolution_digest(
            chain_id=self._client.chain_id(),
            registry=self.address,
            settlement_id=settlement_id,
            verdict=verdict,
            reason_hash=reason_hash,
            deadline=deadline,
        )

    def record(self, settlement_id: bytes) -> SettlementRecord | None:
        """A settlement as it stands now; None if there is none."""
        row = self._calls.read("settlementOf", settlement_id)
        state, verdict, by_acquirer, revision, nonce, deadline, until, close_id, *words = row
        if state == SettlementState.NONE:
            return None
        closes = self._client.contract("CloseRegistry", self.close_registry())
        parties = self._client.read(closes.functions.partiesOf(close_id))
        acquirer, issuer = (member_from_word(bytes(party)) for party in parties)
        totals_hash, statement_hash, supersedes = map(bytes, words)
        return SettlementRecord(
            settlement_id=settlement_id,
            state=SettlementState(state),
            verdict=Verdict(verdict),
            acquirer=acquirer,
            issuer=issuer,
            proposer=acquirer if by_acquirer else issuer,
            close_id=bytes(close_id),
            close_revision=revision,
            totals_hash=totals_hash,
            statement_hash=statement_hash,
            supersedes=supersedes,
            nonce=nonce,
            deadline=deadline,
            disputable_until=until,
        )

    def build_propose_tx(
        self, *, sender: str, nonce: int, terms: SettlementTerms, signature: bytes, **price: int
    ) -> dict[str, Any]:
        """The proposal with one party's signature over its `settlement_id`; by any sender."""
        arguments = [tuple(terms.words()), signature]
        return self._build("propose", arguments, _PROPOSE_GAS, sender, nonce, price)

    def build_confirm_tx(
        self, *, sender: str, nonce: int, settlement_id: bytes, signature: bytes, **price: int
    ) -> dict[str, Any]:
        """The other party's signature; by any sender."""
        arguments = [settlement_id, signature]
        return self._build("confirm", arguments, _CONFIRM_GAS, sender, nonce, price)

    def build_dispute_tx(
        self,
        *,
        sender: str,
        nonce: int,
        settlement_id: bytes,
        evidence: Evidence,
        reason_hash: bytes,
        **price: int,
    ) -> dict[str, Any]:
        """A party's dispute: `sender` is its operator, the evidence a leaf of this pair."""
        arguments = [settlement_id, evidence.arguments(), reason_hash]
        gas = _DISPUTE_GAS + _GAS_PER_NODE * len(evidence.path)
        return self._build("dispute", arguments, gas, sender, nonce, price)

    def build_resolve_tx(
        self,
        *,
        sender: str,
        nonce: int,
        settlement_id: bytes,
        verdict: Verdict,
        reason_hash: bytes,
        deadline: int,
        signatures: Sequence[bytes],
        **price: int,
    ) -> dict[str, Any]:
        """The arbiters' signatures over a `resolution_digest`, in ascending order of their
        addresses (as numbers); by any sender."""
        arguments = [settlement_id, int(verdict), reason_hash, deadline, list(signatures)]
        gas = _RESOLVE_GAS + _GAS_PER_SIGNATURE * len(signatures)
        return self._build("resolve", arguments, gas, sender, nonce, price)

    def build_finalize_tx(
        self, *, sender: str, nonce: int, settlement_id: bytes, **price: int
    ) -> dict[str, Any]:
        """The end of the time for disputes; by any sender."""
        return self._build("finalize", [settlement_id], _SHORT_GAS, sender, nonce, price)

    def build_expire_tx(
        self, *, sender: str, nonce: int, settlement_id: bytes, **price: int
    ) -> dict[str, Any]:
        """The note that a proposal wasn't signed in time; by any sender."""
        return self._build("expire", [settlement_id], _SHORT_GAS, sender, nonce, price)

    def check_tx(self, transaction: dict[str, Any]) -> None:
        """Runs a transaction without sending it: ChainReverted names what is wrong."""
        self._client.simulate(transaction)

    def decode(self, receipt: Receipt) -> list[SettlementEvent]:
        """The events that a transaction made here; none if it reverted."""
        return self._calls.decode(receipt)

    def events_since(
        self, from_block: int, to_block: int | None = None, *, key: CloseKey | None = None
    ) -> Iterator[SettlementEvent]:
        """All settlements' (or one close's) events from a block on, in the chain's order."""
        topics = [] if key is None else [None, key.close_id]
        return self._calls.events(from_block, to_block, topics)

    def _build(
        self,
        function: str,
        arguments: Sequence[Any],
        gas: int,
        sender: str,
        nonce: int,
        price: dict[str, int],
    ) -> dict[str, Any]:
        return self._calls.build(
            function,
            arguments,
            sender=sender,
            nonce=nonce,
            gas=gas,
            gas_price=price.get("gas_price"),
            chain_id=price.get("chain_id"),
        )


def _id_or_none(word: Any) -> bytes | None:
    return bytes(word) if any(word) else None
