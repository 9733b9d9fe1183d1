"""The auditor's report as a page and as a PDF: the same content, and nothing that isn't text."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

import pytest

from nodes.clearing.model import DayKey, Totals
from nodes.reconciliation.completeness import AuditReport, CloseSummary, Lack, LogSummary
from sandbox.commands.audit_pdf import audit_pdf
from sandbox.commands.audit_report import AuditDocument, audit_document, audit_html

AT = datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC)


def document(findings: int = 0) -> AuditDocument:
    report = AuditReport("meridian", "aurora", newest_pair_seq=1_234, signed=1_230, waiting=3)
    report.logs = [LogSummary("meridian", 7, 5_000, b"\xab" * 32, 1_234, 1_234)]
    key = DayKey("meridian", "aurora", "CNY", date(2026, 11, 20))
    report.closes = [CloseSummary(key, 1, Totals(1_234, 98_765, 43), True)]
    for number in range(findings):
        report.add(Lack.SEQ_GAP, f"number {number} <b>of</b> the pair")
    return audit_document(report, at=AT, chain_id=20_266, block=99)


def text_of(pdf: bytes) -> str:
    """The strings that the pages show, in order."""
    shown = re.findall(rb"\(((?:[^()\\]|\\.)*)\) Tj", pdf)
    return " ".join(re.sub(rb"\\(.)", rb"\1", part).decode("latin-1") for part in shown)


@pytest.mark.parametrize(
    "said",
    [
        "Completeness check",
        "Acquirer meridian, issuer aurora",
        "2026-11-23 04:05:06 UTC, chain 20266, block 99",
        "COMPLETE",
        "from 1 to 1,234",
        "1,230 entries",
        "2026-11-20",
        "98,765",
        "holds",
        "0 kept, 0 not due yet",
    ],
)
def test_both_forms_say_the_same(said: str) -> None:
    assert said in audit_html(document())
    assert said in text_of(audit_pdf(document()))


def test_the_root_stands_in_full_in_both() -> None:
    root = "ab" * 32
    assert f"<code>{root}</code>" in audit_html(document())
    assert root in text_of(audit_pdf(document())).replace(" ", "")


def test_findings_fill_pages_and_are_text() -> None:
    made = document(findings=120)
    page, pdf = audit_html(made), audit_pdf(made)
    assert "INCOMPLETE: 120 findings" in page
    assert "number 7 &lt;b&gt;of&lt;/b&gt; the pair" in page
    shown = text_of(pdf)
    assert "INCOMPLETE: 120 findings" in shown
    assert "number119<b>of</b>thepair" in shown.replace(" ", "")
    assert pdf.count(b"/Type /Page\n") >= 3


def test_an_equal_report_is_equal_bytes() -> None:
    assert audit_pdf(document(2)) == audit_pdf(document(2))
    assert audit_pdf(document(2)).startswith(b"%PDF-1.")
