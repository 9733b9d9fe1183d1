"""What the network asks of a hardware security module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from nodes.crypto.hsm.model import Algorithm, KeyUse


class Hsm(Protocol):
    """Keys go by name; what a key is (Algorithm) decides how it works.

    Every method raises KeyUnavailable for a name that isn't there.
    """

    # PINs

    def translate_pin(self, from_key: str, to_key: str, pin_block: bytes, pan: str) -> bytes:
        """The PIN block under `to_key` of one under `from_key`; PinBlockInvalid if it is none.

        Each key's algorithm decides the format: SM4 16 bytes, AES ISO 9564 format 4 (16), 3DES
        format 0 (8; format 3 is read, too).
        """
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

    # Messages

    def mac(self, key: str, message: bytes) -> bytes:
        """The 8 bytes of MAC over `message`.

        SM4 and AES: CMAC (NIST SP 800-38B), its first half. 3DES: ISO/IEC 9797-1 MAC algorithm 3
        with padding method 2.
        """
        ...

    def verify_mac(self, key: str, message: bytes, mac: bytes) -> bool:
        """Whether `mac` is that of `message` (in constant time)."""
        ...

    def cover(self, key: str, plain: bytes, associated: bytes) -> bytes:
        """`plain` encrypted, fresh each time.

        SM4 and AES: nonce (12), GCM cipher text, tag (16), bound to `associated`. 3DES: initial
        value (8), CBC over padding method 2; nothing authenticates it but the message's MAC.
        """
        ...

    def uncover(self, key: str, covered: bytes, associated: bytes) -> bytes:
        """What was covered; CoverInvalid."""
        ...

    # Keys

    def derive(
        self, parent: str, label: bytes, name: str, algorithm: Algorithm = Algorithm.SM4
    ) -> None:
        """Make the key `name` = CMAC(parent, label), 16 bytes; it stays inside.

        Under a 3DES parent, whose blocks are 8 bytes: CMAC(label, 01), then CMAC(label, 02).
        """
        ...

    def generate(self, name: str) -> None:
        """Make a random SM4 key."""
        ...

    def derive_dukpt(
        self, base_key: str, serial_number: bytes, names: Mapping[KeyUse, str]
    ) -> None:
        """Make a transaction's working keys (AES DUKPT, X9.24-3) from a base derivation key.

        `serial_number`: 12 bytes, initial key id (8) and counter (4, not 0: else ValueError).
        """
        ...

    def derive_sm2(self, parent: str, label: bytes, name: str) -> None:
        """Make an SM2 key pair from a key: its private number follows from CMACs of the label."""
        ...

    def forget(self, name: str) -> None:
        """Drop a key that was derived or unwrapped; no error if it isn't there."""
        ...

    def check_value(self, key: str) -> bytes:
        """4 bytes that tell keys apart: of the encrypted zero block, for AES of its CMAC."""
        ...

    def wrap(self, wrapping_key: str, key: str) -> bytes:
        """The key under an SM4 one: SM4-ECB, 16 bytes."""
        ...

    def unwrap(self, wrapping_key: str, wrapped: bytes, check_value: bytes, name: str) -> None:
        """Take a wrapped SM4 key in as `name`; WrappedKeyInvalid if its check value differs."""
        ...

    def wrap_block(self, wrapping_key: str, key: str, use: KeyUse) -> str:
        """The key as a TR-31 key block: version D under AES, version B under 3DES."""
        ...

    def unwrap_block(self, wrapping_key: str, block: str, use: KeyUse, name: str) -> None:
        """Take a key block's key in as `name`; WrappedKeyInvalid, also for another use."""
        ...

    def wrap_sm2(self, public_key: bytes, keys: Sequence[str]) -> bytes:
        """Keys of 16 bytes each, one behind the other, encrypted to an SM2 public key."""
        ...

    def sm2_sign(self, key: str, message: bytes) -> bytes:
        """The 64 bytes (r, s) of an SM2 signature."""
        ...

    def sm2_public_key(self, key: str) -> bytes:
        """x and y of an SM2 key pair, 64 bytes."""
        ...

    def split(self, key: str) -> tuple[bytes, bytes]:
        """Two components whose XOR is the key: for two custodians who enter it by hand."""
        ...
