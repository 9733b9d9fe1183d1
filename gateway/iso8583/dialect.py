"""How a message stands on the wire, as data: a dialect is one JSON file, no code.

    name, description   what it is called (settings name it) and what it is
    tpdu                whether five bytes of TPDU stand in front of the header
    header, bitmap      "raw" or "hex": as bytes, or as hexadecimal digits of the charset
    bytes               the same for elements of bytes (DE52, 55, 62, 64)
    digits, lengths     "bcd" or "text": two decimal digits a byte, or characters of the charset
    charset             "ascii" or "cp500" (EBCDIC)
    track2_separator    how the separator of track 2 is written: "D" or "="
    elements            changes to the element table: number -> {name, content, minimum, maximum,
                        prefix} (content: n, z, an, ans, b; prefix: 0 fixed, 1 LLVAR, 2 LLLVAR),
                        or null for an element that this dialect hasn't got

The length in front of a frame is two bytes, big-endian, in every dialect. A message is the same
`Message` in each. Pure, standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from gateway.iso8583.spec import SPECS, Content, Element, Suite

_TPDU_BYTES = 5
_HEADER_BYTES = 6
_MAC_BYTES = 8
#: Elements that gateway and MAC rely on: a dialect can't change them.
_FIXED_ELEMENTS = frozenset({11, 41, 42, 52, 64})


class DialectError(ValueError):
    """A dialect's file can't be used; says which field of which dialect is wrong."""


# Compared and hashed by identity: the codec's plans are kept by dialect.
@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """One dialect (see this module's text). Widths and offsets count bytes on the wire."""

    name: str
    description: str
    tpdu: bool
    hex_header: bool
    bcd_digits: bool
    bcd_lengths: bool
    hex_bitmap: bool
    hex_bytes: bool
    charset: str
    track2_separator: str
    changes: Mapping[int, Element | None] = field(default_factory=dict)
    #: Where header and message start in a frame's content.
    header_start: int = field(init=False)
    message_start: int = field(init=False)
    #: Widths of MTI, bitmap and DE64, and of MTI and bitmap together.
    mti_width: int = field(init=False)
    bitmap_width: int = field(init=False)
    mac_width: int = field(init=False)
    start: int = field(init=False)
    #: Whether the compiled plans (gateway.iso8583.plans) read and write it.
    packed: bool = field(init=False)

    def __post_init__(self) -> None:
        header_start = _TPDU_BYTES if self.tpdu else 0
        mti, bitmap = (2 if self.bcd_digits else 4), (16 if self.hex_bitmap else 8)
        computed: dict[str, object] = {
            "header_start": header_start,
            "message_start": header_start + _HEADER_BYTES * (1 + self.hex_header),
            "mti_width": mti,
            "bitmap_width": bitmap,
            "mac_width": _MAC_BYTES * (1 + self.hex_bytes),
            "start": mti + bitmap,
            "packed": self.bcd_digits
            and self.bcd_lengths
            and not (self.hex_bitmap or self.hex_bytes)
            and self.charset == "ascii"
            and self.track2_separator == "D",
        }
        for name, value in computed.items():
            object.__setattr__(self, name, value)

    def elements(self, suite: Suite) -> Mapping[int, Element]:
        """The element table of a suite in this dialect."""
        return _elements(self, suite)


@lru_cache(maxsize=64)
def _elements(dialect: Dialect, suite: Suite) -> Mapping[int, Element]:
    if not dialect.changes:
        return SPECS[suite]
    merged = {**SPECS[suite], **dialect.changes}
    return {number: found for number in sorted(merged) if (found := merged[number]) is not None}


_CHOICES: Mapping[str, Mapping[str, bool]] = {
    "header": {"raw": False, "hex": True},
    "bitmap": {"raw": False, "hex": True},
    "bytes": {"raw": False, "hex": True},
    "digits": {"text": False, "bcd": True},
    "lengths": {"text": False, "bcd": True},
}
_FIELDS = {*_CHOICES, "name", "description", "tpdu", "charset", "track2_separator", "elements"}


def parse_dialect(text: str, where: str) -> Dialect:
    """The dialect that a JSON text describes. DialectError names what is wrong in `where`."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DialectError(f"dialect {where}: not JSON ({error})") from None
    if not isinstance(document, dict):
        told = f"not a JSON object, fields missing or unknown: {sorted(_FIELDS)}"
        raise DialectError(f"dialect {where}: {told}")
    if document.keys() != _FIELDS:
        wrong = sorted(_FIELDS ^ document.keys())
        raise DialectError(f"dialect {where}: fields missing or unknown: {wrong}")
    chosen: dict[str, bool] = {}
    for name, values in _CHOICES.items():
        if document[name] not in values:
            raise DialectError(f"dialect {where}: {name} is one of {sorted(values)}")
        chosen[name] = values[document[name]]
    if document["charset"] not in ("ascii", "cp500"):
        raise DialectError(f"dialect {where}: charset is one of ['ascii', 'cp500']")
    if not isinstance(document["tpdu"], bool):
        raise DialectError(f"dialect {where}: tpdu is true or false")
    separators = ("D",) if chosen["digits"] else ("D", "=")
    if document["track2_separator"] not in separators:
        raise DialectError(f"dialect {where}: track2_separator is one of {list(separators)}")
    if not all(isinstance(document[name], str) and document[name] for name in _NAMED):
        raise DialectError(f"dialect {where}: name and description are texts")
    return Dialect(
        name=document["name"],
        description=document["description"],
        tpdu=document["tpdu"],
        hex_header=chosen["header"],
        bcd_digits=chosen["digits"],
        bcd_lengths=chosen["lengths"],
        hex_bitmap=chosen["bitmap"],
        hex_bytes=chosen["bytes"],
        charset=document["charset"],
        track2_separator=document["track2_separator"],
        changes=_changes(document["elements"], where),
    )


_NAMED = ("name", "description")


def _changes(document: Any, where: str) -> dict[int, Element | None]:
    if not isinstance(document, dict):
        raise DialectError(f"dialect {where}: elements is an object")
    changes: dict[int, Element | None] = {}
    for key, value in document.items():
        number = int(key) if key.isdecimal() else 0
        if not 2 <= number <= 63 or number in _FIXED_ELEMENTS:
            raise DialectError(f"dialect {where}: element {key} can't be changed")
        changes[number] = None if value is None else _element(number, value, where)
    return changes


def _element(number: int, value: Any, where: str) -> Element:
    wrong = DialectError(f"dialect {where}: element {number} is no element")
    try:
        name, content = str(value["name"]), Content(value["content"])
        low, high, prefix = (value[key] for key in ("minimum", "maximum", "prefix"))
    except (KeyError, ValueError, TypeError):
        raise wrong from None
    if not all(type(count) is int for count in (low, high, prefix)):
        raise wrong
    most = {0: 999, 1: 99, 2: 999}.get(prefix, 0)
    if not 1 <= low <= high <= most or (prefix == 0 and low != high):
        raise wrong
    return Element(number, name, content, high, low, prefix)


def load_dialect(path: Path) -> Dialect:
    """The dialect in a file. DialectError, also if the file can't be read."""
    try:
        return parse_dialect(path.read_text(encoding="utf-8"), path.name)
    except OSError as error:
        raise DialectError(f"dialect {path.name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DialectError(f"dialect {path.name}: no text in UTF-8") from None


def _shipped() -> dict[str, Dialect]:
    found = sorted(
        entry.name
        for entry in files("gateway.iso8583.dialects").iterdir()
        if entry.name.endswith(".json")
    )
    folder = files("gateway.iso8583.dialects")
    loaded = [parse_dialect(folder.joinpath(name).read_text("utf-8"), name) for name in found]
    return {dialect.name: dialect for dialect in loaded}


#: The dialects that ship with the gateway, by name.
DIALECTS: Mapping[str, Dialect] = _shipped()
BCD_TPDU = DIALECTS["bcd-tpdu"]
ASCII = DIALECTS["ascii"]
EBCDIC = DIALECTS["ebcdic"]
