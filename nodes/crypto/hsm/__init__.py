"""The Hsm seam: the only place where a PIN or a working key exists in the clear (docs/keys.md).

Callers name keys; they never hold them. `SoftwareHsm` keeps the keys in the process and is the
default; `nodes.crypto.hsm.pkcs11.Pkcs11Hsm` keeps what it can in a PKCS#11 token.
"""

from nodes.crypto.hsm.model import (
    BLOCK,
    CHECK_VALUE_LENGTH,
    MAC_LENGTH,
    PIN_LOOKUP_KEY,
    Algorithm,
    CoverInvalid,
    KeyUnavailable,
    KeyUse,
    PinBlockInvalid,
    WrappedKeyInvalid,
)
from nodes.crypto.hsm.protocol import Hsm
from nodes.crypto.hsm.software import SoftwareHsm

__all__ = [
    "BLOCK",
    "CHECK_VALUE_LENGTH",
    "MAC_LENGTH",
    "PIN_LOOKUP_KEY",
    "Algorithm",
    "CoverInvalid",
    "Hsm",
    "KeyUnavailable",
    "KeyUse",
    "PinBlockInvalid",
    "SoftwareHsm",
    "WrappedKeyInvalid",
]
