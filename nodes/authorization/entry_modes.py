"""DE22: how the card's data came into the message. One table, for gateway, issuer and console.

First two digits: where the card number came from (ISO 8583:1987, data element 22, with 80 and 81 as
bank-card networks use them). Third digit: 1 with, 2 without a PIN (0 and others: not said).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class EntryMode(StrEnum):
    """How a card was read; the value is also the channel that rules may name."""

    MANUAL = "manual"
    STRIPE = "stripe"
    #: A chip card whose chip could not be read: by its stripe instead.
    FALLBACK = "fallback"
    CONSUMER_QR = "qr"
    #: The wallet paid an order that the merchant had presented.
    MERCHANT_QR = "order_qr"
    CHIP = "chip"
    CONTACTLESS = "contactless"
    ECOMMERCE = "ecommerce"


#: By the first two digits of DE22. What isn't here is refused by the gateway.
ENTRY_MODES: Mapping[str, EntryMode] = {
    "01": EntryMode.MANUAL,
    "02": EntryMode.STRIPE,
    "90": EntryMode.STRIPE,
    "03": EntryMode.CONSUMER_QR,
    "04": EntryMode.MERCHANT_QR,
    "05": EntryMode.CHIP,
    "95": EntryMode.CHIP,  # the terminal knows that the track 2 image may be unreliable
    "07": EntryMode.CONTACTLESS,
    "80": EntryMode.FALLBACK,
    "81": EntryMode.ECOMMERCE,
}
#: Modes in which a chip speaks, so that DE55 belongs to the message.
CHIP_MODES = frozenset({EntryMode.CHIP, EntryMode.CONTACTLESS})
#: Modes in which the stripe was read.
STRIPE_MODES = frozenset({EntryMode.STRIPE, EntryMode.FALLBACK})
#: Modes of a consumer's single-use code.
CODE_MODES = frozenset({EntryMode.CONSUMER_QR, EntryMode.MERCHANT_QR})


def entry_mode_of(de22: str, channel: str = "pos") -> EntryMode | None:
    """How the card was read; None if DE22 says nothing known. Keyed in online: e-commerce."""
    mode = ENTRY_MODES.get(de22[:2])
    if mode is EntryMode.MANUAL and channel == "ecommerce":
        return EntryMode.ECOMMERCE
    return mode
