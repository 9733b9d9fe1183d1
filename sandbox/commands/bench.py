"""`countersign bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_CHART, _PAGE = Path("docs/images/performance.svg"), Path("docs/performance.md")


def bench(
    seconds: Annotated[float, typer.Option(help="Length of a run.", min=1)] = 10.0,
    runs: Annotated[int, typer.Option(help="Runs of each; the median counts.", min=1)] = 3,
    calls: Annotated[
        int, typer.Option(help="Calls to the node at a time, 128 requests together.", min=1)
    ] = 2,
    preload: Annotated[
        int, typer.Option(help="Transactions in the books before the first run.", min=0)
    ] = 1_000_000,
    growth_rows: Annotated[
        int, typer.Option(help="The same for at_5m_rows_vs_empty.", min=0)
    ] = 5_000_000,
    only: Annotated[
        str, typer.Option(help="Figures by name, with commas; the others stay as they were.")
    ] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Try everything in two minutes; no figures of worth.")
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="A node's memory over a million authorizations.")
    ] = False,
    designs: Annotated[
        bool, typer.Option("--designs", help="The two designs of ADR 8, side by side.")
    ] = False,
    chart: Annotated[
        bool,
        typer.Option("--chart", help="Write the chart and the table of docs/performance.md."),
    ] = False,
    directory: Annotated[
        Path, typer.Option("--dir", help="The network that is measured; made anew each time.")
    ] = Path("var/bench"),
    cache: Annotated[Path, typer.Option(help="Prepared networks; may be deleted.")] = Path(
        "var/bench-cache"
    ),
    output: Annotated[Path, typer.Option(help="Where the result goes.")] = Path("var/bench.json"),
) -> None:
    """Measure the network against PostgreSQL's own TPC-B (docs/performance.md)."""
    from sandbox.bench.chart import write_chart
    from sandbox.bench.runner import run_bench
    from sandbox.bench.settings import Settings
    from sandbox.bench.settings import quick as quickly

    if chart:
        write_chart(output, _CHART, _PAGE)
        return
    settings = Settings(
        seconds=seconds,
        runs=runs,
        calls=calls,
        preload=preload,
        growth_rows=growth_rows,
        only=tuple(name.strip() for name in only.split(",") if name.strip()),
        memory=memory,
        designs=designs,
    )
    raise typer.Exit(run_bench(directory, cache, output, quickly(settings) if quick else settings))
