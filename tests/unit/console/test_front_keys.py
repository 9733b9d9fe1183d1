"""What people paste as a caller's public key."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from console.views.front_keys import point_of

#: A public key that OpenSSL 3.0.19 made (ecparam -name SM2 -genkey), and x and y as it shows them.
SM2_PEM = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoEcz1UBgi0DQgAENSfqgWl0uSghgLhDSn7xG9JRDxiu
0lstgq02mOSDm/8Iv3cLr4ikV+PdKp+DS8Y9SLLhYikBjOnZAgKXwMuEdg==
-----END PUBLIC KEY-----
"""
SM2_POINT = (
    "3527ea816974b9282180b8434a7ef11bd2510f18aed25b2d82ad3698e4839bff"
    "08bf770baf88a457e3dd2a9f834bc63d48b2e16229018ce9d9020297c0cb8476"
)


def test_a_pem_file_s_key_is_read_with_its_curve() -> None:
    assert point_of(SM2_PEM, "SM2") == SM2_POINT
    assert point_of(SM2_PEM.replace("\n", "\r\n"), "SM2") == SM2_POINT
    assert point_of(SM2_PEM, "ES256") is None
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert point_of(pem, "ES256") == point[1:].hex()
    assert point_of(pem, "SM2") is None


def test_x_and_y_in_hex_are_taken_as_they_are() -> None:
    assert point_of(SM2_POINT.upper(), "SM2") == SM2_POINT
    assert point_of(SM2_POINT, "ES256") == SM2_POINT  # whether it is on the curve, the node says


@pytest.mark.parametrize("text", ["", "zz" * 64, "AAAA", SM2_POINT[:-2], "not base64!", "é" * 128])
def test_anything_else_is_none(text: str) -> None:
    assert point_of(text, "SM2") is None
