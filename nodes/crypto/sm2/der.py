"""The two ASN.1 structures of SM2 in OpenSSL: signatures and cipher texts (GM/T 0009-2012, 7).

Only what libcrypto writes and reads: definite lengths below 65,536, minimal integers.
"""

from __future__ import annotations

_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30


def _item(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content


def _integer(number: int) -> bytes:
    return _item(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the first item, and what is behind it."""
    length, start = data[1], 2
    if length & 0x80:
        start = 2 + (length & 0x7F)
        length = int.from_bytes(data[2:start], "big")
    end = start + length
    if data[0] != tag or len(data) < end:
        raise ValueError("not the expected DER item")
    return data[start:end], data[end:]


def write_signature(r: int, s: int) -> bytes:
    """SEQUENCE of r and s."""
    return _item(_SEQUENCE, _integer(r) + _integer(s))


def read_signature(data: bytes) -> bytes:
    """r and s as 64 bytes."""
    content, _ = _take(data, _SEQUENCE)
    r, rest = _take(content, _INTEGER)
    s, _ = _take(rest, _INTEGER)
    return b"".join(int.from_bytes(value, "big").to_bytes(32, "big") for value in (r, s))


def write_cipher(cipher: bytes) -> bytes:
    """SEQUENCE of x, y, C3 and C2, from C1 | C3 | C2."""
    x, y = int.from_bytes(cipher[:32], "big"), int.from_bytes(cipher[32:64], "big")
    parts = (_integer(x), _integer(y), _item(_OCTETS, cipher[64:96]), _item(_OCTETS, cipher[96:]))
    return _item(_SEQUENCE, b"".join(parts))


def read_cipher(data: bytes) -> bytes:
    """C1 | C3 | C2."""
    content, _ = _take(data, _SEQUENCE)
    x, rest = _take(content, _INTEGER)
    y, rest = _take(rest, _INTEGER)
    check, rest = _take(rest, _OCTETS)
    masked, _ = _take(rest, _OCTETS)
    point = b"".join(int.from_bytes(value, "big").to_bytes(32, "big") for value in (x, y))
    return point + check + masked
