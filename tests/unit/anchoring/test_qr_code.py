"""QR codes of receipts' links: a reader of the tests' own gets the text back."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from nodes.anchoring.qr_code import qr_matrix, qr_svg
from tests.factories.qr_reading import level_of, read_matrix, version_of

LINK = "https://node.example/r#" + "aZ09-_" * 40


@pytest.mark.parametrize("text", ["A", LINK, "x" * 412, "x" * 504, "https://例.example/r#"])
def test_a_code_holds_its_text_in_bytes_at_level_m(text: str) -> None:
    matrix = qr_matrix(text)
    assert read_matrix(matrix) == text
    assert level_of(matrix) == 0
    assert version_of(matrix) <= 17
    assert len({len(row) for row in matrix}) == 1


def test_a_text_that_is_too_long_is_told() -> None:
    for length in (505, 10_000):
        with pytest.raises(ValueError, match=f"{length} bytes"):
            qr_matrix("x" * length)


def test_the_picture_is_the_matrix_with_a_quiet_zone() -> None:
    matrix, root = qr_matrix(LINK), ElementTree.fromstring(qr_svg(LINK))
    assert root.get("viewBox") == "0 0 73 73"
    drawn: set[tuple[int, int]] = set()
    x, y = 0, 0
    for command, first, _, second in re.findall(
        r"([mMh])(-?[0-9.]+)( (-?[0-9.]+))?", root[1].get("d") or ""
    ):
        if command == "M":
            x, y = int(first), int(float(second))
        elif command == "m":
            x, y = x + int(first), y + int(float(second))
        else:
            drawn |= {(y - 4, x - 4 + n) for n in range(int(first))}
            x += int(first)
    dark = {(y, x) for y, row in enumerate(matrix) for x, on in enumerate(row) if on}
    assert drawn == dark
