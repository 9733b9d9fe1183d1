"""`countersign demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Stop after the checks; status 0 if all held.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the network that is there and start anew.")
    ] = False,
    directory: Annotated[
        Path, typer.Option("--dir", envvar="DEMO_DIR", help="Where the network keeps its data.")
    ] = Path("var/demo"),
) -> None:
    """Start a whole network on this machine, play a business day, prove a purchase."""
    try:
        from sandbox.demo import run_demo

        status = run_demo(directory, once=once, fresh=fresh)
    except KeyboardInterrupt:
        status = 130
    raise typer.Exit(status)
