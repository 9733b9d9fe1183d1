"""The Hsm seam: the only place where a PIN or a working key exists in the clear.

Callers name keys; they never hold them. `SoftwareHsm` keeps the keys in the process and is the
default; a PKCS#11 module is a second implementation of the same protocol.

Algorithms: SM4 (GB/T 32907-2016), CMAC (NIST SP 800-38B) over SM4, truncated to its first 8 bytes
as the MAC of a message, HMAC-SHA256 (RFC 2104) over card token and PIN as what an issuer stores.

The SM4 PIN block (16 bytes) is SM4-ECB over `PIN field XOR PAN field`:

    PIN field   0L PP PP .. FF     L: number of digits (4-12), P: the digits in BCD, F to 16 bytes
    PAN field   00 * 10, then the 12 rightmost digits of the PAN without its check digit, in BCD

PIN digits (bytes 1-6) and PAN digits (bytes 10-15) don't overlap: the fill over the PAN digits is
checked after the XOR, so a block that belongs to another PAN is refused as invalid.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from nodes.crypto.keyed_hash import KeyedHash

#: Bytes of an SM4 key, of an SM4 block and therefore of a PIN block.
BLOCK = 16
#: Bytes of a message's MAC (DE64): the first 8 of the CMAC.
MAC_LENGTH = 8
#: Bytes of a key's check value: the first 4 of SM4-ECB over a zero block.
CHECK_VALUE_LENGTH = 4
#: Name of the key under which an issuer's lookup values of PINs are made.
PIN_LOOKUP_KEY = "pin_lookup"

_PIN_LENGTHS = range(4, 13)
_DIGITS = frozenset("0123456789")


class PinBlockInvalid(ValueError):
    """A PIN block doesn't decrypt to a well-formed PIN for this PAN. Says nothing more."""

    def __init__(self) -> None:
        super().__init__("PIN block invalid")


class KeyUnavailable(KeyError):
    """The HSM holds no key of that name."""


class WrappedKeyInvalid(ValueError):
    """A wrapped key has a wrong length or doesn't fit its check value."""


class Hsm(Protocol):
    """What the network asks of a hardware security module. Keys go by name.

    Every method raises KeyUnavailable for a name that isn't there.
    """

    def translate_pin(self, from_key: str, to_key: str, pin_block: bytes, pan: str) -> bytes:
        """The PIN block under `to_key` of one under `from_key`; PinBlockInvalid if it is none."""
        ...

    def verify_pin(
        self, zone_key: str, pin_block: bytes, pan: str, card_token: bytes, stored: bytes
    ) -> bool:
        """Whether the PIN in the block is the one `stored` was made of (in constant time).

        PinBlockInvalid if the block isn't one for this PAN.
        """
        ...

    def pin_lookup(self, card_token: bytes, pin: str) -> bytes:
        """The 32 bytes that an issuer stores for a card's PIN (4-12 digits, else ValueError)."""
        ...

    def mac(self, key: str, message: bytes) -> bytes:
        """The 8 bytes of SM4-CMAC over `message`."""
        ...

    def verify_mac(self, key: str, message: bytes, mac: bytes) -> bool:
        """Whether `mac` is the 8 bytes of SM4-CMAC over `message` (in constant time)."""
        ...

    def derive(self, parent: str, label: bytes, name: str) -> None:
        """Make the key `name` = SM4-CMAC(parent, label), 16 bytes; it stays inside."""
        ...

    def forget(self, name: str) -> None:
        """Drop a key that was derived or unwrapped; no error if it isn't there."""
        ...

    def wrap(self, wrapping_key: str, key: str) -> bytes:
        """The key under another one: SM4-ECB, 16 bytes."""
        ...

    def unwrap(self, wrapping_key: str, wrapped: bytes, check_value: bytes, name: str) -> None:
        """Take a wrapped key in as `name`; WrappedKeyInvalid if its check value differs."""
        ...

    def check_value(self, key: str) -> bytes:
        """The first 4 bytes of SM4-ECB over a zero block."""
        ...


class SoftwareHsm:
    """An Hsm whose keys live in this process. One a thread: it reuses cipher contexts.

    `keys` maps names to secrets: 16 bytes for SM4, any length for `pin_lookup`. Neither repr nor
    any error shows a key.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = {name: bytes(key) for name, key in keys.items()}
        self._macs: dict[str, CMAC] = {}
        self._encryptors: dict[str, CipherContext] = {}
        self._decryptors: dict[str, CipherContext] = {}
        self._pins: KeyedHash | None = None

    def __repr__(self) -> str:
        return f"SoftwareHsm({len(self._keys)} keys)"

    def translate_pin(self, from_key: str, to_key: str, pin_block: bytes, pan: str) -> bytes:
        """See Hsm.translate_pin."""
        # Checked, not only re-encrypted: a bad block ends here, not at the issuer. The clear block
        # is the same under both keys.
        clear = self._clear(from_key, pin_block)
        _pin_in(clear, pan)
        return self._encryptor(to_key).update(clear)

    def verify_pin(
        self, zone_key: str, pin_block: bytes, pan: str, card_token: bytes, stored: bytes
    ) -> bool:
        """See Hsm.verify_pin."""
        pin = self._open_pin(zone_key, pin_block, pan)
        return hmac.compare_digest(self.pin_lookup(card_token, pin), stored)

    def seal_pin(self, key: str, pin: str, pan: str) -> bytes:
        """The PIN block of a PIN that was just entered: for the secure module of a terminal.

        No part of Hsm: a gateway or node never has a clear PIN to call it with.
        """
        if len(pin) not in _PIN_LENGTHS or not _DIGITS.issuperset(pin):
            raise ValueError("a PIN is 4 to 12 digits")
        return self._seal_pin(key, pin, pan)

    def pin_lookup(self, card_token: bytes, pin: str) -> bytes:
        """See Hsm.pin_lookup."""
        if len(pin) not in _PIN_LENGTHS or not _DIGITS.issuperset(pin):
            raise ValueError("a PIN is 4 to 12 digits")
        if self._pins is None:
            self._pins = KeyedHash(self._secret(PIN_LOOKUP_KEY))
        return self._pins.digest(card_token + pin.encode("ascii"))

    def mac(self, key: str, message: bytes) -> bytes:
        """See Hsm.mac."""
        return self._cmac(key, message)[:MAC_LENGTH]

    def verify_mac(self, key: str, message: bytes, mac: bytes) -> bool:
        """See Hsm.verify_mac."""
        return hmac.compare_digest(self._cmac(key, message)[:MAC_LENGTH], mac)

    def derive(self, parent: str, label: bytes, name: str) -> None:
        """See Hsm.derive."""
        self._put(name, self._cmac(parent, label))

    def forget(self, name: str) -> None:
        """See Hsm.forget."""
        self._keys.pop(name, None)
        self._drop_contexts(name)

    def wrap(self, wrapping_key: str, key: str) -> bytes:
        """See Hsm.wrap."""
        return self._encryptor(wrapping_key).update(self._secret(key))

    def unwrap(self, wrapping_key: str, wrapped: bytes, check_value: bytes, name: str) -> None:
        """See Hsm.unwrap."""
        if len(wrapped) != BLOCK or len(check_value) != CHECK_VALUE_LENGTH:
            raise WrappedKeyInvalid("a wrapped key is 16 bytes, its check value 4")
        key = self._decryptor(wrapping_key).update(wrapped)
        if not hmac.compare_digest(_check_value(key), check_value):
            raise WrappedKeyInvalid("the check value is of another key")
        self._put(name, key)

    def check_value(self, key: str) -> bytes:
        """See Hsm.check_value."""
        return _check_value(self._secret(key))

    def _secret(self, name: str) -> bytes:
        try:
            return self._keys[name]
        except KeyError:
            raise KeyUnavailable(name) from None

    def _put(self, name: str, key: bytes) -> None:
        self._keys[name] = key
        self._drop_contexts(name)

    def _drop_contexts(self, name: str) -> None:
        for contexts in (self._macs, self._encryptors, self._decryptors):
            contexts.pop(name, None)
        if name == PIN_LOOKUP_KEY:
            self._pins = None

    def _cmac(self, name: str, message: bytes) -> bytes:
        state = self._macs.get(name)
        if state is None:
            state = self._macs[name] = CMAC(algorithms.SM4(self._secret(name)))
        # A copy of the keyed state costs less than half of a new key schedule.
        state = state.copy()
        state.update(message)
        return state.finalize()

    # In ECB whole blocks leave nothing in a context, so one serves any number of them.

    def _encryptor(self, name: str) -> CipherContext:
        context = self._encryptors.get(name)
        if context is None:
            context = self._encryptors[name] = _sm4(self._secret(name)).encryptor()
        return context

    def _decryptor(self, name: str) -> CipherContext:
        context = self._decryptors.get(name)
        if context is None:
            context = self._decryptors[name] = _sm4(self._secret(name)).decryptor()
        return context

    def _seal_pin(self, key: str, pin: str, pan: str) -> bytes:
        return self._encryptor(key).update(_clear_block(pin, pan))

    def _open_pin(self, key: str, pin_block: bytes, pan: str) -> str:
        return _pin_in(self._clear(key, pin_block), pan)

    def _clear(self, key: str, pin_block: bytes) -> bytes:
        if len(pin_block) != BLOCK:
            raise PinBlockInvalid
        return self._decryptor(key).update(pin_block)


def _pin_in(clear: bytes, pan: str) -> str:
    """The PIN of a clear block; PinBlockInvalid if it isn't one for this PAN."""
    if len(pan) < 13 or not pan.isdecimal() or not pan.isascii():
        raise PinBlockInvalid
    field = int.from_bytes(clear, "big") ^ int(pan[-13:-1], 16)
    text = f"{field:032x}"
    length = int(text[:2], 16)
    pin = text[2 : 2 + length]
    if length not in _PIN_LENGTHS or not pin.isdecimal():
        raise PinBlockInvalid
    if not hmac.compare_digest(text, f"{text[:2]}{pin:f<30}"):
        raise PinBlockInvalid
    return pin


def _sm4(key: bytes) -> Cipher[modes.ECB]:
    return Cipher(algorithms.SM4(key), modes.ECB())  # noqa: S305 (single blocks only)


def _check_value(key: bytes) -> bytes:
    return _sm4(key).encryptor().update(bytes(BLOCK))[:CHECK_VALUE_LENGTH]


def _pin_field(pin: str) -> bytes:
    return bytes.fromhex(f"{len(pin):02x}{pin.ljust(2 * (BLOCK - 1), 'f')}")


def _pan_field(pan: str) -> bytes:
    if len(pan) < 13 or not _DIGITS.issuperset(pan):
        raise PinBlockInvalid
    return bytes(10) + bytes.fromhex(pan[-13:-1])


def _clear_block(pin: str, pan: str) -> bytes:
    return (
        int.from_bytes(_pin_field(pin), "big") ^ int.from_bytes(_pan_field(pan), "big")
    ).to_bytes(BLOCK, "big")
