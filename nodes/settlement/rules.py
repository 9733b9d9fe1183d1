"""What a statement says, and what may be done with one (docs/settlement.md). Pure.

statementHash = SHA-256("countersign/settlement/1" || totals_salt || acquirer word || issuer word ||
currency word || uint256 date as yyyymmdd || uint256 revision || uint256 count || uint256 debits ||
uint256 credits || payer word || payee word || uint256 net). Payer and payee are zero where nothing
is to be paid. totals_salt is that of the close's totals: both institutions know it, nobody else can
guess the amounts by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from nodes import ids
from nodes.clearing.model import DayKey, Totals
from nodes.crypto.commitment import uint_word
from nodes.settlement.model import OrderOutcome, Settlement, StatementState

_LABEL = b"countersign/settlement/1"
_DISPUTE = b"countersign/dispute/1"
_RESOLUTION = b"countersign/resolution/1"
_ZERO = bytes(32)


@dataclass(frozen=True, slots=True)
class Statement:
    """Who pays whom how much for one revision of a close."""

    key: DayKey
    revision: int
    totals: Totals

    @property
    def balance(self) -> int:
        """What the issuer owes the acquirer, minor units; negative the other way."""
        return self.totals.debits - self.totals.credits

    @property
    def net(self) -> int:
        """What is paid."""
        return abs(self.balance)

    @property
    def gross(self) -> int:
        """What was moved, both ways together."""
        return self.totals.debits + self.totals.credits

    @property
    def payer(self) -> str | None:
        """Who pays; None if nothing is to be paid."""
        if self.balance == 0:
            return None
        return self.key.issuer if self.balance > 0 else self.key.acquirer

    @property
    def payee(self) -> str | None:
        """Who is paid."""
        return None if self.payer is None else self.key.other(self.payer)


def statement_hash(statement: Statement, totals_salt: bytes) -> bytes:
    """What both institutions sign of the statement; the numbers stay with them."""
    key, totals = statement.key, statement.totals
    numbers = (
        key.business_date.year * 10_000 + key.business_date.month * 100 + key.business_date.day,
        statement.revision,
        totals.count,
        totals.debits,
        totals.credits,
    )
    parties = (statement.payer, statement.payee)
    words = [
        ids.member_word(key.acquirer),
        ids.member_word(key.issuer),
        ids.ascii_word(key.currency),
        *map(uint_word, numbers),
        *(_ZERO if member is None else ids.member_word(member) for member in parties),
        uint_word(statement.net),
    ]
    return sha256(_LABEL + totals_salt + b"".join(words)).digest()


def dispute_reason_hash(settlement_id: bytes, reason: str) -> bytes:
    """What the chain gets of a dispute's reason."""
    return sha256(_DISPUTE + settlement_id + reason.encode()).digest()


def resolution_reason_hash(settlement_id: bytes, verdict: str, reason: str) -> bytes:
    """What arbiters sign of their reason."""
    return sha256(_RESOLUTION + settlement_id + verdict.encode() + b"\0" + reason.encode()).digest()


# --- what may be done --------------------------------------------------------------------------


def may_countersign(settlement: Settlement, member_id: str, now: datetime) -> OrderOutcome:
    """DONE if this institution may put its signature under the other's proposal."""
    if settlement.state is not StatementState.PROPOSED or settlement.has_signed(member_id):
        return OrderOutcome.NOT_TO_SIGN
    if not settlement.agrees:
        return OrderOutcome.BOOKS_DIFFER
    return OrderOutcome.DONE if now <= settlement.deadline else OrderOutcome.DEADLINE_PASSED


def may_dispute(settlement: Settlement, now: datetime) -> OrderOutcome:
    """DONE if either party may dispute it."""
    until = settlement.disputable_until
    if settlement.state is not StatementState.CONFIRMED or until is None or now > until:
        return OrderOutcome.NOT_DISPUTABLE
    return OrderOutcome.DONE


def may_resolve(settlement: Settlement, deadline: datetime, now: datetime) -> OrderOutcome:
    """DONE if arbiters' signatures, good until `deadline`, may be sent."""
    if settlement.state is not StatementState.DISPUTED:
        return OrderOutcome.NOT_DISPUTED
    return OrderOutcome.DONE if now <= deadline else OrderOutcome.DEADLINE_PASSED


def may_propose(confirmed: bool, others: list[Settlement]) -> OrderOutcome:
    """DONE if a close may get a statement. `others`: those that it has, of this revision;
    `confirmed`: it is in force."""
    if not confirmed:
        return OrderOutcome.CLOSE_NOT_CONFIRMED
    if any(settlement.stands for settlement in others):
        return OrderOutcome.ALREADY_SETTLED
    return OrderOutcome.DONE
