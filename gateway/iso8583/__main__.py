"""`python -m gateway.iso8583 [FOLDER]`: write the published specs (docs/iso8583-specs) anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gateway.iso8583.dialect import DIALECTS
from gateway.iso8583.published import to_pyiso8583
from gateway.iso8583.spec import Suite


def documents() -> dict[str, str]:
    """File name -> content: a spec of each dialect and suite."""
    specs = {
        f"{dialect.name}-{suite.name.lower()}.json": to_pyiso8583(suite, dialect)
        for dialect in DIALECTS.values()
        for suite in Suite
    }
    return {name: json.dumps(spec, indent=2) + "\n" for name, spec in specs.items()}


def main(arguments: list[str]) -> int:
    """Write every file; exit status 0."""
    folder = Path(arguments[0] if arguments else "docs")
    specs = folder / "iso8583-specs"
    specs.mkdir(exist_ok=True)
    written = documents()
    for name, text in written.items():
        (specs / name).write_text(text, encoding="ascii")
    # The one that a terminal of the sandbox needs, under the name it always had.
    (folder / "iso8583-spec.json").write_text(written["bcd-tpdu-sm.json"], encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
