"""`countersign fuzz`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sandbox.commands.campaign_network import said_if_unmade


def fuzz(
    frames: Annotated[int, typer.Option(help="Fuzz frames.", min=10)] = 100_000,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 1,
    replays: Annotated[int, typer.Option(help="Replays, duplicates, reversals.", min=1)] = 10_000,
    slow: Annotated[int, typer.Option(help="Slow connections.", min=1)] = 2_000,
    honest: Annotated[int, typer.Option(help="Purchases that a p99 is taken of.", min=10)] = 300,
    rounds: Annotated[
        int, typer.Option(help="Times quiet and slow in turn; the median counts.", min=1)
    ] = 3,
    directory: Annotated[
        Path, typer.Option("--dir", help="The network; made anew and removed.")
    ] = Path("var/fuzz"),
    output: Annotated[Path, typer.Option(help="Where the result goes.")] = Path("var/fuzz.json"),
    table: Annotated[
        bool, typer.Option("--table", help="Write the table of docs/iso8583.md; send nothing.")
    ] = False,
) -> None:
    """Send the gateway whatever no terminal should, and see that nothing comes of it
    (docs/iso8583.md).

    Exit status: 0 nothing was wrong; 1 something was; 2 the network couldn't be made.
    """
    from sandbox.campaigns.fuzz import Order, run_fuzz
    from sandbox.campaigns.tables import write_fuzz_table

    if table:
        write_fuzz_table(output, Path("docs/iso8583.md"))
        return
    order = Order(frames, seed, replays, slow, honest, rounds)
    with said_if_unmade():
        status = run_fuzz(directory, output, order)
    raise typer.Exit(status)
