"""`countersign erase`: forget a person, and keep every financial proof."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import sqlalchemy.exc
import typer

from nodes.anchoring.operations.erasing import Erasure, ErasureOutcome, erase_person
from nodes.db.engine import make_engine
from sandbox.commands.network_file import read_network

_TABLES = (
    *("transactions", "events", "authorization_requests", "authorization_answers"),
    *("reversal_queue", "forward_queue", "webhook_deliveries", "account_versions", "chip_records"),
    *("consumer_codes", "stand_ins", "online_counters", "card_offline_keys"),
    *("cards", "card_events", "spend_rules", "accounts"),
)
_WHY = {
    ErasureOutcome.UNKNOWN: "nothing in these books names such a card",
    ErasureOutcome.CARD_LIVE: "the card may still pay; cancel it first",
    ErasureOutcome.PENDING: "a reversal of this card isn't acknowledged yet",
}


def erase(
    member: Annotated[str, typer.Option(help="The member's id.")],
    card_token: Annotated[str, typer.Option(help="The person's card token, 32 hex digits.")],
    reason: Annotated[str, typer.Option(help="Why; goes into the log.")],
    by: Annotated[str, typer.Option(help="Who erases; goes into the log.")],
    dsn: Annotated[str, typer.Option(help="The database, by the login that owns it.")] = "",
    network: Annotated[
        Path | None, typer.Option(help="network.json, for what isn't given.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Shred a person's token and salt in a member's database; financial proofs stay valid.

    It can't be undone. Each member erases its own books. Exit status: 0 erased; 1 refused, with
    the reason's name; 2 can't be done (no database, no such right).
    """
    try:
        database = dsn or read_network(network).dsn(member)
        token = _token(card_token)
        if not database:
            raise ValueError("give --dsn, or a network.json")
        if not 1 <= len(reason) <= 200:
            raise ValueError("a reason has 1 to 200 characters")
    except ValueError as error:
        _cannot(str(error))
    if not yes:
        typer.confirm(f"Erase the person behind {card_token[:8]}... for ever?", abort=True)
    engine = make_engine(database, application_name="countersign erase")
    try:
        now = datetime.now(UTC)
        done = erase_person(engine, member, token, reason=reason, by=by, now=now)
        if done.outcome is ErasureOutcome.DONE:
            _vacuum(engine)
    except sqlalchemy.exc.SQLAlchemyError as error:
        _cannot(f"the database refuses it ({type(error).__name__})")
    except Exception as error:  # psycopg's own, beneath SQLAlchemy
        if type(error).__module__.split(".")[0] != "psycopg":
            raise
        _cannot(f"the database refuses it ({type(error).__name__})")
    finally:
        engine.dispose()
    _print(done, as_json)
    if done.outcome is not ErasureOutcome.DONE:
        raise typer.Exit(1)


def _vacuum(engine: sqlalchemy.Engine) -> None:
    """Old row versions hold what was erased until they are vacuumed away."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in _TABLES:
            connection.exec_driver_sql(f"VACUUM {table}")


def _token(text: str) -> bytes:
    try:
        token = bytes.fromhex(text)
    except ValueError:
        token = b""
    if len(token) != 16:
        # Not what was given: it could be a card's number.
        raise ValueError("--card-token: a card token is 16 bytes, 32 hex digits")
    return token


def _cannot(why: str) -> NoReturn:
    typer.echo(f"CANNOT ERASE: {why}", err=True)
    raise typer.Exit(2)


def _print(done: Erasure, as_json: bool) -> None:
    if as_json:
        pseudonym = done.pseudonym.hex() if done.pseudonym else None
        document = {"outcome": done.outcome.value, "pseudonym": pseudonym, "rows": dict(done.rows)}
        typer.echo(json.dumps(document))
    elif done.outcome is ErasureOutcome.DONE:
        typer.echo("ERASED: " + ", ".join(f"{table} {count}" for table, count in done.rows.items()))
        typer.echo("Backups and archived WAL keep what they have until they are deleted.")
    else:
        typer.echo(f"REFUSED {done.outcome.name}: {_WHY[done.outcome]}")
