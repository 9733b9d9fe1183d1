"""`countersign tamper`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sandbox.commands.campaign_network import said_if_unmade


def tamper(
    count: Annotated[int, typer.Option(help="Tries of each class.", min=1)] = 1_000,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 1,
    processes: Annotated[int, typer.Option(help="Working at a time.", min=1)] = 2,
    directory: Annotated[
        Path, typer.Option("--dir", help="The network; made anew and removed.")
    ] = Path("var/tamper"),
    output: Annotated[
        Path | None,
        typer.Option(
            help="Where the result goes: var/tamper.json, of some classes var/tamper-part.json."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--class", help="A class, if not all; as often as you like.")
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Write the table of docs/evidence.md; try nothing.")
    ] = False,
) -> None:
    """Tamper with everything that evidence stands on, and count what is found (docs/evidence.md).

    Exit status: 0 all found and rightly named, no false alarm; 1 something was missed or misnamed;
    2 the network couldn't be made.
    """
    from sandbox.campaigns.tables import write_tamper_table
    from sandbox.campaigns.tamper import expected_classes, run_tamper

    if unknown := sorted(set(only or ()) - set(expected_classes())):
        raise typer.BadParameter(f"there is no class {unknown[0]}", param_hint="--class")
    output = output or Path("var/tamper-part.json" if only else "var/tamper.json")
    if table:
        write_tamper_table(output, Path("docs/evidence.md"), expected_classes())
        return
    with said_if_unmade():
        status = run_tamper(
            directory, output, count=count, seed=seed, processes=processes, only=only or ()
        )
    raise typer.Exit(status)
