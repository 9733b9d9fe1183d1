"""Signed requests: a detached JSON Web Signature (RFC 7515, appendix F) over the body.

    JWS-Signature: <protected header>..<signature>

The protected header says who (kid), when (iat, seconds), which one (jti), and binds method (htm),
path and query (htu) and the Idempotency-Key (idk, where there is one). Algorithms: ES256 (RFC 7518,
3.4) and SM2 with SM3 (alg "SM2", signature r || s, the default user id of GB/T 32918.2).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from gateway.http.problems import ApiProblem
from nodes.acquiring.online.model import FrontKey
from nodes.crypto.http_signatures import NonceMemory
from nodes.crypto.sm2 import provider

HEADER = "JWS-Signature"
#: Seconds by which iat may lie in the past or in the future.
WINDOW_S = 60
#: So many jtis of one key a front remembers, over two to three windows; then it takes no more.
JTIS_OF_A_KEY = 100_000
_MAX_LENGTH = 2_048
_SIGNATURE_BYTES = 64


class Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The protected header."""

    alg: str
    kid: str
    iat: int
    jti: str
    htm: str
    htu: str
    idk: str | None = None


class Detached(msgspec.Struct, frozen=True):
    """A parsed signature: claims, the header as it was sent, and the 64 bytes."""

    claims: Claims
    protected: bytes
    signature: bytes


_CLAIMS = msgspec.json.Decoder(Claims)


def parse(value: str | None) -> Detached:
    """Read the header field. ApiProblem 401 if it is missing or no detached JWS."""
    if value is None:
        raise refused("signature-missing", f"Sign the request: {HEADER} (docs/http-api.md).")
    protected, _, rest = value.partition(".")
    payload, _, signature = rest.partition(".")
    if len(value) > _MAX_LENGTH or payload or not protected or not signature:
        raise refused("signature-malformed", f"{HEADER} is no detached JWS.")
    try:
        claims = _CLAIMS.decode(_decoded(protected))
        raw = _decoded(signature)
    except (ValueError, msgspec.DecodeError):
        raise refused("signature-malformed", "The protected header can't be read.") from None
    if len(raw) != _SIGNATURE_BYTES or not 8 <= len(claims.jti) <= 64:
        raise refused("signature-malformed", "The signature or jti has a wrong length.")
    return Detached(claims, protected.encode("ascii"), raw)


def check(
    signed: Detached,
    key: FrontKey,
    *,
    method: str,
    target: str,
    idempotency_key: str | None,
    body: bytes,
    now_s: float,
    seen: NonceMemory,
) -> None:
    """ApiProblem 401 unless `key` signed this very request now, for the first time."""
    claims = signed.claims
    if claims.alg != key.algorithm:
        raise refused("algorithm-wrong", f"This key signs with {key.algorithm}.")
    if claims.htm != method or claims.htu != target or claims.idk != idempotency_key:
        raise refused("signature-of-another", "htm, htu or idk is of another request.")
    if abs(now_s - claims.iat) > WINDOW_S:
        raise refused("signature-expired", f"iat is more than {WINDOW_S} s off the server's clock.")
    content = signed.protected + b"." + base64.urlsafe_b64encode(body).rstrip(b"=")
    if not _VERIFIERS[key.algorithm](key.public_key, content, signed.signature):
        raise refused("signature-wrong", "The signature doesn't fit the request and the key.")
    # Last, so that nobody uses up another's jti.
    if not seen.is_new(claims.kid, claims.jti):
        raise replayed()


def sign(claims: Claims, body: bytes, signer: Callable[[bytes], bytes]) -> str:
    """The header field of a request; `signer` gives r || s over bytes. What a client does."""
    protected = base64.urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=")
    content = protected + b"." + base64.urlsafe_b64encode(body).rstrip(b"=")
    signature = base64.urlsafe_b64encode(signer(content)).rstrip(b"=")
    return f"{protected.decode()}..{signature.decode()}"


def replayed() -> ApiProblem:
    """401: this very signature was taken before, here or by another front."""
    return refused("signature-replayed", "This jti was used before.")


def refused(kind: str, detail: str) -> ApiProblem:
    """401: whoever calls, it isn't proven."""
    return ApiProblem(401, kind, detail)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64url") from None


def _es256(public: bytes, content: bytes, signature: bytes) -> bool:
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + public)
        r, s = (int.from_bytes(signature[at : at + 32], "big") for at in (0, 32))
        key.verify(encode_dss_signature(r, s), content, ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def _sm2(public: bytes, content: bytes, signature: bytes) -> bool:
    try:
        return provider().verify(public, content, signature)
    except ValueError:
        return False


_VERIFIERS: dict[str, Callable[[bytes, bytes, bytes], bool]] = {"ES256": _es256, "SM2": _sm2}
