"""Fonts of receipts as PDF and picture: Bitstream Vera (it comes with reportlab) for what is Latin,
Droid Sans Fallback for Chinese (this folder; Apache License 2.0, see NOTICE)."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

import reportlab
from reportlab.pdfbase.ttfonts import TTFontFile

CHINESE = Path(__file__).with_name("DroidSansFallbackFull.ttf")
_VERA = Path(reportlab.__file__).with_name("fonts")
LATIN, LATIN_BOLD = _VERA / "Vera.ttf", _VERA / "VeraBd.ttf"
MISSING = "?"


def runs(text: str) -> list[tuple[bool, str]]:
    """The text in runs of one font, as (whether it is the Chinese one, run).

    A character that neither font has becomes MISSING.
    """
    found: list[tuple[bool, str]] = []
    for character in unicodedata.normalize("NFC", text):
        chinese = False
        if ord(character) not in _glyphs(LATIN):
            chinese = ord(character) in _glyphs(CHINESE)
            character = character if chinese else MISSING
        if found and found[-1][0] is chinese:
            found[-1] = chinese, found[-1][1] + character
        else:
            found.append((chinese, character))
    return found


@cache
def _glyphs(path: Path) -> frozenset[int]:
    """The characters that a font has; its .notdef, a box, is no character."""
    return frozenset(code for code, glyph in TTFontFile(path).charToGlyph.items() if glyph)
