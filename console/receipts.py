"""What became of a receipt's promise. Pure.

The promise's text stays in the browser: what comes here is what is signed, and the key by which a
node hands out the proof (docs/receipts.md); salt_fin never leaves whoever holds the receipt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from nodes.anchoring.receipt import Promise
from nodes.anchoring.verifier import Verdict
from nodes.chain.challenges import Claim, ClaimState

_MEMBER = re.compile(r"[a-z][a-z0-9-]{1,30}\Z")
_WORD = re.compile(r"[0-9a-f]{64}\Z")
_SIGNATURE = re.compile(r"[0-9a-f]{130}\Z")
_DEADLINE = re.compile(r"(0|[1-9][0-9]{0,15})\Z")
_MAX_DEADLINE = 2**53 - 1


class Place(StrEnum):
    """How far the entry is, as its member's node says."""

    RECORDED = "recorded"
    SEALED = "sealed"
    ANCHORED = "anchored"  # there is a proof
    MISSING = "missing"  # the node knows no such entry
    AWAY = "away"  # the node doesn't answer

    @classmethod
    def of(cls, anchor_state: object) -> Place:
        """The place of what isn't in a final anchor yet, by the node's `anchor_state`."""
        return cls.SEALED if anchor_state in ("SEALED", "SUBMITTED", "ANCHORED") else cls.RECORDED


@dataclass(frozen=True)
class Asked:
    """A promise without its salt, and the key that the salt gives (hex; "" if it isn't at hand)."""

    promise: Promise
    key: str = ""


@dataclass(frozen=True)
class Findings:
    """What was found of a promise. None: that couldn't be looked up."""

    place: Place
    signed: bool | None
    verdict: Verdict | None = None  # of the proof, where there is one
    anchored_s: int | None = None  # its block's time, seconds
    claim: Claim | None = None


def asked(form: Mapping[str, str]) -> Asked | None:
    """The promise that the page's script has read; None if it isn't one."""
    if not (
        _MEMBER.match(form.get("member", ""))
        and _WORD.match(form.get("txid", ""))
        and _WORD.match(form.get("commitment", ""))
        and _SIGNATURE.match(form.get("signature", ""))
        and _DEADLINE.match(form.get("deadline", ""))
        and (not form.get("key") or _WORD.match(form["key"]))
        and int(form["deadline"]) <= _MAX_DEADLINE
    ):
        return None
    promise = Promise(
        member_id=form["member"],
        txid=bytes.fromhex(form["txid"]),
        commitment=bytes.fromhex(form["commitment"]),
        salt_fin=bytes(32),
        merge_deadline=int(form["deadline"]),
        signature=bytes.fromhex(form["signature"]),
    )
    return Asked(promise, form.get("key", ""))


def of_promise(verdict: Verdict, promise: Promise) -> bool:
    """Whether a proof that holds is of this member, transaction and content."""
    details = verdict.details
    return (details["member_id"], details["txid"], details["commitment"]) == (
        promise.member_id,
        promise.txid.hex(),
        promise.commitment.hex(),
    )


def state_of(promise: Promise, found: Findings, now_s: float) -> str:
    """The promise's state, by name (record_wording.RECEIPT_STATES), in order of precedence: what
    isn't signed counts for nothing, then the chain's word, then a proof, then the deadline."""
    if found.signed is False:
        return "invalid"
    claim = found.claim.state if found.claim else ClaimState.NONE
    if claim is ClaimState.PROVEN:
        return "proven"
    kept = _kept(promise, found)
    if claim is ClaimState.ANSWERED:
        return "answered"
    if kept is False:
        return "invalid"
    if claim is ClaimState.CLAIMED:
        return "claimed"
    if kept:
        late = found.anchored_s is not None and found.anchored_s > promise.merge_deadline
        return "late" if late else "anchored"
    if found.place is Place.AWAY or (found.place is Place.ANCHORED and found.verdict is None):
        return "unknown"
    if now_s > promise.merge_deadline:
        return "overdue"
    if found.place is Place.MISSING:
        return "denied"
    return "sealed" if found.place is Place.SEALED else "promised"


def _kept(promise: Promise, found: Findings) -> bool | None:
    """Whether the proof shows it kept; None without a proof that was judged."""
    if found.verdict is None:
        return None
    return found.verdict.ok and of_promise(found.verdict, promise)
