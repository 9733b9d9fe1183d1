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
    total = sum(map(int, digits[-1::-2]))
    total += sum(_DOUBLED[digit] for digit in digits[-2::-2])
    return total % 10 == 0


_DOUBLED = {str(digit): sum(map(int, str(2 * digit))) for digit in range(10)}


def redact(text: str) -> str:
    """`text` with everything that passes for a card number masked: the last net below the logs."""
    return _NUMBER.sub(lambda match: mask_pan(match.group()), text)
