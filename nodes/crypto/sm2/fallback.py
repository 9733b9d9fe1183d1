"""SM2 in pure Python over gmssl's point arithmetic, hardened: slow (tens of milliseconds).

What gmssl 3.2.2 gets wrong isn't reached: keys are set as 128 digits (its `lstrip("04")` eats into
coordinates), points and ranges are checked before it sees them, nonces come from `secrets`, the key
derivation and C3 are computed here. Its multiplication takes as long as the number's bits say: an
engine for tests and for terminals, not for a host that attackers can time.
"""

from __future__ import annotations

import hmac
import secrets

from gmssl.sm2 import CryptSM2

from nodes.crypto.sm2 import curve
from nodes.crypto.sm2.curve import DEFAULT_ID, N, Sm2CipherInvalid, Sm2KeyInvalid

_BASE = f"{curve.GX:064x}{curve.GY:064x}"


class GmsslSm2:
    """See Sm2."""

    name = "gmssl"

    def __init__(self) -> None:
        # Keys go into each call; the object only carries the curve.
        self._points = CryptSM2(private_key="", public_key="", mode=1)

    def generate(self) -> tuple[bytes, bytes]:
        """See Sm2.generate."""
        private = (1 + secrets.randbelow(N - 2)).to_bytes(32, "big")
        return private, self.public_key(private)

    def public_key(self, private: bytes) -> bytes:
        """See Sm2.public_key."""
        return self._times(curve.check_private(private), _BASE)

    def sign(self, private: bytes, message: bytes, user_id: bytes = DEFAULT_ID) -> bytes:
        """See Sm2.sign."""
        while True:
            signature = self.sign_with(private, message, 1 + secrets.randbelow(N - 1), user_id)
            if signature is not None:
                return signature

    def sign_with(
        self, private: bytes, message: bytes, nonce: int, user_id: bytes = DEFAULT_ID
    ) -> bytes | None:
        """The signature with this nonce, for published examples; None: take another nonce."""
        d = curve.check_private(private)
        e = int.from_bytes(curve.signed_digest(self.public_key(private), message, user_id), "big")
        x1 = int.from_bytes(self._times(nonce, _BASE)[:32], "big")
        r = (e + x1) % N
        s = pow(1 + d, -1, N) * (nonce - r * d) % N
        if r == 0 or r + nonce == N or s == 0:
            return None
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def verify(
        self, public: bytes, message: bytes, signature: bytes, user_id: bytes = DEFAULT_ID
    ) -> bool:
        """See Sm2.verify."""
        curve.check_public(public)
        numbers = curve.check_signature(signature)
        if numbers is None:
            return False
        r, s = numbers
        t = (r + s) % N
        if t == 0:
            return False
        e = int.from_bytes(curve.signed_digest(public, message, user_id), "big")
        point = self._sum(self._times(s, _BASE), self._times(t, public.hex()))
        return point is not None and (e + int.from_bytes(point[:32], "big")) % N == r

    def encrypt(self, public: bytes, plain: bytes) -> bytes:
        """See Sm2.encrypt."""
        while True:
            cipher = self.encrypt_with(public, plain, 1 + secrets.randbelow(N - 1))
            if cipher is not None:
                return cipher

    def encrypt_with(self, public: bytes, plain: bytes, nonce: int) -> bytes | None:
        """The cipher text with this nonce, for published examples; None: take another nonce."""
        curve.check_public(public)
        if not plain:
            raise ValueError("SM2 encrypts at least one byte")
        shared = self._times(nonce, public.hex())
        mask = curve.kdf(shared, len(plain))
        if not any(mask):
            return None
        check = curve.sm3(shared[:32] + plain + shared[32:])
        return self._times(nonce, _BASE) + check + _xor(plain, mask)

    def decrypt(self, private: bytes, cipher: bytes) -> bytes:
        """See Sm2.decrypt."""
        d = curve.check_private(private)
        point, check, masked = cipher[:64], cipher[64:96], cipher[96:]
        if not masked:
            raise Sm2CipherInvalid
        try:
            curve.check_public(point)
        except Sm2KeyInvalid:
            raise Sm2CipherInvalid from None
        shared = self._times(d, point.hex())
        mask = curve.kdf(shared, len(masked))
        plain = _xor(masked, mask)
        expected = curve.sm3(shared[:32] + plain + shared[32:])
        if not any(mask) or not hmac.compare_digest(expected, check):
            raise Sm2CipherInvalid
        return plain

    def _times(self, number: int, point: str) -> bytes:
        return bytes.fromhex(self._points._kg(number, point))

    def _sum(self, left: bytes, right: bytes) -> bytes | None:
        """left + right; None for the point at infinity."""
        if left[:32] == right[:32]:
            return self._times(2, left.hex()) if left == right else None
        joined = self._points._add_point(left.hex() + "1", right.hex())
        return bytes.fromhex(self._points._convert_jacb_to_nor(joined))


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
