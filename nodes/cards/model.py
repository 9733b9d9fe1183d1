"""Cards: statuses and what may follow on what."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

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

    KEY_REUSED = "key_reused"
    CARD_UNKNOWN = "card_unknown"
    PRODUCT_UNKNOWN = "product_unknown"
    PAN_TAKEN = "pan_taken"
    PAN_INVALID = "pan_invalid"
    PAN_OUTSIDE_BINS = "pan_outside_bins"
    EXPIRY_INVALID = "expiry_invalid"
    PIN_INVALID = "pin_invalid"
    FORM_INVALID = "form_invalid"
    KEYS_MISSING = "keys_missing"
    TRANSITION_REFUSED = "transition_refused"
    DONE = "done"


class CardForm(StrEnum):
    """What a card is made as. A plain one has nothing that could be checked but number and PIN."""

    PLAIN = "plain"
    STRIPE = "stripe"
    CHIP = "chip"
    VIRTUAL = "virtual"


class Making(msgspec.Struct, frozen=True):
    """How a card is made; profile and derivation are those of its chip's keys."""

    form: CardForm = CardForm.PLAIN
    profile: str = "des-common"
    derivation: Literal["A", "B"] = "A"
    psn: str = "01"


class IssuedCard(msgspec.Struct, frozen=True):
    """A new card. `pan` is given out this once; repr doesn't show it."""

    card_token: bytes
    pan: str
    pan_masked: str
    expiry: str
    account_id: int
    #: For the personalizer, sealed (nodes/crypto/emv.py); None of a plain card.
    personalization: bytes | None = None
    #: Shown once to the holder of a virtual card.
    cvv2: str | None = None

    def __repr__(self) -> str:
        return f"IssuedCard({self.card_token.hex()}, {self.pan_masked})"
