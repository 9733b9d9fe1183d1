"""What somebody who holds an overdue promise wants on the chain, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class OrderState(StrEnum):
    """How far a claim has come, by what the chain said last."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    ANSWERED = "answered"
    PROVEN = "proven"
    #: The contract doesn't take it, and won't.
    REFUSED = "refused"


#: What is still to be brought further.
OPEN = frozenset({OrderState.QUEUED, OrderState.CLAIMED})

#: What the contract refuses a claim for, for ever (OmissionRegistry.sol); all else may pass.
NEVER = frozenset({"PromiseTooOld", "NotPromiseKey", "KeyNotValid"})


@dataclass(frozen=True, slots=True)
class ClaimOrder:
    """A promise to be claimed, without what would open the transaction; deadlines in Unix seconds,
    `signature` 65 bytes by the member's promise key."""

    claim_id: bytes
    member_id: str
    txid: bytes
    commitment: bytes
    merge_deadline: int
    signature: bytes
    state: OrderState = OrderState.QUEUED
    #: Until when the accused may answer, once it is claimed.
    answer_by: int | None = None
    #: What the contract refused it for.
    reason: str | None = None
