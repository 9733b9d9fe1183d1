"""Card numbers never get past the masks: in an element, in a line of the log, in an error."""

from __future__ import annotations

import asyncio
import io
import json
import logging

import pytest
import structlog

from gateway import logs
from gateway.iso8583.mask import mask_pan, passes_luhn, redact

PAN = "6223001000012340"


@pytest.mark.parametrize(
    ("pan", "shown"),
    [
        (PAN, "622300******2340"),
        ("4000000000002", "400000***0002"),
        ("6223001000012340123", "622300*********0123"),
        ("123456", "******"),
        ("", ""),
    ],
)
def test_first_six_and_last_four(pan: str, shown: str) -> None:
    assert mask_pan(pan) == shown


# The usual worked example of the algorithm (79927398713), and schemes' test numbers.
@pytest.mark.parametrize("number", ["79927398713", "4111111111111111", "5555555555554444", PAN])
def test_luhn(number: str) -> None:
    assert passes_luhn(number)
    for digit in range(10):
        changed = number[:-1] + str(digit)
        assert passes_luhn(changed) is (changed == number)
    for position in range(len(number)):
        other = str((int(number[position]) + 1) % 10)
        assert not passes_luhn(number[:position] + other + number[position + 1 :])


@pytest.mark.parametrize("text", [PAN, f"pan={PAN}", f"{PAN}D2812120", f'{{"a": "{PAN}"}}'])
def test_redaction_finds_numbers_in_any_surroundings(text: str) -> None:
    assert PAN not in redact(text)
    assert "622300******2340" in redact(text)


def test_redaction_leaves_other_numbers_alone() -> None:
    text = "stan 000001, amount 000000001250, 20 digits 12345678901234567890"
    assert redact(text) == text


def test_whatever_is_logged_is_masked_and_is_json() -> None:
    """A planted leak: structlog, the standard library, and a traceback of asyncio."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure("info", stream)
        structlog.get_logger("gateway").warning("planted", card=PAN)
        structlog.get_logger("gateway").debug("not shown")
        logging.getLogger("aiohttp").error("planted %s", PAN)

        async def leak() -> None:
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: int(f"no number: {PAN}"))
            await asyncio.sleep(0)

        asyncio.run(leak())
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 3
    assert lines[0]["event"] == "planted"
    assert "Traceback" in str(lines[2])
    assert PAN not in stream.getvalue()
    assert stream.getvalue().count("622300******2340") >= 3
