"""`countersign reconcile`: the closes of a network's days, and what is broken in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psycopg
import sqlalchemy.exc
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import Engine

from nodes.clearing import case_queries, day_queries, queries
from nodes.clearing.case_queries import CaseFile
from nodes.clearing.model import CaseState, CloseStage, DayKey
from nodes.clearing.queries import Staged
from nodes.clearing.rules.cases import owner
from nodes.clearing.rules.closing import close_root
from nodes.db.engine import make_engine, transaction
from sandbox.commands.network_file import Described, read_network

_LISTED = 50
_ENDED = (CloseStage.CONFIRMED, CloseStage.SUPERSEDED)


@dataclass(frozen=True, slots=True)
class Side:
    """One institution's newest revision of a close, with its cases; `root` computed anew."""

    member: str
    staged: Staged
    cases: list[CaseFile]
    root: bytes


def reconcile(
    day: Annotated[
        str, typer.Option("--date", help="Business date, YYYY-MM-DD; without it all.")
    ] = "",
    pair: Annotated[str, typer.Option(help="ACQUIRER-ISSUER or ACQUIRER/ISSUER.")] = "",
    network: Annotated[
        Path | None, typer.Option(help="network.json; without it the demo's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the closes of a network's days and their breaks, each close computed anew.

    Exit status: 0 every newest close is Confirmed, alike in both books, without an open case;
    1 breaks, or a close that the books no longer lead to; 2 can't be told (no network, no database,
    a close that only one side has, or that the chain hasn't judged yet).
    """
    try:
        wanted = date.fromisoformat(day) if day else None
    except ValueError:
        _cannot(f"--date {day!r} is not a date: give YYYY-MM-DD")
    try:
        described = read_network(network)
        if not described.dsns:
            raise ValueError("no network is described: start one with make demo, or give --network")
        members = _members(described, pair)
        found = _read(described, wanted, members, show=not as_json)
    except ValueError as error:
        _cannot(str(error))
    except (sqlalchemy.exc.SQLAlchemyError, psycopg.Error) as error:
        _cannot(f"a database can't be read ({type(error).__name__})")
    if not found:
        _cannot(
            "there is no close of that date and pair" if day or pair else "no day is closed yet"
        )
    verdicts = {key: verdict(key, sides) for key, sides in found.items()}
    _print(found, verdicts, as_json)
    status = max(code for code, _ in verdicts.values())
    if any(code == 1 for code, _ in verdicts.values()):
        status = 1
    raise typer.Exit(status)


def _members(described: Described, pair: str) -> tuple[str, str] | None:
    """The two members of --pair. Ids may have hyphens: whichever reading both exist counts."""
    if not pair:
        return None
    known = {name for name, _ in described.dsns}
    for place, mark in enumerate(pair):
        if mark in "-/" and {pair[:place], pair[place + 1 :]} <= known:
            return pair[:place], pair[place + 1 :]
    raise ValueError(f"--pair {pair!r} names no two members: they are {', '.join(sorted(known))}")


def _read(
    described: Described, day: date | None, pair: tuple[str, str] | None, *, show: bool
) -> dict[DayKey, list[Side]]:
    found: dict[DayKey, list[Side]] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not show,
        transient=True,
    ) as bar:
        for member, dsn in described.dsns:
            with _engine(dsn) as engine, transaction(engine) as connection:
                newest = [
                    staged
                    for staged in queries.newest_closes(connection)
                    if (day is None or staged.close.key.business_date == day)
                    and (
                        pair is None or (staged.close.key.acquirer, staged.close.key.issuer) == pair
                    )
                ]
                task = bar.add_task(f"Closes of {member}", total=len(newest))
                for staged in newest:
                    cases = case_queries.cases_of_day(connection, staged.close.key)
                    root = close_root(day_queries.day_items(connection, staged.close))
                    side = Side(member, staged, cases, root)
                    found.setdefault(staged.close.key, []).append(side)
                    bar.advance(task)
    return dict(sorted(found.items(), key=lambda entry: (entry[0].business_date, entry[0])))


@contextmanager
def _engine(dsn: str):  # type: ignore[no-untyped-def]
    engine: Engine = make_engine(dsn, application_name="countersign reconcile")
    try:
        yield engine
    finally:
        engine.dispose()


def verdict(key: DayKey, sides: Sequence[Side]) -> tuple[int, str]:
    """Exit status and word of a close: EQUAL, BROKEN, CHANGED, OPEN, ONE_SIDED."""
    if any(side.root != side.staged.close.close_root for side in sides):
        return 1, "CHANGED"
    if any(side.staged.stage is CloseStage.BROKEN for side in sides) or any(
        file.case.state is not CaseState.CLOSED for side in sides for file in side.cases
    ):
        return 1, "BROKEN"
    if {side.member for side in sides} != {key.acquirer, key.issuer}:
        return 2, "ONE_SIDED"
    roots = {side.root for side in sides}
    if all(side.staged.stage in _ENDED for side in sides):
        return (0, "EQUAL") if len(roots) == 1 else (1, "BROKEN")
    return 2, "OPEN"


def _cannot(why: str) -> NoReturn:
    typer.echo(f"CANNOT TELL: {why}", err=True)
    raise typer.Exit(2)


def _print(
    found: dict[DayKey, list[Side]], verdicts: dict[DayKey, tuple[int, str]], as_json: bool
) -> None:
    if as_json:
        document = [
            {
                "acquirer": key.acquirer,
                "issuer": key.issuer,
                "currency": key.currency,
                "business_date": key.business_date.isoformat(),
                "verdict": verdicts[key][1],
                "sides": [_side(side) for side in sides],
                "breaks": [_break(key, file) for file in _cases(sides)],
            }
            for key, sides in found.items()
        ]
        typer.echo(json.dumps({"ok": not any(v for v, _ in verdicts.values()), "closes": document}))
        return
    for key, sides in found.items():
        typer.echo(f"{key}: {verdicts[key][1]}")
        for side in sides:
            close = side.staged.close
            totals = close.totals
            typer.echo(
                f"  {side.member:<12} revision {close.revision} {side.staged.stage.value:<10}"
                f" {totals.count} items, debits {totals.debits}, credits {totals.credits},"
                f" root {side.root.hex()[:16]}"
                + ("" if side.root == close.close_root else " (the books changed since)")
            )
        cases = _cases(sides)
        for file in cases[:_LISTED]:
            told = _break(key, file)
            subject = told["txid"] or f"number {told['pair_seq']}"
            fields = f" ({', '.join(told['fields'])})" if told["fields"] else ""
            typer.echo(
                f"    {told['kind']}{fields} {subject}: {told['state']},"
                f" owner {told['owner'] or 'nobody'}, due {told['due_at']}"
            )
        if len(cases) > _LISTED:
            typer.echo(f"    ... and {len(cases) - _LISTED} more")


def _cases(sides: Sequence[Side]) -> list[CaseFile]:
    """The day's cases: the acquirer's copy where it is there, else the issuer's."""
    ordered = sorted(sides, key=lambda side: side.staged.close.party != "acquirer")
    return ordered[0].cases


def _side(side: Side) -> dict[str, Any]:
    close = side.staged.close
    return {
        "member": side.member,
        "revision": close.revision,
        "stage": side.staged.stage.value,
        "items": close.totals.count,
        "debits": close.totals.debits,
        "credits": close.totals.credits,
        "close_root": close.close_root.hex(),
        "root_of_the_books": side.root.hex(),
    }


def _break(key: DayKey, file: CaseFile) -> dict[str, Any]:
    found, txid = file.found, file.found["txid"]
    return {
        "break_ref": found["break_ref"].hex(),
        "kind": file.case.kind.value,
        "txid": txid.hex() if txid else None,
        "fields": found["fields"],
        "pair_seq": found["pair_seq"],
        "state": file.case.state.value,
        "owner": owner(file.case, key.acquirer, key.issuer),
        "opened_at": found["opened_at"].isoformat(),
        "due_at": found["due_at"].isoformat(),
    }
