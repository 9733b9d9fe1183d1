"""A receipt's signed promise, and what became of it: pure, one named reason a refusal.

A receipt prints before its batch is anchored. Its code carries, after the # of a URL, in base64url:

    0x01 || length || member id (ASCII) || txid || C || salt_fin || uint64 merge deadline
         || signature (r || s || v, 65 bytes)

The signature is EIP-712's over (member, txid, C, merge deadline), by the member's promise key
(docs/contracts.md, OmissionRegistry), so that anybody can take an overdue promise to the chain.
salt_fin opens the financial fields of C to the holder, and is no part of what is signed.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from nodes.anchoring.bundle import parse_bundle
from nodes.anchoring.leaf import decode_leaf
from nodes.anchoring.verifier import ChainView, Reason, SealTrust, Verdict, verify
from nodes.crypto.commitment import SharedField, field_salt

_VERSION = 1
_MEMBER = re.compile(rb"[a-z][a-z0-9-]{1,30}\Z")
_TEXT = re.compile(r"[A-Za-z0-9_-]+\Z")
_FIXED = 32 * 3 + 8 + 65
#: A deadline that JavaScript's numbers hold; in the year 285,428,751.
_MAX_DEADLINE = 2**53 - 1


class ReceiptReason(StrEnum):
    """Why a promise isn't shown to be kept; in order, with the proof's own reasons (Reason) after
    PROMISE_KEY_UNKNOWN. PROMISE_PENDING is no failure."""

    PROMISE_MALFORMED = "PROMISE_MALFORMED"
    PROMISE_KEY_UNKNOWN = "PROMISE_KEY_UNKNOWN"
    PROMISE_MISMATCH = "PROMISE_MISMATCH"
    PROMISE_OVERDUE = "PROMISE_OVERDUE"
    PROMISE_PENDING = "PROMISE_PENDING"

    @property
    def meaning(self) -> str:
        """The reason in a sentence."""
        return _MEANINGS[self]


_MEANINGS = {
    ReceiptReason.PROMISE_MALFORMED: "this is not a receipt's promise in canonical form",
    ReceiptReason.PROMISE_KEY_UNKNOWN: "the promise is not signed by a promise key that this"
    " member had for it",
    ReceiptReason.PROMISE_MISMATCH: "the proof is of another member, transaction or content than"
    " the promise",
    ReceiptReason.PROMISE_OVERDUE: "the deadline is over and there is no proof: anybody may take"
    " this to the chain",
    ReceiptReason.PROMISE_PENDING: "there is no proof yet, and the deadline is not over",
}


class PromiseMalformed(ValueError):
    """The text is no promise of the one canonical form."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A member's signed word that an entry will be anchored by `merge_deadline` (seconds, UTC)."""

    member_id: str
    txid: bytes
    commitment: bytes
    salt_fin: bytes
    merge_deadline: int
    signature: bytes  # 65 bytes

    def encode(self) -> str:
        """The text after the #."""
        member = self.member_id.encode("ascii")
        raw = (
            bytes((_VERSION, len(member)))
            + member
            + self.txid
            + self.commitment
            + self.salt_fin
            + self.merge_deadline.to_bytes(8, "big")
            + self.signature
        )
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    def __repr__(self) -> str:
        return f"Promise({self.member_id!r}, {self.txid.hex()}, by {self.merge_deadline})"


def parse_promise(text: str) -> Promise:
    """Read what stands after the #. PromiseMalformed unless encoding it gives the same text."""
    try:
        if not _TEXT.match(text):
            raise PromiseMalformed("a promise is base64url")
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise PromiseMalformed("a promise is base64url") from None
    if len(raw) < 2 or raw[0] != _VERSION:
        raise PromiseMalformed("the promise's version is unknown")
    end = 2 + raw[1]
    if len(raw) != end + _FIXED or not _MEMBER.match(raw[2:end]):
        raise PromiseMalformed("the promise has not the length of its parts, or names no member")
    body = raw[end:]
    promise = Promise(
        member_id=raw[2:end].decode(),
        txid=body[:32],
        commitment=body[32:64],
        salt_fin=body[64:96],
        merge_deadline=int.from_bytes(body[96:104], "big"),
        signature=body[104:],
    )
    if promise.encode() != text or promise.merge_deadline > _MAX_DEADLINE:
        raise PromiseMalformed("not the canonical form of a promise")
    return promise


def access_key(salt_fin: bytes, txid: bytes) -> bytes:
    """What a node asks for before it hands out a receipt's proof; salt_fin itself never travels."""
    return hmac.digest(salt_fin, b"countersign/receipt/1" + txid, "sha256")


class PromiseKeyUse(Protocol):
    """When a promise key was the member's, in seconds; `until` None while it is in use."""

    @property
    def since(self) -> int: ...
    @property
    def until(self) -> int | None: ...


class ReceiptView(ChainView, Protocol):
    """A ChainView that also knows promise keys."""

    @property
    def max_merge_delay_s(self) -> int:
        """A retired key counts for deadlines up to its end and this."""
        ...

    def promise_signer(self, promise: Promise) -> bytes | None:
        """The 20-byte address that signed; None if the signature is none."""
        ...

    def promise_key(self, member_id: str, address: bytes) -> PromiseKeyUse | None:
        """Since and until when that address signs promises for the member."""
        ...


@dataclass(frozen=True, slots=True)
class ReceiptVerdict:
    """`ok` only with a proof that holds. `verdict`: the proof's own, where there was one."""

    ok: bool
    reason: ReceiptReason | Reason | None
    promise: Promise | None
    verdict: Verdict | None = None
    #: Anchored after the deadline: the promise was broken, though the entry is there now.
    late: bool = False


def judge_receipt(
    text: str,
    raw: bytes | None,
    view: ReceiptView,
    now_s: int,
    *,
    seals: SealTrust | None = None,
    validators: Set[bytes] | None = None,
) -> ReceiptVerdict:
    """Judge a promise's text, with the proof's bytes where there is one.

    Look-ups of `view` may raise if the chain is out of reach. `now_s`: seconds since 1970, UTC.
    `seals`: what judges the proof instead of `view`, of which then only the promise keys count (no
    seal tells those). `validators`: who has to have sealed its block, beside what `view` says.
    """
    try:
        promise = parse_promise(text)
    except PromiseMalformed:
        return ReceiptVerdict(False, ReceiptReason.PROMISE_MALFORMED, None)
    if not promise_is_signed(promise, view):
        return ReceiptVerdict(False, ReceiptReason.PROMISE_KEY_UNKNOWN, promise)
    if raw is None:
        overdue = now_s > promise.merge_deadline
        reason = ReceiptReason.PROMISE_OVERDUE if overdue else ReceiptReason.PROMISE_PENDING
        return ReceiptVerdict(False, reason, promise)
    verdict = verify(raw, seals or view, validators)
    if not verdict.ok:
        return ReceiptVerdict(False, verdict.reason, promise, verdict)
    if not _same(promise, raw):
        return ReceiptVerdict(False, ReceiptReason.PROMISE_MISMATCH, promise, verdict)
    anchor = verdict.anchor
    late = anchor is not None and anchor.timestamp > promise.merge_deadline
    return ReceiptVerdict(True, None, promise, verdict, late)


def promise_is_signed(promise: Promise, view: ReceiptView) -> bool:
    """Whether a promise key signed it that the member had for that deadline."""
    signer = view.promise_signer(promise)
    use = None if signer is None else view.promise_key(promise.member_id, signer)
    if use is None or promise.merge_deadline < use.since:
        return False
    return use.until is None or promise.merge_deadline <= use.until + view.max_merge_delay_s


def _same(promise: Promise, raw: bytes) -> bool:
    """Whether a proof that holds is of what was promised, opened with the receipt's salt."""
    bundle = parse_bundle(raw)
    leaf = decode_leaf(bundle.leaf)
    if bundle.texts is not None or (leaf.member_id, leaf.txid, leaf.commitment) != (
        promise.member_id,
        promise.txid,
        promise.commitment,
    ):
        return False
    return all(
        number == SharedField.CARD_TOKEN
        or field_salt(promise.salt_fin, promise.txid, number) == salt
        for number, (salt, _) in bundle.opening.disclosed.items()
    )
