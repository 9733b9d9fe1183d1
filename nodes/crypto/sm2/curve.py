"""The curve of SM2 (GB/T 32918.5-2017) and the checks that every key and signature passes first."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes

P = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
A = P - 3
B = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
N = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
GX = 0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7
GY = 0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0

#: The order of the group, by the name that stands outside this package.
ORDER = N
#: The user id where none was agreed upon (GM/T 0009-2012, section 10).
DEFAULT_ID = b"1234567812345678"
PRIVATE_LENGTH = 32
PUBLIC_LENGTH = 64
SIGNATURE_LENGTH = 64
#: How much longer a cipher text is than its plain text: C1 (64) and C3 (32).
CIPHER_OVERHEAD = 96


class Sm2KeyInvalid(ValueError):
    """A private key out of range, or a public key that is no point of the curve."""


class Sm2CipherInvalid(ValueError):
    """A cipher text that wasn't made for this key, or was changed. Says nothing more."""

    def __init__(self) -> None:
        super().__init__("SM2 cipher text invalid")


def check_private(private: bytes) -> int:
    """The number of a private key, 1 to N - 2 (GB/T 32918.1-2016, 6.1). Sm2KeyInvalid."""
    number = int.from_bytes(private, "big")
    if len(private) != PRIVATE_LENGTH or not 1 <= number <= N - 2:
        raise Sm2KeyInvalid("an SM2 private key is 32 bytes, 1 to n - 2")
    return number


def check_public(public: bytes) -> tuple[int, int]:
    """The point of a public key (GB/T 32918.1-2016, 6.2; the cofactor is 1). Sm2KeyInvalid."""
    x, y = int.from_bytes(public[:32], "big"), int.from_bytes(public[32:], "big")
    if len(public) != PUBLIC_LENGTH or not on_curve(x, y):
        raise Sm2KeyInvalid("an SM2 public key is 64 bytes, a point of the curve")
    return x, y


def on_curve(x: int, y: int) -> bool:
    """Whether both are field elements and solve the curve's equation."""
    return x < P and y < P and (y * y - (x * x + A) * x - B) % P == 0


def check_signature(signature: bytes) -> tuple[int, int] | None:
    """r and s, each 1 to N - 1, or None (GB/T 32918.2-2016, 7.1, steps B1 and B2)."""
    if len(signature) != SIGNATURE_LENGTH:
        return None
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    return (r, s) if 1 <= r < N and 1 <= s < N else None


def sm3(data: bytes) -> bytes:
    """SM3 (GB/T 32905-2016), 32 bytes."""
    digest = hashes.Hash(hashes.SM3())
    digest.update(data)
    return digest.finalize()


def signed_digest(public: bytes, message: bytes, user_id: bytes) -> bytes:
    """SM3 over Z of the signer and the message (GB/T 32918.2-2016, 5.5 and 6.1)."""
    numbers = b"".join(number.to_bytes(32, "big") for number in (A, B, GX, GY))
    z = sm3((8 * len(user_id)).to_bytes(2, "big") + user_id + numbers + public)
    return sm3(z + message)


def kdf(secret: bytes, length: int) -> bytes:
    """The key derivation function (GB/T 32918.4-2016, 5.4.3)."""
    blocks = range(1, length // 32 + 2)
    return b"".join(sm3(secret + count.to_bytes(4, "big")) for count in blocks)[:length]
