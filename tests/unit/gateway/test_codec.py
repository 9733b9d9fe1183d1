"""The codec: strict both ways, equal to stock pyiso8583, silent about values."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import iso8583
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.iso8583.codec import (
    Message,
    decode,
    decode_carefully,
    encode,
    encode_carefully,
)
from gateway.iso8583.errors import Flaw, FormatError
from gateway.iso8583.plans import START, reading_plan, writing_plan
from gateway.iso8583.published import to_pyiso8583
from gateway.iso8583.spec import SPECS, Content, Element, Suite
from tests.factories.pos import CARD, PIN, message_of, terminal

SPEC_FILE = Path(__file__).parents[3] / "docs" / "iso8583-spec.json"
SPEC = SPECS[Suite.SM]

_ALPHABETS = {
    Content.N: "0123456789",
    Content.Z: "0123456789D",
    Content.AN: "ABCXYZabcxyz0189 ",
    Content.ANS: "".join(map(chr, range(0x20, 0x7F))),
}


def _values(element: Element) -> st.SearchStrategy[str | bytes]:
    low, high = element.minimum, min(element.maximum, 40 if element.prefix else 1000)
    high = max(low, high)
    if element.content is Content.B:
        return st.binary(min_size=low, max_size=high)
    return st.text(_ALPHABETS[element.content], min_size=low, max_size=high)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    message = Message(draw(st.from_regex(r"\A[0-9]{4}\Z")))
    for number in draw(st.sets(st.sampled_from(sorted(SPEC)))):
        value = draw(_values(SPEC[number]))
        if isinstance(value, bytes):
            message.binary[number] = value
        else:
            message.text[number] = value
    return message


def purchase() -> Message:
    pos = terminal()
    return message_of(pos.seal(pos.request("0200", "000000", CARD, 1250, PIN)))


@settings(deadline=None)
@given(messages())
def test_what_is_encoded_decodes_to_the_same(message: Message) -> None:
    before = repr(message), dict(message.text), dict(message.binary)
    data = encode(message)
    assert decode(data) == message
    assert (repr(message), message.text, message.binary) == before  # encode changes nothing


@settings(max_examples=150, deadline=None)
@given(messages())
def test_stock_pyiso8583_reads_and_writes_the_same_bytes(message: Message) -> None:
    spec = to_pyiso8583(Suite.SM)
    data = encode(message)
    theirs, _ = iso8583.decode(data, spec)
    ours = {"t": message.mti, "p": data[2:10].hex().upper()}
    ours |= {str(number): value for number, value in message.text.items()}
    ours |= {str(number): value.hex().upper() for number, value in message.binary.items()}
    assert theirs == ours
    again, _ = iso8583.encode(dict(theirs), spec)
    assert again == data


def _outcome(read: Callable[[bytes], Message], data: bytes) -> object:
    try:
        return read(data)
    except FormatError as error:
        return error.flaw, error.element, error.mti, error.echo


@settings(max_examples=300, deadline=None)
@given(messages(), st.data())
def test_a_plan_reads_what_is_well_formed_and_nothing_else(
    message: Message, data: st.DataObject
) -> None:
    raw = encode(message)
    plan = reading_plan(raw[:START], Suite.SM)
    assert plan is not None
    assert plan.read(raw, {}, {})
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(0, len(raw)))
    for other in (bytes(damaged), raw[:cut], raw + raw[:cut], bytes(damaged)[:cut]):
        assert _outcome(decode, other) == _outcome(decode_carefully, other)


@settings(max_examples=300, deadline=None)
@given(messages(), st.sampled_from(sorted(SPEC)), st.text(max_size=20), st.binary(max_size=20))
def test_a_plan_writes_what_is_well_formed_and_nothing_else(
    message: Message, number: int, text: str, raw: bytes
) -> None:
    plan = writing_plan(tuple(message.text), tuple(message.binary), Suite.SM)
    assert plan is not None
    assert plan.write(message.text, message.binary) is not None
    assert encode(message) == encode_carefully(message)
    binary = SPEC[number].content is Content.B
    spoilt = Message(message.mti, message.text, message.binary)
    if binary:
        spoilt.binary[number] = raw
    else:
        spoilt.text[number] = text
    written: list[object] = []
    for write in (encode, encode_carefully):
        try:
            written.append(write(spoilt))
        except FormatError as error:
            written.append((error.flaw, error.element))
    assert written[0] == written[1]


def test_the_published_spec_is_this_spec() -> None:
    assert json.loads(SPEC_FILE.read_text(encoding="ascii")) == to_pyiso8583(Suite.SM)


@settings(max_examples=200, deadline=None)
@given(messages(), st.data())
def test_whatever_decodes_encodes_to_the_same_bytes(message: Message, data: st.DataObject) -> None:
    raw = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = decode(bytes(raw))
    except FormatError:
        return
    assert encode(read) == bytes(raw)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_format_error(data: bytes) -> None:
    try:
        message = decode(data)
    except FormatError:
        return
    assert encode(message) == data


def test_every_truncation_is_noticed() -> None:
    data = encode(purchase())
    for length in range(len(data)):
        with pytest.raises(FormatError):
            decode(data[:length])
    with pytest.raises(FormatError) as caught:
        decode(data + b"\0")
    assert caught.value.flaw is Flaw.TRAILING
    assert caught.value.answerable


def test_an_unknown_element_in_the_bitmap_is_an_error_of_ours_not_a_key_error() -> None:
    data = bytearray(encode(purchase()))
    data[2 + 44 // 8] |= 1 << (7 - 44 % 8)  # element 45
    with pytest.raises(FormatError) as caught:
        decode(bytes(data))
    assert caught.value.flaw is Flaw.BITMAP
    assert caught.value.answerable  # 11 and 41 stand before it
    data = bytearray(encode(purchase()))
    data[2] |= 0x08  # element 5, before 11
    with pytest.raises(FormatError) as caught:
        decode(bytes(data))
    assert not caught.value.answerable


def test_a_secondary_bitmap_is_refused_yet_answerable() -> None:
    data = encode(purchase())
    longer = data[:2] + bytes([data[2] | 0x80]) + data[3:10] + bytes(8) + data[10:]
    with pytest.raises(FormatError) as caught:
        decode(longer)
    assert caught.value.flaw is Flaw.BITMAP
    assert caught.value.answerable
    assert caught.value.mti == "0200"


@pytest.mark.parametrize(
    ("number", "value", "flaw"),
    [
        (4, bytes.fromhex("0000000012a0"), Flaw.CHARSET),  # hex letters are no digits
        (22, bytes.fromhex("1012"), Flaw.PADDING),
        (41, b"POS0000\n", Flaw.CHARSET),
        (42, b"HARBOR00000000\xe9", Flaw.CHARSET),
    ],
)
def test_wrong_characters_are_refused_and_the_rest_is_still_read(
    number: int, value: bytes, flaw: Flaw
) -> None:
    message = purchase()
    start = len(encode(_until(message, number)))
    data = bytearray(encode(message))
    data[start : start + len(value)] = value
    with pytest.raises(FormatError) as caught:
        decode(bytes(data))
    assert caught.value.flaw is flaw
    assert caught.value.element == number
    assert caught.value.answerable is (number != 41)


def test_wrong_lengths_are_refused() -> None:
    message = Message("0200", {2: CARD.pan, 11: "000001", 41: "POS00001", 60: "000001"})
    data = bytearray(encode(message))
    for prefix in (0x00, 0x20, 0x99, 0x1A, 0xFF):
        data[10] = prefix
        with pytest.raises(FormatError) as caught:
            decode(bytes(data))
        assert caught.value.flaw in (Flaw.LENGTH, Flaw.TRUNCATED)
    data = bytearray(encode(message))
    data[-4] = 0x05  # DE60 of five digits
    with pytest.raises(FormatError) as caught:
        decode(bytes(data))
    assert caught.value.flaw is Flaw.LENGTH
    assert caught.value.answerable


@pytest.mark.parametrize(
    "message",
    [
        Message("02x0"),
        Message("200"),
        Message("٠٢٠٠"),
        Message("0200", {5: "1"}),
        Message("0200", {65: "1"}),
        Message("0200", {3: "00000"}),
        Message("0200", {3: "00000a"}),
        Message("0200", {11: "٠٠٠٠٠١"}),
        Message("0200", {38: "12345é"}),
        Message("0200", {37: "12345678901-"}),
        Message("0200", {52: "0" * 16}),
        Message("0200", {}, {52: bytes(8)}),
        Message("0200", {}, {3: b"000000"}),
        Message("0200", {54: "x" * 121}),
    ],
)
def test_what_is_no_message_is_not_encoded(message: Message) -> None:
    with pytest.raises(FormatError):
        encode(message)


def test_neither_a_message_nor_an_error_shows_a_value() -> None:
    message = purchase()
    track2 = Message("0200", {35: f"{CARD.pan}D2812120", 11: "000001"})
    for shown in (repr(message), repr(track2), str(message)):
        assert CARD.pan not in shown
        assert CARD.pan[:8] not in shown
    with pytest.raises(FormatError) as caught:
        decode(encode(message) + b"\0")
    error = caught.value
    everything = f"{error!r} {error} {vars(error)} {error.args}"
    assert CARD.pan not in everything
    assert error.echo.keys() <= {7, 11, 37, 41, 42}


def test_fuzzed_messages_raise_nothing_else() -> None:
    rng = random.Random(8583)
    data = encode(purchase())
    for _ in range(5000):
        raw = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        raw = raw[: rng.randint(0, len(raw))] if rng.random() < 0.3 else raw
        try:
            decode(bytes(raw))
        except FormatError:
            continue


def _until(message: Message, number: int) -> Message:
    """The elements of a message before one of them: their length is where that one starts."""
    return Message(
        message.mti,
        {key: value for key, value in message.text.items() if key < number},
        {key: value for key, value in message.binary.items() if key < number},
    )
