"""How a bitmap's message is read and written, worked out once: runs of elements go together.

For packed dialects (BCD digits and lengths, ASCII characters, raw bytes); others are read and
written element by element. A plan says yes or no. It reads and writes exactly what decode_carefully
and encode_carefully of gateway.iso8583.codec do without an error (tests compare them); what is
wrong with anything else is theirs to find out. Pure, standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import groupby

from gateway.iso8583.dialect import BCD_TPDU, Dialect
from gateway.iso8583.spec import CHARACTERS, Content, Element, Suite

#: Where the elements start: behind MTI (2 bytes) and bitmap (8).
START = 10
_MTI_LENGTH = 2

#: Reads elements from a position in the message into `text` and `binary` and returns the position
#: behind them, or 0 if they aren't well-formed. Takes the message twice: as bytes and as
#: hexadecimal digits. Past the end a position just goes on: who reads the whole plan compares.
_ReadingStep = Callable[[bytes, str, int, dict[int, str], dict[int, bytes]], int]


class ReadingPlan:
    """The steps that read the messages of one MTI and bitmap."""

    __slots__ = ("_steps", "mti")

    def __init__(self, mti: str, elements: Iterable[Element]) -> None:
        self.mti = mti
        self._steps = [_reading_step(list(run)) for _, run in groupby(elements, _kind)]

    def read(self, data: bytes, text: dict[int, str], binary: dict[int, bytes]) -> bool:
        """Whether all of `data` is well-formed; if so, its elements are in the two dicts."""
        digits = data.hex()
        position = START
        for step in self._steps:
            position = step(data, digits, position, text, binary)
            if not position:
                return False
        return position == len(data)


@lru_cache(maxsize=512)  # bounded: the peer picks MTI and bitmap
def reading_plan(head: bytes, suite: Suite, dialect: Dialect = BCD_TPDU) -> ReadingPlan | None:
    """The plan for messages that begin with `head`; None if no such message is well-formed.

    `dialect` is a packed one.
    """
    mti = head[:_MTI_LENGTH].hex()
    if len(head) != START or not mti.isdigit():
        return None
    bitmap = int.from_bytes(head[_MTI_LENGTH:], "big")
    spec = dialect.elements(suite)
    elements = [spec.get(number) for number in range(1, 65) if bitmap >> (64 - number) & 1]
    known = [element for element in elements if element is not None]
    return ReadingPlan(mti, known) if len(known) == len(elements) else None


def _kind(element: Element) -> object:
    """Neighbours of one kind are read in one step; an element of variable length alone."""
    return element.number if element.prefix else element.content


def _reading_step(run: list[Element]) -> _ReadingStep:
    first = run[0]
    if first.prefix:
        return _read_variable_digits(first) if first.nibbles else _read_variable_bytes(first)
    if first.content is Content.B:
        return _read_fixed_bytes(run)
    return _read_fixed_digits(run) if first.nibbles else _read_fixed_characters(run)


def _read_fixed_digits(run: list[Element]) -> _ReadingStep:
    """Fixed elements of digits in a row; one with an odd number of them has a 0 in front."""
    pads: list[int] = []
    cuts: list[tuple[int, int, int]] = []
    end = 0
    for element in run:
        start, end = end, end + 2 * element.width
        if element.maximum & 1:
            pads.append(start)
            start += 1
        cuts.append((element.number, start, end))
    width = end // 2

    def step(
        _: bytes, digits: str, position: int, text: dict[int, str], binary: dict[int, bytes]
    ) -> int:
        found = digits[2 * position : 2 * (position + width)]
        if not found.isdigit():
            return 0
        for pad in pads:
            if found[pad : pad + 1] != "0":
                return 0
        for number, start, end in cuts:
            text[number] = found[start:end]
        return position + width

    return step


def _read_fixed_characters(run: list[Element]) -> _ReadingStep:
    """Fixed elements of characters of the same repertoire in a row."""
    permitted = CHARACTERS[run[0].content]
    cuts: list[tuple[int, int, int]] = []
    width = 0
    for element in run:
        start, width = width, width + element.width
        cuts.append((element.number, start, width))

    def step(
        data: bytes, _: str, position: int, text: dict[int, str], binary: dict[int, bytes]
    ) -> int:
        found = data[position : position + width]
        if found.translate(None, permitted):
            return 0
        characters = found.decode("ascii")
        for number, start, end in cuts:
            text[number] = characters[start:end]
        return position + width

    return step


def _read_fixed_bytes(run: list[Element]) -> _ReadingStep:
    def step(
        data: bytes, _: str, position: int, text: dict[int, str], binary: dict[int, bytes]
    ) -> int:
        for element in run:
            start, position = position, position + element.width
            binary[element.number] = data[start:position]
        return position

    return step


def _read_variable_digits(element: Element) -> _ReadingStep:
    """Digits (n) or track 2 (z) behind a length; an odd number of them has an F at its end."""
    number, prefix = element.number, element.prefix
    low, high, track2 = element.minimum, element.maximum, element.content is Content.Z

    def step(
        _: bytes, digits: str, position: int, text: dict[int, str], binary: dict[int, bytes]
    ) -> int:
        start = 2 * (position + prefix)
        length = digits[2 * position : start]
        if not length.isdigit():
            return 0
        count = int(length)
        if not low <= count <= high:
            return 0
        found = digits[start : start + count]
        if count & 1 and digits[start + count : start + count + 1] != "f":
            return 0
        if not (found.replace("d", "0") if track2 else found).isdigit():
            return 0
        text[number] = found.upper() if track2 else found
        return position + prefix + (count + 1 >> 1)

    return step


def _read_variable_bytes(element: Element) -> _ReadingStep:
    """Characters or bytes behind a length."""
    number, prefix = element.number, element.prefix
    low, high = element.minimum, element.maximum
    permitted = None if element.content is Content.B else CHARACTERS[element.content]

    def step(
        data: bytes, digits: str, position: int, text: dict[int, str], binary: dict[int, bytes]
    ) -> int:
        start = position + prefix
        length = digits[2 * position : 2 * start]
        if not length.isdigit():
            return 0
        count = int(length)
        if not low <= count <= high:
            return 0
        found = data[start : start + count]
        if permitted is None:
            binary[number] = found
        elif found.translate(None, permitted):
            return 0
        else:
            text[number] = found.decode("ascii")
        return start + count

    return step


#: The bytes of some elements of a message, or None if a value isn't well-formed.
_WritingStep = Callable[[Mapping[int, str], Mapping[int, bytes]], bytes | None]


class WritingPlan:
    """The steps that write the messages with one set of elements."""

    __slots__ = ("_steps", "bitmap", "elements")

    def __init__(self, elements: list[Element]) -> None:
        self.elements = elements
        bits = sum(1 << (64 - element.number) for element in elements)
        self.bitmap = bits.to_bytes(START - _MTI_LENGTH, "big")
        self._steps = [_writing_step(list(run)) for _, run in groupby(elements, _kind)]

    def write(self, text: Mapping[int, str], binary: Mapping[int, bytes]) -> bytes | None:
        """The bitmap and the elements; None if a value isn't well-formed."""
        parts = [self.bitmap]
        for step in self._steps:
            part = step(text, binary)
            if part is None:
                return None
            parts.append(part)
        return b"".join(parts)


@lru_cache(maxsize=512)
def writing_plan(
    text: tuple[int, ...], binary: tuple[int, ...], suite: Suite, dialect: Dialect = BCD_TPDU
) -> WritingPlan | None:
    """The plan for messages with these elements, in any order; None if there can't be one."""
    spec = dialect.elements(suite)
    numbers = sorted((*text, *binary))
    elements = [spec[number] for number in numbers if number in spec]
    is_binary = {element.number for element in elements if element.content is Content.B}
    possible = len(elements) == len(set(numbers)) and is_binary == set(binary)
    return WritingPlan(elements) if possible else None


def _writing_step(run: list[Element]) -> _WritingStep:
    first = run[0]
    if first.content is Content.B:
        return _write_bytes(run)
    if first.prefix:
        return _write_variable(first)
    return _write_fixed_digits(run) if first.nibbles else _write_fixed_characters(run)


def _write_fixed_digits(run: list[Element]) -> _WritingStep:
    numbers = tuple(element.number for element in run)
    lengths = tuple(element.maximum for element in run)
    template = "".join("0%s" if length & 1 else "%s" for length in lengths)

    def step(text: Mapping[int, str], _: Mapping[int, bytes]) -> bytes | None:
        values = tuple(map(text.__getitem__, numbers))
        digits = template % values
        if tuple(map(len, values)) != lengths or not (digits.isascii() and digits.isdigit()):
            return None
        return bytes.fromhex(digits)

    return step


def _write_fixed_characters(run: list[Element]) -> _WritingStep:
    numbers = tuple(element.number for element in run)
    lengths = tuple(element.maximum for element in run)
    permitted = CHARACTERS[run[0].content]

    def step(text: Mapping[int, str], _: Mapping[int, bytes]) -> bytes | None:
        values = tuple(map(text.__getitem__, numbers))
        characters = "".join(values)
        if tuple(map(len, values)) != lengths or not characters.isascii():
            return None
        raw = characters.encode("ascii")
        return None if raw.translate(None, permitted) else raw

    return step


def _write_bytes(run: list[Element]) -> _WritingStep:
    def step(_: Mapping[int, str], binary: Mapping[int, bytes]) -> bytes | None:
        parts: list[bytes] = []
        for element in run:
            value = binary[element.number]
            length = len(value)
            if not element.minimum <= length <= element.maximum:
                return None
            parts.append(length_prefix(element, length) + value)
        return b"".join(parts)

    return step


def _write_variable(element: Element) -> _WritingStep:
    """Digits, track 2 or characters behind their length."""
    number, low, high = element.number, element.minimum, element.maximum
    nibbles, track2 = element.nibbles, element.content is Content.Z
    permitted = b"" if nibbles else CHARACTERS[element.content]

    def step(text: Mapping[int, str], _: Mapping[int, bytes]) -> bytes | None:
        value = text[number]
        length = len(value)
        if not low <= length <= high or not value.isascii():
            return None
        if not nibbles:
            raw = value.encode("ascii")
            return None if raw.translate(None, permitted) else length_prefix(element, length) + raw
        digits = value.lower() if track2 else value
        if not (digits.replace("d", "0") if track2 else digits).isdigit():
            return None
        packed = bytes.fromhex(f"{digits}f" if length & 1 else digits)
        return length_prefix(element, length) + packed

    return step


def length_prefix(element: Element, length: int) -> bytes:
    """The length in front of an element's value; nothing where it is fixed."""
    if not element.prefix:
        return b""
    return bytes.fromhex(f"{length:0{2 * element.prefix}d}")
