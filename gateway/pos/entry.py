"""How a terminal read the card (DE22), and whether the message carries what belongs to that."""

from __future__ import annotations

from collections.abc import Mapping

from nodes.authorization.entry_modes import CHIP_MODES, ENTRY_MODES, STRIPE_MODES

#: Elements 22, 35 and 55 of a request.
ENTRY_MODE, TRACK_2, CHIP_DATA = 22, 35, 55
#: Expiry and service code, between the separator and the discretionary data (ISO/IEC 7813).
_FIXED_DIGITS = 7


def contradiction(text: Mapping[int, str], icc: bytes | None) -> int | None:
    """The element that contradicts how the card was read; None if none does.

    An entry mode that isn't known, chip data without a chip, a stripe without its track.
    """
    mode = ENTRY_MODES.get(text[ENTRY_MODE][:2])
    if mode is None:
        return ENTRY_MODE
    if icc is not None and mode not in CHIP_MODES:
        return CHIP_DATA
    if mode in STRIPE_MODES and TRACK_2 not in text:
        return TRACK_2
    return None


def discretionary(track2: str | None) -> str | None:
    """What follows PAN, expiry and service code on track 2: the issuer's own, check values."""
    if track2 is None:
        return None
    return track2.partition("D")[2][_FIXED_DIGITS:].rstrip("F") or None
