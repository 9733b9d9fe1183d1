"""X.509 certificates of SM2 keys (RFC 5280; GM/T 0015): of terminals, and of who certifies them.

Signatures are SM2 with SM3 (OID 1.2.156.10197.1.501) under the default user id, keys lie on the SM2
curve (OID 1.2.156.10197.1.301). Pure: moments are passed in, signing is the caller's.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from asn1crypto import core, csr, pem, x509
from asn1crypto.algos import SignedDigestAlgorithm
from asn1crypto.keys import ECDomainParameters, PublicKeyInfo

from nodes.crypto import sm2
from nodes.crypto.sm2.der import read_signature, write_signature

SM2_WITH_SM3 = "1.2.156.10197.1.501"
SM2_CURVE = "1.2.156.10197.1.301"
T = TypeVar("T")
#: Longer texts aren't read: a certificate of one key has a few hundred bytes.
MAX_TEXT = 8_192
_MAX_SERIAL = 20
#: Signs bytes: r and s, 64 bytes.
Sign = Callable[[bytes], bytes]


class CertificateInvalid(ValueError):
    """Not a certificate or request that is taken here; the text says why."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is read of one; moments in ms since 1970. `public_key`: x and y, 64 bytes."""

    serial: bytes
    common_name: str
    subject: str
    issuer: str
    public_key: bytes
    not_before_ms: int
    not_after_ms: int
    #: Whether it may certify others: CA, and no key usage that says otherwise.
    authority: bool
    der: bytes = field(repr=False)
    subject_der: bytes = field(repr=False)
    issuer_der: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole, hex."""
        return hashlib.sha256(self.der).hexdigest()

    def is_valid_at(self, now_ms: int) -> bool:
        """Whether the moment lies in its time."""
        return self.not_before_ms <= now_ms <= self.not_after_ms

    def is_signed_by(self, authority: Certificate) -> bool:
        """Whether the authority, which must be one, has signed it."""
        return (
            authority.authority
            and self.issuer_der == authority.subject_der
            and sm2.provider().verify(authority.public_key, self.signed, self.signature)
        )

    def text(self) -> str:
        """In one line: base64, as the node's API takes it."""
        return base64.b64encode(self.der).decode("ascii")

    def pem(self) -> str:
        """As a file has it."""
        armored: bytes = pem.armor("CERTIFICATE", self.der)
        return armored.decode("ascii")


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A key and its name, signed with the key itself (PKCS #10, RFC 2986)."""

    common_name: str
    public_key: bytes


def read_certificate(text: str) -> Certificate:
    """One certificate, in PEM or as its base64 alone. CertificateInvalid."""
    return _read(text, "CERTIFICATE", _certificate)


def read_request(text: str) -> CertificateRequest:
    """One request, in PEM or base64; its signature is checked. CertificateInvalid."""
    return _read(text, "CERTIFICATE REQUEST", _request)


def make_certificate(
    sign: Sign,
    *,
    serial: bytes,
    subject: str,
    public_key: bytes,
    issuer: str,
    issuer_key: bytes,
    not_before_ms: int,
    not_after_ms: int,
    authority: bool = False,
) -> Certificate:
    """A certificate; `subject` and `issuer` are common names, `sign` and `issuer_key` (x and y) are
    the issuer's key pair."""
    usage = {"key_cert_sign", "crl_sign"} if authority else {"digital_signature"}
    tbs = x509.TbsCertificate(
        {
            "version": "v3",
            "serial_number": int.from_bytes(serial, "big"),
            "signature": _algorithm(),
            "issuer": x509.Name.build({"common_name": issuer}),
            "validity": {"not_before": _time(not_before_ms), "not_after": _time(not_after_ms)},
            "subject": x509.Name.build({"common_name": subject}),
            "subject_public_key_info": _key_info(public_key),
            "extensions": [
                {
                    "extn_id": "basic_constraints",
                    "critical": True,
                    "extn_value": {"ca": authority},
                },
                {"extn_id": "key_usage", "critical": True, "extn_value": usage},
                {"extn_id": "key_identifier", "extn_value": _identifier(public_key)},
                {
                    "extn_id": "authority_key_identifier",
                    "extn_value": {"key_identifier": _identifier(issuer_key)},
                },
            ],
        }
    )
    signature = sign(tbs.dump())
    r, s = (int.from_bytes(signature[at : at + 32], "big") for at in (0, 32))
    whole = x509.Certificate(
        {
            "tbs_certificate": tbs,
            "signature_algorithm": _algorithm(),
            "signature_value": write_signature(r, s),
        }
    )
    return read_certificate(pem.armor("CERTIFICATE", whole.dump()).decode("ascii"))


# --- reading -------------------------------------------------------------------------------------


def _read(text: str, kind: str, of: Callable[[bytes], T]) -> T:
    if len(text) > MAX_TEXT:
        raise CertificateInvalid(f"longer than {MAX_TEXT} characters")
    try:
        if not text.lstrip().startswith("-----"):
            return of(base64.b64decode(text, validate=True))
        name, _, der = pem.unarmor(text.encode("ascii"))
        if name != kind:
            raise CertificateInvalid(f"a {name}, where a {kind} is needed")
        return of(der)
    except CertificateInvalid:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, IndexError):
        # asn1crypto parses when it is asked, and says in many ways that it can't.
        raise CertificateInvalid(f"not a {kind} in PEM or base64") from None


def _certificate(der: bytes) -> Certificate:
    whole = x509.Certificate.load(der, strict=True)
    tbs = whole["tbs_certificate"]
    for algorithm in (whole["signature_algorithm"], tbs["signature"]):
        if algorithm["algorithm"].dotted != SM2_WITH_SM3:
            raise CertificateInvalid("not signed by SM2 with SM3")
    number = tbs["serial_number"].native
    if number <= 0 or number.bit_length() > 8 * _MAX_SERIAL:
        raise CertificateInvalid(f"a serial number is 1 to {_MAX_SERIAL} bytes, and positive")
    usage = whole.key_usage_value
    constraints = whole.basic_constraints_value
    ca = constraints is not None and bool(constraints["ca"].native)
    return Certificate(
        serial=number.to_bytes((number.bit_length() + 7) // 8, "big"),
        common_name=_common_name(tbs["subject"]),
        subject=tbs["subject"].human_friendly,
        issuer=tbs["issuer"].human_friendly,
        public_key=_public_key(tbs["subject_public_key_info"]),
        not_before_ms=_milliseconds(tbs["validity"]["not_before"].native),
        not_after_ms=_milliseconds(tbs["validity"]["not_after"].native),
        authority=ca and (usage is None or "key_cert_sign" in usage.native),
        der=der,
        subject_der=tbs["subject"].dump(),
        issuer_der=tbs["issuer"].dump(),
        signed=tbs.dump(),
        signature=_signature(whole["signature_value"]),
    )


def _request(der: bytes) -> CertificateRequest:
    whole = csr.CertificationRequest.load(der, strict=True)
    info = whole["certification_request_info"]
    if whole["signature_algorithm"]["algorithm"].dotted != SM2_WITH_SM3:
        raise CertificateInvalid("not signed by SM2 with SM3")
    public = _public_key(info["subject_pk_info"])
    if not sm2.provider().verify(public, info.dump(), _signature(whole["signature"])):
        raise CertificateInvalid("the request isn't signed with its own key")
    return CertificateRequest(_common_name(info["subject"]), public)


def _public_key(info: Any) -> bytes:
    algorithm = info["algorithm"]
    parameters = algorithm["parameters"]
    named = algorithm["algorithm"].native == "ec" and parameters.name == "named"
    if not named or parameters.chosen.dotted != SM2_CURVE:
        raise CertificateInvalid("not an SM2 key")
    point = info["public_key"].native
    if len(point) != 1 + sm2.PUBLIC_LENGTH or point[0] != 4:
        raise CertificateInvalid("an SM2 key stands uncompressed: 04, x, y")
    public = bytes(point[1:])
    try:
        sm2.check_public(public)
    except sm2.Sm2KeyInvalid:
        raise CertificateInvalid("the SM2 key is no point of the curve") from None
    return public


def _signature(value: Any) -> bytes:
    return read_signature(bytes(value.native))


def _common_name(name: Any) -> str:
    found = name.native.get("common_name")
    if not isinstance(found, str) or not found:
        raise CertificateInvalid("the subject has no single common name")
    return found


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000


# --- writing -------------------------------------------------------------------------------------


def _algorithm() -> SignedDigestAlgorithm:
    return SignedDigestAlgorithm({"algorithm": SM2_WITH_SM3, "parameters": core.Null()})


def _identifier(public_key: bytes) -> bytes:
    """RFC 7093, section 2, method 1: the first 160 bits of SHA-256 over the key."""
    return hashlib.sha256(b"\x04" + public_key).digest()[:20]


def _key_info(public_key: bytes) -> PublicKeyInfo:
    return PublicKeyInfo(
        {
            "algorithm": {
                "algorithm": "ec",
                "parameters": ECDomainParameters(name="named", value=SM2_CURVE),
            },
            "public_key": b"\x04" + public_key,
        }
    )


def _time(milliseconds: int) -> x509.Time:
    moment = datetime.fromtimestamp(milliseconds // 1_000, UTC)
    # RFC 5280, 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050.
    if moment.year < 2050:
        return x509.Time(name="utc_time", value=core.UTCTime(moment))
    return x509.Time(name="general_time", value=core.GeneralizedTime(moment))
