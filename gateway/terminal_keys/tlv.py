"""What DE62 is made of: tag (1 byte), length (2, big-endian), value. Pure.

Of requests: a sign-on's values (NONCE to CLAIM), KEY_SERIAL and COVER. Of answers: a grant.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Sign-on: fresh bytes (16).
NONCE = 0x01
#: Sign-on: ephemeral SM2 public key (64).
EPHEMERAL = 0x02
#: Sign-on: serial number of the terminal's certificate (1 to 20).
CERTIFICATE = 0x03
#: Sign-on: the terminal's SM2 signature (64), always the last value.
TERMINAL_SIGNATURE = 0x04
#: Sign-on: the epoch the terminal has keys of (2), and how often it used them (4).
CLAIM = 0x05
#: Grant: the epoch (2) and the seconds until the next one (4).
EPOCH = 0x11
#: Grant: MAC, PIN and data key encrypted to the ephemeral key.
ENVELOPE = 0x12
#: Grant: check values of MAC, PIN and data key (4 each).
CHECK_VALUES = 0x13
#: Grant: the gateway's SM2 signature (64), always the last value.
GATEWAY_SIGNATURE = 0x14
#: Grant: TR-31 key blocks of MAC, PIN and data key.
MAC_BLOCK, PIN_BLOCK, DATA_BLOCK = 0x15, 0x16, 0x17
#: Grant: MAC, PIN and data key, SM4-ECB under the terminal master key (48).
WRAPPED_KEYS = 0x18
#: DUKPT: key serial number (12).
KEY_SERIAL = 0x21
#: Covered card data (Hsm.cover).
COVER = 0x22


def write(values: Mapping[int, bytes]) -> bytes:
    """The values in the order given."""
    return b"".join(
        bytes((tag,)) + len(value).to_bytes(2, "big") + value for tag, value in values.items()
    )


def read(data: bytes) -> dict[int, bytes] | None:
    """The values in their order; None if `data` is no such list or names a tag twice."""
    values: dict[int, bytes] = {}
    position, end = 0, len(data)
    while position < end:
        start = position + 3
        length = int.from_bytes(data[position + 1 : start], "big")
        if start + length > end or data[position] in values:
            return None
        values[data[position]] = data[start : start + length]
        position = start + length
    return values
