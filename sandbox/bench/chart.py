"""The chart and the table of docs/performance.md, from bench.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from sandbox.bench.figures import GOALS

_DARK = "#0072b2"
#: Name in bench.json, and colour (Okabe and Ito's: told apart by everybody).
PARTS = (
    ("load", "#bbbbbb"),
    ("gateway", "#56b4e9"),
    ("acquirer node", _DARK),
    ("issuer node", "#009e73"),
    ("postgres", "#e69f00"),
    ("workers", "#cc79a7"),
    ("chain", "#d55e00"),
)
#: Figures whose loads have a profile of their own, and what they are called for people.
BARS = (
    ("node_authorizations_vs_tpcb", "Batch call to the node"),
    ("full_path_vs_tpcb", "Full path, two institutions"),
    ("on_us_path_vs_tpcb", "Full path, on us"),
    ("hot_merchant_vs_spread", "Full path, one merchant"),
)
_LEFT, _WIDTH, _BAR, _STEP, _TOP = 200, 560, 26, 46, 64
#: A part narrower than this has no number in it.
_ROOM = 34
_BEGIN, _END = "<!-- figures -->", "<!-- /figures -->"
_FONT = "font-family='system-ui, sans-serif'"


def write_chart(result: Path, target: Path, page: Path) -> None:
    """Draw the chart of a bench.json, and write its table between the page's two marks."""
    document = json.loads(result.read_text())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(draw(document))
    page.write_text(with_figures(page.read_text(), document))


def with_figures(page: str, document: Mapping[str, Any]) -> str:
    """The page with the table of this result. ValueError if it lacks the marks."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError("the page has no place for the figures")
    return f"{before}{begin}\n{_markdown(document)}\n{end}{after}"


def _markdown(document: Mapping[str, Any]) -> str:
    machine, settings = document["machine"], document["settings"]
    lines = [
        f"{machine['cpus']} cores ({machine['cpu']}), {machine['memory_gib']} GiB,"
        f" PostgreSQL {document['postgresql']['server_version']}, Python {machine['python']};"
        f" {settings['runs']} runs of {settings['seconds']:g} s"
        + (", **quick: comparable with nothing**." if settings["quick"] else "."),
        "",
        "| figure | value | beside it | ratio | floor | aim |",
        "|---|---|---|---|---|---|",
    ]
    for name, goal in GOALS.items():
        entry = document.get(name)
        if entry is not None:
            aim = "" if goal.aim is None else f"{goal.aim:g}"
            floor = f"{goal.floor:g}" if goal.least else f"at most {goal.floor:g}"
            value, beside = number(entry["value"]), number(entry["yardstick"])
            row = (f"`{name}`", value, beside, f"**{entry['ratio']:.2f}**", floor, aim)
            lines.append(f"| {' | '.join(row)} |")
    lines += _notes(document)
    return "\n".join(lines)


def _notes(document: Mapping[str, Any]) -> list[str]:
    full, memory = document.get("full_path_vs_tpcb", {}), document.get("memory")
    lines = []
    if "p99_ms_at_half_load" in full:
        half = full["p99_ms_at_half_load"]
        lines += ["", f"p99 of the full path at half of its load: {half:.1f} ms (at most 50)."]
    if memory:
        slope = memory["bytes_per_authorization_second_half"]
        count, size = memory["authorizations"][-1], memory["rss_bytes"][-1] / 2**20
        lines += [
            "",
            f"Memory of the issuer's node after {count:,} authorizations: {size:.0f} MiB,",
        ]
        lines += [f"growing by {slope:.1f} bytes an authorization in the second half."]
    return lines


def number(value: float) -> str:
    """A value for people: two decimals below a hundred."""
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def draw(document: Mapping[str, Any]) -> str:
    """An SVG with a stacked bar a figure; CPU microseconds a purchase, all processes."""
    bars = [
        (title, document[name]["cpu_us"])
        for name, title in BARS
        if document.get(name, {}).get("cpu_us")
    ]
    most = max((sum(parts.values()) for _, parts in bars), default=1.0)
    height = _TOP + _STEP * len(bars) + 64
    width = _LEFT + _WIDTH + 80
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}'"
        f" width='{width}' height='{height}' role='img' {_FONT}>",
        "<title>CPU microseconds of one purchase, by process</title>",
        f"<rect width='{width}' height='{height}' fill='#ffffff'/>",
        _text(16, 30, "CPU microseconds of one purchase, by process", size=17, bold=True),
        _text(16, 50, "All cores together; the load generator runs on the same machine", size=12),
    ]
    for place, (title, parts) in enumerate(bars):
        lines += _bar(title, parts, _TOP + 8 + place * _STEP, _WIDTH / most)
    lines += _legend(height - 30)
    return "\n".join((*lines, "</svg>")) + "\n"


def _bar(title: str, parts: Mapping[str, float], top: float, scale: float) -> list[str]:
    lines = [_text(_LEFT - 10, top + 17, title, anchor="end")]
    left = float(_LEFT)
    for name, colour in PARTS:
        used = parts.get(name, 0.0)
        wide = used * scale
        if wide <= 0:
            continue
        lines.append(
            f"<rect x='{left:.1f}' y='{top}' width='{wide:.1f}' height='{_BAR}' fill='{colour}'>"
            f"<title>{escape(name)}: {used:.1f} µs</title></rect>"
        )
        if wide >= _ROOM:
            lines.append(
                _text(
                    left + wide / 2, top + 17, f"{used:,.0f}", anchor="middle", size=12, on=colour
                )
            )
        left += wide
    lines.append(_text(left + 8, top + 17, f"{sum(parts.values()):,.0f} µs", bold=True))
    return lines


def _legend(top: float) -> list[str]:
    lines, left = [], 16.0
    for name, colour in PARTS:
        lines.append(
            f"<rect x='{left:.0f}' y='{top - 11:.0f}' width='12' height='12' fill='{colour}'/>"
        )
        lines.append(_text(left + 18, top, name, size=12))
        left += 44 + 7.2 * len(name)
    return lines


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 13,
    anchor: str = "start",
    bold: bool = False,
    on: str = "",
) -> str:
    weight = " font-weight='600'" if bold else ""
    ink = "#ffffff" if on == _DARK else "#1b1f24"
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' text-anchor='{anchor}'{weight}"
        f" fill='{ink}'>{escape(text)}</text>"
    )
