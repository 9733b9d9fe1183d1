"""`countersign bench-sealing`: the tree, sealing, and what sealing costs the authorizations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def bench_sealing(
    leaves: Annotated[int, typer.Option(help="Leaves of the tree alone.", min=2)] = 1_000_000,
    rows: Annotated[int, typer.Option(help="Rows to be sealed.", min=1)] = 100_000,
    history: Annotated[int, typer.Option(help="Transactions before.", min=1)] = 50_000,
    seconds: Annotated[float, typer.Option(help="Length of a run.", min=1)] = 15.0,
    runs: Annotated[int, typer.Option(help="Runs; the median counts.", min=1)] = 3,
    tree_only: Annotated[bool, typer.Option("--tree", help="The tree alone.")] = False,
    directory: Annotated[
        Path, typer.Option("--dir", help="The network that is measured; made anew each time.")
    ] = Path("var/bench"),
    cache: Annotated[Path, typer.Option(help="Prepared networks; may be deleted.")] = Path(
        "var/bench-cache"
    ),
    output: Annotated[Path, typer.Option(help="Where the result goes.")] = Path(
        "var/bench-sealing.json"
    ),
) -> None:
    """Measure the log's tree and sealing (docs/performance.md).

    Exit status: 0 every bound held, 1 one didn't, 2 a run was void.
    """
    from rich.console import Console

    from sandbox.bench.merkle import measure_merkle
    from sandbox.bench.networks import BenchError
    from sandbox.bench.report import machine
    from sandbox.bench.sealing import measure_sealing

    console = Console(highlight=False)
    earlier = json.loads(output.read_text()) if output.exists() else {}
    document = earlier | {"machine": machine(), "tree": measure_merkle(leaves, console.print)}
    if not tree_only:
        try:
            document["sealing"] = measure_sealing(
                directory,
                cache,
                rows=rows,
                history=history,
                seconds=seconds,
                runs=runs,
                say=console.print,
            )
        except BenchError as error:
            console.print(f"[red]No result:[/] {error}")
            raise typer.Exit(2) from None
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=1) + "\n")
    console.print(f"Written to {output}")
    bounds = [value for part in document.values() for key, value in part.items() if "_met" in key]
    raise typer.Exit(0 if all(bounds) else 1)
