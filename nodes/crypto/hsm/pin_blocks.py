"""Clear PIN blocks of the three suites, made and read. Nothing here shows a PIN in an error.

The SM4 PIN block (16 bytes) is SM4-ECB over `PIN field XOR PAN field`:

    PIN field   0L PP PP .. FF     L: number of digits (4-12), P: the digits in BCD, F to 16 bytes
    PAN field   00 * 10, then the 12 rightmost digits of the PAN without its check digit, in BCD

PIN digits (bytes 1-6) and PAN digits (bytes 10-15) don't overlap: the fill over the PAN digits is
checked after the XOR, so a block that belongs to another PAN is refused as invalid.

ISO 9564-1:2017 formats 0 and 3, and the PIN field of format 4, are made by `psec`; its errors quote
digits, so none of them gets out. Format 4 is read here, for it is read often; tests compare it with
`psec`.
"""

from __future__ import annotations

import hmac

from psec import pinblock as iso

from nodes.crypto.hsm.model import BLOCK, DIGITS, PIN_LENGTHS, PinBlockInvalid


def check_pin(pin: str) -> None:
    """ValueError unless it is 4 to 12 digits."""
    if len(pin) not in PIN_LENGTHS or not DIGITS.issuperset(pin):
        raise ValueError("a PIN is 4 to 12 digits")


def sm_pin(clear: bytes, pan: str) -> str:
    """The PIN of a clear SM block; PinBlockInvalid if it isn't one for this PAN."""
    if len(pan) < 13 or not pan.isdecimal() or not pan.isascii():
        raise PinBlockInvalid
    field = int.from_bytes(clear, "big") ^ int(pan[-13:-1], 16)
    text = f"{field:032x}"
    length = int(text[:2], 16)
    pin = text[2 : 2 + length]
    if length not in PIN_LENGTHS or not pin.isdecimal():
        raise PinBlockInvalid
    if not hmac.compare_digest(text, f"{text[:2]}{pin:f<30}"):
        raise PinBlockInvalid
    return pin


def sm_block(pin: str, pan: str) -> bytes:
    """The clear SM block of a PIN; PinBlockInvalid if the PAN is too short."""
    if len(pan) < 13 or not DIGITS.issuperset(pan):
        raise PinBlockInvalid
    field = int(f"{len(pin):02x}{pin.ljust(2 * (BLOCK - 1), 'f')}", 16)
    return (field ^ int(pan[-13:-1], 16)).to_bytes(BLOCK, "big")


def des_pin(clear: bytes, pan: str) -> str:
    """The PIN of a clear block of format 0 or 3, as its first digit says. PinBlockInvalid."""
    read = iso.decode_pinblock_iso_3 if clear[0] >> 4 == 3 else iso.decode_pinblock_iso_0
    try:
        return read(clear, pan)
    except ValueError:
        raise PinBlockInvalid from None


def des_block(pin: str, pan: str, form: int = 0) -> bytes:
    """The clear block of format 0 or 3. PinBlockInvalid if the PAN is too short."""
    write = iso.encode_pinblock_iso_3 if form == 3 else iso.encode_pinblock_iso_0
    try:
        return write(pin, pan)
    except ValueError:
        raise PinBlockInvalid from None


def aes_pin_field(pin: str) -> bytes:
    """The PIN field of format 4, its last 8 bytes random."""
    return iso.encode_pin_field_iso_4(pin)


def aes_pan_field(pan: str) -> bytes:
    """The PAN field of format 4. PinBlockInvalid if the PAN is none."""
    if not 1 <= len(pan) <= 19 or not (pan.isascii() and pan.isdecimal()):
        raise PinBlockInvalid
    return bytes.fromhex(f"{max(0, len(pan) - 12)}{pan:0>12}".ljust(2 * BLOCK, "0"))


def aes_pin(field: bytes) -> str:
    """The PIN of a clear PIN field of format 4. PinBlockInvalid."""
    text = field.hex()
    length = int(text[1], 16)
    pin, filler = text[2 : 2 + length], text[2 + length : BLOCK]
    if text[0] != "4" or length not in PIN_LENGTHS or not pin.isdecimal():
        raise PinBlockInvalid
    if not hmac.compare_digest(filler, "a" * (14 - length)):
        raise PinBlockInvalid
    return pin
