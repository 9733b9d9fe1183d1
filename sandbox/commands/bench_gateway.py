"""`countersign bench-gateway`: the gateway's own processor time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench_gateway(
    messages: Annotated[int, typer.Option(help="Purchases of each way of keys.", min=100)] = 20_000,
    sign_ons: Annotated[int, typer.Option(help="Sign-ons of each.", min=10)] = 400,
    directory: Annotated[
        Path, typer.Option("--dir", help="The gateway's files; made anew and removed.")
    ] = Path("var/bench-gateway"),
    output: Annotated[Path, typer.Option(help="Where the result goes.")] = Path(
        "var/bench-gateway.json"
    ),
) -> None:
    """Measure a gateway before a node that approves at once (docs/performance.md).

    Exit status: 0 every bound holds; 1 one doesn't.
    """
    from sandbox.bench.gateway_alone import run_gateway_bench

    raise typer.Exit(run_gateway_bench(directory, output, messages=messages, sign_ons=sign_ons))
