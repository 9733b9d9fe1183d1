"""`python -m gateway.iso8583 [FOLDER]`: write the published specs (docs/iso8583-specs) anew."""

from __future__ import annotations

import argparse
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


def main(arguments: list[str] | None = None) -> int:
    """Write every file. Exit status: 0 done, 2 if they can't be written."""
    parser = argparse.ArgumentParser(prog="python -m gateway.iso8583", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs"), metavar="FOLDER")
    folder: Path = parser.parse_args(arguments).folder
    specs = folder / "iso8583-specs"
    written = documents()
    try:
        specs.mkdir(exist_ok=True)
        for name, text in written.items():
            (specs / name).write_text(text, encoding="ascii")
        # The one that a terminal of the sandbox needs, under the name it always had.
        (folder / "iso8583-spec.json").write_text(written["bcd-tpdu-sm.json"], encoding="ascii")
    except OSError as error:
        sys.stderr.write(f"iso8583: {error.filename}: {error.strerror}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
