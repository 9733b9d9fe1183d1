"""The spec of each dialect and suite as stock `pyiso8583` 4.x loads it (docs/iso8583-specs)."""

from __future__ import annotations

from gateway.iso8583 import wire
from gateway.iso8583.dialect import BCD_TPDU, Dialect
from gateway.iso8583.spec import Content, Element, Suite


def to_pyiso8583(suite: Suite, dialect: Dialect = BCD_TPDU) -> dict[str, dict[str, object]]:
    """The spec as `pyiso8583` takes it (header outside: `h` has length 0).

    Odd BCD elements are padded to whole bytes: fixed ones by a leading 0, variable ones by a
    trailing F. Binary elements (and BCD ones) are hexadecimal text in pyiso8583's documents.
    """
    digits = "b" if dialect.bcd_digits else dialect.charset
    bitmap = dialect.charset if dialect.hex_bitmap else "b"
    spec = {
        "h": _entry("b", 0, 0, "Header (outside this spec)", dialect),
        "t": _entry(digits, 0, dialect.mti_width, "Message type", dialect),
        "p": _entry(bitmap, 0, dialect.bitmap_width, "Bitmap", dialect),
    }
    for element in dialect.elements(suite).values():
        spec[str(element.number)] = _element(element, dialect)
    return spec


def _element(element: Element, dialect: Dialect) -> dict[str, object]:
    raw = element.content is Content.B and not dialect.hex_bytes
    packed = element.nibbles and dialect.bcd_digits
    encoding = "b" if raw or packed else dialect.charset
    prefix = element.prefix
    if prefix and not dialect.bcd_lengths:
        prefix += 1
    entry = _entry(encoding, prefix, wire.limits(element, dialect)[1], element.name, dialect)
    if packed:
        entry["len_count"] = "nibbles"
        entry["right_pad" if element.prefix else "left_pad"] = "F" if element.prefix else "0"
    return entry


def _entry(
    data_enc: str, len_type: int, max_len: int, desc: str, dialect: Dialect
) -> dict[str, object]:
    return {
        "data_enc": data_enc,
        "len_enc": "bcd" if dialect.bcd_lengths else dialect.charset,
        "len_type": len_type,
        "max_len": max_len,
        "desc": desc,
    }
