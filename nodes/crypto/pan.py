"""Card numbers: check digit, mask, sealed storage and keyed look-up.

A PAN is stored encrypted (AES-256-GCM) and found by a keyed HMAC; it is shown as first six and last
four digits. An unkeyed hash of a PAN is guessed in milliseconds and never made.
"""

from __future__ import annotations

import hmac
import secrets

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def luhn_digit(body: str) -> str:
    """The check digit that follows `body` (ISO/IEC 7812-1, annex B)."""
    total = 0
    for position, digit in enumerate(reversed(body)):
        total += _DOUBLED[int(digit)] if position % 2 == 0 else int(digit)
    return str(-total % 10)


def is_valid_pan(pan: str) -> bool:
    """12 to 19 ASCII digits with a right check digit."""
    return (
        12 <= len(pan) <= 19 and pan.isascii() and pan.isdigit() and luhn_digit(pan[:-1]) == pan[-1]
    )


def mask(pan: str) -> str:
    """First six and last four digits (PCI DSS, requirement 3.4.1)."""
    return f"{pan[:6]}{'*' * (len(pan) - 10)}{pan[-4:]}"


def random_pan(bin_range: str, length: int = 16) -> str:
    """A card number in a range: range, random digits, check digit."""
    fill = length - len(bin_range) - 1
    body = bin_range + "".join(secrets.choice("0123456789") for _ in range(fill))
    return body + luhn_digit(body)


class PanVault:
    """Seals, opens and finds card numbers with an issuer's keys."""

    def __init__(self, encryption_key: bytes, lookup_key: bytes) -> None:
        self._aead = AESGCM(encryption_key)
        self._lookup_key = lookup_key

    def lookup(self, pan: str) -> bytes:
        """The keyed HMAC-SHA256 by which a card is found (32 bytes)."""
        return hmac.digest(self._lookup_key, pan.encode("ascii"), "sha256")

    def seal(self, pan: str, card_token: bytes) -> bytes:
        """nonce (12) || ciphertext || tag, bound to the card's token."""
        nonce = secrets.token_bytes(12)
        return nonce + self._aead.encrypt(nonce, pan.encode("ascii"), card_token)

    def open(self, sealed: bytes, card_token: bytes) -> str:
        """The card number; cryptography.exceptions.InvalidTag if row or token were altered."""
        return self._aead.decrypt(sealed[:12], sealed[12:], card_token).decode("ascii")

    def __repr__(self) -> str:
        return "PanVault()"
