"""P, the commitment to a party's own columns, and the copy of them that it is the hash of.

The log keeps that copy beside each leaf: P says whether a row is as it was, the copy says which of
its columns isn't, and what it said before. A copy begins with a random salt, so that P tells
nobody anything. It outlives the erasure of a person: of what tells of one it has only marks, which
say nothing once the person's own salt is gone (docs/evidence.md).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256

import msgspec

#: A column's value, or what stands for it.
Mark = int | str | bytes | None

_LABEL = b"countersign/private/2"
_SALT_LABEL = b"countersign/salt-pii/1"
_PERSON_LABEL = b"countersign/person/1"
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


def private_copy(marks: Sequence[Mark]) -> bytes:
    """The marks as a MessagePack array, each in the shortest form that the format has for it."""
    return _pack(marks)


def private_marks(copy: bytes) -> tuple[Mark, ...]:
    """The marks of a copy; none if it can't be read."""
    try:
        marks = _unpack(copy)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()
    readable = isinstance(marks, list) and all(isinstance(mark, Mark) for mark in marks)
    return tuple(marks) if readable else ()


def private_commitment(copy: bytes) -> bytes:
    """P: SHA-256("countersign/private/2" || copy)."""
    return sha256(_LABEL + copy).digest()


def salt_mark(salt_pii: bytes) -> bytes:
    """What stands for salt_pii, which the copy must outlive: its SHA-256 under a label."""
    return sha256(_SALT_LABEL + salt_pii).digest()


def person_mark(salt_pii: bytes, txid: bytes, value: bytes) -> bytes:
    """What stands for a value that tells of a person: HMAC-SHA256 under salt_pii."""
    return hmac.digest(salt_pii, _PERSON_LABEL + txid + value, "sha256")
