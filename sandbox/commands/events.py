"""`countersign events`: what a member did besides transactions, and the proof of one event."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import sqlalchemy.exc
import typer

from nodes.anchoring.block_reader import BlockReader
from nodes.anchoring.chain_view import TrustedChain
from nodes.anchoring.event_queries import find_events
from nodes.anchoring.events import EventRow
from nodes.anchoring.leaf import EventKind
from nodes.anchoring.proof_queries import (
    NotAnchoredYet,
    NoteKeyAt,
    UnknownEvent,
    event_bundle,
)
from nodes.anchoring.queries import LogPlace, log_places
from nodes.anchoring.verifier import printable
from nodes.chain.client import ChainClient
from nodes.chain.errors import ChainError
from nodes.db.engine import make_engine, transaction
from sandbox.commands.network_file import Described, read_network

_SHOWN = ("kind", "action", "subject", "actor", "detail")


def events(
    member: Annotated[str, typer.Option(help="The member's id.")],
    kind: Annotated[
        str, typer.Option(help="Only these: card, merchant, settlement, key or audit.")
    ] = "",
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=10_000)] = 20,
    proof: Annotated[
        int | None, typer.Option(help="Write the proof of this event instead.", min=1)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --proof: the file; else standard output.")
    ] = None,
    dsn: Annotated[str, typer.Option(help="The member's database; any login that may read.")] = "",
    network: Annotated[
        Path | None, typer.Option(help="network.json, for what isn't given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List a member's events (cards, merchants, settlements, keys, audit), or prove one.

    Each is an entry of the member's log. `countersign verify` judges the proof. Exit status: 0; 1
    the event is unknown or not anchored yet; 2 the database can't be read.
    """
    try:
        database = dsn or read_network(network).dsn(member)
        if not database:
            raise ValueError("give --dsn, or a network.json that has the member")
        if kind and kind not in {known.side for known in EventKind}:
            raise ValueError(f"--kind {kind!r}: there are card, merchant, settlement, key, audit")
        if proof is not None:
            _prove(database, member, proof, out, read_network(network))
            return
        rows, places = _read(database, kind, limit)
    except (UnknownEvent, NotAnchoredYet) as error:
        said = "no such event" if isinstance(error, UnknownEvent) else error.state.value
        typer.echo(f"NO PROOF of event {proof}: {said}", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        _cannot(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        _cannot(str(error))
    except sqlalchemy.exc.SQLAlchemyError as error:
        _cannot(f"the database can't be read ({type(error).__name__})")
    for row in rows:
        _print(row, places[-_number(row)], as_json)


def _note_keys(member: str, described: Described) -> NoteKeyAt | None:
    """The member's note keys by the chain; None where no chain is described or reached."""
    if not (described.rpc_url and described.anchor_registry):
        return None
    view = TrustedChain(ChainClient(described.rpc_url), described.anchor_registry)
    try:
        view.note_key(member, 0)
    except ChainError:
        return None
    return lambda block: view.note_key(member, block)


def _prove(database: str, member: str, event_id: int, out: Path | None, chain: Described) -> None:
    key_at = _note_keys(member, chain)
    engine = make_engine(database, application_name="countersign events")
    try:
        with transaction(engine) as connection:
            found = event_bundle(connection, member, event_id, key_at=key_at)
    finally:
        engine.dispose()
    if chain.rpc_url:
        found = BlockReader(ChainClient(chain.rpc_url)).sealed(found)
    if out is None:
        typer.echo(found, nl=False)
    else:
        out.write_bytes(found)


def _read(database: str, kind: str, limit: int) -> tuple[list[EventRow], dict[int, LogPlace]]:
    engine = make_engine(database, application_name="countersign events")
    try:
        with transaction(engine) as connection:
            rows = find_events(connection, limit=limit, kind=kind or None)
            return rows, log_places(connection, [-_number(row) for row in rows])
    finally:
        engine.dispose()


def _number(row: EventRow) -> int:
    return int(str(row["event_id"]))


def _print(row: EventRow, place: LogPlace, as_json: bool) -> None:
    at = datetime.fromtimestamp(int(str(row["occurred_ms"])) / 1000, UTC)
    shown = {name: printable(str(row[name]).encode()) for name in _SHOWN}
    if as_json:
        plain = {"event_id": _number(row), "occurred_at": at.isoformat()} | shown
        typer.echo(json.dumps(plain | {"log_index": place.log_index, "state": place.state.value}))
        return
    told = " ".join(text for text in shown.values() if text)
    typer.echo(f"{_number(row):>8}  {at:%Y-%m-%d %H:%M:%S}  {place.state.value:<9}  {told}")


def _cannot(why: str) -> NoReturn:
    typer.echo(f"CANNOT TELL: {why}", err=True)
    raise typer.Exit(2)
