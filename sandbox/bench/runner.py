"""`countersign bench`: the figures of docs/performance.md, medians of interleaved ratios."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sandbox.bench.designs import DesignError, measure_designs
from sandbox.bench.figures import GOALS
from sandbox.bench.history import PreloadError
from sandbox.bench.measuring import Measuring
from sandbox.bench.networks import BenchError, Shape, measured_network
from sandbox.bench.report import machine, machine_line, postgresql, record, table
from sandbox.bench.settings import GROWTH, Settings
from sandbox.bench.yardsticks import YardstickError
from sandbox.founding import FoundingError
from sandbox.launcher import Running
from sandbox.network import AlreadyRunningError, NotADemoDirectoryError
from sandbox.postgres import PostgresError
from sandbox.supervisor import ProcessFailedError


def run_bench(directory: Path, cache: Path, output: Path, settings: Settings) -> int:
    """Measure, print, write `output`. The exit status: 0, or 2 if a run was void."""
    console = Console(highlight=False)
    unknown = set(settings.only) - GOALS.keys()
    if unknown:
        console.print(f"[red]No such figure:[/] {escape(', '.join(sorted(unknown)))}")
        return 2
    document = _earlier(output, settings)
    document["machine"] = machine()
    console.print(f"On {escape(machine_line(document['machine']))}")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            bench = Benchmark(directory, cache, settings, progress)
            document |= bench.run()
    except (
        BenchError,
        DesignError,
        PreloadError,
        YardstickError,
        NotADemoDirectoryError,
        AlreadyRunningError,
        ProcessFailedError,
        FoundingError,
        PostgresError,
    ) as error:
        console.print(f"[red]No result:[/] {escape(str(error))}")
        return 2
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=1) + "\n")
    if GOALS.keys() & document.keys():
        console.print(table(document))
    console.print(f"Written to {output}")
    return 0


def _earlier(output: Path, settings: Settings) -> dict[str, Any]:
    """What stays of an earlier result, where only a part is measured anew."""
    partial = settings.only or settings.memory or settings.designs
    if not partial or settings.quick or not output.exists():
        return {}
    earlier: dict[str, Any] = json.loads(output.read_text())
    return {} if earlier.get("settings", {}).get("quick") else earlier


class Benchmark:
    """One benchmark from the first network to the last figure."""

    def __init__(
        self, directory: Path, cache: Path, settings: Settings, progress: Progress
    ) -> None:
        self._directory, self._cache, self._settings = directory, cache, settings
        self._progress = progress
        self._task = progress.add_task("bench", total=None)

    def run(self) -> dict[str, Any]:
        """The sections of bench.json that these settings ask for."""
        settings, document = self._settings, dict[str, Any]()
        if settings.designs:
            document["designs"] = measure_designs(
                self._directory.parent,
                rows=settings.preload,
                seconds=settings.seconds,
                runs=settings.runs,
                say=self.say,
            )
            return document
        if settings.memory:
            with self._network(self._shape("main")) as network:
                document["memory"] = Measuring(self, network, settings).memory()
            return document
        document["settings"] = record(settings)
        if set(settings.figures) - {GROWTH}:
            with self._network(self._shape("main")) as network:
                document["postgresql"] = postgresql(network)
                document |= Measuring(self, network, settings).figures()
        if GROWTH in settings.figures:
            with self._network(self._shape("growth")) as network:
                document["postgresql"] = postgresql(network)
                document[GROWTH] = Measuring(self, network, settings).growth()
        return document

    def say(self, text: str) -> None:
        """A line that stays."""
        self._progress.console.print(f"  {escape(text)}")

    def doing(self, text: str) -> None:
        """What is going on at the moment."""
        self._progress.update(self._task, description=text)

    def _shape(self, name: str) -> Shape:
        settings = self._settings
        rows = settings.preload if name == "main" else settings.growth_rows
        return Shape(name, rows, settings.cards, settings.merchants)

    def _network(self, shape: Shape) -> AbstractContextManager[Running]:
        self.doing(f"preparing the network {shape.name}")
        return measured_network(shape, self._directory, self._cache, self.say)
