"""Cards: statuses and what may follow on what."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class CardStatus(StrEnum):
    """A card's state; lost, stolen and cancelled are final."""

    INACTIVE = "inactive"
    ACTIVE = "active"
    BLOCKED = "blocked"
    LOST = "lost"
    STOLEN = "stolen"
    CANCELLED = "cancelled"


_NOWHERE: frozenset[CardStatus] = frozenset()
_ENDINGS = frozenset({CardStatus.LOST, CardStatus.STOLEN, CardStatus.CANCELLED})
TRANSITIONS: dict[CardStatus, frozenset[CardStatus]] = {
    CardStatus.INACTIVE: frozenset({CardStatus.ACTIVE}) | _ENDINGS,
    CardStatus.ACTIVE: frozenset({CardStatus.BLOCKED}) | _ENDINGS,
    CardStatus.BLOCKED: frozenset({CardStatus.ACTIVE}) | _ENDINGS,
    CardStatus.LOST: _NOWHERE,
    CardStatus.STOLEN: _NOWHERE,
    CardStatus.CANCELLED: _NOWHERE,
}


class CardOutcome(StrEnum):
    """How a change of a card ends, in order of precedence."""

    CARD_UNKNOWN = "card_unknown"
    PRODUCT_UNKNOWN = "product_unknown"
    PAN_TAKEN = "pan_taken"
    PAN_INVALID = "pan_invalid"
    PAN_OUTSIDE_BINS = "pan_outside_bins"
    EXPIRY_INVALID = "expiry_invalid"
    PIN_INVALID = "pin_invalid"
    TRANSITION_REFUSED = "transition_refused"
    DONE = "done"


class IssuedCard(msgspec.Struct, frozen=True):
    """A new card. `pan` is given out this once; repr doesn't show it."""

    card_token: bytes
    pan: str
    pan_masked: str
    expiry: str
    account_id: int

    def __repr__(self) -> str:
        return f"IssuedCard({self.card_token.hex()}, {self.pan_masked})"
