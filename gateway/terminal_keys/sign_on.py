"""What a sign-on gives a terminal: DE62 of the 0810 (docs/keys.md, Sign-on).

By the terminal's record: keys encrypted to an ephemeral SM2 key that the terminal's certificate
signed, TR-31 key blocks under the terminal master key, or SM4-ECB under it.
"""

from __future__ import annotations

from enum import Enum

from gateway.iso8583.spec import Suite
from gateway.terminal_keys import tlv
from gateway.terminal_keys.model import KeyManagement, TerminalRecord
from gateway.terminal_keys.ring import SIGNING_KEY, KeyRing, WorkingKeys
from nodes.crypto import sm2
from nodes.crypto.hsm import Hsm, KeyUse

#: What the terminal's signature covers before the values of DE62.
REQUEST_TEXT = b"countersign/sign-on/1"
#: What the gateway's covers before the request's DE62 and its own values.
GRANT_TEXT = b"countersign/grant/1"
_BARE_NONCE = range(8, 17)
_NONCE = 16


class SignOnFlaw(Enum):
    """Why there are no keys."""

    FORMAT = "format"
    #: Not the certificate of this terminal, not its signature, or the certificate's time is over.
    SIGNATURE = "signature"


def signed_request(terminal_id: str, stan: str, values: bytes) -> bytes:
    """What a terminal signs: DE41, DE11 and the values of DE62 before the signature."""
    return REQUEST_TEXT + terminal_id.encode("ascii") + stan.encode("ascii") + values


def signed_grant(terminal_id: str, request: bytes, values: bytes) -> bytes:
    """What the gateway signs: DE41, the request's DE62 and the grant's values before it."""
    return GRANT_TEXT + terminal_id.encode("ascii") + request + values


def grant(
    ring: KeyRing, hsm: Hsm, terminal: TerminalRecord, stan: str, request: bytes, now_ms: int
) -> bytes | SignOnFlaw:
    """DE62 of the answer to a sign-on whose MAC is good; `request` is its DE62."""
    if terminal.management is KeyManagement.DUKPT:
        return SignOnFlaw.FORMAT
    if terminal.management is KeyManagement.TMK and len(request) in _BARE_NONCE:
        return _bare_grant(ring, hsm, terminal, now_ms)
    values = tlv.read(request)
    if values is None or len(values.get(tlv.NONCE, b"")) != _NONCE:
        return SignOnFlaw.FORMAT
    claim = _claim(values.get(tlv.CLAIM))
    if isinstance(claim, SignOnFlaw):
        return claim
    if terminal.management is KeyManagement.SM2:
        flaw = _certified(terminal, stan, request, values, now_ms)
        if flaw is not None:
            return flaw
    epoch, left, keys = ring.present(terminal, now_ms, claim)
    head = {tlv.EPOCH: epoch.to_bytes(2, "big") + left.to_bytes(4, "big")}
    checks = b"".join(hsm.check_value(name) for name in (keys.mac, keys.pin, keys.data))
    if terminal.management is KeyManagement.SM2:
        envelope = hsm.wrap_sm2(values[tlv.EPHEMERAL], (keys.mac, keys.pin, keys.data))
        body = tlv.write({**head, tlv.ENVELOPE: envelope, tlv.CHECK_VALUES: checks})
        text = signed_grant(terminal.terminal_id, request, body)
        return body + tlv.write({tlv.GATEWAY_SIGNATURE: hsm.sm2_sign(SIGNING_KEY, text)})
    wrapped = _wrapped(ring, hsm, terminal, keys)
    return tlv.write({**head, **wrapped, tlv.CHECK_VALUES: checks})


def _claim(value: bytes | None) -> tuple[int, int] | SignOnFlaw | None:
    if value is None:
        return None
    if len(value) != 6:
        return SignOnFlaw.FORMAT
    return int.from_bytes(value[:2], "big"), int.from_bytes(value[2:], "big")


def _certified(
    terminal: TerminalRecord, stan: str, request: bytes, values: dict[int, bytes], now_ms: int
) -> SignOnFlaw | None:
    """What is wrong with a sign-on by certificate; None: the terminal's, and a usable key."""
    ephemeral = values.get(tlv.EPHEMERAL, b"")
    signature = values.get(tlv.TERMINAL_SIGNATURE, b"")
    if len(signature) != sm2.SIGNATURE_LENGTH or [*values][-1] != tlv.TERMINAL_SIGNATURE:
        return SignOnFlaw.FORMAT
    first_ms, last_ms = terminal.valid_ms
    if values.get(tlv.CERTIFICATE) != terminal.certificate or not first_ms <= now_ms <= last_ms:
        return SignOnFlaw.SIGNATURE
    signed = request[: -(3 + sm2.SIGNATURE_LENGTH)]
    text = signed_request(terminal.terminal_id, stan, signed)
    if not sm2.provider().verify(terminal.sm2_public_key, text, signature):
        return SignOnFlaw.SIGNATURE
    try:
        sm2.check_public(ephemeral)
    except sm2.Sm2KeyInvalid:
        return SignOnFlaw.FORMAT
    return None


def _wrapped(
    ring: KeyRing, hsm: Hsm, terminal: TerminalRecord, keys: WorkingKeys
) -> dict[int, bytes]:
    """The keys under the terminal master key."""
    tmk = ring.master(terminal.terminal_id)
    names = (keys.mac, keys.pin, keys.data)
    if terminal.suite is Suite.SM:
        return {tlv.WRAPPED_KEYS: b"".join(hsm.wrap(tmk, name) for name in names)}
    tags = (tlv.MAC_BLOCK, tlv.PIN_BLOCK, tlv.DATA_BLOCK)
    uses = (KeyUse.MAC, KeyUse.PIN, KeyUse.DATA)
    return {
        tag: hsm.wrap_block(tmk, name, use).encode("ascii")
        for tag, name, use in zip(tags, names, uses, strict=True)
    }


def _bare_grant(
    ring: KeyRing, hsm: Hsm, terminal: TerminalRecord, now_ms: int
) -> bytes | SignOnFlaw:
    """The answer to a bare nonce, SM suite only: MAC and PIN key under the TMK.

    epoch (2) | seconds until the next epoch (4) | MAC key under the TMK (16) | its check value (4)
    | PIN key under the TMK (16) | its check value (4); numbers big-endian.
    """
    if terminal.suite is not Suite.SM:
        return SignOnFlaw.FORMAT
    epoch, left, keys = ring.present(terminal, now_ms)
    tmk = ring.master(terminal.terminal_id)
    head = epoch.to_bytes(2, "big") + left.to_bytes(4, "big")
    return head + b"".join(
        hsm.wrap(tmk, name) + hsm.check_value(name) for name in (keys.mac, keys.pin)
    )
