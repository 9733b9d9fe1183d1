"""Documentation names tests by which a promise is kept: they are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
#: The documents that name tests, and how many at least.
NAMING = {"ledger.md": 60, "evidence.md": 3}


def test_each_test_that_the_documentation_names_exists() -> None:
    there: set[str] = set()
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        there |= {path.name, *re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)}
    for document, least in NAMING.items():
        text = (TESTS.parent / "docs" / document).read_text(encoding="utf-8")
        named = {
            name.rpartition("/")[2]
            for name in re.findall(r"`((?:tests/)?[\w/]*test_\w+(?:\.py)?)`", text)
        }
        assert len(named) > least
        assert named - there == set()
