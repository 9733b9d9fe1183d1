"""Single values on the wire of any dialect: digits, characters, bytes, lengths. Pure.

Strict both ways: what is read is written back as the same bytes, so hexadecimal digits are capital
letters only, and padding has one form.
"""

from __future__ import annotations

from gateway.iso8583.dialect import Dialect
from gateway.iso8583.errors import Flaw, FormatError
from gateway.iso8583.spec import CHARACTERS, Content, Element

_TRACK2 = frozenset("0123456789d")
_HEX = frozenset("0123456789ABCDEF")
#: The longest length that an LLVAR and an LLLVAR prefix can say.
_LONGEST = {1: 99, 2: 999}


def read_digits(raw: bytes, dialect: Dialect) -> str | None:
    """Decimal digits, two a byte or as characters; None if they are none."""
    digits = raw.hex() if dialect.bcd_digits else _characters(raw, dialect)
    return digits if digits is not None and digits.isdigit() else None


def write_digits(digits: str, dialect: Dialect) -> bytes:
    """An even number of decimal digits."""
    return bytes.fromhex(digits) if dialect.bcd_digits else digits.encode(dialect.charset)


def read_bytes(raw: bytes, as_hex: bool, dialect: Dialect) -> bytes | None:
    """Bytes as they are, or from hexadecimal digits; None if those are none."""
    if not as_hex:
        return raw
    digits = _characters(raw, dialect)
    if digits is None or len(digits) & 1 or not _HEX.issuperset(digits):
        return None
    return bytes.fromhex(digits)


def write_bytes(value: bytes, as_hex: bool, dialect: Dialect) -> bytes:
    """Bytes as they are, or as hexadecimal digits."""
    return value.hex().upper().encode(dialect.charset) if as_hex else value


def extent(element: Element, data: bytes, position: int, dialect: Dialect) -> tuple[int, int, bool]:
    """Where an element's bytes start and end, and whether BCD padded it: its digits are odd."""
    packed = element.nibbles and dialect.bcd_digits
    if element.prefix:
        count, position = _length(element, data, position, dialect)
        low, high = limits(element, dialect)
        if not low <= count <= high:
            raise FormatError(Flaw.LENGTH, element.number)
    else:
        count = _count(element, element.maximum, dialect)
    if packed:
        return position, position + (count + 1 >> 1), count & 1 == 1
    return position, position + count, False


def limits(element: Element, dialect: Dialect) -> tuple[int, int]:
    """The smallest and the largest count that an element's length prefix may say."""
    high = _count(element, element.maximum, dialect)
    if element.prefix:
        high = min(high, _LONGEST[element.prefix])
    return _count(element, element.minimum, dialect), high


def _count(element: Element, size: int, dialect: Dialect) -> int:
    """What a length counts: digits, characters or bytes; of bytes in hexadecimal their digits."""
    return 2 * size if element.content is Content.B and dialect.hex_bytes else size


def _length(element: Element, data: bytes, position: int, dialect: Dialect) -> tuple[int, int]:
    width = element.prefix if dialect.bcd_lengths else element.prefix + 1
    raw = data[position : position + width]
    if len(raw) != width:
        raise FormatError(Flaw.TRUNCATED, element.number)
    digits = raw.hex() if dialect.bcd_lengths else _characters(raw, dialect)
    if digits is None or not digits.isdigit():
        raise FormatError(Flaw.LENGTH, element.number)
    return int(digits), position + width


def _prefix(element: Element, count: int, dialect: Dialect) -> bytes:
    if not element.prefix:
        return b""
    if dialect.bcd_lengths:
        return bytes.fromhex(f"{count:0{2 * element.prefix}d}")
    return f"{count:0{element.prefix + 1}d}".encode(dialect.charset)


def read_binary(element: Element, raw: bytes, dialect: Dialect) -> bytes:
    """The value of an element of bytes. Raises FormatError."""
    value = read_bytes(raw, dialect.hex_bytes, dialect)
    if value is None:
        raise FormatError(Flaw.CHARSET, element.number)
    return value


def write_binary(element: Element, value: bytes | None, dialect: Dialect) -> bytes:
    """An element of bytes, its length in front where it is variable. Raises FormatError."""
    low, high = limits(element, dialect)
    count = -1 if value is None else _count(element, len(value), dialect)
    if value is None or not low <= count <= high:
        raise FormatError(Flaw.LENGTH, element.number)
    return _prefix(element, count, dialect) + write_bytes(value, dialect.hex_bytes, dialect)


def read_text(element: Element, raw: bytes, odd: bool, dialect: Dialect) -> str:
    """The value of an element of digits or characters. Raises FormatError."""
    if element.nibbles:
        return (
            _read_packed(element, raw, odd)
            if dialect.bcd_digits
            else _read_digits(element, raw, dialect)
        )
    text = _characters(raw, dialect)
    if text is None or text.encode("ascii").translate(None, CHARACTERS[element.content]):
        raise FormatError(Flaw.CHARSET, element.number)
    return text


def _read_packed(element: Element, raw: bytes, odd: bool) -> str:
    digits = raw.hex()
    if odd:
        # A fixed element is padded in front by 0, a variable one at its end by F.
        pad, digits = (digits[-1], digits[:-1]) if element.prefix else (digits[0], digits[1:])
        if pad != ("f" if element.prefix else "0"):
            raise FormatError(Flaw.PADDING, element.number)
    if element.content is Content.Z:
        if not _TRACK2.issuperset(digits):
            raise FormatError(Flaw.CHARSET, element.number)
        return digits.upper()
    if not digits.isdigit():
        raise FormatError(Flaw.CHARSET, element.number)
    return digits


def _read_digits(element: Element, raw: bytes, dialect: Dialect) -> str:
    digits = _characters(raw, dialect) or "?"
    if element.content is Content.Z:
        # Written back, it must be the same: the other separator is a wrong character.
        other = "D" if dialect.track2_separator == "=" else "="
        if other in digits:
            raise FormatError(Flaw.CHARSET, element.number)
        digits = digits.replace("=", "D")
        plain = digits.replace("D", "0")
    else:
        plain = digits
    if not plain.isdigit():
        raise FormatError(Flaw.CHARSET, element.number)
    return digits


def write_text(element: Element, value: str | None, dialect: Dialect) -> bytes:
    """An element of digits or characters, its length in front where it is variable."""
    if value is None or not element.minimum <= len(value) <= element.maximum:
        raise FormatError(Flaw.LENGTH, element.number)
    prefix = _prefix(element, len(value), dialect)
    if element.nibbles:
        return prefix + _write_digits(element, value, dialect)
    raw = value.encode("ascii") if value.isascii() else b"\x00"
    if raw.translate(None, CHARACTERS[element.content]):
        raise FormatError(Flaw.CHARSET, element.number)
    return prefix + value.encode(dialect.charset)


def _write_digits(element: Element, value: str, dialect: Dialect) -> bytes:
    digits = value.lower()
    if not (_TRACK2 if element.content is Content.Z else _TRACK2 - {"d"}).issuperset(digits):
        raise FormatError(Flaw.CHARSET, element.number)
    if not dialect.bcd_digits:
        return digits.replace("d", dialect.track2_separator).encode(dialect.charset)
    if len(digits) & 1:
        digits = f"{digits}f" if element.prefix else f"0{digits}"
    return bytes.fromhex(digits)


def _characters(raw: bytes, dialect: Dialect) -> str | None:
    """The characters of the dialect's charset; None unless all of them are in ASCII, too."""
    try:
        text = raw.decode(dialect.charset)
    except UnicodeDecodeError:
        return None
    return text if text.isascii() else None
