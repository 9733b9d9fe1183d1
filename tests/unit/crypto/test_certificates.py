"""X.509 certificates of SM2 keys: OpenSSL's are read here, and OpenSSL takes those made here."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.terminal_keys.authority import authority_certificate, certify
from gateway.terminal_keys.ring import MASTER_KEY
from nodes.crypto import sm2
from nodes.crypto.certificates import (
    CertificateInvalid,
    make_certificate,
    read_certificate,
    read_request,
)
from nodes.crypto.hsm import SoftwareHsm

#: Made with OpenSSL 3.0.19: `openssl req -x509 -sm3 -sigopt distid:1234567812345678`, `openssl
#: req`, `openssl x509 -req`; the common name of the terminal is T0000001.
AUTHORITY = """
-----BEGIN CERTIFICATE-----
MIIBrjCCAVWgAwIBAgIUPBGssi3Pkkg3UBTuAtXvtff3gBwwCgYIKoEcz1UBg3Uw
JTENMAsGA1UECgwEVGVzdDEUMBIGA1UEAwwLVGVybWluYWwgQ0EwHhcNMjYxMTIz
MDU1OTM2WhcNMzYxMTIwMDU1OTM2WjAlMQ0wCwYDVQQKDARUZXN0MRQwEgYDVQQD
DAtUZXJtaW5hbCBDQTBZMBMGByqGSM49AgEGCCqBHM9VAYItA0IABPozgSbh0Un+
AtQqtodvbEdTwpM4vL/6u+UVYB6lX76qmPgfO4yzod5bvWBRgH/W2IXeuc0mL3dx
f9Nu7Dn0JdCjYzBhMB0GA1UdDgQWBBQPjPYjW8PYiHE973jCVQSMb9VkOTAfBgNV
HSMEGDAWgBQPjPYjW8PYiHE973jCVQSMb9VkOTAPBgNVHRMBAf8EBTADAQH/MA4G
A1UdDwEB/wQEAwICBDAKBggqgRzPVQGDdQNHADBEAiA9R0i+YO+e5Jf2xk3DTyh5
YjidUvKiVUVKHApYECSvcgIgSyf0vys4TuGW9qvPPORkO6EwGxkVrsHWc2cy4ueP
6hs=
-----END CERTIFICATE-----
"""
REQUEST = """
-----BEGIN CERTIFICATE REQUEST-----
MIHdMIGEAgEAMCIxDTALBgNVBAoMBFRlc3QxETAPBgNVBAMMCFQwMDAwMDAxMFkw
EwYHKoZIzj0CAQYIKoEcz1UBgi0DQgAE00T/jQqjOTy0XSVltMN2bMzep60qpBwF
/jxNdr78N5+8jS2Q/VH3ifKBDLJpaVOvVDDJb7iZalLcFL5+6nDZJKAAMAoGCCqB
HM9VAYN1A0gAMEUCIQDqBYJfaVEUJimP5i6T+9XPswPyZmZ8fgYY7HkKhoULKAIg
SqzZJB1qq2LBdZyRGBgGnlf1Vs5AQait/FjuCpuaf7s=
-----END CERTIFICATE REQUEST-----
"""
TERMINAL = """
-----BEGIN CERTIFICATE-----
MIIBQjCB6AIUWLhcXRgVR7xxYnq8WMiBXk1YwzIwCgYIKoEcz1UBg3UwJTENMAsG
A1UECgwEVGVzdDEUMBIGA1UEAwwLVGVybWluYWwgQ0EwHhcNMjYxMTIzMDU1OTM2
WhcNMjcxMTIzMDU1OTM2WjAiMQ0wCwYDVQQKDARUZXN0MREwDwYDVQQDDAhUMDAw
MDAwMTBZMBMGByqGSM49AgEGCCqBHM9VAYItA0IABNNE/40Kozk8tF0lZbTDdmzM
3qetKqQcBf48TXa+/DefvI0tkP1R94nygQyyaWlTr1QwyW+4mWpS3BS+fupw2SQw
CgYIKoEcz1UBg3UDSQAwRgIhAPpu7GknXqdcaBua0K8pim72Mbu6g8tp1AyX4Fpn
whRNAiEA0cJHVy6q+ONI2rzyXa0f9ZULZwiKFYfOKImqEdMzXJA=
-----END CERTIFICATE-----
"""
NOW_MS = 1_795_500_000_000
DAY_MS = 86_400_000
HSM = SoftwareHsm({MASTER_KEY: bytes(range(16))})


def test_openssl_s_certificates_are_read_and_verified() -> None:
    authority, terminal = read_certificate(AUTHORITY), read_certificate(TERMINAL)
    assert (authority.common_name, terminal.common_name) == ("Terminal CA", "T0000001")
    assert (authority.authority, terminal.authority) == (True, False)
    assert terminal.is_signed_by(authority)
    assert authority.is_signed_by(authority)
    assert not authority.is_signed_by(terminal)
    assert terminal.is_valid_at(NOW_MS)
    assert not terminal.is_valid_at(NOW_MS + 366 * DAY_MS)
    assert terminal.serial.hex() == "58b85c5d181547bc71627abc58c8815e4d58c332"
    assert read_certificate(terminal.text()) == read_certificate(terminal.pem()) == terminal
    asked = read_request(REQUEST)
    assert (asked.common_name, asked.public_key) == ("T0000001", terminal.public_key)


def test_openssl_takes_what_is_made_here(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command on this machine")
    _, public = sm2.provider().generate()
    now_ms = read_certificate(AUTHORITY).not_before_ms
    (tmp_path / "ca.pem").write_text(authority_certificate(HSM, now_ms).pem())
    (tmp_path / "t.pem").write_text(certify(HSM, "T0000001", public, now_ms).pem())
    distinguished = ["-vfyopt", "distid:1234567812345678", "-attime", str(now_ms // 1000 + 60)]
    files = ["-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "t.pem")]
    told = subprocess.run(
        [openssl, "verify", "-x509_strict", *distinguished, *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stdout.strip().endswith("OK"), told.stderr


def test_an_authority_s_key_and_name_follow_from_the_master_key() -> None:
    one, two = authority_certificate(HSM, NOW_MS), authority_certificate(HSM, NOW_MS + DAY_MS)
    assert (one.public_key, one.subject) == (two.public_key, two.subject)
    _, public = sm2.provider().generate()
    made = certify(HSM, "T0000001", public, NOW_MS, 10)
    assert made.is_signed_by(one)
    assert made.is_signed_by(two)
    assert made.public_key == public
    assert made.is_valid_at(NOW_MS)
    assert not made.is_valid_at(NOW_MS + 11 * DAY_MS)
    other = authority_certificate(SoftwareHsm({MASTER_KEY: bytes(16)}), NOW_MS)
    assert not made.is_signed_by(other)


def test_each_changed_byte_is_noticed() -> None:
    """Not read any more, or not signed by the authority any more."""
    authority, terminal = read_certificate(AUTHORITY), read_certificate(TERMINAL)
    for place in range(0, len(terminal.der), 3):
        changed = bytearray(terminal.der)
        changed[place] ^= 1
        try:
            found = read_certificate(base64.b64encode(changed).decode())
        except CertificateInvalid:
            continue
        assert not found.is_signed_by(authority), place


def test_a_request_is_signed_with_its_own_key() -> None:
    der = bytearray(base64.b64decode("".join(REQUEST.strip().splitlines()[1:-1])))
    der[der.index(b"T0000001")] ^= 1
    with pytest.raises(CertificateInvalid, match="its own key"):
        read_request(base64.b64encode(der).decode())


def _p256() -> str:
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "T0000001")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
        .sign(key, SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def _off_curve() -> str:
    def sign(_: bytes) -> bytes:
        return bytes(31) + b"\x01" + bytes(31) + b"\x01"

    times = {"not_before_ms": 0, "not_after_ms": NOW_MS}
    key = bytes(63) + b"\x01"
    made = {"subject": "T", "issuer": "T", "public_key": key, "issuer_key": key, **times}
    return make_certificate(sign, serial=b"\x01", **made).text()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (lambda: "", "not a CERTIFICATE"),
        (lambda: "-----BEGIN", "not a CERTIFICATE"),
        (lambda: "MIIB", "not a CERTIFICATE"),
        (lambda: REQUEST, "a CERTIFICATE REQUEST, where"),
        (lambda: "A" * 9_000, "longer than"),
        (lambda: "\u4e2d", "not a CERTIFICATE"),
        (_p256, "not signed by SM2"),
        (_off_curve, "no point of the curve"),
    ],
)
def test_what_is_no_such_certificate_says_why(text: Callable[[], str], said: str) -> None:
    with pytest.raises(CertificateInvalid, match=said):
        read_certificate(text())
