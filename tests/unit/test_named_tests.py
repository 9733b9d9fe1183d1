"""Documentation names tests by which a promise is kept: they are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
LEDGER = TESTS.parent / "docs" / "ledger.md"


def test_each_test_that_the_documentation_names_exists() -> None:
    there: set[str] = set()
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        there |= {path.name, *re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)}
    named = set(re.findall(r"`(test_\w+(?:\.py)?)`", LEDGER.read_text(encoding="utf-8")))
    assert len(named) > 60
    assert named - there == set()
