"""Pure checks of merchants and terminals."""

from __future__ import annotations

from nodes import ids, money
from nodes.acquiring.model import AcquiringOutcome, Merchant


def check_merchant(merchant: Merchant) -> AcquiringOutcome:
    """What is wrong with a merchant to be registered; DONE if nothing is."""
    if not _identifier(merchant.merchant_id, 15):
        return AcquiringOutcome.MERCHANT_ID_INVALID
    if not (len(merchant.mcc) == 4 and merchant.mcc.isascii() and merchant.mcc.isdigit()):
        return AcquiringOutcome.MCC_INVALID
    if not (
        len(merchant.country) == 2 and merchant.country.isascii() and merchant.country.isupper()
    ):
        return AcquiringOutcome.COUNTRY_INVALID
    if not (0 < len(merchant.name) <= 80 and merchant.name.isprintable()):
        return AcquiringOutcome.NAME_INVALID
    if merchant.currency not in money.CURRENCIES:
        return AcquiringOutcome.CURRENCY_UNKNOWN
    if merchant.member_id is not None:
        try:
            ids.member_word(merchant.member_id)
        except ValueError:
            return AcquiringOutcome.MEMBER_INVALID
    return AcquiringOutcome.DONE


def check_terminal_id(terminal_id: str) -> AcquiringOutcome:
    """DONE for 8 printable ASCII characters without blanks (DE41)."""
    if not _identifier(terminal_id, 8):
        return AcquiringOutcome.TERMINAL_ID_INVALID
    return AcquiringOutcome.DONE


def _identifier(text: str, length: int) -> bool:
    return len(text) == length and text.isascii() and text.isalnum()
