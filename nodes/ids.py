"""Identifiers that all parties derive in the same way (evidence.md, Identity and leaves).

Standard library only. Every 32-byte identifier is a `bytes32` word on the chain.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from functools import lru_cache

_MEMBER = re.compile(r"[a-z][a-z0-9-]{1,30}\Z")


def ascii_word(text: str) -> bytes:
    """`text` in ASCII, padded on the right with zeros to a 32-byte word (a Solidity bytes32).

    Raises ValueError if it isn't ASCII or longer than 32 bytes.
    """
    raw = text.encode("ascii")
    if len(raw) > 32:
        raise ValueError(f"{len(raw)} bytes do not fit into a 32-byte word")
    return raw.ljust(32, b"\0")


def member_word(member_id: str) -> bytes:
    """The bytes32 of a member's id, e.g. "aurora": lower-case letters, digits and hyphens, 2-31."""
    if not _MEMBER.match(member_id):
        raise ValueError(f"not a member id: {member_id!r}")
    return ascii_word(member_id)


def member_from_word(word: bytes) -> str:
    """The member id that a bytes32 stands for. ValueError if it isn't one."""
    member_id = word.rstrip(b"\0").decode("ascii")
    if member_word(member_id) != word:
        raise ValueError("not a member word")
    return member_id


def new_network_ref() -> bytes:
    """16 random bytes by which an acquirer names a transaction before it has a txid."""
    return secrets.token_bytes(16)


def txid(acquirer: str, issuer: str, network_ref: bytes) -> bytes:
    """The transaction's identity in every member's books (32 bytes)."""
    if len(network_ref) != 16:
        raise ValueError("network_ref is 16 bytes")
    hashed = _txid_prefix(acquirer, issuer).copy()
    hashed.update(network_ref)
    return hashed.digest()


@lru_cache(maxsize=1024)
def _txid_prefix(acquirer: str, issuer: str) -> hashlib._Hash:
    return hashlib.sha256(b"countersign/txid/1" + member_word(acquirer) + member_word(issuer))


def pair_id(acquirer: str, issuer: str) -> bytes:
    """The identity of an acquirer-issuer pair, whose transactions are numbered without gaps."""
    return hashlib.sha256(
        b"countersign/pair/1" + member_word(acquirer) + member_word(issuer)
    ).digest()


def idempotency_key(
    acquirer: str, terminal_id: str, business_date: str, batch: str, stan: str, message_class: str
) -> bytes:
    """SHA-256 over what makes a terminal's message unique (reliability.md, invariant 5).

    The parts are joined by 0x1f, which none of them may contain.
    """
    joined = (
        f"countersign/idempotency/1\x1f{acquirer}\x1f{terminal_id}\x1f{business_date}\x1f{batch}"
        f"\x1f{stan}\x1f{message_class}"
    )
    if joined.count("\x1f") != 6:
        raise ValueError("a part of the key contains the separator")
    return hashlib.sha256(joined.encode()).digest()
