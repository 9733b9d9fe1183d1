"""Reads a QR code's text out of its modules (ISO/IEC 18004, 7.9 to 7.11; byte mode, no damage).

Written for the tests, beside the library that makes the codes; the blocks of each version are those
of another library (python-qrcode).
"""

from __future__ import annotations

import io
from itertools import groupby

from PIL import Image
from qrcode.base import rs_blocks
from qrcode.constants import ERROR_CORRECT_H, ERROR_CORRECT_L, ERROR_CORRECT_M, ERROR_CORRECT_Q
from qrcode.util import pattern_position

Matrix = list[list[bool]]
_LEVELS = {1: ERROR_CORRECT_L, 0: ERROR_CORRECT_M, 3: ERROR_CORRECT_Q, 2: ERROR_CORRECT_H}
_MASKS = (
    lambda y, x: (y + x) % 2 == 0,
    lambda y, x: y % 2 == 0,
    lambda y, x: x % 3 == 0,
    lambda y, x: (y + x) % 3 == 0,
    lambda y, x: (y // 2 + x // 3) % 2 == 0,
    lambda y, x: y * x % 2 + y * x % 3 == 0,
    lambda y, x: (y * x % 2 + y * x % 3) % 2 == 0,
    lambda y, x: ((y + x) % 2 + y * x % 3) % 2 == 0,
)


def read_png(data: bytes) -> str:
    """The text of the one code in a picture."""
    return read_matrix(matrix_of(Image.open(io.BytesIO(data))))


def matrix_of(image: Image.Image) -> Matrix:
    """The modules of the one code in an upright picture with nothing lost."""
    gray = image.convert("L")
    wide, raw = gray.width, gray.tobytes()
    dark = [[v < 128 for v in raw[at : at + wide]] for at in range(0, len(raw), wide)]
    for y, row in enumerate(dark):
        # The first row that holds both upper finder patterns: 7 dark modules, ..., 7 dark ones.
        runs = _runs(row)
        if len(runs) < 2:
            continue
        (first, length), (last, other) = runs[0], runs[-1]
        module = length // 7
        if length != other or length % 7 or module < 3:
            continue
        size = (last + other - first) // module
        if (size - 17) % 4 or size < 21 or y + size * module > len(dark):
            continue
        half = module // 2
        found = [
            [dark[y + r * module + half][first + c * module + half] for c in range(size)]
            for r in range(size)
        ]
        if all(found[0][:7]) and all(found[6][-7:]) and not any(found[7][:8]):
            return found
    raise AssertionError("there is no code in this picture")


def _runs(row: list[bool]) -> list[tuple[int, int]]:
    """The dark runs of a row, as (first, length)."""
    found, at = [], 0
    for dark, same in groupby(row):
        count = len(list(same))
        if dark:
            found.append((at, count))
        at += count
    return found


def version_of(matrix: Matrix) -> int:
    return (len(matrix) - 17) // 4


def level_of(matrix: Matrix) -> int:
    """The level's two bits: 0 is M."""
    return _format(matrix) >> 13


def _format(matrix: Matrix) -> int:
    places = [*((8, x) for x in (0, 1, 2, 3, 4, 5, 7, 8)), *((y, 8) for y in (7, 5, 4, 3, 2, 1, 0))]
    bits = "".join("1" if matrix[y][x] else "0" for y, x in places)
    return int(bits, 2) ^ 0b101010000010010


def read_matrix(matrix: Matrix) -> str:
    """The text."""
    size, version, form = len(matrix), version_of(matrix), _format(matrix)
    level, mask = form >> 13, _MASKS[form >> 10 & 7]
    taken = _function_modules(size, version)
    bits: list[int] = []
    columns = [x for x in range(size - 1, 0, -2) if x > 6] + [5, 3, 1]
    for turn, x in enumerate(columns):
        rows = range(size - 1, -1, -1) if turn % 2 == 0 else range(size)
        for y in rows:
            for column in (x, x - 1):
                if (y, column) not in taken:
                    bits.append(int(matrix[y][column] != mask(y, column)))
    words = [int("".join(map(str, bits[n : n + 8])), 2) for n in range(0, len(bits) - 7, 8)]
    blocks = rs_blocks(version, _LEVELS[level])
    parts: list[list[int]] = [[] for _ in blocks]
    stream = iter(words)
    for place in range(max(block.data_count for block in blocks)):
        for part, block in zip(parts, blocks, strict=True):
            if place < block.data_count:
                part.append(next(stream))
    data = "".join(f"{word:08b}" for part in parts for word in part)
    assert data[:4] == "0100", "not in byte mode"
    counted = 8 if version < 10 else 16
    length = int(data[4 : 4 + counted], 2)
    start = 4 + counted
    return bytes(int(data[at : at + 8], 2) for at in range(start, start + 8 * length, 8)).decode()


def _function_modules(size: int, version: int) -> set[tuple[int, int]]:
    taken = {(y, x) for y in range(9) for x in range(9)}
    taken |= {(y, x) for y in range(9) for x in range(size - 8, size)}
    taken |= {(y, x) for y in range(size - 8, size) for x in range(9)}
    taken |= {(6, n) for n in range(size)} | {(n, 6) for n in range(size)}
    centres = pattern_position(version)
    corners = {(6, 6), (6, size - 7), (size - 7, 6)}
    for y in centres:
        for x in centres:
            if (y, x) not in corners:
                taken |= {(y + dy, x + dx) for dy in range(-2, 3) for dx in range(-2, 3)}
    if version >= 7:
        block = {(a, b) for a in range(6) for b in range(size - 11, size - 8)}
        taken |= block | {(b, a) for a, b in block}
    return taken
