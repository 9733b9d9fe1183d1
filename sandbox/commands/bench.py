"""`countersign bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    seconds: Annotated[float, typer.Option(help="Length of a run.", min=1)] = 10.0,
    runs: Annotated[int, typer.Option(help="Runs of each; the median counts.", min=1)] = 3,
    calls: Annotated[
        int, typer.Option(help="Calls to the node at a time, 128 requests together.", min=1)
    ] = 2,
    directory: Annotated[
        Path, typer.Option("--dir", help="The network that is measured; made anew each time.")
    ] = Path("var/bench"),
    output: Annotated[Path, typer.Option(help="Where the result goes.")] = Path("var/bench.json"),
) -> None:
    """Measure approved purchases a second against PostgreSQL's own TPC-B."""
    from sandbox.bench import Settings, run_bench

    settings = Settings(seconds=seconds, runs=runs, calls=calls)
    raise typer.Exit(run_bench(directory, output, settings))
