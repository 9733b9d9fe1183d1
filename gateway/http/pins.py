"""PINs over the HTTP API: a key for a smart terminal's PIN pad, and what comes sealed under it.

Where TLS ends and where JSON is read, a PIN is a block under a key that only the terminal's secure
module and the gateway's HSM have. The key is encrypted to an ephemeral SM2 key of the terminal and
the gateway signs it, as in a sign-on on the POS link (docs/keys.md). It follows from the key of the
period in which the session ends, the caller and the session's id, which has that end in it: no
front stores it, and after the period nobody can make it again.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from gateway.http.bodies import PinBody, PinKeyAnswer, PinKeyBody
from gateway.http.problems import ApiProblem
from gateway.terminal_keys.ring import MASTER_KEY, SIGNING_KEY, ZONE_KEY, Periods
from nodes.acquiring.online.model import FrontKey
from nodes.crypto import sm2
from nodes.crypto.hsm import Hsm, KeyUnavailable, PinBlockInvalid

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


class PinKeys:
    """Makes sessions' keys anew from what a front has. Names of keys; the keys stay in the HSM.

    `periods`: None, and they follow from the master key itself: no forward secrecy then.
    """

    def __init__(self, hsm: Hsm, period_s: int, periods: Periods | None = None) -> None:
        self._hsm = hsm
        self._period_s = period_s
        self._periods = periods

    def advance(self, now_ms: int) -> None:
        """Erase the keys of periods that are over; see PeriodKeys.advance."""
        if self._periods is not None:
            self._periods.advance(now_ms)

    def grant(self, body: PinKeyBody, caller: FrontKey, now_s: int) -> PinKeyAnswer:
        """A key for this caller's PIN pad. ApiProblem 422 for a public key that is none, 503 where
        the clock was set back behind a period that is erased."""
        hsm, ephemeral = self._hsm, bytes.fromhex(body.public_key)
        try:
            sm2.check_public(ephemeral)
        except sm2.Sm2KeyInvalid:
            raise ApiProblem(
                422, "public-key-invalid", "Not a point of the SM2 curve.", at="$.public_key"
            ) from None
        ends = now_s + LIFETIME_S
        session = f"{ends:0{_END_DIGITS}x}{secrets.token_hex(20)}"
        try:
            self._derive(caller, session, ends)
            key, check = hsm.wrap_sm2(ephemeral, [_NAME]), hsm.check_value(_NAME)
        except KeyUnavailable:
            raise ApiProblem(503, "keys-unavailable", "The gateway's clock is wrong.") from None
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

    def translated(self, pin: PinBody, caller: FrontKey, pan: str, now_s: int) -> bytes:
        """The PIN block under the zone key. ApiProblem 422 if it isn't this caller's and card's."""
        ends = int(pin.session[:_END_DIGITS], 16)
        if not now_s < ends <= now_s + LIFETIME_S:
            raise _expired()
        try:
            self._derive(caller, pin.session, ends)
            return self._hsm.translate_pin(_NAME, ZONE_KEY, pin.block, pan)
        except KeyUnavailable:
            raise _expired() from None
        except PinBlockInvalid:
            raise ApiProblem(
                422, "pin-block-invalid", "Not a PIN block of this card.", at="$.card.pin.block"
            ) from None
        finally:
            self._hsm.forget(_NAME)

    def _derive(self, caller: FrontKey, session: str, ends: int) -> None:
        # Of the period of its end: that one's key is there as long as the session is taken.
        parent = MASTER_KEY
        if self._periods is not None:
            parent = self._periods.key(ends // self._period_s)
        label = _LABEL + f"{caller.key_id}\x1f{session}".encode("ascii")
        self._hsm.derive(parent, label, _NAME)


def _expired() -> ApiProblem:
    return ApiProblem(
        422, "pin-key-expired", "Ask for another key and enter the PIN again.", at="$.card.pin"
    )
