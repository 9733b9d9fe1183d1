"""Settlement statements: what both institutions sign of a confirmed close. Pure data.

A statement settles one revision of one close; its numbers are the close's. Amounts are minor units
of the close's currency; moments are aware datetimes (UTC).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from nodes.clearing.model import Close


class StatementState(StrEnum):
    """How far a statement is. PREPARED and LAPSED are of these books, the others the chain's."""

    PREPARED = "PREPARED"  # signed here, on its way to the chain
    PROPOSED = "PROPOSED"  # on the chain with one signature
    CONFIRMED = "CONFIRMED"  # with both: in force, may be disputed
    DISPUTED = "DISPUTED"
    RESOLVED = "RESOLVED"  # by arbiters; the verdict stands with the step
    FINAL = "FINAL"  # nobody disputed in time
    EXPIRED = "EXPIRED"  # the second signature didn't come: silence is no confirmation
    SUPERSEDED = "SUPERSEDED"  # another took its place
    LAPSED = "LAPSED"  # never came on the chain: the other's proposal was first


#: States in which no other statement of the same close is proposed (RESOLVED only if upheld).
STANDING = frozenset(
    {
        StatementState.PREPARED,
        StatementState.PROPOSED,
        StatementState.CONFIRMED,
        StatementState.DISPUTED,
        StatementState.FINAL,
    }
)
#: Both have signed.
BOTH_SIGNED = frozenset(
    {
        StatementState.CONFIRMED,
        StatementState.DISPUTED,
        StatementState.RESOLVED,
        StatementState.FINAL,
    }
)


class OrderAction(StrEnum):
    """What people order."""

    PROPOSE = "propose"
    COUNTERSIGN = "countersign"
    DISPUTE = "dispute"
    RESOLVE = "resolve"


class OrderOutcome(StrEnum):
    """How placing an order ends, in order of precedence."""

    KEY_REUSED = "key_reused"
    CLOSE_UNKNOWN = "close_unknown"
    SETTLEMENT_UNKNOWN = "settlement_unknown"
    ORDER_WAITING = "order_waiting"
    CLOSE_NOT_CONFIRMED = "close_not_confirmed"
    ALREADY_SETTLED = "already_settled"
    NOT_TO_SIGN = "not_to_sign"
    BOOKS_DIFFER = "books_differ"
    NOT_DISPUTABLE = "not_disputable"
    NOT_DISPUTED = "not_disputed"
    DEADLINE_PASSED = "deadline_passed"
    EVIDENCE_NOT_ANCHORED = "evidence_not_anchored"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Settlement:
    """A statement as these books have it, with the step that it is at."""

    settlement_id: bytes
    close: Close
    proposer: str
    statement_hash: bytes
    supersedes: bytes | None
    nonce: int
    deadline: datetime
    #: These books lead to the same statement; one that doesn't is never signed here.
    agrees: bool
    state: StatementState
    steps: int
    since: datetime
    disputable_until: datetime | None = None
    verdict: str | None = None
    #: Whose signatures over settlement_id are kept here.
    signed: frozenset[str] = frozenset()
    number: int = 0

    @property
    def stands(self) -> bool:
        """Whether no other statement of this close revision may be proposed."""
        upheld = self.state is StatementState.RESOLVED and self.verdict == "UPHELD"
        return self.state in STANDING or upheld

    def has_signed(self, member_id: str) -> bool:
        """Whether a party has signed, as far as the chain shows; or these books, for their own."""
        if self.state in BOTH_SIGNED:
            return True
        return member_id == self.proposer or member_id in self.signed


@dataclass(frozen=True, slots=True)
class NewOrder:
    """What somebody orders; `fields` by what the action needs."""

    action: OrderAction
    actor: str
    close_id: int | None = None
    settlement_id: bytes | None = None
    txid: bytes | None = None
    reason: str | None = None
    verdict: str | None = None
    deadline_s: int | None = None
    signatures: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it was taken, and how it ended (`ended_at` None: it hasn't)."""

    order_id: int
    new: NewOrder
    at: datetime
    refusal: str | None = None
    made: bytes | None = None  # the statement that a proposal became
    ended_at: datetime | None = None
