"""Which engine computes SM2, chosen once."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

from nodes.crypto.sm2.curve import DEFAULT_ID
from nodes.crypto.sm2.fallback import GmsslSm2
from nodes.crypto.sm2.libcrypto import LibcryptoSm2, LibcryptoUnusable


class Sm2(Protocol):
    """What an engine does. Sm2KeyInvalid for a key that is none, whatever is asked."""

    name: str

    def generate(self) -> tuple[bytes, bytes]:
        """A new private key and its public key."""
        ...

    def public_key(self, private: bytes) -> bytes:
        """The public key of a private one."""
        ...

    def sign(self, private: bytes, message: bytes, user_id: bytes = DEFAULT_ID) -> bytes:
        """A signature with a fresh nonce."""
        ...

    def verify(
        self, public: bytes, message: bytes, signature: bytes, user_id: bytes = DEFAULT_ID
    ) -> bool:
        """Whether the signature is the key's over the message; False for a malformed one."""
        ...

    def encrypt(self, public: bytes, plain: bytes) -> bytes:
        """The cipher text of at least one byte, with a fresh nonce."""
        ...

    def decrypt(self, private: bytes, cipher: bytes) -> bytes:
        """The plain text; Sm2CipherInvalid unless C3 fits it."""
        ...


@lru_cache(maxsize=1)
def provider() -> Sm2:
    """The system's libcrypto if it can do SM2, else the fallback."""
    try:
        return LibcryptoSm2()
    except LibcryptoUnusable:
        return GmsslSm2()
