"""Card numbers: check digit, mask, sealed storage and keyed look-up.

A PAN is stored encrypted (AES-256-GCM) and found by a keyed HMAC; it is shown as first six and last
four digits. An unkeyed hash of a PAN is guessed in milliseconds and never made.
"""

from __future__ import annotations

import secrets

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nodes.crypto.keyed_hash import KeyedHash

#: The ASCII byte of a digit to the digit itself, and to the digit sum of its double.
_SINGLE = bytes(byte - 48 if 48 <= byte < 58 else 0 for byte in range(256))
_DOUBLED = bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)[byte] for byte in _SINGLE)


def luhn_digit(body: str) -> str:
    """The check digit that follows `body` (ISO/IEC 7812-1, annex B)."""
    raw = body.encode("ascii")
    total = sum(raw[::-2].translate(_DOUBLED)) + sum(raw[-2::-2].translate(_SINGLE))
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


def derived_pan(bin_range: str, digest: bytes, length: int = 16) -> str:
    """A card number in a range whose other digits follow from a keyed digest."""
    fill = length - len(bin_range) - 1
    body = f"{bin_range}{int.from_bytes(digest) % 10**fill:0{fill}d}"
    return body + luhn_digit(body)


class PanVault:
    """Seals, opens and finds card numbers with an issuer's keys."""

    def __init__(self, encryption_key: bytes, lookup_key: bytes) -> None:
        self._aead = AESGCM(encryption_key)
        self._lookup = KeyedHash(lookup_key)

    def lookup(self, pan: str) -> bytes:
        """The keyed HMAC-SHA256 by which a card is found (32 bytes)."""
        return self._lookup.digest(pan.encode("ascii"))

    def seal(self, pan: str, card_token: bytes) -> bytes:
        """nonce (12) || ciphertext || tag, bound to the card's token."""
        nonce = secrets.token_bytes(12)
        return nonce + self._aead.encrypt(nonce, pan.encode("ascii"), card_token)

    def open(self, sealed: bytes, card_token: bytes) -> str:
        """The card number; cryptography.exceptions.InvalidTag if row or token were altered."""
        return self._aead.decrypt(sealed[:12], sealed[12:], card_token).decode("ascii")

    def __repr__(self) -> str:
        return "PanVault()"
