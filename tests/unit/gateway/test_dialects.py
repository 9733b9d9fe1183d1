"""Dialects: every message goes there and back in each, pyiso8583 agrees, files are checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import iso8583
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.iso8583 import wire
from gateway.iso8583.__main__ import documents, main
from gateway.iso8583.codec import Message, decode, decode_carefully, encode
from gateway.iso8583.dialect import (
    ASCII,
    BCD_TPDU,
    DIALECTS,
    EBCDIC,
    Dialect,
    DialectError,
    load_dialect,
    parse_dialect,
)
from gateway.iso8583.errors import Flaw, FormatError
from gateway.iso8583.published import to_pyiso8583
from gateway.iso8583.spec import Content, Element, Suite
from gateway.pos import framing
from gateway.pos.framing import FrameError, Header

FOLDER = Path(__file__).parents[3] / "docs"
EVERY = [(dialect, suite) for dialect in DIALECTS.values() for suite in Suite]
IDS = [f"{dialect.name}-{suite.name}" for dialect, suite in EVERY]
_ALPHABETS = {
    Content.N: "0123456789",
    Content.Z: "0123456789D",
    Content.AN: "ABCXYZabcxyz0189 ",
    Content.ANS: "".join(map(chr, range(0x20, 0x7F))),
}


def _values(element: Element, dialect: Dialect) -> st.SearchStrategy[str | bytes]:
    high = min(element.maximum, 60) if element.prefix else element.maximum
    high = max(element.minimum, high)
    if element.content is Content.B:
        return st.binary(min_size=element.minimum, max_size=high)
    return st.text(_ALPHABETS[element.content], min_size=element.minimum, max_size=high)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Message, Suite, Dialect]:
    dialect, suite = draw(st.sampled_from(EVERY))
    elements = dialect.elements(suite)
    message = Message(draw(st.from_regex(r"\A[0-9]{4}\Z")))
    for number in draw(st.sets(st.sampled_from(sorted(elements)))):
        value = draw(_values(elements[number], dialect))
        if isinstance(value, bytes):
            message.binary[number] = value
        else:
            message.text[number] = value
    return message, suite, dialect


@settings(max_examples=400, deadline=None)
@given(cases())
def test_what_is_encoded_decodes_to_the_same(case: tuple[Message, Suite, Dialect]) -> None:
    message, suite, dialect = case
    data = encode(message, suite, dialect)
    assert decode(data, suite, dialect) == message
    assert decode_carefully(data, suite, dialect) == message


@settings(max_examples=400, deadline=None)
@given(cases(), st.data())
def test_what_decodes_encodes_to_the_same_bytes(
    case: tuple[Message, Suite, Dialect], data: st.DataObject
) -> None:
    """Strict: a damaged message is refused, or it is another message with one spelling."""
    message, suite, dialect = case
    raw = bytearray(encode(message, suite, dialect))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    for damaged in (bytes(raw), cut, bytes(raw) + cut):
        try:
            found = decode(damaged, suite, dialect)
        except FormatError:
            continue
        assert encode(found, suite, dialect) == damaged


@settings(max_examples=300, deadline=None)
@given(cases())
def test_stock_pyiso8583_reads_and_writes_the_same_bytes(
    case: tuple[Message, Suite, Dialect],
) -> None:
    message, suite, dialect = case
    spec = to_pyiso8583(suite, dialect)
    data = encode(message, suite, dialect)
    theirs, _ = iso8583.decode(data, spec)
    assert theirs["t"] == message.mti
    values = {str(number): value for number, value in message.text.items()}
    if dialect.track2_separator == "=":
        values = {n: v.replace("D", "=") if n == "35" else v for n, v in values.items()}
    values |= {str(number): value.hex().upper() for number, value in message.binary.items()}
    assert {n: v for n, v in theirs.items() if n not in ("h", "t", "p")} == values
    again, _ = iso8583.encode(dict(theirs), spec)
    assert again == data


@pytest.mark.parametrize(("dialect", "suite"), EVERY, ids=IDS)
def test_the_published_spec_is_this_spec(dialect: Dialect, suite: Suite) -> None:
    name = f"{dialect.name}-{suite.name.lower()}.json"
    published = json.loads((FOLDER / "iso8583-specs" / name).read_text(encoding="ascii"))
    assert published == to_pyiso8583(suite, dialect)


def test_the_specs_are_written_as_they_are_published(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    published = {path.name for path in (FOLDER / "iso8583-specs").iterdir()}
    assert published == {path.name for path in (tmp_path / "iso8583-specs").iterdir()}
    assert published == documents().keys()
    old, new = FOLDER / "iso8583-spec.json", tmp_path / "iso8583-spec.json"
    assert old.read_bytes() == new.read_bytes()


@pytest.mark.parametrize(("dialect", "suite"), EVERY, ids=IDS)
def test_a_frame_goes_there_and_back(dialect: Dialect, suite: Suite) -> None:
    tpdu = bytes.fromhex("6000010002") if dialect.tpdu else b""
    header = Header(tpdu, suite, 0x12EF, dialect=dialect)
    frame = framing.frame(header, b"message")
    content = frame[framing.LENGTH_BYTES :]
    assert int.from_bytes(frame[:2], "big") == len(content)
    read, answer = framing.parse_headers(content, dialect)
    assert (read.tpdu, read.suite, read.epoch, read.dialect) == (tpdu, suite, 0x12EF, dialect)
    assert content[dialect.message_start :] == b"message"
    assert answer.tpdu == (bytes.fromhex("6000020001") if dialect.tpdu else b"")
    raw = content[dialect.header_start : dialect.message_start]
    assert raw == read.bytes_without_tpdu()
    assert len(raw) == (12 if dialect is ASCII else 6)


@pytest.mark.parametrize(
    "head", [b"01010000000g", b"0101000000ef", b"020100000000", b"01040000000000"]
)
def test_a_header_that_is_none_is_refused(head: bytes) -> None:
    with pytest.raises(FrameError):
        framing.parse_header(head + b"0200", ASCII)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_a_cut_message_is_told_with_what_could_be_read(dialect: Dialect, cut: int) -> None:
    message = Message("0200", {3: "000000", 11: "000007", 41: "POS00001", 42: "M" * 15})
    message.binary[64] = bytes(8)
    raw = encode(message, Suite.SM, dialect)
    with pytest.raises(FormatError) as caught:
        decode(raw[: len(raw) - 1 - cut], Suite.SM, dialect)
    if cut == 0:
        assert (caught.value.flaw, caught.value.echo[11]) == (Flaw.TRUNCATED, "000007")
        assert caught.value.answerable


@pytest.mark.parametrize("dialect", [ASCII, EBCDIC], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    ("find", "put", "flaw"),
    [("000007", "0000x7", Flaw.CHARSET), ("POS", "PO\xe9", Flaw.CHARSET)],
)
def test_a_wrong_character_is_stepped_over_for_the_answer(
    dialect: Dialect, find: str, put: str, flaw: Flaw
) -> None:
    message = Message("0200", {3: "000007", 11: "000008", 37: "POSPOSPOSPOS", 41: "TERMINAL"})
    raw = encode(message, Suite.SM, dialect)
    old, new = find.encode(dialect.charset), put.encode("cp500" if dialect is EBCDIC else "latin-1")
    with pytest.raises(FormatError) as caught:
        decode(raw.replace(old, new, 1), Suite.SM, dialect)
    assert (caught.value.flaw, caught.value.mti) == (flaw, "0200")
    assert caught.value.echo[41] == "TERMINAL"


def test_printable_means_printable() -> None:
    message = Message("0200", {2: "6223001000012340", 35: "6223001000012340D2812", 60: "000001"})
    message.binary.update({52: bytes(range(16)), 55: b"\x9f\x26\x08", 64: b"\xff" * 8})
    raw = encode(message, Suite.SM, ASCII)
    assert raw.isascii()
    assert raw.decode("ascii").isprintable()
    assert b"6223001000012340=2812" in raw
    assert encode(message, Suite.SM, EBCDIC)[:4] == bytes.fromhex("f0f2f0f0")


@pytest.mark.parametrize("digits", ["0123456789abcdef", "0123456789ABCDE", "0123456789ABCDEG"])
def test_hexadecimal_digits_have_one_form(digits: str) -> None:
    assert wire.read_bytes(digits.encode(), True, ASCII) is None


# A dialect is a file

OWN: Mapping[str, Any] = {
    "name": "own",
    "description": "BCD without TPDU, a longer DE60 and no DE26",
    "tpdu": False,
    "header": "raw",
    "digits": "bcd",
    "lengths": "bcd",
    "bitmap": "raw",
    "bytes": "raw",
    "charset": "ascii",
    "track2_separator": "D",
    "elements": {
        "26": None,
        "60": {"name": "Longer", "content": "n", "minimum": 6, "maximum": 30, "prefix": 2},
        "48": {"name": "Private", "content": "ans", "minimum": 1, "maximum": 99, "prefix": 2},
    },
}


def test_a_new_dialect_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(OWN))
    own = load_dialect(path)
    assert own.packed  # the compiled plans serve it
    message = Message("0200", {11: "000001", 41: "POS00001", 48: "private", 60: "1" * 30})
    raw = encode(message, Suite.AES, own)
    assert decode(raw, Suite.AES, own) == message
    with pytest.raises(FormatError):
        decode(raw, Suite.AES, BCD_TPDU)
    with pytest.raises(FormatError):
        encode(Message("0200", {26: "06"}), Suite.AES, own)
    theirs, _ = iso8583.decode(raw, to_pyiso8583(Suite.AES, own))
    assert theirs["48"] == "private"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"digits": "roman"}, "digits is one of"),
        ({"charset": "utf-16"}, "charset is one of"),
        ({"tpdu": "yes"}, "tpdu is true or false"),
        ({"track2_separator": "="}, "track2_separator is one of"),
        ({"name": ""}, "name and description"),
        ({"more": 1}, "more"),
        ({"elements": []}, "elements is an object"),
        ({"elements": {"64": None}}, "element 64 can't be changed"),
        ({"elements": {"1": None}}, "element 1 can't be changed"),
        ({"elements": {"x": None}}, "element x can't be changed"),
        ({"elements": {"48": {"name": "x"}}}, "element 48 is no element"),
        (
            {
                "elements": {
                    "48": {"name": "x", "content": "n", "minimum": 1, "maximum": 100, "prefix": 1}
                }
            },
            "element 48 is no element",
        ),
        (
            {
                "elements": {
                    "48": {"name": "x", "content": "n", "minimum": 1, "maximum": 9, "prefix": 0}
                }
            },
            "element 48 is no element",
        ),
    ],
)
def test_a_file_that_is_no_dialect_is_told_why(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DialectError, match=said):
        parse_dialect(json.dumps({**OWN, **changes}), "own.json")


def test_a_file_that_is_no_json_or_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DialectError, match=r"own\.json: not JSON"):
        parse_dialect("{", "own.json")
    with pytest.raises(DialectError, match="fields missing or unknown"):
        parse_dialect("[]", "own.json")
    with pytest.raises(DialectError, match=r"nosuch\.json: No such file"):
        load_dialect(tmp_path / "nosuch.json")
