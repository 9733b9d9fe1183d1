"""The auditor's report as one HTML file that prints well (A4, no scripts, nothing loaded)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from nodes.reconciliation.completeness import AuditReport, Finding

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
_EXPLAINED = """The check reads both institutions' databases and believes neither: every log
entry is hashed up to the root that the chain holds, and a row counts only if its columns lead to
the commitment in an anchored entry. It shows that the record is unchanged and complete in its
range. It
can't show that what was recorded is true."""


def audit_html(report: AuditReport, *, at: datetime, chain_id: int, block: int) -> str:
    """The report's text. `block`: the chain's newest when it was asked."""
    verdict = "COMPLETE" if report.complete else f"INCOMPLETE: {len(report.findings)} findings"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " style-src 'unsafe-inline'\">",
        f"<title>Completeness of {escape(report.acquirer)} and {escape(report.issuer)}</title>",
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Completeness check</h1>",
        f"<p>Acquirer <b>{escape(report.acquirer)}</b>, issuer <b>{escape(report.issuer)}</b></p>",
        f'<p class="soft">{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, chain {chain_id},'
        f" block {block}</p>",
        f'<p class="verdict {"good" if report.complete else "bad"}">{verdict}</p>',
        f"<p>{_EXPLAINED}</p>",
        *_logs(report),
        *_numbers(report),
        *_closes(report),
        "<h2>Promises held by the auditor</h2>",
        f"<p>{report.promises_kept} kept, {report.promises_pending} not due yet.</p>",
        *_findings(report.findings),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _logs(report: AuditReport) -> list[str]:
    rows = [
        (
            escape(log.member_id),
            str(log.anchor_seq),
            f"{log.size:,}",
            f"{log.of_pair:,}",
            f"<code>{log.root.hex()}</code>",
        )
        for log in report.logs
    ]
    heads = ["Member", "Anchor", "Entries", "Of this pair", "Root on the chain"]
    return ["<h2>Logs</h2>", *_table(heads, rows, numbers={1, 2, 3})]


def _numbers(report: AuditReport) -> list[str]:
    said = (
        f"<p>The pair's numbers run from 1 to {report.newest_pair_seq:,}."
        if report.newest_pair_seq
        else "<p>The pair has no numbered transactions yet."
    )
    if report.waiting:
        said += f" {report.waiting:,} are in one log and too fresh to be missed in the other."
    return ["<h2>Numbers</h2>", said + "</p>"]


def _closes(report: AuditReport) -> list[str]:
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
                escape(close.key.currency),
                "" if close.revision is None else str(close.revision),
                f"{totals.count:,}" if totals else "",
                f"{totals.debits:,}" if totals else "",
                f"{totals.credits:,}" if totals else "",
                state,
            )
        )
    heads = ["Date", "Currency", "Revision", "Items", "Debits", "Credits", "Judgement"]
    note = '<p class="soft">Amounts in minor units; debits are what the issuer owes.</p>'
    return ["<h2>Closes</h2>", *_table(heads, rows, numbers={2, 3, 4, 5}), note]


def _findings(findings: Sequence[Finding]) -> list[str]:
    rows = [
        (f"<b>{finding.lack.value}</b>", escape(finding.where), escape(finding.lack.meaning))
        for finding in findings
    ]
    return ["<h2>Findings</h2>", *_table(["Finding", "Where", "Meaning"], rows)]


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: set[int] | None = None
) -> list[str]:
    """A table of cells that are HTML already."""
    found = list(rows)
    if not found:
        return ["<p>None.</p>"]

    def line(cells: Sequence[str], tag: str) -> str:
        right = ' class="number"'
        return "".join(
            f"<{tag}{right if place in (numbers or ()) else ''}>{cell}</{tag}>"
            for place, cell in enumerate(cells)
        )

    body = [f"<tr>{line(row, 'td')}</tr>" for row in found]
    return [f"<table><thead><tr>{line(heads, 'th')}</tr></thead><tbody>", *body, "</tbody></table>"]
