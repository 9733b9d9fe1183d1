"""QR codes: what zxing-cpp 3.1.1 read when these were made stays as it was, module by module."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree

import pytest

from nodes.anchoring.qr_code import Matrix, qr_matrix, qr_svg

LINK = "https://node.example/r#" + "aZ09-_" * 40


def digest(matrix: Matrix) -> str:
    rows = ("".join("#" if dark else "." for dark in row) for row in matrix)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("A", 21, "c8529cd82afac26fa7f7b81f17fa4de152e3f53e14293727dece53aef0cfc86f"),
        (LINK, 65, "24e8c0b9bd29a6cab86b960bbe2ce43d8f8e79af9c99cd30b07e22ad47745575"),
        ("x" * 412, 77, "7d42c1735fe8f78d13ff4f2874c84b7450fc7a6c40b2eccde7bc19c9421b6a9e"),
    ],
)
def test_codes_that_were_read_stay_as_they_are(text: str, size: int, expected: str) -> None:
    matrix = qr_matrix(text)
    assert len(matrix) == size
    assert digest(matrix) == expected


def test_a_text_that_is_too_long_is_told() -> None:
    with pytest.raises(ValueError, match="413 bytes"):
        qr_matrix("x" * 413)


def test_the_picture_is_the_matrix_with_a_quiet_zone() -> None:
    matrix, root = qr_matrix(LINK), ElementTree.fromstring(qr_svg(LINK))
    assert root.get("viewBox") == "0 0 73 73"
    path = root[1].get("d") or ""
    drawn = set()
    for run in path.strip("M").split("M"):
        place, _, rest = run.partition("h")
        x, y = map(int, place.split())
        drawn |= {(y - 4, x - 4 + n) for n in range(int(rest.split("v")[0]))}
    dark = {(y, x) for y, row in enumerate(matrix) for x, on in enumerate(row) if on}
    assert drawn == dark
