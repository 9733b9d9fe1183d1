"""Bytes to message and back, strict: what decodes, encodes to the same bytes.

Table-driven over gateway.iso8583.spec and a dialect; pure, standard library only. A well-formed
message of a packed dialect is read and written by the plan of its elements
(gateway.iso8583.plans). What no plan can read is gone through element by element here, for the
sake of the answer: that goes on past an element with wrong characters as long as its length is
known, because an answer needs the trace number and the terminal (docs/iso8583.md, Order of checks).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from gateway.iso8583 import wire
from gateway.iso8583.dialect import BCD_TPDU, Dialect
from gateway.iso8583.errors import Flaw, FormatError
from gateway.iso8583.plans import START, reading_plan, writing_plan
from gateway.iso8583.spec import ECHOED_ELEMENTS, Content, Element, Suite

_SECONDARY_BITMAP = 1 << 63
#: Bytes of DE64, always the last element (on the wire: Dialect.mac_width).
MAC_LENGTH = 8


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


def decode(data: bytes, suite: Suite = Suite.SM, dialect: Dialect = BCD_TPDU) -> Message:
    """The message in `data` (MTI, bitmap, elements, nothing after them). Raises FormatError."""
    plan = reading_plan(data[:START], suite, dialect) if dialect.packed else None
    if plan is not None:
        text: dict[int, str] = {}
        binary: dict[int, bytes] = {}
        if plan.read(data, text, binary):
            return Message.of(plan.mti, text, binary)
    return decode_carefully(data, suite, dialect)


def decode_carefully(data: bytes, suite: Suite = Suite.SM, dialect: Dialect = BCD_TPDU) -> Message:
    """The same as `decode`, element by element: finds what is wrong and what can still be read."""
    head = data[: dialect.mti_width]
    if len(head) != dialect.mti_width:
        raise FormatError(Flaw.TRUNCATED, 0)
    mti = wire.read_digits(head, dialect)
    if mti is None:
        raise FormatError(Flaw.MTI, 0)
    if len(data) < dialect.start:
        raise FormatError(Flaw.TRUNCATED, 0, mti)
    bits = wire.read_bytes(data[dialect.mti_width : dialect.start], dialect.hex_bitmap, dialect)
    if bits is None:
        raise FormatError(Flaw.BITMAP, 0, mti)
    message = Message(mti)
    first = _read_elements(data, int.from_bytes(bits, "big"), suite, dialect, message)
    if first is not None:
        raise FormatError(first.flaw, first.element, mti, message.echo())
    return message


def _read_elements(
    data: bytes, bitmap: int, suite: Suite, dialect: Dialect, message: Message
) -> FormatError | None:
    """Fill `message` as far as it can be read; the first thing that is wrong."""
    position = dialect.start
    first: FormatError | None = None
    try:
        if bitmap & _SECONDARY_BITMAP:
            # No element beyond 64 exists here; its bytes are stepped over for the answer.
            first = FormatError(Flaw.BITMAP, 1)
            position += dialect.bitmap_width
        for element in _layout(bitmap & ~_SECONDARY_BITMAP, suite, dialect):
            if element is None:
                raise FormatError(Flaw.BITMAP, 0)
            start, end, odd = wire.extent(element, data, position, dialect)
            raw = data[start:end]
            if len(raw) != end - start:
                raise FormatError(Flaw.TRUNCATED, element.number)
            position = end
            try:
                if element.content is Content.B:
                    message.binary[element.number] = wire.read_binary(element, raw, dialect)
                else:
                    message.text[element.number] = wire.read_text(element, raw, odd, dialect)
            except FormatError as error:
                first = first or error
        if position != len(data):
            raise FormatError(Flaw.TRAILING, 0)
    except FormatError as error:
        first = first or error
    return first


def encode(message: Message, suite: Suite = Suite.SM, dialect: Dialect = BCD_TPDU) -> bytes:
    """The bytes of a message; `message` stays as it was. Raises FormatError as decode would."""
    text, binary, mti = message.text, message.binary, message.mti
    plan = writing_plan((*text,), (*binary,), suite, dialect) if dialect.packed else None
    if plan is not None and len(mti) == 4 and mti.isascii() and mti.isdigit():
        elements = plan.write(text, binary)
        if elements is not None:
            return bytes.fromhex(mti) + elements
    return encode_carefully(message, suite, dialect)


def encode_carefully(
    message: Message, suite: Suite = Suite.SM, dialect: Dialect = BCD_TPDU
) -> bytes:
    """The same as `encode`, element by element: finds what is wrong."""
    spec = dialect.elements(suite)
    bitmap = 0
    parts: list[bytes] = []
    for number in sorted([*message.text, *message.binary]):
        element = spec.get(number)
        if element is None:
            raise FormatError(Flaw.BITMAP, number)
        bitmap |= 1 << (64 - number)
        parts.append(
            wire.write_binary(element, message.binary.get(number), dialect)
            if element.content is Content.B
            else wire.write_text(element, message.text.get(number), dialect)
        )
    if len(message.mti) != 4 or not (message.mti.isascii() and message.mti.isdigit()):
        raise FormatError(Flaw.MTI, 0)
    mti = wire.write_digits(message.mti, dialect)
    return b"".join(
        (mti, wire.write_bytes(bitmap.to_bytes(8, "big"), dialect.hex_bitmap, dialect), *parts)
    )


@lru_cache(maxsize=512)  # bounded: the peer picks bitmaps
def _layout(bitmap: int, suite: Suite, dialect: Dialect) -> tuple[Element | None, ...]:
    """The elements that a bitmap names, in order; None (and nothing after) for an unknown one."""
    spec = dialect.elements(suite)
    layout: list[Element | None] = []
    for number in range(2, 65):
        if bitmap >> (64 - number) & 1:
            element = spec.get(number)
            layout.append(element)
            if element is None:
                break
    return tuple(layout)
