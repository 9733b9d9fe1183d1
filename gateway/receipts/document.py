"""Receipts as PDF: one page as wide as the paper and as long as the receipt; fonts are embedded."""

from __future__ import annotations

import io
from functools import cache

from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from gateway.receipts import fonts
from gateway.receipts.columns import width, wrapped
from gateway.receipts.layout import Code, Pair, Part, Rule, Space, Text, compose
from gateway.receipts.model import ReceiptContent, Wanted
from nodes.anchoring.qr_code import QUIET_ZONE, qr_matrix

_MARGIN = 3 * mm
#: Sizes of text in points: normal, large.
_SIZES = {58: (7.0, 11.0), 80: (8.5, 13.0)}
#: Side of the code with its quiet zone.
_CODE = {58: 46 * mm, 80: 56 * mm}


def to_pdf(content: ReceiptContent, wanted: Wanted) -> bytes:
    """The document; equal bytes for an equal receipt."""
    _register()
    parts = compose(content, wanted)
    page = _Page(wanted)
    height = sum(page.height(part) for part in parts) + 2 * _MARGIN
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=(wanted.width_mm * mm, height), invariant=1, pageCompression=1)
    canvas.setTitle(f"Receipt {content.rrn}")
    canvas.setAuthor(content.acquirer)
    y = height - _MARGIN
    for part in parts:
        page.draw(canvas, part, y)
        y -= page.height(part)
    canvas.showPage()
    canvas.save()
    return out.getvalue()


@cache
def _register() -> None:
    for name, path in (
        ("receipt", fonts.LATIN),
        ("receipt-bold", fonts.LATIN_BOLD),
        ("receipt-chinese", fonts.CHINESE),
    ):
        pdfmetrics.registerFont(TTFont(name, str(path)))


class _Page:
    def __init__(self, wanted: Wanted) -> None:
        self._wide = wanted.width_mm * mm
        self._room = self._wide - 2 * _MARGIN
        self._normal, self._large = _SIZES[wanted.width_mm]
        self._code = _CODE[wanted.width_mm]

    def height(self, part: Part) -> float:
        """Points that a part takes."""
        match part:
            case Code():
                return float(self._code)
            case Rule():
                return float(self._normal * 0.9)
            case Space(lines):
                return lines * _step(self._normal)
            case Text(text, bold, large):
                size = self._large if large else self._normal
                return len(self._fitted(text, size, bold)) * _step(size)
            case Pair(name, value, bold, large):
                size = self._large if large else self._normal
                below = 0 if self._fits(name, value, size, bold) else 1
                return (len(self._fitted(value, size, bold)) + below) * _step(size)

    def draw(self, canvas: Canvas, part: Part, y: float) -> None:
        """Draw a part whose upper edge is at `y`."""
        match part:
            case Code(link):
                self._draw_code(canvas, link, y)
            case Rule():
                canvas.setLineWidth(0.5)
                middle = y - self._normal * 0.45
                canvas.line(_MARGIN, middle, self._wide - _MARGIN, middle)
            case Space():
                pass
            case Text(text, bold, large):
                size = self._large if large else self._normal
                for line in self._fitted(text, size, bold):
                    left = (self._wide - _length(line, size, bold)) / 2
                    _write(canvas, line, left, y - size, size, bold)
                    y -= _step(size)
            case Pair(name, value, bold, large):
                size = self._large if large else self._normal
                _write(canvas, name, _MARGIN, y - size, size, bold)
                if not self._fits(name, value, size, bold):
                    y -= _step(size)
                for line in self._fitted(value, size, bold):
                    left = self._wide - _MARGIN - _length(line, size, bold)
                    _write(canvas, line, left, y - size, size, bold)
                    y -= _step(size)

    def _draw_code(self, canvas: Canvas, link: str, y: float) -> None:
        matrix = qr_matrix(link)
        module = self._code / (len(matrix) + 2 * QUIET_ZONE)
        left = (self._wide - self._code) / 2 + QUIET_ZONE * module
        for row, line in enumerate(matrix):
            bottom = y - (row + QUIET_ZONE + 1) * module
            for start, count in _dark_runs(line):
                canvas.rect(left + start * module, bottom, count * module, module, 0, 1)

    def _fits(self, name: str, value: str, size: float, bold: bool) -> bool:
        together = _length(name, size, bold) + _length(value, size, bold) + size / 2
        return not value or together <= self._room

    def _fitted(self, text: str, size: float, bold: bool) -> list[str]:
        count = max(1, width(text))
        while True:
            lines = wrapped(text, count)
            if count <= 2 or all(_length(line, size, bold) <= self._room for line in lines):
                return lines
            count -= 1


def _dark_runs(line: list[bool]) -> list[tuple[int, int]]:
    """Neighbouring dark modules as (first, count): no seams between them."""
    found: list[tuple[int, int]] = []
    for x, dark in enumerate(line):
        if dark and found and sum(found[-1]) == x:
            found[-1] = found[-1][0], found[-1][1] + 1
        elif dark:
            found.append((x, 1))
    return found


def _font(chinese: bool, bold: bool) -> str:
    return "receipt-chinese" if chinese else "receipt-bold" if bold else "receipt"


def _length(text: str, size: float, bold: bool) -> float:
    lengths = [
        pdfmetrics.stringWidth(run, _font(chinese, bold), size) for chinese, run in fonts.runs(text)
    ]
    return float(sum(lengths))


def _write(canvas: Canvas, text: str, x: float, y: float, size: float, bold: bool) -> None:
    for chinese, run in fonts.runs(text):
        font = _font(chinese, bold)
        canvas.setFont(font, size)
        # The Chinese font has one weight: bold is filled and stroked.
        heavy = bold and chinese
        canvas.setLineWidth(size / 40)
        canvas.drawString(x, y, run, mode=2 if heavy else 0)
        x += pdfmetrics.stringWidth(run, font, size)


def _step(size: float) -> float:
    return size * 1.35
