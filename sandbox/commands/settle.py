"""`countersign settle`: what institutions have signed of their confirmed closes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psycopg
import sqlalchemy.exc
import typer
from rich.console import Console
from rich.table import Table

from nodes.clearing.model import CloseStage, DayKey
from nodes.clearing.queries import Staged, newest_closes
from nodes.db.engine import make_engine, transaction
from nodes.money import Money
from nodes.settlement.model import Settlement, StatementState
from nodes.settlement.operations.signing import statement_of
from nodes.settlement.queries import settlements_of
from sandbox.commands.network_file import Described, read_network

_SIGNED = frozenset({StatementState.CONFIRMED, StatementState.FINAL})
_ON_ITS_WAY = frozenset({StatementState.PREPARED, StatementState.PROPOSED})


@dataclass(frozen=True, slots=True)
class Side:
    """One institution's newest revision of a close, with its newest statement."""

    member: str
    staged: Staged
    settlement: Settlement | None


def settle(
    day: Annotated[
        str, typer.Option("--date", help="Business date, YYYY-MM-DD; without it all.")
    ] = "",
    network: Annotated[
        Path | None, typer.Option(help="network.json; without it the demo's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the statements of a network's closes, both institutions' side by side.

    Exit status: 0 every confirmed close has one statement, signed by both and alike in both books;
    1 the books differ, or a statement is disputed, expired or annulled; 2 something is on its way,
    or can't be told.
    """
    try:
        wanted = date.fromisoformat(day) if day else None
    except ValueError:
        _cannot(f"--date {day!r} is not a date: give YYYY-MM-DD")
    try:
        described = read_network(network)
        if not described.dsns:
            raise ValueError("no network is described: start one with make demo, or give --network")
        found = _read(described, wanted)
    except ValueError as error:
        _cannot(str(error))
    except (sqlalchemy.exc.SQLAlchemyError, psycopg.Error) as error:
        _cannot(f"a database can't be read ({type(error).__name__})")
    if not found:
        _cannot("there is no close of that date" if day else "no day is closed yet")
    verdicts = {key: verdict(key, sides) for key, sides in found.items()}
    _print(found, verdicts, as_json)
    codes = {code for code, _ in verdicts.values()}
    raise typer.Exit(1 if 1 in codes else max(codes))


def verdict(key: DayKey, sides: list[Side]) -> tuple[int, str]:
    """Exit status and word of a close: SETTLED, DIFFERS, WAITS, or the state that it is in."""
    if {side.member for side in sides} != {key.acquirer, key.issuer}:
        return 2, "ONE_SIDED"
    if any(side.staged.stage is not CloseStage.CONFIRMED for side in sides):
        return 2, "NOT_CONFIRMED"
    statements = [side.settlement for side in sides if side.settlement is not None]
    if any(not statement.agrees for statement in statements):
        return 1, "DIFFERS"
    if len(statements) < len(sides) or any(one.state in _ON_ITS_WAY for one in statements):
        return 2, "WAITS"
    if len({one.settlement_id for one in statements}) > 1:
        return 2, "WAITS"
    stated = statements[0].state
    upheld = all(one.state is StatementState.RESOLVED and one.stands for one in statements)
    if upheld or all(one.state in _SIGNED for one in statements):
        return 0, "SETTLED"
    return 1, stated.value


def _read(described: Described, day: date | None) -> dict[DayKey, list[Side]]:
    found: dict[DayKey, list[Side]] = {}
    for member, dsn in described.dsns:
        engine = make_engine(dsn, application_name="countersign settle")
        try:
            with transaction(engine) as connection:
                for staged in newest_closes(connection):
                    if day is not None and staged.close.key.business_date != day:
                        continue
                    made = settlements_of(connection, staged.close.close_id)
                    side = Side(member, staged, made[-1] if made else None)
                    found.setdefault(staged.close.key, []).append(side)
        finally:
            engine.dispose()
    return dict(sorted(found.items(), key=lambda entry: (entry[0].business_date, entry[0])))


def _print(
    found: dict[DayKey, list[Side]], verdicts: dict[DayKey, tuple[int, str]], as_json: bool
) -> None:
    if as_json:
        document = [
            _document(key, sides) | {"verdict": verdicts[key][1]} for key, sides in found.items()
        ]
        typer.echo(json.dumps(document, default=str))
        return
    table = Table("date", "pair", "rev", "items", "payer", "payee", "net", "signed", "state")
    for key, sides in found.items():
        side = sides[0]
        statement, settlement = statement_of(side.staged.close), side.settlement
        table.add_row(
            str(key.business_date),
            f"{key.acquirer} - {key.issuer}",
            str(side.staged.close.revision),
            str(statement.totals.count),
            statement.payer or "-",
            statement.payee or "-",
            str(Money(statement.net, key.currency)),
            ", ".join(_signers(key, settlement)) or "nobody",
            f"{verdicts[key][1]} ({settlement.state.value if settlement else 'no statement'})",
        )
    Console(highlight=False, width=None if Console().is_terminal else 140).print(table)


def _signers(key: DayKey, settlement: Settlement | None) -> list[str]:
    if settlement is None:
        return []
    return [member for member in (key.acquirer, key.issuer) if settlement.has_signed(member)]


def _document(key: DayKey, sides: list[Side]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "acquirer": key.acquirer,
        "issuer": key.issuer,
        "currency": key.currency,
        "business_date": key.business_date,
        "books": {},
    }
    for side in sides:
        statement, settlement = statement_of(side.staged.close), side.settlement
        shown["books"][side.member] = {
            "revision": side.staged.close.revision,
            "stage": side.staged.stage,
            "items": statement.totals.count,
            "payer": statement.payer,
            "payee": statement.payee,
            "net": statement.net,
            "settlement_id": settlement.settlement_id.hex() if settlement else None,
            "state": settlement.state if settlement else None,
            "agrees": settlement.agrees if settlement else None,
            "signed": _signers(key, settlement),
        }
    return shown


def _cannot(why: str) -> NoReturn:
    typer.echo(f"CANNOT TELL: {why}", err=True)
    raise typer.Exit(2)
