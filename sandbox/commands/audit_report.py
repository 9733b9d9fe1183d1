"""The auditor's report: what it says, and how it looks as one HTML file (A4, no scripts, nothing
loaded) or as a PDF (audit_pdf)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from nodes.reconciliation.completeness import AuditReport

_STYLE = """
@page { size: A4; margin: 18mm 16mm; }
:root { color-scheme: light; }
body { font: 10.5pt/1.45 system-ui, "Noto Sans", "Noto Sans SC", sans-serif; color: #16202c;
  max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 17pt; margin: 0 0 .2rem; } h2 { font-size: 12.5pt; margin: 1.6rem 0 .5rem; }
p { margin: 0 0 .6rem; } .soft { color: #51606f; }
.verdict { font-size: 14pt; font-weight: 700; padding: .5rem .8rem; border: 2px solid;
  border-radius: .4rem; display: inline-block; margin: .8rem 0; }
.good { color: #0b6b3a; } .bad { color: #a61b2b; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; color: #51606f; }
th, td { text-align: left; padding: .3rem .5rem; border-bottom: 1px solid #d9dfe6;
  vertical-align: top; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: 8.5pt; } tr { break-inside: avoid; } h2 { break-after: avoid; }
@media print { body { margin: 0; max-width: none; padding: 0; }
  thead { display: table-header-group; } }
"""
EXPLAINED = """The check reads both institutions' databases and believes neither: every log
entry is hashed up to the root that the chain holds, and a row counts only if its columns lead to
the commitment in an anchored entry. It shows that the record is unchanged and complete in its
range. It
can't show that what was recorded is true."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report: a text, a table (without rows: "None."), a note below."""

    title: str
    text: str = ""
    heads: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    #: Columns that are numbers, and those that are hashes.
    numbers: frozenset[int] = frozenset()
    hashes: frozenset[int] = frozenset()
    note: str = ""


@dataclass(frozen=True, slots=True)
class AuditDocument:
    """All that the report says; texts are plain."""

    title: str
    parties: str
    taken: str
    complete: bool
    verdict: str
    sections: Sequence[Section]


def audit_document(
    report: AuditReport, *, at: datetime, chain_id: int, block: int
) -> AuditDocument:
    """The report's content. `block`: the chain's newest when it was asked."""
    when = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    promises = f"{report.promises_kept} kept, {report.promises_pending} not due yet."
    return AuditDocument(
        title=f"Completeness of {report.acquirer} and {report.issuer}",
        parties=f"Acquirer {report.acquirer}, issuer {report.issuer}",
        taken=f"{when}, chain {chain_id}, block {block}",
        complete=report.complete,
        verdict="COMPLETE" if report.complete else f"INCOMPLETE: {len(report.findings)} findings",
        sections=(
            _logs(report),
            Section("Numbers", _numbers(report)),
            _closes(report),
            Section("Promises held by the auditor", promises),
            _findings(report),
        ),
    )


def _logs(report: AuditReport) -> Section:
    rows = [
        (
            log.member_id,
            str(log.anchor_seq),
            f"{log.size:,}",
            f"{log.of_pair:,}",
            log.root.hex(),
        )
        for log in report.logs
    ]
    heads = ("Member", "Anchor", "Entries", "Of this pair", "Root on the chain")
    return Section(
        "Logs", heads=heads, rows=rows, numbers=frozenset({1, 2, 3}), hashes=frozenset({4})
    )


def _numbers(report: AuditReport) -> str:
    said = (
        f"The pair's numbers run from 1 to {report.newest_pair_seq:,}."
        if report.newest_pair_seq
        else "The pair has no numbered transactions yet."
    )
    if report.waiting:
        said += f" {report.waiting:,} are in one log and too fresh to be missed in the other."
    if report.signed is not None:
        said += f" {report.signed:,} entries of the acquirer's log are signed by the issuer."
    return said


def _closes(report: AuditReport) -> Section:
    rows = []
    for close in report.closes:
        totals = close.totals
        state = (
            "not confirmed on the chain"
            if close.revision is None
            else "holds"
            if close.holds
            else "does not hold"
        )
        rows.append(
            (
                str(close.key.business_date),
                close.key.currency,
                "" if close.revision is None else str(close.revision),
                f"{totals.count:,}" if totals else "",
                f"{totals.debits:,}" if totals else "",
                f"{totals.credits:,}" if totals else "",
                state,
            )
        )
    heads = ("Date", "Currency", "Revision", "Items", "Debits", "Credits", "Judgement")
    note = "Amounts in minor units; debits are what the issuer owes."
    return Section("Closes", heads=heads, rows=rows, numbers=frozenset({2, 3, 4, 5}), note=note)


def _findings(report: AuditReport) -> Section:
    rows = [(found.lack.value, found.where, found.lack.meaning) for found in report.findings]
    return Section("Findings", heads=("Finding", "Where", "Meaning"), rows=rows)


def audit_html(document: AuditDocument) -> str:
    """The report as a page."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " style-src 'unsafe-inline'\">",
        f"<title>{escape(document.title)}</title>",
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Completeness check</h1>",
        f"<p><b>{escape(document.parties)}</b></p>",
        f'<p class="soft">{escape(document.taken)}</p>',
        f'<p class="verdict {"good" if document.complete else "bad"}">{document.verdict}</p>',
        f"<p>{EXPLAINED}</p>",
    ]
    for section in document.sections:
        parts.append(f"<h2>{escape(section.title)}</h2>")
        if section.text:
            parts.append(f"<p>{escape(section.text)}</p>")
        if section.heads:
            parts += _table(section)
        if section.note:
            parts.append(f'<p class="soft">{escape(section.note)}</p>')
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _table(section: Section) -> list[str]:
    if not section.rows:
        return ["<p>None.</p>"]

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=' + chr(34) + 'number' + chr(34) if place in section.numbers else ''}>"
            f"{_cell(cell, place in section.hashes and tag == 'td')}</{tag}>"
            for place, cell in enumerate(cells)
        )

    body = [f"<tr>{line(row, 'td')}</tr>" for row in section.rows]
    head = line(section.heads, "th")
    return [f"<table><thead><tr>{head}</tr></thead><tbody>", *body, "</tbody></table>"]


def _cell(text: str, is_hash: bool) -> str:
    return f"<code>{escape(text)}</code>" if is_hash else escape(text)
