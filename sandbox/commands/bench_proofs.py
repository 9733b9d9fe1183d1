"""`countersign bench-proofs`: how fast a proof comes from a large log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench_proofs(
    leaves: Annotated[int, typer.Option(help="Entries of the log.", min=1)] = 10_000_000,
    samples: Annotated[int, typer.Option(help="Proofs to ask for.", min=1)] = 2_000,
    budget_s: Annotated[
        float, typer.Option(help="Fill for at most so many seconds; the next run goes on.")
    ] = 3_600,
    directory: Annotated[
        Path, typer.Option("--dir", help="The database; about 9 GB at 10 million entries.")
    ] = Path("var/bench-proofs"),
    output: Annotated[Path, typer.Option(help="Where the result goes.")] = Path(
        "var/bench-proofs.json"
    ),
) -> None:
    """Ask a node over HTTP for proofs from a large log, and verify each.

    Exit status: 0 all held and 99 of 100 came within 20 ms; 1 not so; 3 not filled yet.
    """
    from sandbox.bench.proofs import run_proofs

    raise typer.Exit(run_proofs(directory, leaves, samples, budget_s, output))
