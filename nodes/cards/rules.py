"""Pure decisions about cards."""

from __future__ import annotations

from collections.abc import Iterable

from nodes.cards.model import TRANSITIONS, CardOutcome, CardStatus
from nodes.crypto.pan import is_valid_pan


def may_change(current: CardStatus, wanted: CardStatus) -> bool:
    """Whether a card may go from one status to another."""
    return wanted in TRANSITIONS[current]


def check_new_card(
    pan: str | None, expiry: str, service_code: str, pin: str | None, bins: Iterable[str]
) -> CardOutcome:
    """What is wrong with a card to be issued; DONE if nothing is.

    `expiry` is YYMM, `pin` 4 to 12 digits (ISO 9564-1, 7.1).
    """
    if pan is not None:
        if not is_valid_pan(pan):
            return CardOutcome.PAN_INVALID
        if not pan.startswith(tuple(bins)):
            return CardOutcome.PAN_OUTSIDE_BINS
    if not (_digits(expiry, 4) and 1 <= int(expiry[2:]) <= 12 and _digits(service_code, 3)):
        return CardOutcome.EXPIRY_INVALID
    if pin is not None and not (4 <= len(pin) <= 12 and _digits(pin, len(pin))):
        return CardOutcome.PIN_INVALID
    return CardOutcome.DONE


def _digits(text: str, length: int) -> bool:
    return len(text) == length and text.isascii() and text.isdigit()
