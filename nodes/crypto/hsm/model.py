"""Kinds of keys, and what can be wrong with what is given to an HSM."""

from __future__ import annotations

from enum import StrEnum

#: Bytes of an SM4 or AES block, and of every key that is derived here.
BLOCK = 16
#: Bytes of a message's MAC (DE64).
MAC_LENGTH = 8
#: Bytes of a key's check value.
CHECK_VALUE_LENGTH = 4
#: Name of the key under which an issuer's lookup values of PINs are made.
PIN_LOOKUP_KEY = "pin_lookup"

PIN_LENGTHS = range(4, 13)
DIGITS = frozenset("0123456789")


class Algorithm(StrEnum):
    """The cipher of a key; it decides PIN block format, MAC and cover (docs/keys.md, Suites)."""

    SM4 = "sm4"
    AES = "aes"
    TDES = "tdes"  # two keys, 16 bytes


class KeyUse(StrEnum):
    """What a key is for; one use a key."""

    PIN = "pin"
    MAC = "mac"
    #: The MAC of answers, where it has a key of its own (DUKPT).
    ANSWER_MAC = "answer_mac"
    DATA = "data"
    #: A key under which others travel.
    WRAPPING = "wrapping"


class PinBlockInvalid(ValueError):
    """A PIN block doesn't decrypt to a well-formed PIN for this PAN. Says nothing more."""

    def __init__(self) -> None:
        super().__init__("PIN block invalid")


class CoverInvalid(ValueError):
    """Covered data was changed, or covered under another key. Says nothing more."""

    def __init__(self) -> None:
        super().__init__("cover invalid")


class KeyUnavailable(KeyError):
    """The HSM holds no key of that name."""


class WrappedKeyInvalid(ValueError):
    """A wrapped key has a wrong length, form or use, or doesn't fit its check value."""
