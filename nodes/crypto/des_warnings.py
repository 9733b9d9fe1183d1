"""What `cryptography` says of DES at each first use, said once here instead of on every stderr.

psec and pyemv take 3DES from where `cryptography` had it first (both places are the same class).
TR-31 version B, CVV and EMV's DES profiles are made of one-key and two-key 3DES by definition
(docs/keys.md: the legacy suite is at the end of its life).
"""

from __future__ import annotations

import warnings

from cryptography.utils import CryptographyDeprecationWarning

_MESSAGES = ("TripleDES has been moved", "Two-key TripleDES", "Single-key TripleDES")


def silence() -> None:
    """Not these three warnings, and no others, from now on in this process."""
    for message in _MESSAGES:
        warnings.filterwarnings("ignore", message=message, category=CryptographyDeprecationWarning)
