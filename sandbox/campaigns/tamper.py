"""`countersign tamper`: the evidence against everything that its owners and others may do to it."""

from __future__ import annotations

import json
import logging
import multiprocessing
import shutil
import threading
from collections.abc import Callable, Sequence, Set
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue
from typing import Any

import structlog
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sandbox.campaigns import anchors, breaks, bundles, ledger, omissions, sealed_bundles
from sandbox.campaigns.scene import Scene, Ticket, played
from sandbox.campaigns.tally import Tallies
from sandbox.postgres import remove_outside_data

#: Business days played before: rows of mixed kinds in several batches a member.
_DAYS = 2
_BIT_PARTS = 4


@dataclass(frozen=True)
class Job:
    """A part of the campaign that runs by itself: `run(scene, count, tallies)`, class by class."""

    names: tuple[str, ...]
    count: int
    part: int = 0


def _jobs(count: int, classes: Set[str]) -> list[Job]:
    """The longest first; those that count any of the classes. What signs with the same chain keys
    is one job."""
    bundles_in_all = max(1, count // bundles.TRIES_A_BUNDLE)
    parts = min(_BIT_PARTS, bundles_in_all)
    chain = (anchors.FORKED, anchors.REPLAYED, anchors.IMPERSONATED, omissions.PROVEN)
    shares = [bundles_in_all // parts + (n < bundles_in_all % parts) for n in range(parts)]
    jobs = [
        Job(chain, count),
        *(
            Job((bundles.BITS,), bundles.TRIES_A_BUNDLE * share, part)
            for part, share in enumerate(shares)
        ),
        Job((sealed_bundles.SEALED_BITS,), count),
        Job((breaks.CLASSES[0],), count),
        *(Job((name,), count) for name in ledger.CLASSES),
        Job((bundles.LIES,), count),
    ]
    wanted = [
        replace(job, names=tuple(name for name in job.names if _counted(name) & classes))
        for job in jobs
    ]
    return [job for job in wanted if job.names]


def _counted(name: str) -> Set[str]:
    """The classes that a job's part of that name counts."""
    if name == omissions.PROVEN:
        return {omissions.OVERDUE, omissions.PROVEN}
    return set(breaks.CLASSES) if name in breaks.CLASSES else {name}


def expected_classes() -> list[str]:
    """Every class of the campaign."""
    return [
        *ledger.CLASSES,
        bundles.BITS,
        sealed_bundles.SEALED_BITS,
        bundles.LIES,
        anchors.FORKED,
        anchors.REPLAYED,
        anchors.IMPERSONATED,
        omissions.OVERDUE,
        omissions.PROVEN,
        *breaks.CLASSES,
    ]


def run_tamper(
    directory: Path,
    output: Path,
    *,
    count: int,
    seed: int,
    processes: int,
    only: Sequence[str] = (),
) -> int:
    """The exit status: 0 if everything was found and named and no alarm was false, else 1. `only`:
    classes, if not all (those of days and of omissions come together)."""
    console = Console(highlight=False)
    classes = set(only or expected_classes())
    console.print(f"{count} of each of {len(classes)} classes, seed {seed}")
    tallies = Tallies(seed)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        founding = progress.add_task("Founding a network", total=None)
        with played(
            directory, lambda what: progress.update(founding, description=what), days=_DAYS
        ) as scene:
            progress.remove_task(founding)
            _work(scene, _jobs(count, classes), processes, tallies, progress)
    remove_outside_data(directory / "postgres")
    shutil.rmtree(directory)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(tallies.document(), indent=1) + "\n")
    _tell(console, tallies, classes)
    complete = classes <= tallies.classes.keys()
    console.print(f"Written to {output}")
    return 0 if tallies.held and complete else 1


def _work(
    scene: Scene, jobs: list[Job], processes: int, tallies: Tallies, progress: Progress
) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        ticks: Queue[str | None] = manager.Queue()
        listener = threading.Thread(target=_listen, args=(ticks, progress))
        listener.start()
        try:
            with ProcessPoolExecutor(processes, mp_context=context) as pool:
                ticket = scene.ticket()
                done: list[Future[Tallies]] = [
                    pool.submit(_run, ticket, job, tallies.seed, ticks) for job in jobs
                ]
                for future in as_completed(done):
                    found = future.result()
                    tallies.take(found)
                    progress.console.print(f"  done: {', '.join(found.classes)}")
        finally:
            ticks.put(None)
            listener.join()


def _listen(ticks: Queue[str | None], progress: Progress) -> None:
    """Show the tries of each class."""
    tasks: dict[str, Any] = {}
    while (name := ticks.get()) is not None:
        if name not in tasks:
            tasks[name] = progress.add_task(name, total=None)
        progress.advance(tasks[name])


def _run(ticket: Ticket, job: Job, seed: int, ticks: Queue[str | None]) -> Tallies:
    """One job, in a process of its own."""
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet)
    scene, tallies = ticket.scene(), Tallies(seed)
    tallies.progress = ticks.put
    for name in job.names:
        _runner(name, job.part)(scene, job.count, tallies)
    return tallies.silent()


def _runner(name: str, part: int) -> Callable[[Scene, int, Tallies], None]:
    if name in ledger.CLASSES:
        return lambda scene, count, tallies: ledger.tamper_ledger(scene, name, count, tallies)
    if name in (bundles.BITS, bundles.LIES):
        return lambda scene, count, tallies: bundles.tamper_bundles(
            scene, name, count, tallies, part
        )
    if name == sealed_bundles.SEALED_BITS:
        return lambda scene, count, tallies: sealed_bundles.tamper_sealed(count, tallies)
    if name in (anchors.FORKED, anchors.REPLAYED, anchors.IMPERSONATED):
        return lambda scene, count, tallies: anchors.tamper_anchors(scene, name, count, tallies)
    return omissions.tamper_omissions if name == omissions.PROVEN else breaks.tamper_breaks


def _tell(console: Console, tallies: Tallies, classes: Set[str]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for column in ("tried", "found", "named"):
        table.add_column(column, justify="right")
    for name in expected_classes():
        tally = tallies.classes.get(name)
        if tally is None:
            if name in classes:
                table.add_row(name, "[red]not tried[/]", "", "")
            continue
        colour = "green" if tally.complete else "red"
        table.add_row(
            name,
            f"{tally.tried:,}",
            f"[{colour}]{tally.found:,}[/]",
            f"[{colour}]{tally.named:,}[/]",
        )
    console.print(table)
    for name, tally in tallies.classes.items():
        for miss in tally.misses:
            console.print(f"[red]{name}[/]: {escape(miss)}")
    for alarm in tallies.alarms:
        console.print(f"[red]False alarm[/]: {escape(alarm)}")
    console.print(f"{tallies.clean_runs:,} clean runs, {tallies.false_alarms} false alarms")
