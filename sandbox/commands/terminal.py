"""`countersign terminal run SCENARIO`: play a simulated terminal against a running network."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from sandbox.commands.network_file import default_network_file
from sandbox.terminals.playing import Result, play
from sandbox.terminals.reading import load_scenario
from sandbox.terminals.scenario import ScenarioError
from sandbox.terminals.surroundings import NotThere, Surroundings

terminal = typer.Typer(name="terminal", help="Simulated terminals.", no_args_is_help=True)


@terminal.callback()
def _group() -> None:
    """Simulated terminals (docs/terminal-simulator.md)."""


@terminal.command()
def run(
    scenarios: Annotated[list[Path], typer.Argument(help="Scenarios, YAML files.")],
    network: Annotated[
        Path | None, typer.Option(help="network.json; by default that of DEMO_DIR.")
    ] = None,
) -> None:
    """Play scenarios. Exit status: 0 every step held; 1 one didn't; 2 it couldn't be played."""
    held = True
    try:
        read = [load_scenario(path) for path in scenarios]
        document = json.loads((network or default_network_file()).read_text(encoding="utf-8"))
        surroundings = Surroundings.of(document)
        for scenario in read:
            typer.echo(f"{scenario.name} ({scenario.source})")
            results = asyncio.run(play(scenario, surroundings, _show))
            held = held and all(result.held for result in results)
    except (ScenarioError, NotThere) as error:
        _cannot(str(error))
    except OSError as error:
        _cannot(f"{error.filename}: {error.strerror}")
    except ValueError:
        _cannot("that file is no network.json")
    if not held:
        raise typer.Exit(1)


def _show(result: Result) -> None:
    step = result.step
    mark = "ok  " if result.held else "FAIL"
    name = f" as {step.name}" if step.name else ""
    fault = f" [{step.fault}]" if step.fault is not None else ""
    typer.echo(f"  {mark} line {step.line}: {step.do}{name}{fault}: {result.told}")


def _cannot(why: str) -> NoReturn:
    typer.echo(f"CANNOT PLAY: {why}", err=True)
    raise typer.Exit(2)
