"""QR codes (ISO/IEC 18004) of short texts, for receipts: byte mode, error correction level M.

Pure, standard library only: a matrix of modules, and an SVG of it. Versions 1 to 15, which hold up
to 412 bytes; a receipt's link has about 280.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

#: By version, level M (ISO/IEC 18004, table 9): correction bytes a block, and blocks as
#: (how many, data bytes).
_BLOCKS: dict[int, tuple[int, tuple[tuple[int, int], ...]]] = {
    1: (10, ((1, 16),)),
    2: (16, ((1, 28),)),
    3: (26, ((1, 44),)),
    4: (18, ((2, 32),)),
    5: (24, ((2, 43),)),
    6: (16, ((4, 27),)),
    7: (18, ((4, 31),)),
    8: (22, ((2, 38), (2, 39))),
    9: (22, ((3, 36), (2, 37))),
    10: (26, ((4, 43), (1, 44))),
    11: (30, ((1, 50), (4, 51))),
    12: (22, ((6, 36), (2, 37))),
    13: (22, ((8, 37), (1, 38))),
    14: (24, ((4, 40), (5, 41))),
    15: (24, ((5, 41), (5, 42))),
}
#: Centres of the alignment patterns (annex E).
_ALIGNED: dict[int, tuple[int, ...]] = {
    1: (),
    2: (6, 18),
    3: (6, 22),
    4: (6, 26),
    5: (6, 30),
    6: (6, 34),
    7: (6, 22, 38),
    8: (6, 24, 42),
    9: (6, 26, 46),
    10: (6, 28, 50),
    11: (6, 30, 54),
    12: (6, 32, 58),
    13: (6, 34, 62),
    14: (6, 26, 46, 66),
    15: (6, 26, 48, 70),
}
Matrix = list[list[bool]]


def qr_matrix(text: str) -> Matrix:
    """The modules, rows from above, True for dark. ValueError if the text is too long."""
    raw = text.encode()
    version = next((v for v in _BLOCKS if _fits(v, len(raw))), None)
    if version is None:
        raise ValueError(f"{len(raw)} bytes are too long for a receipt's code")
    size = 17 + 4 * version
    fixed = _fixed(version)
    bits = _bits(_codewords(version, raw))
    filled: dict[tuple[int, int], bool] = {}
    for place in _zigzag(size):
        if place not in fixed:
            filled[place] = next(bits, False)
    candidates = (_masked(version, fixed, filled, mask) for mask in range(8))
    return min(candidates, key=_penalty)


def qr_svg(text: str) -> str:
    """The code as an SVG with a quiet zone of four modules; scales to any size."""
    matrix = qr_matrix(text)
    size = len(matrix) + 8
    runs = []
    for y, row in enumerate(matrix):
        x = 0
        while x < len(row):
            end = x
            while end < len(row) and row[end]:
                end += 1
            if end > x:
                runs.append(f"M{x + 4} {y + 4}h{end - x}v1h-{end - x}z")
            x = end + 1
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}"'
        f' shape-rendering="crispEdges"><rect width="{size}" height="{size}" fill="#fff"/>'
        f'<path d="{"".join(runs)}"/></svg>'
    )


def _fits(version: int, length: int) -> bool:
    counted = 8 if version < 10 else 16
    return 4 + counted + 8 * length <= 8 * _capacity(version)


def _capacity(version: int) -> int:
    return sum(count * data for count, data in _BLOCKS[version][1])


def _codewords(version: int, raw: bytes) -> bytes:
    """Data and correction bytes, interleaved (7.4 to 7.6)."""
    counted = 8 if version < 10 else 16
    capacity = _capacity(version)
    stream = f"{0b0100:04b}{len(raw):0{counted}b}" + "".join(f"{byte:08b}" for byte in raw)
    stream += "0" * min(4, 8 * capacity - len(stream))
    stream += "0" * (-len(stream) % 8)
    data = bytearray(int(stream[at : at + 8], 2) for at in range(0, len(stream), 8))
    data += bytes((0xEC, 0x11)[n % 2] for n in range(capacity - len(data)))
    correction, groups = _BLOCKS[version]
    blocks, at = [], 0
    for count, length in groups:
        for _ in range(count):
            blocks.append(bytes(data[at : at + length]))
            at += length
    checks = [_remainder(block, correction) for block in blocks]
    longest = max(map(len, blocks))
    mixed = [block[n] for n in range(longest) for block in blocks if n < len(block)]
    mixed += [check[n] for n in range(correction) for check in checks]
    return bytes(mixed)


@lru_cache(maxsize=1)
def _field() -> tuple[list[int], list[int]]:
    """Powers and logarithms of GF(256) with the polynomial 0x11d."""
    powers, logs, value = [0] * 510, [0] * 256, 1
    for exponent in range(255):
        powers[exponent] = powers[exponent + 255] = value
        logs[value] = exponent
        value = value << 1 ^ (0x11D if value & 0x80 else 0)
    return powers, logs


def _remainder(block: bytes, length: int) -> bytes:
    """The Reed-Solomon correction bytes of a block."""
    powers, logs = _field()
    generator = [1]
    for exponent in range(length):
        shifted = [*generator, 0]
        for place, factor in enumerate(generator):
            if factor:
                shifted[place + 1] ^= powers[logs[factor] + exponent]
        generator = shifted
    rest = [0] * length
    for byte in block:
        factor = byte ^ rest[0]
        rest = [*rest[1:], 0]
        if factor:
            for place in range(length):
                coefficient = generator[place + 1]
                if coefficient:
                    rest[place] ^= powers[logs[coefficient] + logs[factor]]
    return bytes(rest)


def _bits(codewords: bytes) -> Iterator[bool]:
    return (bool(byte >> shift & 1) for byte in codewords for shift in range(7, -1, -1))


def _zigzag(size: int) -> Iterator[tuple[int, int]]:
    """Where data goes: (row, column), two columns at a time from the right, up and down."""
    upward = True
    right = size - 1
    while right > 0:
        if right == 6:
            right = 5
        for row in range(size - 1, -1, -1) if upward else range(size):
            yield row, right
            yield row, right - 1
        upward = not upward
        right -= 2


def _fixed(version: int) -> dict[tuple[int, int], bool]:
    """The function patterns, with places for format and version left light."""
    size = 17 + 4 * version
    found: dict[tuple[int, int], bool] = {}
    for top, left in ((0, 0), (0, size - 7), (size - 7, 0)):
        for dy in range(-1, 8):
            for dx in range(-1, 8):
                y, x = top + dy, left + dx
                if 0 <= y < size and 0 <= x < size:
                    ring = max(abs(dy - 3), abs(dx - 3))
                    found[y, x] = ring in (0, 1, 3)
    for number in range(8, size - 8):
        found[6, number] = found[number, 6] = number % 2 == 0
    centres = _ALIGNED[version]
    for cy in centres:
        for cx in centres:
            if (cy, cx) in ((6, 6), (6, size - 7), (size - 7, 6)):
                continue
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    found[cy + dy, cx + dx] = max(abs(dy), abs(dx)) != 1
    for place in _format_places(size):
        found.setdefault(place, False)
    found[size - 8, 8] = True
    if version >= 7:
        for place in _version_places(size):
            found[place] = False
    return found


def _format_places(size: int) -> list[tuple[int, int]]:
    """Both copies of the 15 format bits, the lowest bit first."""
    first = [(row, 8) for row in (0, 1, 2, 3, 4, 5, 7, 8)]
    first += [(8, column) for column in (7, 5, 4, 3, 2, 1, 0)]
    second = [(8, size - 1 - n) for n in range(8)]
    second += [(size - 7 + n, 8) for n in range(7)]
    return first + second


def _version_places(size: int) -> list[tuple[int, int]]:
    """Both copies of the 18 version bits, the lowest bit first."""
    lower = [(size - 11 + n % 3, n // 3) for n in range(18)]
    return lower + [(column, row) for row, column in lower]


def _coded(value: int, generator: int, length: int) -> int:
    """A value with its BCH remainder of `length` bits."""
    rest = value << length
    while rest.bit_length() > length:
        rest ^= generator << (rest.bit_length() - length - 1)
    return value << length | rest


def _masked(
    version: int,
    fixed: dict[tuple[int, int], bool],
    filled: dict[tuple[int, int], bool],
    mask: int,
) -> Matrix:
    size = 17 + 4 * version
    matrix = [[False] * size for _ in range(size)]
    for (y, x), dark in fixed.items():
        matrix[y][x] = dark
    for (y, x), dark in filled.items():
        matrix[y][x] = dark ^ _inverts(mask, y, x)
    # Level M is 00; the mask pattern of all format bits is 7.9's.
    bits = _coded(mask, 0b10100110111, 10) ^ 0b101010000010010
    places = _format_places(size)
    for copy in (places[:15], places[15:]):
        for number, (y, x) in enumerate(copy):
            matrix[y][x] = bool(bits >> number & 1)
    matrix[size - 8][8] = True
    if version >= 7:
        word = _coded(version, 0b1111100100101, 12)
        places = _version_places(size)
        for copy in (places[:18], places[18:]):
            for number, (y, x) in enumerate(copy):
                matrix[y][x] = bool(word >> number & 1)
    return matrix


def _inverts(mask: int, y: int, x: int) -> bool:
    """Whether a mask pattern inverts a module (table 10)."""
    product = y * x
    return (
        (y + x) % 2,
        y % 2,
        x % 3,
        (y + x) % 3,
        (y // 2 + x // 3) % 2,
        product % 2 + product % 3,
        (product % 2 + product % 3) % 2,
        ((y + x) % 2 + product % 3) % 2,
    )[mask] == 0


def _penalty(matrix: Matrix) -> int:
    """How hard a matrix is to read (7.8.3)."""
    size, total = len(matrix), 0
    columns = [list(column) for column in zip(*matrix, strict=True)]
    for line in (*matrix, *columns):
        text = "".join("1" if dark else "0" for dark in line)
        run = 1
        for before, after in zip(text, text[1:] + "x", strict=True):
            if before == after:
                run += 1
                continue
            total += run - 2 if run >= 5 else 0
            run = 1
        for at in range(size - 10):
            total += 40 * (text[at : at + 11] in ("10111010000", "00001011101"))
    for upper, lower in pairwise(matrix):
        for x in range(size - 1):
            total += 3 * (upper[x] == upper[x + 1] == lower[x] == lower[x + 1])
    dark = sum(map(sum, matrix))
    return total + 10 * (abs(20 * dark - 10 * size * size) // (size * size))
