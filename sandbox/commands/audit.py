"""`countersign audit`: are the books of two institutions complete, and do they agree?"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psycopg
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nodes.anchoring.chain_view import TrustedChain
from nodes.chain.client import ChainClient
from nodes.chain.closes import CloseKey, CloseOpened, CloseRegistry, ConfirmedClose
from nodes.chain.directory import Directory
from nodes.chain.errors import ChainError
from nodes.clearing.model import DayKey
from nodes.reconciliation.completeness import AuditReport, CompletenessCheck, Party
from sandbox.commands.audit_pdf import audit_pdf
from sandbox.commands.audit_report import audit_document, audit_html
from sandbox.commands.network_file import Described, checked_address, read_network

_LISTED = 200


def audit(
    acquirer: Annotated[str, typer.Option(help="The acquirer's member id.")],
    issuer: Annotated[str, typer.Option(help="The issuer's member id.")],
    acquirer_dsn: Annotated[str, typer.Option(help="Its database; any login that may read.")] = "",
    issuer_dsn: Annotated[str, typer.Option(help="Its database; any login that may read.")] = "",
    promises: Annotated[
        Path | None, typer.Option(help="Receipts' promises that you hold, one a line.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a report: a name that ends in .pdf, else HTML.")
    ] = None,
    rpc: Annotated[str, typer.Option(help="URL of a chain node that you trust.")] = "",
    anchor_registry: Annotated[str, typer.Option(help="The anchor contract you trust.")] = "",
    close_registry: Annotated[str, typer.Option(help="The close contract you trust.")] = "",
    omission_registry: Annotated[str, typer.Option(help="The omission contract you trust.")] = "",
    network: Annotated[
        Path | None, typer.Option(help="network.json, for what isn't given.")
    ] = None,
    grace_s: Annotated[
        int, typer.Option(help="So long an entry may be in one log alone, in seconds.", min=0)
    ] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that the shared record of a pair is complete, against the chain.

    Each number is once in both logs, each confirmed close is a subset of both with the totals that
    its opened rows give, and each promise you hold is kept. Exit status: 0 complete; 1 findings;
    2 can't be checked.
    """
    try:
        described = read_network(network)
        trusted = Described(
            rpc_url=rpc or described.rpc_url,
            anchor_registry=checked_address("--anchor-registry", anchor_registry)
            or described.anchor_registry,
            close_registry=checked_address("--close-registry", close_registry)
            or described.close_registry,
            omission_registry=checked_address("--omission-registry", omission_registry)
            or described.omission_registry,
        )
        dsns = (
            acquirer_dsn or described.dsn(acquirer),
            issuer_dsn or described.dsn(issuer),
        )
        lacking = not (trusted.rpc_url and trusted.anchor_registry and trusted.close_registry)
        if lacking or not all(dsns):
            raise ValueError(
                "give --acquirer-dsn, --issuer-dsn, --rpc, --anchor-registry and --close-registry,"
                " or a network.json"
            )
        held = [] if promises is None else promises.read_text(encoding="ascii").split()
        found, chain_id, block = _check((acquirer, issuer), dsns, trusted, held, grace_s, as_json)
        if report is not None:
            now = datetime.now(UTC)
            document = audit_document(found, at=now, chain_id=chain_id, block=block)
            is_pdf = report.suffix.lower() == ".pdf"
            report.write_bytes(audit_pdf(document) if is_pdf else audit_html(document).encode())
    except OSError as error:
        _cannot(f"{error.filename}: {error.strerror}")
    except (ChainError, ValueError) as error:
        _cannot(str(error))
    except psycopg.Error as error:
        _cannot(f"a database can't be read ({type(error).__name__})")
    _print(found, as_json)
    if not found.complete:
        raise typer.Exit(1)


def _check(
    members: tuple[str, str],
    dsns: tuple[str, str],
    trusted: Described,
    held: list[str],
    grace_s: int,
    quiet: bool,
) -> tuple[AuditReport, int, int]:
    client = ChainClient(trusted.rpc_url)
    view = TrustedChain(client, trusted.anchor_registry, trusted.omission_registry)
    view.require_present()
    # The chain's closes first: what is confirmed after this look isn't missed in the books.
    closes = _closes(CloseRegistry(client, trusted.close_registry), *members)
    block = client.block()
    with ExitStack() as stack:
        connections = [stack.enter_context(_snapshot(dsn)) for dsn in dsns]
        bar = stack.enter_context(
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                disable=quiet,
                transient=True,
            )
        )
        task = bar.add_task("Reading", total=None)
        check = CompletenessCheck(
            Party(members[0], connections[0]),
            Party(members[1], connections[1]),
            view.registry,
            now_s=int(time.time()),
            grace_s=grace_s,
            message_keys=message_keys(client, trusted.close_registry, members[1]),
            progress=lambda what, done, total: bar.update(
                task, description=what, completed=done, total=total
            ),
        )
        return check.run(closes, held, view), view.chain_id, block.number


def message_keys(client: ChainClient, close_registry: str, issuer: str) -> list[bytes]:
    """An issuer's message keys by the chain, the present one first."""
    directory = Directory(client, CloseRegistry(client, close_registry).member_registry())
    directory.refresh()
    member = directory.member(issuer)
    if member is None:
        raise ValueError(f"{issuer} is no member of the network")
    return [period.key for period in reversed(member.message_keys)]


def _snapshot(dsn: str) -> psycopg.Connection[Any]:
    """A connection that reads one state of the database, and nothing but reads."""
    url = dsn.replace("postgresql+psycopg://", "postgresql://", 1)
    connection = psycopg.connect(url, application_name="countersign audit")
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    return connection


def _closes(
    registry: CloseRegistry, acquirer: str, issuer: str
) -> list[tuple[DayKey, ConfirmedClose | None]]:
    """The pair's closes, by date and currency, with what is in force of each."""
    keys: dict[bytes, CloseKey] = {
        event.close_id: event.key
        for event in registry.events_since(0)
        if isinstance(event, CloseOpened)
        and (event.key.acquirer, event.key.issuer) == (acquirer, issuer)
    }
    found = [
        (
            DayKey(key.acquirer, key.issuer, key.currency, key.business_date),
            registry.confirmed(key),
        )
        for key in keys.values()
    ]
    return sorted(found, key=lambda pair: (pair[0].business_date, pair[0].currency))


def _cannot(why: str) -> NoReturn:
    typer.echo(f"CANNOT CHECK: {why}", err=True)
    raise typer.Exit(2)


def _print(found: AuditReport, as_json: bool) -> None:
    if as_json:
        document = asdict(found) | {"complete": found.complete}
        typer.echo(json.dumps(document, default=_plain))
        return
    for log in found.logs:
        typer.echo(
            f"{log.member_id}: {log.size} entries under anchor {log.anchor_seq},"
            f" {log.of_pair} of this pair"
        )
    typer.echo(f"numbers 1 to {found.newest_pair_seq}; {found.waiting} too fresh to judge")
    if found.signed is not None:
        typer.echo(f"signatures: {found.signed} entries signed by {found.issuer}")
    confirmed = [close for close in found.closes if close.revision is not None]
    holding = sum(close.holds for close in confirmed)
    typer.echo(
        f"closes: {len(found.closes)}, {len(confirmed)} confirmed on the chain, {holding} hold"
    )
    typer.echo(f"promises: {found.promises_kept} kept, {found.promises_pending} not due yet")
    for finding in found.findings[:_LISTED]:
        typer.echo(f"  {finding.lack.value} {finding.where}: {finding.lack.meaning}")
    if len(found.findings) > _LISTED:
        typer.echo(f"  ... and {len(found.findings) - _LISTED} more")
    typer.echo("COMPLETE" if found.complete else f"INCOMPLETE: {len(found.findings)} findings")


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
