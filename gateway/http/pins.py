"""PINs over the HTTP API: a key for a smart terminal's PIN pad, and what comes sealed under it.

Where TLS ends and where JSON is read, a PIN is a block under a key that only the terminal's secure
module and the gateway's HSM have. The key is encrypted to an ephemeral SM2 key of the terminal and
the gateway signs it, as in a sign-on on the POS link (docs/keys.md). It follows from the master
key, the caller and the session's id, which has its own end in it: no front stores it.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from gateway.http.bodies import PinBody, PinKeyAnswer, PinKeyBody
from gateway.http.problems import ApiProblem
from gateway.terminal_keys.ring import MASTER_KEY, SIGNING_KEY, ZONE_KEY
from nodes.acquiring.online.model import FrontKey
from nodes.crypto import sm2
from nodes.crypto.hsm import Hsm, PinBlockInvalid

#: How long a key is taken, in seconds.
LIFETIME_S = 900
#: What the gateway's signature covers before caller, session, ephemeral key, envelope and check
#: value.
GRANT_TEXT = b"countersign/pin-key/1"
_LABEL = b"countersign/http-pin/1\x1f"
_NAME = "http-pin"
_END_DIGITS = 8


def granted(caller: str, session: str, ephemeral: bytes, key: bytes, check_value: bytes) -> bytes:
    """What the gateway signs of a grant."""
    names = f"\x1f{caller}\x1f{session}\x1f".encode("ascii")
    return GRANT_TEXT + names + ephemeral + key + check_value


def grant(body: PinKeyBody, caller: FrontKey, hsm: Hsm, now_s: int) -> PinKeyAnswer:
    """A key for this caller's PIN pad. ApiProblem 422 for a public key that is none."""
    ephemeral = bytes.fromhex(body.public_key)
    try:
        sm2.check_public(ephemeral)
    except sm2.Sm2KeyInvalid:
        raise ApiProblem(
            422, "public-key-invalid", "Not a point of the SM2 curve.", at="$.public_key"
        ) from None
    ends = now_s + LIFETIME_S
    session = f"{ends:0{_END_DIGITS}x}{secrets.token_hex(20)}"
    hsm.derive(MASTER_KEY, _label(caller, session), _NAME)
    try:
        key, check = hsm.wrap_sm2(ephemeral, [_NAME]), hsm.check_value(_NAME)
    finally:
        hsm.forget(_NAME)
    text = granted(caller.key_id, session, ephemeral, key, check)
    expires = datetime.fromtimestamp(ends, UTC)
    return PinKeyAnswer(
        session=session,
        expires_at=f"{expires:%Y-%m-%dT%H:%M:%SZ}",
        key=key,
        check_value=check.hex().upper(),
        signature=hsm.sm2_sign(SIGNING_KEY, text),
    )


def translated(pin: PinBody, caller: FrontKey, pan: str, hsm: Hsm, now_s: int) -> bytes:
    """The PIN block under the zone key. ApiProblem 422 if it isn't this caller's and card's."""
    if not now_s < int(pin.session[:_END_DIGITS], 16) <= now_s + LIFETIME_S:
        raise ApiProblem(
            422, "pin-key-expired", "Ask for another key and enter the PIN again.", at="$.card.pin"
        )
    hsm.derive(MASTER_KEY, _label(caller, pin.session), _NAME)
    try:
        return hsm.translate_pin(_NAME, ZONE_KEY, pin.block, pan)
    except PinBlockInvalid:
        raise ApiProblem(
            422, "pin-block-invalid", "Not a PIN block of this card.", at="$.card.pin.block"
        ) from None
    finally:
        hsm.forget(_NAME)


def _label(caller: FrontKey, session: str) -> bytes:
    return _LABEL + f"{caller.key_id}\x1f{session}".encode("ascii")
