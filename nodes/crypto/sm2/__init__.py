"""SM2 (GB/T 32918.2 signatures, GB/T 32918.4 encryption) over one of two engines.

`provider()` is the system's libcrypto (OpenSSL 3) where it can do SM2, else the hardened fallback
over gmssl; it is chosen once. Values are raw on both: private keys 32 bytes, public keys x and y
(64 bytes), signatures r and s (64 bytes), cipher texts C1 (x and y, 64 bytes) | C3 (32) | C2.
"""

from nodes.crypto.sm2.curve import (
    CIPHER_OVERHEAD,
    DEFAULT_ID,
    ORDER,
    PRIVATE_LENGTH,
    PUBLIC_LENGTH,
    SIGNATURE_LENGTH,
    Sm2CipherInvalid,
    Sm2KeyInvalid,
    check_public,
)
from nodes.crypto.sm2.engine import Sm2, provider

__all__ = [
    "CIPHER_OVERHEAD",
    "DEFAULT_ID",
    "ORDER",
    "PRIVATE_LENGTH",
    "PUBLIC_LENGTH",
    "SIGNATURE_LENGTH",
    "Sm2",
    "Sm2CipherInvalid",
    "Sm2KeyInvalid",
    "check_public",
    "provider",
]
