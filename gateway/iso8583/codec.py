"""Bytes to message and back, strict: what decodes, encodes to the same bytes.

Table-driven over gateway.iso8583.spec; pure, standard library only. A well-formed message is read
and written by the plan of its elements (gateway.iso8583.plans). What no plan can read is gone
through element by element here, for the sake of the answer: that goes on past an element with wrong
characters as long as its length is known, because an answer needs the trace number and the terminal
(docs/iso8583.md, Order of checks).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from gateway.iso8583.errors import Flaw, FormatError
from gateway.iso8583.plans import START, length_prefix, reading_plan, writing_plan
from gateway.iso8583.spec import CHARACTERS, ECHOED_ELEMENTS, SPECS, Content, Element, Suite

_MTI_LENGTH = 2
_BITMAP_LENGTH = 8
_SECONDARY_BITMAP = 1 << 63
#: Bytes of DE64, always the last element.
MAC_LENGTH = 8

_TRACK2 = frozenset("0123456789d")


class Message:
    """One message: `text` holds elements of digits and characters, `binary` those of bytes."""

    __slots__ = ("binary", "mti", "text")

    def __init__(
        self,
        mti: str,
        text: Mapping[int, str] | None = None,
        binary: Mapping[int, bytes] | None = None,
    ) -> None:
        self.mti = mti
        self.text: dict[int, str] = dict(text or {})
        self.binary: dict[int, bytes] = dict(binary or {})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return (self.mti, self.text, self.binary) == (other.mti, other.text, other.binary)

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def of(cls, mti: str, text: dict[int, str], binary: dict[int, bytes]) -> Message:
        """A message that takes these dicts as its own."""
        message = cls.__new__(cls)
        message.mti = mti
        message.text = text
        message.binary = binary
        return message

    def __repr__(self) -> str:
        # Numbers only: values may be card data.
        return f"Message({self.mti}, elements={sorted([*self.text, *self.binary])})"

    def echo(self) -> dict[int, str]:
        """The elements that an answer repeats."""
        text = self.text
        return {number: text[number] for number in ECHOED_ELEMENTS if number in text}


def decode(data: bytes, suite: Suite = Suite.SM) -> Message:
    """The message in `data` (MTI, bitmap, elements, nothing after them). Raises FormatError."""
    plan = reading_plan(data[:START], suite)
    if plan is not None:
        text: dict[int, str] = {}
        binary: dict[int, bytes] = {}
        if plan.read(data, text, binary):
            return Message.of(plan.mti, text, binary)
    return decode_carefully(data, suite)


def decode_carefully(data: bytes, suite: Suite = Suite.SM) -> Message:
    """The same as `decode`, element by element: finds what is wrong and what can still be read."""
    mti = data[:_MTI_LENGTH].hex()
    if len(mti) != 2 * _MTI_LENGTH:
        raise FormatError(Flaw.TRUNCATED, 0)
    if not mti.isdigit():
        raise FormatError(Flaw.MTI, 0)
    if len(data) < START:
        raise FormatError(Flaw.TRUNCATED, 0, mti)
    bitmap = int.from_bytes(data[_MTI_LENGTH:START], "big")
    message = Message(mti)
    text, binary = message.text, message.binary
    position = START
    first: FormatError | None = None
    try:
        if bitmap & _SECONDARY_BITMAP:
            # No element beyond 64 exists here; its eight bytes are stepped over for the answer.
            first = FormatError(Flaw.BITMAP, 1)
            position += _BITMAP_LENGTH
        for element in _layout(bitmap & ~_SECONDARY_BITMAP, suite):
            if element is None:
                raise FormatError(Flaw.BITMAP, 0)
            start, end, odd = _extent(element, data, position)
            raw = data[start:end]
            if len(raw) != end - start:
                raise FormatError(Flaw.TRUNCATED, element.number)
            position = end
            if element.content is Content.B:
                binary[element.number] = raw
                continue
            try:
                text[element.number] = _read(element, raw, odd)
            except FormatError as error:
                first = first or error
        if position != len(data):
            raise FormatError(Flaw.TRAILING, 0)
    except FormatError as error:
        first = first or error
    if first is not None:
        raise FormatError(first.flaw, first.element, mti, message.echo())
    return message


def encode(message: Message, suite: Suite = Suite.SM) -> bytes:
    """The bytes of a message; `message` stays as it was. Raises FormatError as decode would."""
    text, binary, mti = message.text, message.binary, message.mti
    plan = writing_plan((*text,), (*binary,), suite)
    if plan is not None and len(mti) == 4 and mti.isascii() and mti.isdigit():
        elements = plan.write(text, binary)
        if elements is not None:
            return bytes.fromhex(mti) + elements
    return encode_carefully(message, suite)


def encode_carefully(message: Message, suite: Suite = Suite.SM) -> bytes:
    """The same as `encode`, element by element: finds what is wrong."""
    spec = SPECS[suite]
    bitmap = 0
    parts: list[bytes] = []
    for number in sorted([*message.text, *message.binary]):
        element = spec.get(number)
        if element is None:
            raise FormatError(Flaw.BITMAP, number)
        bitmap |= 1 << (64 - number)
        parts.append(
            _write_bytes(element, message.binary.get(number))
            if element.content is Content.B
            else _write_text(element, message.text.get(number))
        )
    if len(message.mti) != 4 or not (message.mti.isascii() and message.mti.isdigit()):
        raise FormatError(Flaw.MTI, 0)
    return b"".join((bytes.fromhex(message.mti), bitmap.to_bytes(_BITMAP_LENGTH, "big"), *parts))


@lru_cache(maxsize=512)  # bounded: the peer picks bitmaps
def _layout(bitmap: int, suite: Suite) -> tuple[Element | None, ...]:
    """The elements that a bitmap names, in order; None (and nothing after) for an unknown one."""
    spec = SPECS[suite]
    layout: list[Element | None] = []
    for number in range(2, 65):
        if bitmap >> (64 - number) & 1:
            element = spec.get(number)
            layout.append(element)
            if element is None:
                break
    return tuple(layout)


def _extent(element: Element, data: bytes, position: int) -> tuple[int, int, bool]:
    """Where an element's bytes start and end, and whether its number of digits is odd."""
    if not element.prefix:
        return position, position + element.width, element.nibbles and element.maximum & 1 == 1
    prefix = data[position : position + element.prefix]
    if len(prefix) != element.prefix:
        raise FormatError(Flaw.TRUNCATED, element.number)
    digits = prefix.hex()
    if not digits.isdigit():
        raise FormatError(Flaw.LENGTH, element.number)
    length = int(digits)
    if not element.minimum <= length <= element.maximum:
        raise FormatError(Flaw.LENGTH, element.number)
    position += element.prefix
    if element.nibbles:
        return position, position + (length + 1 >> 1), length & 1 == 1
    return position, position + length, False


def _read(element: Element, raw: bytes, odd: bool) -> str:
    content = element.content
    if content is Content.N or content is Content.Z:
        digits = raw.hex()
        if odd:
            # A fixed element is padded in front by 0, a variable one at its end by F.
            pad, digits = (digits[-1], digits[:-1]) if element.prefix else (digits[0], digits[1:])
            if pad != ("f" if element.prefix else "0"):
                raise FormatError(Flaw.PADDING, element.number)
        if content is Content.Z:
            if not _TRACK2.issuperset(digits):
                raise FormatError(Flaw.CHARSET, element.number)
            return digits.upper()
        if not digits.isdigit():
            raise FormatError(Flaw.CHARSET, element.number)
        return digits
    if raw.translate(None, CHARACTERS[content]):
        raise FormatError(Flaw.CHARSET, element.number)
    return raw.decode("ascii")


def _write_bytes(element: Element, value: bytes | None) -> bytes:
    if value is None or not element.minimum <= len(value) <= element.maximum:
        raise FormatError(Flaw.LENGTH, element.number)
    return length_prefix(element, len(value)) + value


def _write_text(element: Element, value: str | None) -> bytes:
    if value is None or not element.minimum <= len(value) <= element.maximum:
        raise FormatError(Flaw.LENGTH, element.number)
    if element.nibbles:
        digits = value.lower()
        if not (_TRACK2 if element.content is Content.Z else _TRACK2 - {"d"}).issuperset(digits):
            raise FormatError(Flaw.CHARSET, element.number)
        if len(digits) & 1:
            digits = f"{digits}f" if element.prefix else f"0{digits}"
        return length_prefix(element, len(value)) + bytes.fromhex(digits)
    raw = value.encode("ascii") if value.isascii() else b"\x00"
    if raw.translate(None, CHARACTERS[element.content]):
        raise FormatError(Flaw.CHARSET, element.number)
    return length_prefix(element, len(value)) + raw
