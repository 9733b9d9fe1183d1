"""One receipt in the form that is asked for."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gateway.receipts.document import to_pdf
from gateway.receipts.escpos import to_escpos
from gateway.receipts.layout import compose, lines_of
from gateway.receipts.model import ReceiptContent, Wanted
from gateway.receipts.picture import to_png


class Form(StrEnum):
    """What a receipt can be had as; the value is also the file's suffix."""

    ESCPOS = "escpos"
    PDF = "pdf"
    PNG = "png"
    TEXT = "txt"
    JSON = "json"


MEDIA_TYPES = {
    Form.ESCPOS: "application/octet-stream",
    Form.PDF: "application/pdf",
    Form.PNG: "image/png",
    Form.TEXT: "text/plain; charset=utf-8",
    Form.JSON: "application/json",
}


def render(content: ReceiptContent, wanted: Wanted, form: Form) -> bytes:
    """The receipt. ReceiptRefused for what must not be printed, ValueError for too long a link."""
    match form:
        case Form.ESCPOS:
            return to_escpos(content, wanted)
        case Form.PDF:
            return to_pdf(content, wanted)
        case Form.PNG:
            return to_png(content, wanted)
        case Form.TEXT:
            return to_text(content, wanted).encode()
        case Form.JSON:
            return msgspec.json.encode(content)


def to_text(content: ReceiptContent, wanted: Wanted) -> str:
    """The receipt's lines without its code."""
    lines = [
        line.rstrip()
        for part in compose(content, wanted)
        for line in lines_of(part, wanted.columns)
    ]
    return "\n".join(lines) + "\n"
