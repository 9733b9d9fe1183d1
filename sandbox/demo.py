"""`countersign demo`: the whole network on one machine, one business day, its proof, a summary."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from nodes.money import Money
from sandbox.checks import Check, Checks
from sandbox.founding import FoundingError, NodeAdministration
from sandbox.launcher import STEPS, Running, running
from sandbox.network import (
    CARDS,
    CURRENCY,
    MEMBERS,
    AlreadyRunningError,
    DemoDirectory,
    NotADemoDirectoryError,
    State,
)
from sandbox.postgres import PostgresError
from sandbox.services import Network
from sandbox.supervisor import ProcessFailedError
from sandbox.traffic import BusinessDay, Day, Step

#: Below this balance (minor units) a rich card is loaded again before the day.
_LOW_BALANCE = 150_000
_INTERRUPTED = 130


def run_demo(path: Path, *, once: bool, fresh: bool) -> int:
    """The exit status: 0 if every check held (or the user ended it), 1 if not, 2 if it can't run,
    130 if it was interrupted before its checks were done."""
    # Into a file or a pipe: wide enough that no line is broken.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    directory = DemoDirectory(path)
    _interrupt_on(signal.SIGTERM, signal.SIGHUP)
    try:
        with directory.locked(fresh=fresh) as state:
            return _demo(console, directory, state, once)
    except (NotADemoDirectoryError, AlreadyRunningError) as error:
        console.print(f"[red]{escape(str(error))}[/]")
        return 2
    except (ProcessFailedError, FoundingError, PostgresError) as error:
        console.print(f"[red]The network did not start:[/] {escape(str(error))}")
        console.print(f"Logs: {directory.log}")
        return 2
    except KeyboardInterrupt:
        console.print("Interrupted; every process is stopped.")
        return _INTERRUPTED


def _demo(console: Console, directory: DemoDirectory, state: State, once: bool) -> int:
    began = time.monotonic()
    again = state.founded
    console.print(
        f"[bold]Countersign sandbox[/] in {directory.path}"
        + (f", continued after business day {state.business_days}" if again else "")
    )
    steps = _Steps(console)
    with running(directory, state, steps.begin) as network:
        steps.end()
        console.print(f"Network up after {time.monotonic() - began:.1f} s\n")
        day = _play(console, network.network)
        checks = _check(console, network.network, day)
        held = day.held and checks.held
        _summary(console, network.network, checks, held)
        if once:
            return 0 if held else 1
        _wait(console, network)
        return 0 if held else 1


def _play(console: Console, network: Network) -> Day:
    _load_cards(network.state)
    player = BusinessDay(network.directory, network.state, lambda step: show(step))
    console.print(f"[bold]Business day {player.day.number}[/], batch {player.day.batch}")
    with _progress(console) as progress:
        task = progress.add_task("messages from the terminals", total=None)

        def show(step: Step) -> None:
            progress.advance(task)
            progress.console.print(
                f"  {_mark(step.held)} {step.terminal_id}  {escape(step.label):<58} "
                f"{escape(step.note)}"
            )

        return asyncio.run(player.play())


def _check(console: Console, network: Network, day: Day) -> Checks:
    console.print("\n[bold]The shared record[/]")
    with _progress(console) as progress:
        progress.add_task("sealing, anchoring, proving", total=None)

        def show(check: Check) -> None:
            note = f": {escape(check.note)}" if check.note else ""
            progress.console.print(f"  {_mark(check.held)} {escape(check.label)}{note}")

        checks = Checks(network, day, show)
        checks.run()
    return checks


def _load_cards(state: State) -> None:
    """Fill up the cards that earlier days have emptied; the poor ones stay poor."""
    for card, plan in zip(state.cards, CARDS, strict=True):
        if plan.load <= _LOW_BALANCE:
            continue
        token = state.card_tokens[card["pan"]]
        with NodeAdministration(state, card["member"]) as issuer:
            balance = int(issuer.get(f"/v1/cards/{token}")["available"])
            if balance < _LOW_BALANCE:
                key = f"day-{state.business_days + 1}-{token}"
                issuer.load(token, plan.load - balance, "sandbox refill", key)


def _wait(console: Console, running: Running) -> None:
    """Until Ctrl-C. Says it when a process had to be restarted."""
    console.print("\nRunning. Press Ctrl-C to stop every process.")
    seen: dict[str, int] = {}
    try:
        while True:
            for name in list(running.supervisor.pids()):
                count = running.supervisor.restarts(name)
                if count > seen.get(name, 0):
                    seen[name] = count
                    console.print(f"  {name} ended and was restarted (see its log)")
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("\nStopping ...")


def _summary(console: Console, network: Network, checks: Checks, held: bool) -> None:
    state = network.state
    addresses = Table(box=None, show_header=False, pad_edge=False)
    addresses.add_row("Console", f"[link={network.console_url}]{network.console_url}[/link]")
    for login in state.logins:
        sees = "all institutions" if "*" in login["members"] else ", ".join(login["members"])
        addresses.add_row(
            "  login",
            f"{login['username']} / {escape(login['password'])}  ({login['role']}, {sees})",
        )
    for member in MEMBERS:
        url = f"http://127.0.0.1:{state.ports[f'{member.member_id}-node']}"
        addresses.add_row(f"{member.name} ({', '.join(member.roles)})", f"{url}/docs")
    addresses.add_row("Gateway, ISO 8583", f"127.0.0.1:{state.ports['gateway']}")
    addresses.add_row("Chain, JSON-RPC", f"{network.rpc_url} (chain id {state.chain_id})")
    if checks.proof_file is not None:
        addresses.add_row("A proof", str(checks.proof_file))
    addresses.add_row("For programs", str(network.directory.network_file))
    addresses.add_row("Logs", str(network.directory.log))
    spent = sum(step.amount for step in _approved(checks))
    verdict = (
        "[green]Every check held.[/]" if held else "[red]Something did not hold; see above.[/]"
    )
    title = f"{verdict} {len(_approved(checks))} purchases, {Money(spent, CURRENCY)}"
    console.print()
    console.print(Panel(addresses, title=title, title_align="left", expand=False))


def _approved(checks: Checks) -> list[Step]:
    return checks.day.purchases()


class _Steps:
    """Prints what is being done, and how long it took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._current: str | None = None
        self._began = 0.0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("Starting", total=STEPS)

    def begin(self, what: str) -> None:
        """The step before is done, this one begins."""
        self._finish()
        if not self._progress.live.is_started and self._console.is_terminal:
            self._progress.start()
        self._progress.update(self._task, description=what)
        self._current, self._began = what, time.monotonic()

    def end(self) -> None:
        """All steps are done."""
        self._finish()
        self._progress.stop()

    def _finish(self) -> None:
        if self._current is not None:
            self._progress.advance(self._task)
            took = time.monotonic() - self._began
            self._console.print(f"  {_mark(True)} {self._current:<44} {took:5.1f} s")
        self._current = None


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    """A spinner with a counter on a terminal; plain lines elsewhere."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.completed:.0f} {task.description}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        yield progress


def _mark(held: bool) -> str:
    return "[green]✓[/]" if held else "[red]✗[/]"


def _interrupt_on(*numbers: signal.Signals) -> None:
    """End in the same orderly way as on Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
