"""The frame: however the stream is cut, the same frames come out; garbage is named."""

from __future__ import annotations

import random

import pytest

from gateway.iso8583.spec import Suite
from gateway.pos.framing import (
    MAX_LENGTH,
    FrameError,
    FrameFlaw,
    FrameReader,
    Header,
    frame,
    parse_header,
)

TPDU = bytes.fromhex("6000010002")
HEADER = Header(TPDU, Suite.SM, 258)
MESSAGES = [b"\x02\x00" + bytes([n]) * n for n in (1, 100, 40)]
STREAM = b"".join(frame(HEADER, message) for message in MESSAGES)
CONTENTS = [frame(HEADER, message)[2:] for message in MESSAGES]


def test_a_frame_is_laid_out_as_documented() -> None:
    assert frame(HEADER, b"\x08\x00").hex() == "000d" + "6000010002" + "010101020000" + "0800"
    assert HEADER.answer() == Header(bytes.fromhex("6000020001"), Suite.SM, 258)


def test_a_stream_cut_at_every_byte_gives_the_same_frames() -> None:
    for cut in range(len(STREAM) + 1):
        reader = FrameReader()
        first, flaw = reader.feed(STREAM[:cut])
        second, other = reader.feed(STREAM[cut:])
        assert flaw is None
        assert other is None
        assert first + second == CONTENTS
        assert not reader.partial


def test_a_stream_that_comes_byte_by_byte_gives_the_same_frames() -> None:
    reader, frames = FrameReader(), []
    for byte in STREAM:
        found, flaw = reader.feed(bytes([byte]))
        assert flaw is None
        frames += found
    assert frames == CONTENTS


def test_several_frames_in_one_segment_come_out_in_order() -> None:
    assert FrameReader().feed(STREAM * 50) == (CONTENTS * 50, None)


def test_seeded_cuts_give_the_same_frames() -> None:
    rng = random.Random(1)
    for _ in range(200):
        reader, frames, rest = FrameReader(), [], STREAM * 3
        while rest:
            size = rng.randint(1, 90)
            found, _ = reader.feed(rest[:size])
            frames += found
            rest = rest[size:]
        assert frames == CONTENTS * 3


@pytest.mark.parametrize(
    ("prefix", "flaw"),
    [
        (b"\0\0", FrameFlaw.EMPTY),
        ((MAX_LENGTH + 1).to_bytes(2, "big"), FrameFlaw.OVER_MAXIMUM),
        (b"\xff\xff", FrameFlaw.OVER_MAXIMUM),
        (b"0123", FrameFlaw.OVER_MAXIMUM),  # a length in ASCII: not a number of this frame
        (b"GET / HTTP/1.1\r\n", FrameFlaw.OVER_MAXIMUM),
    ],
)
def test_a_length_that_is_none_ends_the_stream_after_the_good_frames(
    prefix: bytes, flaw: FrameFlaw
) -> None:
    assert FrameReader().feed(STREAM + prefix + STREAM) == (CONTENTS, flaw)


def test_the_longest_frame_passes() -> None:
    longest = frame(HEADER, bytes(MAX_LENGTH - 11))
    assert FrameReader().feed(longest) == ([longest[2:]], None)
    with pytest.raises(ValueError, match="fit"):
        frame(HEADER, bytes(MAX_LENGTH - 10))


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        ("00", FrameFlaw.TOO_SHORT),
        ("6000010002" + "010100000000", FrameFlaw.TOO_SHORT),
        ("6100010002" + "010100000000" + "0200", FrameFlaw.TPDU),
        ("6000010002" + "020100000000" + "0200", FrameFlaw.VERSION),
        ("6000010002" + "010900000000" + "0200", FrameFlaw.SUITE),
    ],
)
def test_a_header_that_cannot_be_read_is_named(content: str, flaw: FrameFlaw) -> None:
    with pytest.raises(FrameError) as caught:
        parse_header(bytes.fromhex(content))
    assert caught.value.flaw is flaw


def test_the_buffer_never_holds_more_than_one_frame() -> None:
    reader = FrameReader()
    for _ in range(1000):
        reader.feed(STREAM)
        reader.feed(STREAM[:50])
        assert len(reader._buffer) <= MAX_LENGTH + 1
        reader.feed(STREAM[50:])
