"""Closes of the day on the chain: the CloseRegistry contract (docs/contracts.md).

A receipt alone proves nothing: a step counts once its decoded event is there, see `decode`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from typing import Any, TypeAlias

from eth_abi.abi import decode, encode
from eth_hash.auto import keccak
from eth_utils.address import to_canonical_address, to_checksum_address

from nodes.chain.calls import ContractCalls, EventPlace, place_of
from nodes.chain.client import ChainClient, Log, Receipt
from nodes.chain.contracts import CLOSE_REGISTRY
from nodes.ids import ascii_word, member_from_word, member_word

# About twice what each costs at most (docs/contracts.md, Gas).
_COMMIT_GAS = 500_000
_REVEAL_GAS = 400_000
_EXPIRE_GAS = 150_000


class CloseState(IntEnum):
    """The contract's states of a revision. SUPERSEDED: a later revision is CONFIRMED."""

    NONE = 0
    COMMITTING = 1
    REVEALING = 2
    CONFIRMED = 3
    BROKEN = 4
    EXPIRED = 5
    SUPERSEDED = 6


@dataclass(frozen=True, slots=True)
class CloseKey:
    """Whose close of which day. `currency` is ISO 4217, three capital letters."""

    acquirer: str
    issuer: str
    currency: str
    business_date: date

    @property
    def date_number(self) -> int:
        """The day as yyyymmdd."""
        day = self.business_date
        return day.year * 10_000 + day.month * 100 + day.day

    @property
    def close_id(self) -> bytes:
        """The key's identity on the chain (32 bytes)."""
        return bytes(keccak(encode(["bytes32", "bytes32", "bytes32", "uint32"], self.words())))

    def words(self) -> list[Any]:
        """The key as the contract takes it."""
        return [
            member_word(self.acquirer),
            member_word(self.issuer),
            ascii_word(self.currency),
            self.date_number,
        ]


@dataclass(frozen=True, slots=True)
class CloseSide:
    """What one side has done: None until it has committed, or revealed."""

    commitment: bytes | None
    close_root: bytes | None
    totals_hash: bytes | None


@dataclass(frozen=True, slots=True)
class CloseRound:
    """A revision as it stands now. `deadline` (Unix seconds) is that of the phase it is in, or was
    in last; an overdue one is EXPIRED."""

    revision: int
    state: CloseState
    deadline: int
    acquirer: CloseSide
    issuer: CloseSide


@dataclass(frozen=True, slots=True)
class ConfirmedClose:
    """The close in force."""

    revision: int
    close_root: bytes
    totals_hash: bytes


@dataclass(frozen=True, slots=True)
class CloseOpened:
    """The first commitment of a revision."""

    close_id: bytes
    revision: int
    key: CloseKey
    at: EventPlace


@dataclass(frozen=True, slots=True)
class CloseCommitted:
    """A side's commitment. `deadline`: for the other's, or, if it is the second, for both
    reveals."""

    close_id: bytes
    revision: int
    member_id: str
    commitment: bytes
    deadline: int
    at: EventPlace


@dataclass(frozen=True, slots=True)
class ClosePosted:
    """A side's reveal."""

    close_id: bytes
    revision: int
    member_id: str
    close_root: bytes
    totals_hash: bytes
    at: EventPlace


@dataclass(frozen=True, slots=True)
class CloseMatched:
    """Both sides revealed the same: Confirmed."""

    close_id: bytes
    revision: int
    close_root: bytes
    totals_hash: bytes
    at: EventPlace


@dataclass(frozen=True, slots=True)
class CloseBroken:
    """The two sides revealed different things."""

    close_id: bytes
    revision: int
    at: EventPlace


@dataclass(frozen=True, slots=True)
class CloseExpired:
    """A deadline went by; who was silent didn't commit, or didn't reveal."""

    close_id: bytes
    revision: int
    acquirer_silent: bool
    issuer_silent: bool
    at: EventPlace


@dataclass(frozen=True, slots=True)
class CloseSuperseded:
    """Revision `revision` and all before it gave way to `by_revision`."""

    close_id: bytes
    revision: int
    by_revision: int
    at: EventPlace


CloseEvent: TypeAlias = (
    CloseOpened
    | CloseCommitted
    | ClosePosted
    | CloseMatched
    | CloseBroken
    | CloseExpired
    | CloseSuperseded
)


def close_commitment(
    *,
    chain_id: int,
    registry: str,
    member_id: str,
    close_id: bytes,
    revision: int,
    close_root: bytes,
    totals_hash: bytes,
    blind: bytes,
) -> bytes:
    """What a member commits to; `blind` is 32 random bytes, kept secret until the reveal."""
    types = ["uint256", "address", "bytes32", "bytes32", "uint32", "bytes32", "bytes32", "bytes32"]
    values = [
        chain_id,
        to_canonical_address(registry),
        member_word(member_id),
        close_id,
        revision,
        close_root,
        totals_hash,
        blind,
    ]
    return bytes(keccak(encode(types, values)))


class CloseRegistry:
    """The contract at one address, read and written through one client."""

    def __init__(self, client: ChainClient, address: str) -> None:
        self._calls: ContractCalls[CloseEvent] = ContractCalls(
            client, CLOSE_REGISTRY, address, _DECODERS
        )
        self.address = self._calls.address
        self._client = client

    def member_registry(self) -> str:
        """The address of the MemberRegistry that this contract obeys."""
        return to_checksum_address(self._calls.read("members"))

    def revisions(self, key: CloseKey) -> int:
        """How many revisions there are; 0 before the first commitment."""
        return int(self._calls.read("latestOf", key.close_id)[0])

    def round(self, key: CloseKey, revision: int) -> CloseRound:
        """A revision as it stands now; NONE if there is none of that number."""
        state, deadline, *sides = self._calls.read("roundOf", key.close_id, revision)
        acquirer, issuer = map(_side, sides)
        return CloseRound(revision, CloseState(state), deadline, acquirer, issuer)

    def latest(self, key: CloseKey) -> CloseRound | None:
        """The newest revision; None before the first commitment."""
        count = self.revisions(key)
        return self.round(key, count - 1) if count else None

    def confirmed(self, key: CloseKey) -> ConfirmedClose | None:
        """The close in force; None if none was ever confirmed."""
        found, revision, root, totals = self._calls.read("confirmedOf", key.close_id)
        return ConfirmedClose(revision, bytes(root), bytes(totals)) if found else None

    def commitment(
        self,
        member_id: str,
        key: CloseKey,
        revision: int,
        close_root: bytes,
        totals_hash: bytes,
        blind: bytes,
    ) -> bytes:
        """`close_commitment` for this chain and contract."""
        return close_commitment(
            chain_id=self._client.chain_id(),
            registry=self.address,
            member_id=member_id,
            close_id=key.close_id,
            revision=revision,
            close_root=close_root,
            totals_hash=totals_hash,
            blind=blind,
        )

    def build_commit_tx(
        self,
        *,
        sender: str,
        nonce: int,
        key: CloseKey,
        revision: int,
        commitment: bytes,
        gas_price: int | None = None,
        chain_id: int | None = None,
    ) -> dict[str, Any]:
        """The unsigned commitment; the sender is the operator of the acquirer or issuer. The
        first one of `revision` = revisions(key) opens it."""
        return self._calls.build(
            "commit",
            [*key.words(), revision, commitment],
            sender=sender,
            nonce=nonce,
            gas=_COMMIT_GAS,
            gas_price=gas_price,
            chain_id=chain_id,
        )

    def build_reveal_tx(
        self,
        *,
        sender: str,
        nonce: int,
        key: CloseKey,
        revision: int,
        close_root: bytes,
        totals_hash: bytes,
        blind: bytes,
        gas_price: int | None = None,
        chain_id: int | None = None,
    ) -> dict[str, Any]:
        """The unsigned reveal; refused until both sides have committed."""
        return self._calls.build(
            "reveal",
            [key.close_id, revision, close_root, totals_hash, blind],
            sender=sender,
            nonce=nonce,
            gas=_REVEAL_GAS,
            gas_price=gas_price,
            chain_id=chain_id,
        )

    def build_expire_tx(
        self,
        *,
        sender: str,
        nonce: int,
        key: CloseKey,
        gas_price: int | None = None,
        chain_id: int | None = None,
    ) -> dict[str, Any]:
        """The unsigned note, by anybody, that the newest revision's deadline went by."""
        return self._calls.build(
            "expire",
            [key.close_id],
            sender=sender,
            nonce=nonce,
            gas=_EXPIRE_GAS,
            gas_price=gas_price,
            chain_id=chain_id,
        )

    def check_tx(self, transaction: dict[str, Any]) -> None:
        """Runs a transaction without sending it: ChainReverted names what is wrong."""
        self._client.simulate(transaction)

    def decode(self, receipt: Receipt) -> list[CloseEvent]:
        """The events that a transaction made here; none if it reverted."""
        return self._calls.decode(receipt)

    def events_since(
        self, from_block: int, to_block: int | None = None, *, key: CloseKey | None = None
    ) -> Iterator[CloseEvent]:
        """All closes' (or one's) events from a block on, in the chain's order."""
        return self._calls.events(from_block, to_block, [] if key is None else [key.close_id])


def _side(row: Any) -> CloseSide:
    commitment, root, totals, revealed = row
    return CloseSide(
        commitment=bytes(commitment) if any(commitment) else None,
        close_root=bytes(root) if revealed else None,
        totals_hash=bytes(totals) if revealed else None,
    )


def _opened(log: Log) -> CloseOpened:
    currency, number, revision = decode(["bytes32", "uint32", "uint32"], log.data)
    key = CloseKey(
        acquirer=member_from_word(log.topics[2]),
        issuer=member_from_word(log.topics[3]),
        currency=currency.rstrip(b"\0").decode("ascii"),
        business_date=date(number // 10_000, number // 100 % 100, number % 100),
    )
    return CloseOpened(log.topics[1], revision, key, place_of(log))


def _committed(log: Log) -> CloseCommitted:
    revision, commitment, deadline = decode(["uint32", "bytes32", "uint64"], log.data)
    member_id = member_from_word(log.topics[2])
    return CloseCommitted(log.topics[1], revision, member_id, commitment, deadline, place_of(log))


def _posted(log: Log) -> ClosePosted:
    revision, root, totals = decode(["uint32", "bytes32", "bytes32"], log.data)
    member_id = member_from_word(log.topics[2])
    return ClosePosted(log.topics[1], revision, member_id, root, totals, place_of(log))


def _matched(log: Log) -> CloseMatched:
    root, totals = decode(["bytes32", "bytes32"], log.data)
    return CloseMatched(log.topics[1], _number(log.topics[2]), root, totals, place_of(log))


def _broken(log: Log) -> CloseBroken:
    return CloseBroken(log.topics[1], _number(log.topics[2]), place_of(log))


def _expired(log: Log) -> CloseExpired:
    acquirer, issuer = decode(["bool", "bool"], log.data)
    return CloseExpired(log.topics[1], _number(log.topics[2]), acquirer, issuer, place_of(log))


def _superseded(log: Log) -> CloseSuperseded:
    (by_revision,) = decode(["uint32"], log.data)
    return CloseSuperseded(log.topics[1], _number(log.topics[2]), by_revision, place_of(log))


def _number(topic: bytes) -> int:
    return int.from_bytes(topic, "big")


_DECODERS: dict[bytes, Callable[[Log], CloseEvent]] = {
    keccak(b"CloseOpened(bytes32,bytes32,bytes32,bytes32,uint32,uint32)"): _opened,
    keccak(b"CloseCommitted(bytes32,bytes32,uint32,bytes32,uint64)"): _committed,
    keccak(b"ClosePosted(bytes32,bytes32,uint32,bytes32,bytes32)"): _posted,
    keccak(b"CloseMatched(bytes32,uint32,bytes32,bytes32)"): _matched,
    keccak(b"CloseBroken(bytes32,uint32)"): _broken,
    keccak(b"CloseExpired(bytes32,uint32,bool,bool)"): _expired,
    keccak(b"CloseSuperseded(bytes32,uint32,uint32)"): _superseded,
}
