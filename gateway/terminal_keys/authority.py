"""The gateway's own authority over terminals' certificates (docs/keys.md, Certificates).

Its SM2 key follows from the master key, like every other of the gateway's: nothing is stored. An
acquirer may as well trust an authority of its own, or both.
"""

from __future__ import annotations

import hashlib
import secrets

from gateway.terminal_keys.ring import MASTER_KEY
from nodes.crypto.certificates import Certificate, make_certificate
from nodes.crypto.hsm import SoftwareHsm

AUTHORITY_LABEL = b"countersign/terminal-authority/1"
#: How long a terminal's certificate holds unless something else is asked for; the authority's own.
DAYS, AUTHORITY_DAYS = 5 * 365, 25 * 365
_DAY_MS = 86_400_000
#: Terminals' clocks and the authority's differ.
_BEFORE_MS = 3_600_000
_SERIAL = 16
_KEY = "enrolment:authority"


def authority_certificate(hsm: SoftwareHsm, now_ms: int) -> Certificate:
    """The authority's own certificate, from now on. KeyUnavailable without the master key."""
    return _made(hsm, None, b"", now_ms, AUTHORITY_DAYS)


def certify(
    hsm: SoftwareHsm, terminal_id: str, public_key: bytes, now_ms: int, days: int = DAYS
) -> Certificate:
    """The certificate of a terminal's SM2 key (x and y), from now on for so many days."""
    return _made(hsm, terminal_id, public_key, now_ms, days)


def _made(
    hsm: SoftwareHsm, terminal_id: str | None, public_key: bytes, now_ms: int, days: int
) -> Certificate:
    hsm.derive_sm2(MASTER_KEY, AUTHORITY_LABEL, _KEY)
    try:
        own = hsm.sm2_public_key(_KEY)
        # The same name for the same key, so that a new copy of its certificate stands for the old.
        name = f"Countersign terminals {hashlib.sha256(own).hexdigest()[:8]}"
        return make_certificate(
            lambda text: hsm.sm2_sign(_KEY, text),
            serial=bytes((1 + secrets.randbelow(0x7F),)) + secrets.token_bytes(_SERIAL - 1),
            subject=terminal_id or name,
            public_key=public_key or own,
            issuer=name,
            issuer_key=own,
            not_before_ms=now_ms - _BEFORE_MS,
            not_after_ms=now_ms + days * _DAY_MS,
            authority=terminal_id is None,
        )
    finally:
        hsm.forget(_KEY)
