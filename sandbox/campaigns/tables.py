"""The campaigns' last results as tables of the docs, between their marks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_tamper_table(result: Path, page: Path, names: list[str]) -> None:
    """var/tamper.json into docs/evidence.md; `names` give the order."""
    document = json.loads(result.read_text())
    classes: Mapping[str, Any] = document["classes"]
    lines = [
        f"Seed {document['seed']}; {document['clean_runs']:,} clean runs,"
        f" {document['false_alarms']} false alarms.",
        "",
        "| class | tried | found | named |",
        "|---|---|---|---|",
        *(
            f"| {name} | {classes[name]['tried']:,} | {classes[name]['found']:,}"
            f" | {classes[name]['named']:,} |"
            for name in names
            if name in classes
        ),
    ]
    _put(page, "tamper", lines)


def write_fuzz_table(result: Path, page: Path) -> None:
    """var/fuzz.json into docs/iso8583.md."""
    found = json.loads(result.read_text())
    slow, replays, shaped = found["slow_loris"], found["replays"], found["shaped"]
    rows = {
        "frames": f"{found['frames']:,}, of which {found['answered']:,} were answered",
        **{
            name: found[name]
            for name in (
                "uncaught",
                "hangs",
                "state_changes",
                "card_data_in_logs",
                "double_posts",
            )
        },
        "nearly right": f"{shaped['sent']:,} messages, not answered: {shaped['unanswered']},"
        f" answered otherwise than the first time: {shaped['answered_otherwise']}",
        "replays": f"{replays['sent']:,} of {replays['messages']:,} messages, answered otherwise"
        f" than the first time: {replays['answered_otherwise']}",
        "slow connections": f"{slow['connections']:,}; honest p99 {slow['p99_ms']} ms, quiet"
        f" {slow['quiet_p99_ms']} ms (median of the ratios {slow['ratio']})",
    }
    lines = [f"Seed {found['seed']}:", "", "| figure | |", "|---|---|"]
    _put(page, "fuzz", [*lines, *(f"| {name} | {value} |" for name, value in rows.items())])


def _put(page: Path, mark: str, lines: list[str]) -> None:
    text, begin, end = page.read_text(), f"<!-- {mark}:begin -->\n", f"<!-- {mark}:end -->"
    start = text.index(begin) + len(begin)
    page.write_text(text[:start] + "\n".join(lines) + "\n" + text[text.index(end) :])
