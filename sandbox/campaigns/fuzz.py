"""`countersign fuzz`: whatever may come over the POS link, against real gateway and nodes."""

from __future__ import annotations

import asyncio
import json
import random
import re
import resource
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.iso8583.dialect import DIALECTS
from sandbox.campaigns import fuzz_drive as drive
from sandbox.campaigns.card_traces import traces
from sandbox.campaigns.fuzz_frames import Planted, Sender, make_message, senseless, unauthentic
from sandbox.campaigns.fuzz_gateway import PIN, Target, signed_on, target
from sandbox.campaigns.fuzz_routes import Shaper, shape
from sandbox.campaigns.fuzz_state import await_sighted, doubles, state_of
from sandbox.campaigns.scene import await_anchored
from sandbox.campaigns.slow_loris import slow_loris
from sandbox.enrolled import ways
from sandbox.launcher import running
from sandbox.network import DemoDirectory
from sandbox.postgres import remove_outside_data
from sandbox.terminal import Card, Terminal

#: Of all frames so many are senseless under a good MAC, and so many nearly make sense.
_SENSELESS_SHARE, _SHAPED_SHARE = 0.1, 0.05
_BASES = 40
_CARDS = 8
#: What a log says where an exception wasn't caught, or was caught as a last resort.
_FAULTS = re.compile(
    rb"Traceback \(most recent call last\)|frame_failed|node_call_failed|answer_failed"
    rb"|was never retrieved|request failed|a request failed|an item failed|batch not staged"
    rb"|batch not written"
)


@dataclass(frozen=True)
class Order:
    """How much of everything."""

    frames: int
    seed: int
    replays: int = 10_000
    slow: int = 2_000
    honest: int = 300
    rounds: int = 3
    #: Of the terminals of each way and dialect every so many has its frames split.
    split_every: int = 1


@dataclass
class Result:
    """As it stands in var/fuzz.json; `notes` say what was wrong."""

    frames: int = 0
    uncaught: int = 0
    hangs: int = 0
    state_changes: int = 0
    card_data_in_logs: int = 0
    double_posts: int = 0
    seed: int = 0
    figures: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether nothing was wrong at all."""
        wrong = (self.uncaught, self.hangs, self.state_changes, self.card_data_in_logs)
        slow = self.figures.get("slow_loris", {}).get("ratio", 0.0)
        otherwise = sum(
            self.figures.get(part, {}).get("answered_otherwise", 0)
            for part in ("shaped", "replays")
        )
        # A busy machine's answers to an honest terminal; any other refusal is our fault.
        refused = {*self.figures.get("honest_refused", {})} - {"91", "96"}
        return not (any(wrong) or self.double_posts or otherwise or refused) and slow < 2.0

    def document(self) -> dict[str, Any]:
        """The figures by name."""
        return {
            "frames": self.frames,
            "uncaught": self.uncaught,
            "hangs": self.hangs,
            "state_changes": self.state_changes,
            "card_data_in_logs": self.card_data_in_logs,
            "double_posts": self.double_posts,
            "seed": self.seed,
            **self.figures,
        }


def run_fuzz(directory: Path, output: Path, order: Order) -> int:
    """The exit status: 0 if nothing was wrong, else 1."""
    console = Console(highlight=False)
    # A connection is a file; two thousand slow ones are held at both ends.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    demo = DemoDirectory(directory)
    result = Result(seed=order.seed)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("Founding a network", total=None)

        def say(what: str) -> None:
            progress.update(task, description=what)

        with demo.locked(fresh=True) as state, running(demo, state, say, console=False) as network:
            progress.remove_task(task)
            folder = demo.path
            with target(network, folder, spares=3, cards=_CARDS) as made:
                uvloop.run(_campaign(Campaign(made, order, result, progress)))
                _scan_metrics(made, result)
            await_anchored(network)
            found = doubles(network)
            result.double_posts = len(found)
            result.notes += found[:10]
        _scan_logs([*demo.log.iterdir(), made.log], result, made)
    remove_outside_data(directory / "postgres")
    shutil.rmtree(directory)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result.document(), indent=1) + "\n")
    for name, value in result.document().items():
        console.print(f"  {name:<20} {value}")
    for note in result.notes:
        console.print(f"[red]{escape(note)}[/]")
    console.print(f"Written to {output}")
    return 0 if result.held else 1


@dataclass
class Campaign:
    """What the parts of a campaign share."""

    target: Target
    order: Order
    result: Result
    progress: Progress
    planted: Planted = field(default_factory=Planted)
    #: Honest purchases that were answered, but not approved, by DE39: a busy machine's 91 and 96.
    refused: Counter[str] = field(default_factory=Counter)

    def ticker(self, what: str, total: int) -> Callable[[], None]:
        """A bar of its own for a part."""
        task = self.progress.add_task(what, total=total)
        return lambda: self.progress.advance(task)


#: Kept for the scan of the logs, after the network has stopped.
_planted: dict[Path, Planted] = {}


async def _campaign(campaign: Campaign) -> None:
    made, order, result = campaign.target, campaign.order, campaign.result
    source = random.Random(f"{order.seed} fuzz")
    _planted[made.log] = campaign.planted
    count = len(ways())
    honest = await signed_on(made.terminal(count, DIALECTS["bcd-tpdu"], timeout_s=drive.PROBE_S))
    senders = await _senders(campaign, source)
    await _unauthentic(campaign, source, senders, honest)
    await _senseless(campaign, source, senders, honest)
    await _shaped(campaign, source, honest)
    await _split(campaign, senders)
    await _slow(campaign, honest)
    await _replays(campaign, source)
    result.figures["honest_refused"] = dict(sorted(campaign.refused.items()))
    await honest.close()
    for sender in senders:
        await sender.terminal.close()
    result.notes += [] if made.alive() else ["the gateway's process has ended"]
    result.uncaught += not made.alive()


async def _senders(campaign: Campaign, source: random.Random) -> list[Sender]:
    """A terminal of each way in each dialect, with frames of its own."""
    made, found = campaign.target, list[Sender]()
    for dialect in DIALECTS.values():
        for number in range(len(ways())):
            moment = time.time_ns() // 1_000_000
            terminal = await signed_on(made.terminal(number, dialect, timeout_s=drive.PROBE_S))
            await terminal.close()
            signs_on = terminal.module.signs_on
            found.append(Sender(terminal, dialect, signed_on_ms=moment if signs_on else None))
    # A terminal has one set of working keys: those of the last sign-on count.
    for sender in found:
        sender.bases = [
            sender.terminal.seal(
                make_message(source, sender.terminal, _card(source, made), PIN, campaign.planted)
            )
            for _ in range(_BASES)
        ]
    return found


def _card(source: random.Random, made: Target) -> Card:
    return made.card(source.randrange(1_000))


async def _unauthentic(
    campaign: Campaign, source: random.Random, senders: list[Sender], honest: Terminal
) -> None:
    """Frames without a good MAC: the databases must be byte for byte what they were."""
    made, result = campaign.target, campaign.result
    total = campaign.order.frames
    count = total - int(total * _SENSELESS_SHARE) - int(total * _SHAPED_SHARE)
    # In the order of the sign-ons: each terminal's last one stays.
    sign_ons = {
        sender.terminal.terminal_id: sender.signed_on_ms
        for sender in senders
        if sender.signed_on_ms is not None
    }
    await asyncio.to_thread(await_sighted, made.network, sign_ons)
    await asyncio.to_thread(await_anchored, made.network)
    before = await asyncio.to_thread(state_of, made.network)
    frames = unauthentic(source, senders)
    async with drive.probing(
        honest, lambda terminal: terminal.echo(), 0.5, campaign.refused
    ) as probe:
        tick = campaign.ticker("frames without a good MAC", count)
        answers = await drive.throw(made, frames, count, tick)
    after = await asyncio.to_thread(state_of, made.network)
    changed = sorted(name for name in before if before[name] != after[name])
    result.state_changes += len(changed)
    result.notes += [f"changed by frames without a good MAC: {name}" for name in changed]
    result.hangs += probe.hangs
    result.frames += count
    result.figures["answered"] = answers
    result.figures["probes"] = probe.asked


async def _senseless(
    campaign: Campaign, source: random.Random, senders: list[Sender], honest: Terminal
) -> None:
    """Senseless messages under a good MAC, beside honest purchases."""
    made, result = campaign.target, campaign.result
    count = int(campaign.order.frames * _SENSELESS_SHARE)

    def frames() -> Any:
        while True:
            sender = source.choice(senders)
            card = _card(source, made)
            yield sender, senseless(source, sender, card, PIN, campaign.planted)

    async with drive.probing(honest, drive.purchase(made, 0), 0.5, campaign.refused) as probe:
        tick = campaign.ticker("senseless under a good MAC", count)
        answers = await drive.throw(made, frames(), count, tick)
    result.hangs += probe.hangs
    result.frames += count
    result.figures["answered"] += answers
    result.figures["probes"] += probe.asked


async def _shaped(campaign: Campaign, source: random.Random, honest: Terminal) -> None:
    """Offline records, closes, uploads, sign-ons, reversals: nearly as they should be."""
    made, result = campaign.target, campaign.result
    count = campaign.order.frames - result.frames
    cards = await asyncio.to_thread(made.offline_cards)
    shapers = []
    ways_there = len(ways())
    for number in range(2 * ways_there, 3 * ways_there):
        dialect = DIALECTS[drive.dialect_of(number)]
        terminal = await signed_on(made.terminal(number, dialect, timeout_s=drive.PROBE_S))
        # A card's counter is one terminal's here: two would look like its clone.
        own = cards[number % ways_there :: ways_there]
        draws = random.Random(source.random())
        shapers.append(Shaper(draws, terminal, own, PIN, campaign.planted))
    each = -(-count // len(shapers))
    async with drive.probing(honest, drive.purchase(made, 0), 0.5, campaign.refused) as probe:
        tick = campaign.ticker("nearly as it should be", each * len(shapers))
        async with asyncio.TaskGroup() as group:
            for shaper in shapers:
                group.create_task(shape(shaper, each, tick))
    codes = sum((shaper.codes for shaper in shapers), Counter[str]())
    unanswered = sum(shaper.unanswered for shaper in shapers)
    result.hangs += probe.hangs + unanswered
    result.frames += count
    result.figures["probes"] += probe.asked
    result.notes += [f"answered otherwise: {note}" for s in shapers for note in s.notes][:10]
    result.figures["shaped"] = {
        "sent": sum(shaper.messages for shaper in shapers),
        "unanswered": unanswered,
        "answered_otherwise": sum(shaper.differing for shaper in shapers),
        "codes": dict(sorted(codes.items())),
    }
    for shaper in shapers:
        await shaper.terminal.close()


async def _split(campaign: Campaign, senders: list[Sender]) -> None:
    """Genuine frames of every way and dialect, cut at every byte."""
    senders = senders[:: campaign.order.split_every]
    tick = campaign.ticker("frames split at every byte", len(senders) * 200)
    unanswered = 0
    for sender in senders:
        unanswered += await drive.split_everywhere(sender, campaign.target, tick, campaign.refused)
        await sender.terminal.close()
    campaign.result.hangs += unanswered
    campaign.result.figures["split_unanswered"] = unanswered


async def _slow(campaign: Campaign, honest: Terminal) -> None:
    """Quiet and with slow connections, in turn: the machine's own moods count for both."""
    made, order = campaign.target, campaign.order
    quiet: list[float] = []
    slow: list[float] = []
    tick = campaign.ticker("slow connections", order.rounds)
    for _ in range(order.rounds):
        quiet.append(await drive.honest_p99(honest, made, order.honest))
        with slow_loris(made.ports["bcd-tpdu"], order.slow):
            slow.append(await drive.honest_p99(honest, made, order.honest))
        tick()
    ratio = statistics.median(b / a for a, b in zip(quiet, slow, strict=True))
    campaign.result.figures["slow_loris"] = {
        "connections": order.slow,
        "quiet_p99_ms": round(statistics.median(quiet), 2),
        "p99_ms": round(statistics.median(slow), 2),
        "ratio": round(ratio, 2),
    }


async def _replays(campaign: Campaign, source: random.Random) -> None:
    """Repeats, duplicates and reversals in any order, from a terminal of each way at once."""
    made, order = campaign.target, campaign.order
    count = len(ways())
    shifts = []
    for number in range(count, 2 * count):
        dialect = DIALECTS[drive.dialect_of(number)]
        terminal = await signed_on(made.terminal(number, dialect, timeout_s=drive.PROBE_S))
        shifts.append(drive.Shift(terminal, random.Random(source.random())))
    tick = campaign.ticker("replays", order.replays)
    each = -(-order.replays // len(shifts))
    async with asyncio.TaskGroup() as group:
        for shift in shifts:
            group.create_task(drive.replay(shift, made, each, tick))
    campaign.result.hangs += sum(shift.silent for shift in shifts)
    notes = [f"answered otherwise: {note}" for shift in shifts for note in shift.notes]
    campaign.result.notes += notes[:10]
    campaign.result.figures["replays"] = {
        "sent": sum(shift.sent for shift in shifts),
        "messages": sum(len(shift.told) for shift in shifts),
        "answered_otherwise": sum(shift.differing for shift in shifts),
        "busy": sum(shift.busy for shift in shifts),
        "unanswered": sum(shift.silent for shift in shifts),
    }
    for shift in shifts:
        await shift.terminal.close()


def _scan_metrics(made: Target, result: Result) -> None:
    text = made.metrics()
    internal = re.search(r'closed_connections_total\{reason="internal"\} ([0-9.]+)', text)
    if internal and float(internal[1]):
        result.uncaught += int(float(internal[1]))
        result.notes.append(f"{internal[1]} connections were closed by an exception")


def _scan_logs(logs: list[Path], result: Result, made: Target) -> None:
    for path in logs:
        for line in path.read_bytes().splitlines():
            if _FAULTS.search(line):
                result.uncaught += 1
                result.notes.append(f"{path.name}: {line[:300].decode(errors='replace')}")
    found = traces(logs, _planted[made.log])
    result.card_data_in_logs = len(found)
    result.notes = [*found[:10], *result.notes][:40]
