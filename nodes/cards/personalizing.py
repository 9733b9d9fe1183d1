"""What a card is made with: chip keys and check values, sealed for whoever writes the card."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from nodes.cards.model import CardForm, Making
from nodes.crypto.emv import (
    CVK,
    ECOMMERCE_SERVICE_CODE,
    ChipIdentity,
    ChipProfile,
    EmvHsm,
    EmvKeysMissing,
)


class Made(NamedTuple):
    """The row's part (JSON of state.CardEntry), the personalizer's, and a virtual card's CVV2."""

    entry: str | None = None
    sealed: bytes | None = None
    cvv2: str | None = None

    def __repr__(self) -> str:
        return "Made()"


def personalize(
    emv: EmvHsm | None, making: Making, pan: str, expiry: str, service_code: str
) -> Made:
    """Keys and check values of one new card. EmvKeysMissing if the issuer has none."""
    if making.form is CardForm.PLAIN:
        return Made()
    if emv is None:
        raise EmvKeysMissing(CVK)
    virtual = making.form is CardForm.VIRTUAL
    entry: dict[str, Any] = {"psn": making.psn}
    chip = None
    if making.form is CardForm.CHIP:
        chip = ChipIdentity(pan, making.psn, ChipProfile(making.profile), making.derivation)
        entry |= {"profile": making.profile, "derivation": making.derivation}
    if virtual:
        entry["virtual"] = True
    return Made(
        json.dumps(entry),
        emv.seal_personalization(pan, making.psn, expiry, service_code, chip, virtual=virtual),
        emv.check_value(pan, expiry, ECOMMERCE_SERVICE_CODE) if virtual else None,
    )
