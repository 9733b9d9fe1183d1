"""Receipts as ESC/POS bytes, for 58 and 80 mm printers with 8 dots a millimetre.

Text goes out in GB 18030 with the printer in Chinese mode (FS &), as printers sold in China have
it; ASCII is the same in it. The code is a raster image, not the printer's own: its modules are then
those that were tested, whatever the printer can do.
"""

from __future__ import annotations

from escpos.capabilities import Profile
from escpos.printer import Dummy
from PIL import Image

from gateway.receipts.layout import Code, Pair, Text, compose, lines_of
from gateway.receipts.model import ReceiptContent, Wanted
from nodes.anchoring.qr_code import QUIET_ZONE, qr_matrix

_CHINESE_ON, _CHINESE_OFF = b"\x1c&", b"\x1c."
#: Dots a module where the paper has room for more.
_LARGEST_MODULE = 6


def _paper(dots: int) -> Profile:
    """The library's standard printer with paper so many dots wide."""
    data = {**Profile.profile_data, "media": {"width": {"pixels": dots}}}
    made: Profile = type("Paper", (Profile,), {"profile_data": data})()
    made.features = {**made.profile_data["features"], "paperPartCut": True}
    return made


def to_escpos(content: ReceiptContent, wanted: Wanted) -> bytes:
    """The bytes for the printer, from its initialization to the cut."""
    printer = Dummy(profile=_paper(wanted.dots))
    printer.hw("INIT")
    printer._raw(_CHINESE_ON)
    for part in compose(content, wanted):
        if isinstance(part, Code):
            printer.image(code_image(part.link, wanted.dots))
            continue
        bold = isinstance(part, Text | Pair) and part.bold
        large = isinstance(part, Text | Pair) and part.large
        printer.set(bold=bold, double_height=large, normal_textsize=not large)
        for line in lines_of(part, wanted.columns):
            printer._raw(_encoded(line) + b"\n")
    printer.set(bold=False, normal_textsize=True)
    printer._raw(_CHINESE_OFF)
    printer.cut(mode="PART")
    output: bytes = printer.output
    return output


def code_image(link: str, dots: int) -> Image.Image:
    """The code in the middle of paper so many dots wide, one bit a dot. ValueError if too long."""
    matrix = qr_matrix(link)
    size = len(matrix) + 2 * QUIET_ZONE
    scale = min(_LARGEST_MODULE, dots // size)
    image = Image.new("1", (dots, size * scale), 1)
    left = (dots - size * scale) // 2
    for y, row in enumerate(matrix):
        for x, dark in enumerate(row):
            if dark:
                at = left + (x + QUIET_ZONE) * scale, (y + QUIET_ZONE) * scale
                image.paste(0, (*at, at[0] + scale, at[1] + scale))
    return image


def _encoded(line: str) -> bytes:
    """GB 18030, but for its characters of four bytes: printers have no glyphs for them."""
    parts = (character.encode("gb18030", "replace") for character in line)
    return b"".join(part if len(part) <= 2 else b"?" for part in parts)
