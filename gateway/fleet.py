"""The gateway follows its acquirer's fleet: who may speak here, by which key; and reports back.

Beside the path of payments: a poll takes what changed since the last number seen, a report tells
when terminals were last heard. While the node is away the gateway goes on with what it knows, and a
file keeps that over a restart. Terminals of the settings stay unless the node says otherwise.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from gateway.iso8583.spec import Suite
from gateway.terminal_keys.model import ALWAYS, KeyManagement, TerminalRecord
from nodes.acquiring.fleet.model import MAX_SIGHTINGS, ChangePage, FleetRecord, Sighting
from nodes.api.client import NodeRefused, NodeUnreachable
from nodes.crypto.hsm import KeyUnavailable

_log = structlog.get_logger("gateway.fleet")

CHANGES, REPORTS = "/v1/terminals/changes", "/v1/terminals/reports"
#: Calls of one report: what is more waits for the next one.
_CALLS_A_REPORT = 5
_LONGEST_PAUSE_S = 30.0
#: Longer than any answer is under way (gateway settings: deadline_ms is at most a minute).
_FORGET_S = 60.0


class Ring(Protocol):
    """The key ring as far as the fleet changes it (gateway.terminal_keys.ring.KeyRing)."""

    def put(self, record: TerminalRecord) -> None: ...

    def drop(self, terminal_id: str) -> None: ...

    def forget_left(self) -> None: ...

    def last_sign_on(self, terminal_id: str) -> int | None: ...


class CheckValues(Protocol):
    """The check value of the master key that a record's terminal was enrolled with."""

    def __call__(self, record: TerminalRecord) -> bytes: ...


class FleetLink(Protocol):
    """The way to the node (nodes.api.client.NodeClient)."""

    async def get_json(self, path: str, **params: Any) -> Any: ...

    async def post_json(self, path: str, document: Any) -> Any: ...


class Fleet:
    """What one gateway knows of its acquirer's terminals. Used by its event loop alone.

    `configured`: the terminals of the settings. `file`: where what is known outlasts a restart.
    """

    def __init__(
        self,
        ring: Ring,
        check_value: CheckValues,
        configured: Iterable[TerminalRecord],
        file: Path | None = None,
    ) -> None:
        self.after = 0
        self.known: dict[str, FleetRecord] = {}
        #: By terminal the moment (ms, UTC) and the batch of its last request; filled by the server.
        self.seen: dict[str, tuple[int, str]] = {}
        self._ring = ring
        self._check_value = check_value
        self._configured: Mapping[str, TerminalRecord] = {r.terminal_id: r for r in configured}
        self._file = file
        #: By terminal, its keys' generations that the node has no check value of yet, oldest first.
        self._unreported: dict[str, list[FleetRecord]] = {}
        self._sign_ons: dict[str, int] = {}

    # Following

    def restore(self) -> None:
        """Take what the file kept; a file that can't be read is left alone and said so."""
        if self._file is None or not self._file.exists():
            return
        try:
            page = msgspec.json.decode(self._file.read_bytes(), type=ChangePage)
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("fleet_file_unreadable", error=type(error).__name__)
            return
        self.take(page, keep=False)

    async def follow(self, link: FleetLink) -> int:
        """Take all changes since the last one; how many. NodeUnreachable, NodeRefused."""
        count = 0
        while True:
            found = await link.get_json(CHANGES, after=self.after, limit=500)
            try:
                page = msgspec.convert(found, ChangePage)
            except msgspec.ValidationError:
                raise NodeUnreachable("node", sent=True, why="no page of changes") from None
            if not page.items:
                return count
            self.take(page)
            count += len(page.items)

    def take(self, page: ChangePage, *, keep: bool = True) -> None:
        """Do what a page of changes says, and remember it."""
        for record in page.items:
            self.known[record.terminal_id] = record
            self._apply(record)
        self.after = max(self.after, page.next)
        if keep and self._file is not None:
            _write(self._file, ChangePage([*self.known.values()], self.after))

    def _apply(self, record: FleetRecord) -> None:
        name = record.terminal_id
        if not record.enabled:
            self._ring.drop(name)
            _log.info("terminal_disabled", terminal_id=name)
            return
        mine = self._configured.get(name) if record.key_generation == 0 else as_record(record)
        try:
            if mine is None:
                raise KeyUnavailable(name)
            self._ring.put(mine)
        except KeyUnavailable:
            self._ring.drop(name)
            _log.warning("terminal_without_key", terminal_id=name)
            return
        if record.key_generation:
            waiting = self._unreported.setdefault(name, [])
            if all(other.key_generation != record.key_generation for other in waiting):
                waiting.append(record)
        _log.info("terminal_taken", terminal_id=name, generation=record.key_generation)

    # Reporting

    def sightings(self) -> list[Sighting]:
        """What the node hasn't been told yet: of at most so many terminals as a report takes."""
        found: list[Sighting] = []
        names = {*self.seen, *self._unreported, *self._new_sign_ons()}
        for name in sorted(names)[: MAX_SIGHTINGS * _CALLS_A_REPORT]:
            moment, batch = self.seen.get(name, (None, None))
            signed_on = self._ring.last_sign_on(name)
            waiting = self._unreported.get(name)
            checked = as_record(waiting[0]) if waiting else None
            found.append(
                Sighting(
                    terminal_id=name,
                    last_seen_ms=_later(moment, signed_on),
                    last_sign_on_ms=signed_on,
                    batch=batch,
                    key_generation=None if checked is None else checked.generation,
                    check_value=None
                    if checked is None
                    else self._check_value(checked).hex().upper(),
                )
            )
        return found

    def _new_sign_ons(self) -> list[str]:
        return [
            name
            for name in {*self.known, *self._configured}
            if (at := self._ring.last_sign_on(name)) is not None and at != self._sign_ons.get(name)
        ]

    async def report(self, link: FleetLink) -> int:
        """Tell the node; of how many terminals. What couldn't be told is told the next time."""
        found = self.sightings()
        for start in range(0, len(found), MAX_SIGHTINGS):
            part = found[start : start + MAX_SIGHTINGS]
            await link.post_json(REPORTS, {"sightings": msgspec.to_builtins(part)})
            for sighting in part:
                self._told(sighting)
        return len(found)

    def _told(self, sighting: Sighting) -> None:
        name = sighting.terminal_id
        latest = self.seen.get(name)
        if latest is not None and latest[0] <= (sighting.last_seen_ms or 0):
            del self.seen[name]
        if sighting.last_sign_on_ms is not None:
            self._sign_ons[name] = sighting.last_sign_on_ms
        waiting = self._unreported.get(name)
        if waiting and waiting[0].key_generation == sighting.key_generation:
            del waiting[0]
            if not waiting:
                del self._unreported[name]

    async def run(self, link: FleetLink, poll_s: float, report_s: float) -> None:
        """Follow and report until it is cancelled. Faults are logged once an outage."""
        loop = asyncio.get_running_loop()
        next_report, pause, away = loop.time() + report_s, poll_s, False
        next_forgetting = loop.time() + _FORGET_S
        while True:
            await asyncio.sleep(pause)
            if loop.time() >= next_forgetting:
                next_forgetting = loop.time() + _FORGET_S
                self._ring.forget_left()
            try:
                await self.follow(link)
                if loop.time() >= next_report:
                    next_report = loop.time() + report_s
                    await self.report(link)
            except (NodeUnreachable, NodeRefused, OSError) as error:
                if not away:
                    _log.warning("fleet_not_followed", error=type(error).__name__)
                away, pause = True, min(_LONGEST_PAUSE_S, max(pause * 2, poll_s))
            else:
                away, pause = False, poll_s


def as_record(record: FleetRecord) -> TerminalRecord | None:
    """The terminal as the session takes it; None if its record fits no suite."""
    try:
        return TerminalRecord(
            terminal_id=record.terminal_id,
            merchant_id=record.merchant_id,
            suite=Suite(int(record.suite)),
            management=KeyManagement(record.management.value),
            generation=record.key_generation,
            certificate=bytes.fromhex(record.certificate),
            sm2_public_key=bytes.fromhex(record.sm2_public_key),
            valid_ms=(record.valid_from_ms, record.valid_until_ms)
            if record.valid_until_ms
            else ALWAYS,
        )
    except ValueError as error:
        _log.warning("terminal_record_unfit", terminal_id=record.terminal_id, why=str(error))
        return None


def _later(first: int | None, second: int | None) -> int | None:
    present = [moment for moment in (first, second) if moment is not None]
    return max(present) if present else None


def _write(path: Path, page: ChangePage) -> None:
    """At one stroke: a reader, or a crash, finds the old or the new content."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_bytes(msgspec.json.encode(page))
        os.replace(temporary, path)
    except OSError as error:
        _log.warning("fleet_file_not_written", reason=error.strerror)
