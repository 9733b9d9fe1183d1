"""Whether an acquirer approves in the place of an issuer that is away, by their contract."""

from __future__ import annotations

import msgspec

from nodes.authorization.model import AuthorizationRequest, Kind
from nodes.authorization.rules.standing import PIN_REQUIRED

#: How far back a card's approvals in stand-in count: any 24 hours, so no clock's day matters.
WINDOW_MS = 86_400_000
#: Behind the STAN of the advice: its issuer may know the purchase under that STAN.
STAND_IN_MARK = "S"
#: DE22 of consumers' codes: each is used once, and only its issuer knows whether it was.
_CODES = frozenset({"03", "04"})


class StandIn(msgspec.Struct, frozen=True):
    """What an issuer honours that was approved in its place, in minor units of one currency."""

    currency: str
    #: Of one payment.
    amount: int
    #: Of one card in any 24 hours.
    day_amount: int
    day_count: int


class Used(msgspec.Struct, frozen=True):
    """What was approved for a card in the last 24 hours: minor units, and how often."""

    amount: int = 0
    count: int = 0


def is_for_stand_in(request: AuthorizationRequest, contract: StandIn, now_ms: int) -> bool:
    """Whether it is a payment that can be approved unseen, within the ceiling of one.

    A purchase at a terminal that still waits. Nobody but the issuer can check a PIN, a single-use
    code or what was keyed in online, or answer a chip; and a part of an amount is no answer without
    the balance. A stripe that asks for a PIN (service code) isn't taken without one either.
    """
    code = request.service_code or ""
    return (
        request.kind is Kind.PURCHASE
        and request.channel == "pos"
        and request.pin_block is None
        and request.icc is None
        and code[2:3] not in PIN_REQUIRED
        and not request.partial_ok
        and request.entry_mode[:2] not in _CODES
        and request.currency == contract.currency
        and request.amount <= contract.amount
        and now_ms <= request.deadline_ms
    )


def stands_in(request: AuthorizationRequest, contract: StandIn, used: Used) -> bool:
    """Whether the card's ceilings leave room for it, too."""
    return used.amount + request.amount <= contract.day_amount and used.count < contract.day_count
