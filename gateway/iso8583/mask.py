"""Card numbers for human eyes: first 6 and last 4 digits. Standard library only."""

from __future__ import annotations

import re

#: Runs that may be card numbers, track 2 included: 13 to 19 digits, whatever stands around them.
_NUMBER = re.compile(r"(?<![0-9])[0-9]{13,19}(?![0-9])")


def mask_pan(pan: str) -> str:
    """`622300******0017`; everything is hidden of a number too short for that."""
    if len(pan) < 13:
        return "*" * len(pan)
    return f"{pan[:6]}{'*' * (len(pan) - 10)}{pan[-4:]}"


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is the check digit (ISO/IEC 7812-1, annex B)."""
    reverse = digits[::-1].encode("ascii").translate(_VALUES)
    return (sum(reverse[::2]) + sum(reverse[1::2].translate(_DOUBLED))) % 10 == 0


#: Digits in ASCII to their values, and these to the digit sums of their doubles.
_VALUES = bytes(byte & 0x0F for byte in range(256))
_DOUBLED = bytes(sum(map(int, str(2 * value))) for value in range(256))


def redact(text: str) -> str:
    """`text` with everything that passes for a card number masked: the last net below the logs."""
    return _NUMBER.sub(lambda match: mask_pan(match.group()), text)
