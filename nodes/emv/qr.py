"""Payment QR codes as EMVCo defines them: merchant-presented and consumer-presented.

Merchant-presented (EMV QRCPS Merchant-Presented Mode 1.1): two-digit id, two-digit length in
characters, value; tag 63 is the CRC-16 of all before it in UTF-8. Consumer-presented (Consumer-
Presented Mode 1.1): BER-TLV in base64. Whatever is scanned is hostile: both readers are bounded.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nodes.emv import tlv

#: Characters of a merchant's code (4.1 of the specification).
MAX_MERCHANT_CODE = 512
#: Characters of a consumer's code: what a version 16-M QR code takes.
MAX_CONSUMER_CODE = 512
#: The network's application identifier in consumers' codes: a proprietary one (ISO/IEC 7816-4, F).
AID = bytes.fromhex("F04353474E01")
_CRC_HEAD = "6304"
_FORMAT, _APPLICATION = "85", "61"
_CPV = b"CPV01"


class QrMalformed(ValueError):
    """A scanned text is no payment code of this kind; the text says why, without quoting it."""


class Field(NamedTuple):
    """One data object: two digits, and a value of 1 to 99 characters."""

    tag: str
    value: str


class ConsumerCode(NamedTuple):
    """A consumer's single-use code. `expiry` YYMM."""

    number: str  # 13 to 19 digits, routed like a card number
    expiry: str
    service_code: str

    def __repr__(self) -> str:
        return "ConsumerCode()"


# --- merchant-presented --------------------------------------------------------------------------


def crc(text: str) -> str:
    """CRC-16 with polynomial 1021 from FFFF (ISO/IEC 13239 as 4.7.3.1 has it), four hex digits."""
    return f"{binascii.crc_hqx(text.encode(), 0xFFFF):04X}"


def encode_fields(fields: Iterable[tuple[str, str]]) -> str:
    """Data objects in order, also those of a template. ValueError for a bad tag or length."""
    parts: list[str] = []
    for tag, value in fields:
        if len(tag) != 2 or not (tag.isascii() and tag.isdigit()) or not 1 <= len(value) <= 99:
            raise ValueError(f"data object {tag} must have two digits and 1 to 99 characters")
        parts.append(f"{tag}{len(value):02d}{value}")
    return "".join(parts)


def encode_merchant(fields: Sequence[tuple[str, str]]) -> str:
    """A whole code: the payload format, the fields (without 00 and 63), the CRC."""
    body = encode_fields([("00", "01"), *fields]) + _CRC_HEAD
    text = body + crc(body)
    if len(text) > MAX_MERCHANT_CODE:
        raise ValueError(f"a code has at most {MAX_MERCHANT_CODE} characters")
    return text


def decode_fields(text: str) -> list[Field]:
    """The data objects of one level, in order; QrMalformed if the text isn't used up by them."""
    found: list[Field] = []
    place = 0
    while place < len(text):
        head = text[place : place + 4]
        if len(head) != 4 or not (head.isascii() and head.isdigit()):
            raise QrMalformed("a data object has no two-digit id and length")
        length = int(head[2:])
        value = text[place + 4 : place + 4 + length]
        if not length or len(value) != length:
            raise QrMalformed(f"data object {head[:2]} is empty or cut off")
        found.append(Field(head[:2], value))
        place += 4 + length
    return found


def decode_merchant(text: str) -> dict[str, str]:
    """The first-level data objects of a code with a good CRC, by tag (00 and 63 among them)."""
    if not 8 <= len(text) <= MAX_MERCHANT_CODE:
        raise QrMalformed(f"a code has 8 to {MAX_MERCHANT_CODE} characters")
    try:
        expected = crc(text[:-4])
    except UnicodeEncodeError:
        raise QrMalformed("the text is not Unicode") from None
    if text[-8:-4] != _CRC_HEAD or text[-4:] != expected:
        raise QrMalformed("the CRC is wrong or not at the end")
    fields = decode_fields(text)
    found = {field.tag: field.value for field in fields}
    if len(found) != len(fields):
        raise QrMalformed("a data object is there twice")
    if fields[0] != ("00", "01"):
        raise QrMalformed("the payload format indicator is not 01, or not the first")
    return found


# --- consumer-presented --------------------------------------------------------------------------


def encode_consumer(code: ConsumerCode) -> str:
    """The base64 text of a consumer's code: format indicator and one application template."""
    track = f"{code.number}D{code.expiry}{code.service_code}"
    track += "F" * (len(track) % 2)
    template = tlv.encode([("4F", AID), ("57", bytes.fromhex(track))])
    payload = tlv.encode([(_FORMAT, _CPV), (_APPLICATION, template)])
    return base64.b64encode(payload).decode("ascii")


def decode_consumer(text: str) -> ConsumerCode:
    """The first application template of this network, in a code of any wallet. QrMalformed."""
    templates = consumer_templates(text)
    for template in templates:
        try:
            found = tlv.unique(tlv.decode(template))
        except tlv.TlvMalformed as error:
            raise QrMalformed(str(error)) from None
        if found.get("4F") == AID:
            return _consumer(found.get("57", b""))
    raise QrMalformed("the code has no application of this network")


def consumer_templates(text: str) -> list[bytes]:
    """The values of the application templates (tag 61) of a consumer's code, in order."""
    if not 0 < len(text) <= MAX_CONSUMER_CODE:
        raise QrMalformed(f"a code has 1 to {MAX_CONSUMER_CODE} characters")
    try:
        raw = base64.b64decode(text, validate=True)
        elements = tlv.decode(raw)
    except (binascii.Error, ValueError) as error:
        # TlvMalformed says what; base64's own texts say little.
        why = str(error) if isinstance(error, tlv.TlvMalformed) else "the text is not base64"
        raise QrMalformed(why) from None
    if not elements or elements[0] != (_FORMAT, _CPV):
        raise QrMalformed("the payload format indicator is not CPV01, or not the first")
    return [element.value for element in elements[1:] if element.tag == _APPLICATION]


def _consumer(track: bytes) -> ConsumerCode:
    number, separator, rest = track.hex().upper().rstrip("F").partition("D")
    if not (separator and 13 <= len(number) <= 19 and number.isdecimal()):
        raise QrMalformed("tag 57 has no number")
    if len(rest) != 7 or not rest.isdecimal() or not "01" <= rest[2:4] <= "12":
        raise QrMalformed("tag 57 has no expiry and service code")
    return ConsumerCode(number, rest[:4], rest[4:])
