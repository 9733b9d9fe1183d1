"""Receipts as PNG: as wide as the paper has dots, so that it can also be printed as it is."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from gateway.receipts import fonts
from gateway.receipts.columns import width, wrapped
from gateway.receipts.escpos import code_image
from gateway.receipts.layout import Code, Pair, Part, Rule, Space, Text, compose
from gateway.receipts.model import ReceiptContent, Wanted

_MARGIN = 12
_DOTS_AN_INCH = 203
#: Heights of text in dots: normal, large.
_SIZES = {58: (20, 32), 80: (24, 40)}


def to_png(content: ReceiptContent, wanted: Wanted) -> bytes:
    """The picture of a receipt, black on white."""
    parts = compose(content, wanted)
    sheet = _Sheet(wanted)
    for part in parts:
        sheet.put(part)
    out = io.BytesIO()
    sheet.finished().save(out, "PNG", optimize=True, dpi=(_DOTS_AN_INCH, _DOTS_AN_INCH))
    return out.getvalue()


@cache
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


class _Sheet:
    """Paper that grows downwards."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._image = Image.new("L", (wanted.dots, 4_096), 255)
        self._draw = ImageDraw.Draw(self._image)
        self._y = _MARGIN

    def put(self, part: Part) -> None:
        """Add a part below what is there."""
        normal, large = _SIZES[self._wanted.width_mm]
        match part:
            case Code(link):
                code = code_image(link, self._wanted.dots)
                self._image.paste(code, (0, self._y))
                self._y += code.height
            case Rule():
                self._y += normal // 3
                line = (_MARGIN, self._y, self._wanted.dots - _MARGIN, self._y)
                self._draw.line(line, fill=0, width=2)
                self._y += normal // 3
            case Space(lines):
                self._y += lines * _step(normal)
            case Text(text, bold, is_large):
                size = large if is_large else normal
                for line_ in self._fitted(text, size, bold):
                    free = self._wanted.dots - self._length(line_, size, bold)
                    self._write(line_, free / 2, size, bold)
                    self._y += _step(size)
            case Pair(name, value, bold, is_large):
                self._pair(name, value, large if is_large else normal, bold)

    def _pair(self, name: str, value: str, size: int, bold: bool) -> None:
        room = self._wanted.dots - 2 * _MARGIN
        self._write(name, _MARGIN, size, bold)
        together = self._length(name, size, bold) + self._length(value, size, bold) + size / 2
        if value and together > room:
            self._y += _step(size)
        for line in self._fitted(value, size, bold):
            length = self._length(line, size, bold)
            self._write(line, self._wanted.dots - _MARGIN - length, size, bold)
            self._y += _step(size)

    def finished(self) -> Image.Image:
        """The paper, cut off behind the last part."""
        return self._image.crop((0, 0, self._wanted.dots, self._y + 2 * _MARGIN))

    def _fitted(self, text: str, size: int, bold: bool) -> list[str]:
        room = self._wanted.dots - 2 * _MARGIN
        count = max(1, width(text))
        while True:
            lines = wrapped(text, count)
            if count == 2 or all(self._length(line, size, bold) <= room for line in lines):
                return lines
            count = max(2, count - 1)

    def _length(self, text: str, size: int, bold: bool) -> float:
        return sum(_chosen(chinese, size, bold).getlength(run) for chinese, run in fonts.runs(text))

    def _write(self, text: str, x: float, size: int, bold: bool) -> None:
        for chinese, run in fonts.runs(text):
            font = _chosen(chinese, size, bold)
            # The Chinese font has one weight: bold is drawn with a stroke around it.
            stroke = 0.6 if bold and chinese else 0
            self._draw.text(
                (x, self._y + size), run, fill=0, font=font, anchor="ls", stroke_width=stroke
            )
            x += font.getlength(run)


def _chosen(chinese: bool, size: int, bold: bool) -> ImageFont.FreeTypeFont:
    if chinese:
        return _font(fonts.CHINESE, size)
    return _font(fonts.LATIN_BOLD if bold else fonts.LATIN, round(size * 0.86))


def _step(size: int) -> int:
    return round(size * 1.35)
