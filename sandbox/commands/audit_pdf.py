"""The auditor's report as a PDF: A4, equal bytes for an equal report."""

from __future__ import annotations

from io import BytesIO
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from sandbox.commands.audit_report import EXPLAINED, AuditDocument, Section

_MARGIN = 16 * mm
_PADDING = 6  # of a page's frame, by reportlab
_WIDTH = A4[0] - 2 * _MARGIN - 2 * _PADDING
_HASH_WIDTH = 256.0  # 64 digits in one line
_LETTER = 5.6  # as wide as a bold capital of a cell, about
_TEXT = ParagraphStyle("text", fontName="Helvetica", fontSize=9.5, leading=13.5, spaceAfter=5)
_CELL = ParagraphStyle(
    "cell", parent=_TEXT, fontSize=8.5, leading=11, spaceAfter=0, splitLongWords=1
)
_NUMBER = ParagraphStyle("number", parent=_CELL, alignment=TA_RIGHT)
_HASH = ParagraphStyle("hash", parent=_CELL, fontName="Courier", fontSize=6.5)
_SOFT = ParagraphStyle("soft", parent=_TEXT, textColor=colors.HexColor("#51606f"))
_TITLE = ParagraphStyle("title", parent=_TEXT, fontName="Helvetica-Bold", fontSize=17, leading=21)
_HEADING = ParagraphStyle(
    "heading", parent=_TEXT, fontName="Helvetica-Bold", fontSize=12, leading=15, spaceBefore=10
)
_GOOD, _BAD = colors.HexColor("#0b6b3a"), colors.HexColor("#a61b2b")


def audit_pdf(document: AuditDocument) -> bytes:
    """The file's bytes."""
    colour = _GOOD if document.complete else _BAD
    verdict = ParagraphStyle(
        "verdict",
        parent=_TITLE,
        fontSize=13,
        leading=17,
        textColor=colour,
        borderColor=colour,
        borderWidth=1.5,
        borderPadding=5,
        leftIndent=6,
        rightIndent=6,
        spaceBefore=13,
        spaceAfter=12,
    )
    story: list[Any] = [
        Paragraph("Completeness check", _TITLE),
        Paragraph(f"<b>{escape(document.parties)}</b>", _TEXT),
        Paragraph(escape(document.taken), _SOFT),
        Paragraph(escape(document.verdict), verdict),
        Paragraph(escape(EXPLAINED), _TEXT),
    ]
    for section in document.sections:
        story.append(Paragraph(escape(section.title), _HEADING))
        if section.text:
            story.append(Paragraph(escape(section.text), _TEXT))
        if section.heads:
            story.append(_table(section))
        if section.note:
            story += [Spacer(1, 4), Paragraph(escape(section.note), _SOFT)]
    made = BytesIO()
    SimpleDocTemplate(
        made,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=18 * mm,
        bottomMargin=18 * mm,
        title=document.title,
        invariant=1,
        pageCompression=0,
    ).build(story, onFirstPage=_foot(document), onLaterPages=_foot(document))
    return made.getvalue()


def _foot(document: AuditDocument) -> Any:
    def draw(canvas: Any, page: Any) -> None:
        canvas.saveState()
        canvas.setFont("Helvetica", 8)
        canvas.setFillColor(colors.HexColor("#51606f"))
        canvas.drawString(_MARGIN + _PADDING, 10 * mm, f"{document.title}, {document.taken}")
        canvas.drawRightString(A4[0] - _MARGIN - _PADDING, 10 * mm, str(page.page))
        canvas.restoreState()

    return draw


def _table(section: Section) -> Any:
    if not section.rows:
        return Paragraph("None.", _TEXT)
    rows = [
        [
            Paragraph(f"<b>{escape(head)}</b>", _NUMBER if n in section.numbers else _CELL)
            for n, head in enumerate(section.heads)
        ]
    ]
    for row in section.rows:
        rows.append([Paragraph(escape(cell), _style(section, n)) for n, cell in enumerate(row)])
    table = Table(rows, colWidths=_widths(section), repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("LINEBELOW", (0, 0), (-1, -1), 0.5, colors.HexColor("#d9dfe6")),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 3),
                ("LEFTPADDING", (0, 0), (0, -1), 0),
                ("RIGHTPADDING", (0, 0), (-1, -1), 3),
            ]
        )
    )
    return table


def _style(section: Section, column: int) -> ParagraphStyle:
    if column in section.hashes:
        return _HASH
    return _NUMBER if column in section.numbers else _CELL


def _widths(section: Section) -> list[float]:
    """Hashes and numbers in one line, and the longest word of each column; what is left of the page
    goes to the columns by their longest text."""
    asked, least = [], []
    for n, head in enumerate(section.heads):
        texts = [head, *(row[n] for row in section.rows)]
        words = [len(word) for text in texts for word in text.split()]
        least.append(_HASH_WIDTH if n in section.hashes else _LETTER * min(22, max(words)) + 8)
        asked.append(0 if n in section.hashes else min(40, max(map(len, texts))))
    left = _WIDTH - sum(least)
    return [width + left * length / sum(asked) for width, length in zip(least, asked, strict=True)]
