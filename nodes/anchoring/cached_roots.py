"""Anchors and keys as they were once read from the chain: what proofs are judged by offline.

    {"type": "countersign/roots/1", "chain_id", "anchor_registry", "predecessors": [addresses],
     "omission_registry" or null, "max_merge_delay_s", "block_number", "taken_s",
     "members": {id: {"note_keys": [{"key", "first", "last" or null}],
                      "promise_keys": [{"key", "since", "until" or null}],
                      "anchors": [{"seq", "size", "root", "meta_hash", "block_number",
                                   "block_hash", "tx_hash", "timestamp"}]}}}

`predecessors`: the versions before the anchor contract, the newest first; none if it isn't there.
Hashes and keys in lower-case hex; a note key's first and last are blocks, a promise key's since and
until seconds (UTC). Whoever uses such a file trusts whoever read it from the chain. A
`verifier.ChainView`, pure; standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

TYPE = "countersign/roots/1"
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}\Z")
#: What a JSON number holds exactly wherever it is read.
_MAX_INT = 2**53 - 1


class RootsMalformed(ValueError):
    """The text is no file of cached roots; it says where."""


@dataclass(frozen=True, slots=True)
class CachedAnchor:
    """An anchor; `timestamp` is its block's, in seconds (UTC)."""

    seq: int
    size: int
    root: bytes
    meta_hash: bytes
    block_number: int
    block_hash: bytes
    tx_hash: bytes
    timestamp: int


@dataclass(frozen=True, slots=True)
class CachedNoteKey:
    """An Ed25519 note key and the blocks, both included, of its validity; last None: in use."""

    key: bytes
    first: int
    last: int | None


@dataclass(frozen=True, slots=True)
class CachedPromiseKey:
    """A promise key's address (20 bytes), and since and until when (seconds); None: in use."""

    key: bytes
    since: int
    until: int | None


@dataclass(frozen=True, slots=True)
class CachedMember:
    """What was read of one member; keys in the order of their use."""

    note_keys: tuple[CachedNoteKey, ...]
    promise_keys: tuple[CachedPromiseKey, ...]
    anchors: tuple[CachedAnchor, ...]


@dataclass(frozen=True, slots=True)
class CachedRoots:
    """Anchors and keys of some members at one block."""

    chain_id: int
    anchor_registry: str
    omission_registry: str | None
    max_merge_delay_s: int
    block_number: int
    taken_s: int
    members: Mapping[str, CachedMember]
    predecessors: tuple[str, ...] = ()

    def anchor(self, member_id: str, seq: int) -> CachedAnchor | None:
        """The member's anchor of that number, if it is in the file."""
        member = self.members.get(member_id)
        return next((a for a in member.anchors if a.seq == seq), None) if member else None

    def note_key(self, member_id: str, block_number: int) -> bytes | None:
        """The member's note key valid at that block; of two the newer."""
        member = self.members.get(member_id)
        for held in reversed(member.note_keys if member else ()):
            if held.first <= block_number and (held.last is None or block_number <= held.last):
                return held.key
        return None

    def promise_key(self, member_id: str, address: bytes) -> CachedPromiseKey | None:
        """Since and until when an address signs promises for the member; None if it never did."""
        member = self.members.get(member_id)
        return next((k for k in member.promise_keys if k.key == address), None) if member else None

    def encode(self) -> str:
        """The file's text."""
        document = {"type": TYPE} | asdict(self)
        if not self.predecessors:
            del document["predecessors"]
        return json.dumps(document, default=_hex, separators=(",", ":"), sort_keys=True) + "\n"


def _hex(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"no place for a {type(value).__name__} in cached roots")


def parse_roots(text: str | bytes) -> CachedRoots:
    """Read a file of cached roots; RootsMalformed says what is wrong with it."""
    try:
        top = json.loads(text)
    except (ValueError, RecursionError):
        raise RootsMalformed("cached roots are JSON") from None
    if not isinstance(top, dict) or top.get("type") != TYPE:
        raise RootsMalformed(f"not a file of cached roots ({TYPE})")
    members = top.get("members")
    if not isinstance(members, dict):
        raise RootsMalformed("members is not an object")
    omission = top.get("omission_registry")
    return CachedRoots(
        chain_id=_number(top, "chain_id"),
        anchor_registry=_address(top.get("anchor_registry"), "anchor_registry"),
        omission_registry=None if omission is None else _address(omission, "omission_registry"),
        max_merge_delay_s=_number(top, "max_merge_delay_s"),
        block_number=_number(top, "block_number"),
        taken_s=_number(top, "taken_s"),
        members={name: _member(name, value) for name, value in members.items()},
        predecessors=_predecessors(top.get("predecessors", [])),
    )


def _predecessors(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise RootsMalformed("predecessors is not a list")
    return tuple(_address(address, "a predecessor").lower() for address in value)


def _member(name: str, value: Any) -> CachedMember:
    return CachedMember(
        note_keys=tuple(
            CachedNoteKey(_bytes(k, "key", 32), _number(k, "first"), _optional(k, "last"))
            for k in _list(value, "note_keys", name)
        ),
        promise_keys=tuple(
            CachedPromiseKey(_bytes(k, "key", 20), _number(k, "since"), _optional(k, "until"))
            for k in _list(value, "promise_keys", name)
        ),
        anchors=tuple(
            CachedAnchor(
                seq=_number(a, "seq"),
                size=_number(a, "size"),
                root=_bytes(a, "root", 32),
                meta_hash=_bytes(a, "meta_hash", 32),
                block_number=_number(a, "block_number"),
                block_hash=_bytes(a, "block_hash", 32),
                tx_hash=_bytes(a, "tx_hash", 32),
                timestamp=_number(a, "timestamp"),
            )
            for a in _list(value, "anchors", name)
        ),
    )


def _list(value: Any, name: str, where: str) -> list[Any]:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise RootsMalformed(f"members.{where}.{name} is not a list")
    return found


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _number(value: Any, name: str) -> int:
    found = _get(value, name)
    if type(found) is not int or not 0 <= found <= _MAX_INT:
        raise RootsMalformed(f"{name} is not a whole number of at most 53 bits")
    return found


def _optional(value: Any, name: str) -> int | None:
    return None if _get(value, name) is None else _number(value, name)


def _bytes(value: Any, name: str, length: int) -> bytes:
    found = _get(value, name)
    if not isinstance(found, str) or not re.fullmatch(rf"[0-9a-f]{{{2 * length}}}", found):
        raise RootsMalformed(f"{name} is not {length} bytes in lower-case hex")
    return bytes.fromhex(found)


def _address(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _ADDRESS.match(value):
        raise RootsMalformed(f"{name} is not an address")
    return value
