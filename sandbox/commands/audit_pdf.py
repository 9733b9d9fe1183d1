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
_WIDTH = A4[0] - 2 * _MARGIN
_TEXT = ParagraphStyle("text", fontName="Helvetica", fontSize=9.5, leading=13.5, spaceAfter=5)
_CELL = ParagraphStyle(
    "cell", parent=_TEXT, fontSize=8.5, leading=11, spaceAfter=0, splitLongWords=1
)
_NUMBER = ParagraphStyle("number", parent=_CELL, alignment=TA_RIGHT)
_HASH = ParagraphStyle("hash", parent=_CELL, fontName="Courier", fontSize=7)
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
        spaceBefore=8,
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
        canvas.drawString(_MARGIN, 10 * mm, f"{document.title}, {document.taken}")
        canvas.drawRightString(A4[0] - _MARGIN, 10 * mm, str(page.page))
        canvas.restoreState()

    return draw


def _table(section: Section) -> Any:
    if not section.rows:
        return Paragraph("None.", _TEXT)
    rows = [[Paragraph(f"<b>{escape(head)}</b>", _CELL) for head in section.heads]]
    for row in section.rows:
        rows.append([Paragraph(escape(cell), _style(section, n)) for n, cell in enumerate(row)])
    table = Table(rows, colWidths=_widths(section), repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("LINEBELOW", (0, 0), (-1, -1), 0.5, colors.HexColor("#d9dfe6")),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 3),
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
    """Columns as wide as their longest text asks, within the page; none below its share."""
    longest = [
        min(40, max(len(head), *(len(row[n]) for row in section.rows))) + 2
        for n, head in enumerate(section.heads)
    ]
    return [_WIDTH * length / sum(longest) for length in longest]
