"""The SettlementRegistry's events, decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from eth_abi.abi import decode
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from nodes.chain.calls import EventPlace, place_of
from nodes.chain.client import Log
from nodes.ids import member_from_word


@dataclass(frozen=True, slots=True)
class SettlementProposed:
    """One party's signed proposal. `supersedes` is zero for a close's first."""

    settlement_id: bytes
    close_id: bytes
    proposer: str
    close_revision: int
    statement_hash: bytes
    supersedes: bytes
    nonce: int
    deadline: int
    at: EventPlace


@dataclass(frozen=True, slots=True)
class SettlementConfirmed:
    """Both have signed; either may dispute until `disputable_until` (Unix seconds)."""

    settlement_id: bytes
    close_id: bytes
    disputable_until: int
    at: EventPlace


@dataclass(frozen=True, slots=True)
class SettlementDisputed:
    """A party's dispute, with a transaction out of `leaf_member`'s anchored log."""

    settlement_id: bytes
    close_id: bytes
    by: str
    txid: bytes
    leaf_member: str
    reason_hash: bytes
    at: EventPlace


@dataclass(frozen=True, slots=True)
class SettlementResolved:
    """The arbiters' verdict: 1 upheld, 2 annulled."""

    settlement_id: bytes
    close_id: bytes
    verdict: int
    reason_hash: bytes
    at: EventPlace


@dataclass(frozen=True, slots=True)
class SettlementFinal:
    """Nobody disputed in time."""

    settlement_id: bytes
    close_id: bytes
    at: EventPlace


@dataclass(frozen=True, slots=True)
class SettlementExpired:
    """The second signature didn't come in time."""

    settlement_id: bytes
    close_id: bytes
    at: EventPlace


@dataclass(frozen=True, slots=True)
class SettlementSuperseded:
    """Settlement `by` took this one's place."""

    settlement_id: bytes
    close_id: bytes
    by: bytes
    at: EventPlace


@dataclass(frozen=True, slots=True)
class ArbitersSet:
    """Governance named the arbiters."""

    arbiters: tuple[str, ...]
    threshold: int
    at: EventPlace


SettlementEvent: TypeAlias = (
    SettlementProposed
    | SettlementConfirmed
    | SettlementDisputed
    | SettlementResolved
    | SettlementFinal
    | SettlementExpired
    | SettlementSuperseded
    | ArbitersSet
)


def _proposed(log: Log) -> SettlementProposed:
    types = ["uint32", "bytes32", "bytes32", "uint256", "uint64"]
    revision, statement, supersedes, nonce, deadline = decode(types, log.data)
    return SettlementProposed(
        settlement_id=log.topics[1],
        close_id=log.topics[2],
        proposer=member_from_word(log.topics[3]),
        close_revision=revision,
        statement_hash=statement,
        supersedes=supersedes,
        nonce=nonce,
        deadline=deadline,
        at=place_of(log),
    )


def _confirmed(log: Log) -> SettlementConfirmed:
    (until,) = decode(["uint64"], log.data)
    return SettlementConfirmed(log.topics[1], log.topics[2], until, place_of(log))


def _disputed(log: Log) -> SettlementDisputed:
    txid, leaf_member, reason_hash = decode(["bytes32", "bytes32", "bytes32"], log.data)
    return SettlementDisputed(
        settlement_id=log.topics[1],
        close_id=log.topics[2],
        by=member_from_word(log.topics[3]),
        txid=txid,
        leaf_member=member_from_word(leaf_member),
        reason_hash=reason_hash,
        at=place_of(log),
    )


def _resolved(log: Log) -> SettlementResolved:
    verdict, reason_hash = decode(["uint8", "bytes32"], log.data)
    return SettlementResolved(log.topics[1], log.topics[2], verdict, reason_hash, place_of(log))


def _final(log: Log) -> SettlementFinal:
    return SettlementFinal(log.topics[1], log.topics[2], place_of(log))


def _expired(log: Log) -> SettlementExpired:
    return SettlementExpired(log.topics[1], log.topics[2], place_of(log))


def _superseded(log: Log) -> SettlementSuperseded:
    (by,) = decode(["bytes32"], log.data)
    return SettlementSuperseded(log.topics[1], log.topics[2], by, place_of(log))


def _arbiters(log: Log) -> ArbitersSet:
    arbiters, threshold = decode(["address[]", "uint32"], log.data)
    return ArbitersSet(tuple(map(to_checksum_address, arbiters)), threshold, place_of(log))


DECODERS: dict[bytes, Callable[[Log], SettlementEvent]] = {
    keccak(
        b"SettlementProposed(bytes32,bytes32,bytes32,uint32,bytes32,bytes32,uint256,uint64)"
    ): _proposed,
    keccak(b"SettlementConfirmed(bytes32,bytes32,uint64)"): _confirmed,
    keccak(b"SettlementDisputed(bytes32,bytes32,bytes32,bytes32,bytes32,bytes32)"): _disputed,
    keccak(b"SettlementResolved(bytes32,bytes32,uint8,bytes32)"): _resolved,
    keccak(b"SettlementFinal(bytes32,bytes32)"): _final,
    keccak(b"SettlementExpired(bytes32,bytes32)"): _expired,
    keccak(b"SettlementSuperseded(bytes32,bytes32,bytes32)"): _superseded,
    keccak(b"ArbitersSet(address[],uint32)"): _arbiters,
}
