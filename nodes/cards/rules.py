"""Pure decisions about cards."""

from __future__ import annotations

from collections.abc import Iterable

from nodes.cards.model import TRANSITIONS, CardForm, CardOutcome, CardStatus, Making
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


def check_making(making: Making, service_code: str) -> CardOutcome:
    """What is wrong with how a card is to be made; DONE if nothing is.

    The service code says whether there is a chip (ISO/IEC 7813): it must say what is so.
    """
    if making.form is CardForm.PLAIN:
        return CardOutcome.DONE
    says_chip = service_code[:1] in ("2", "6")
    if says_chip is not (making.form is CardForm.CHIP) or not _digits(making.psn, 2):
        return CardOutcome.FORM_INVALID
    return CardOutcome.DONE


def _digits(text: str, length: int) -> bool:
    return len(text) == length and text.isascii() and text.isdigit()
