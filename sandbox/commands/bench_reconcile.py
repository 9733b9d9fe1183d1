"""`countersign bench-reconcile`: bytes and seconds of comparing a large day."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench_reconcile(
    rows: Annotated[int, typer.Option(help="Transactions a side.", min=1_000)] = 1_000_000,
    breaks: Annotated[int, typer.Option(help="Breaks, the classes in turn.", min=0)] = 200,
    seed: Annotated[int, typer.Option(help="Of where and what the breaks are.")] = 1,
    directory: Annotated[
        Path, typer.Option("--dir", help="The two databases; made anew each time.")
    ] = Path("var/bench-reconcile"),
    output: Annotated[Path, typer.Option(help="Where the result goes.")] = Path(
        "var/bench-reconcile.json"
    ),
) -> None:
    """Plant breaks of every class into a large day, compare it over HTTP (docs/reconciliation.md).

    Exit status: 0 exactly the planted breaks were found, in both books; 1 others or fewer.
    """
    from sandbox.bench.reconcile import run_reconcile

    raise typer.Exit(run_reconcile(directory, rows, breaks, seed, output))
