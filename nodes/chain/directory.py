"""The network's directory as a node reads it: a snapshot of the chain's MemberRegistry.

`Directory.refresh()` reads the chain; everything else is a dictionary look-up in the last
snapshot, so that the authorization path never waits for the chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from nodes.chain.client import Block, ChainClient
from nodes.chain.contracts import MEMBER_REGISTRY
from nodes.ids import member_from_word

ROLE_BITS = {"issuer": 1, "acquirer": 2, "merchant": 4, "auditor": 8}
KEY_KINDS = {"operator": 0, "note": 1, "message": 2, "promise": 3}
# MemberChanged(memberId, change; roles, status, operator, noteKey, messageKey)
MEMBER_CHANGED_TOPIC = keccak(b"MemberChanged(bytes32,uint8,uint8,uint8,address,bytes32,bytes32)")
_ACTIVE = 1
_PAGE = 50


@dataclass(frozen=True, slots=True)
class KeyPeriod:
    """A key and the blocks, both included, in which it is valid; last = None while in use."""

    key: bytes
    first: int
    last: int | None

    def covers(self, block_number: int) -> bool:
        """Whether the key was valid at a block."""
        return self.first <= block_number and (self.last is None or block_number <= self.last)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the network. Keys are the ones in use (after a revocation the last ones):
    `operator` a checksummed EVM address, note and message Ed25519 public keys of 32 bytes. The key
    of an operator's or promise's period is the 20-byte address."""

    member_id: str
    name: str
    roles: frozenset[str]
    api_url: str
    bins: tuple[str, ...]
    operator: str
    note_key: bytes
    message_key: bytes
    active: bool
    note_keys: tuple[KeyPeriod, ...] = field(default=(), repr=False)
    message_keys: tuple[KeyPeriod, ...] = field(default=(), repr=False)
    operators: tuple[KeyPeriod, ...] = field(default=(), repr=False)
    promise_keys: tuple[KeyPeriod, ...] = field(default=(), repr=False)

    @property
    def promise_key(self) -> str | None:
        """The checksummed address whose key signs the member's promises now; None if it makes
        none."""
        last = self.promise_keys[-1] if self.promise_keys else None
        return to_checksum_address(last.key) if last is not None and last.last is None else None

    def operator_at(self, block_number: int) -> str | None:
        """The operator's address that was valid at a block; None if none was. Of two, the
        newer."""
        return _address(_key_at(self.operators, block_number))

    def promise_key_at(self, block_number: int) -> str | None:
        """The promise key's address that was valid at a block; None if none was."""
        return _address(_key_at(self.promise_keys, block_number))

    def note_key_at(self, block_number: int) -> bytes | None:
        """The note key that was valid at a block; None if none was. Of two, the newer."""
        return _key_at(self.note_keys, block_number)

    def message_key_at(self, block_number: int) -> bytes | None:
        """The message key that was valid at a block; None if none was. Of two, the newer."""
        return _key_at(self.message_keys, block_number)


def _key_at(periods: tuple[KeyPeriod, ...], block_number: int) -> bytes | None:
    return next((p.key for p in reversed(periods) if p.covers(block_number)), None)


def _address(key: bytes | None) -> str | None:
    return None if key is None else to_checksum_address(key)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    block: Block | None
    members: Mapping[str, Member]
    by_operator: Mapping[str, Member]
    by_bin: Mapping[str, Member]


_EMPTY = _Snapshot(None, {}, {}, {})


class Directory:
    """Members by id, operator address and BIN. Readers and `refresh` may be in other threads."""

    def __init__(self, client: ChainClient, member_registry: str) -> None:
        self.member_registry = to_checksum_address(member_registry)
        self._client = client
        self._contract = client.contract(MEMBER_REGISTRY, member_registry)
        self._snapshot = _EMPTY

    def refresh(self) -> None:
        """Brings the snapshot to the newest block; all members are of one block. On an error of
        nodes.chain.errors the old snapshot stays.

        Members are read anew only where the registry had events since, which is cheap to ask.
        """
        block = self._client.block()
        known = self._snapshot
        if known.block is not None and self._unchanged_since(known.block, block):
            self._snapshot = replace(known, block=block)
            return
        functions = self._contract.functions
        count = self._client.read(functions.memberCount(), block.number)
        rows: list[Any] = []
        while len(rows) < count:
            rows += self._client.read(functions.members(len(rows), _PAGE), block.number)
        self._snapshot = _snapshot_of(block, [_member(row) for row in rows])

    def restore(self, members: Sequence[Member]) -> None:
        """Start from members that were known before; the next refresh() reads all anew."""
        self._snapshot = _snapshot_of(None, list(members))

    def _unchanged_since(self, known: Block, newest: Block) -> bool:
        """Whether `newest` stands on `known` with no change of a member between them."""
        if newest.hash == known.hash:
            return True
        if newest.number <= known.number or self._client.block(known.number).hash != known.hash:
            return False
        events = self._client.logs(
            self.member_registry, known.number + 1, newest.number, [MEMBER_CHANGED_TOPIC]
        )
        return next(events, None) is None

    @property
    def block(self) -> Block | None:
        """The block that the snapshot is of; None before the first refresh."""
        return self._snapshot.block

    def members(self) -> tuple[Member, ...]:
        """All members, the revoked included, in the order of their registration."""
        return tuple(self._snapshot.members.values())

    def member(self, member_id: str) -> Member | None:
        """A member by its id, active or not."""
        return self._snapshot.members.get(member_id)

    def by_operator(self, address: str) -> Member | None:
        """The active member whose operator has this address."""
        return self._snapshot.by_operator.get(address.lower())

    def issuer_for(self, pan: str) -> Member | None:
        """The active issuer of the longest BIN that the PAN starts with."""
        by_bin = self._snapshot.by_bin
        return by_bin.get(pan[:8]) or by_bin.get(pan[:6])


def _snapshot_of(block: Block | None, members: list[Member]) -> _Snapshot:
    active = [member for member in members if member.active]
    return _Snapshot(
        block,
        {member.member_id: member for member in members},
        {member.operator.lower(): member for member in active},
        {bin_: member for member in active if "issuer" in member.roles for bin_ in member.bins},
    )


def _member(row: Any) -> Member:
    (word, roles, status, name, api_url, bins, *keys) = row
    operators, notes, messages, promises = map(_periods, keys)
    operators, promises = _addresses(operators), _addresses(promises)
    return Member(
        member_id=member_from_word(bytes(word)),
        name=name,
        roles=frozenset(role for role, bit in ROLE_BITS.items() if roles & bit),
        api_url=api_url,
        bins=tuple(bins),
        operator=to_checksum_address(operators[-1].key),
        note_key=notes[-1].key,
        message_key=messages[-1].key,
        active=status == _ACTIVE,
        note_keys=notes,
        message_keys=messages,
        operators=operators,
        promise_keys=promises,
    )


def _periods(rows: Any) -> tuple[KeyPeriod, ...]:
    return tuple(KeyPeriod(bytes(key), first, last or None) for key, first, last in rows)


def _addresses(periods: tuple[KeyPeriod, ...]) -> tuple[KeyPeriod, ...]:
    return tuple(replace(period, key=period.key[-20:]) for period in periods)
