"""`countersign verify-ledger`: has anything in this database changed since it was anchored?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import sqlalchemy.exc
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nodes.anchoring.chain_view import TrustedChain
from nodes.anchoring.checkpoint import Origin
from nodes.chain.client import ChainClient
from nodes.chain.errors import ChainError
from nodes.db.engine import make_engine
from nodes.reconciliation.findings import Report
from nodes.reconciliation.ledger_check import check_ledger
from sandbox.commands.network_file import checked_address, read_network

#: More findings than this are counted, not listed.
_LISTED = 200


def verify_ledger(
    member: Annotated[str, typer.Option(help="The member's id.")],
    dsn: Annotated[str, typer.Option(help="The member's database; any login that may read.")] = "",
    rpc: Annotated[str, typer.Option(help="URL of a chain node that you trust.")] = "",
    anchor_registry: Annotated[
        str, typer.Option(help="Address of the anchor contract that you trust.")
    ] = "",
    network: Annotated[
        Path | None, typer.Option(help="network.json, for what isn't given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hash every anchored row of a member's database anew and compare with the chain.

    Exit status: 0 nothing changed; 1 changes, each named by table, row and column; 2 can't be
    checked (no database, no chain, no such member).
    """
    try:
        described = read_network(network)
        database = dsn or described.dsn(member)
        url = rpc or described.rpc_url
        address = checked_address("--anchor-registry", anchor_registry) or described.anchor_registry
        if not (database and url and address):
            raise ValueError("give --dsn, --rpc and --anchor-registry, or a network.json")
        report = _check(member, database, url, address, show=not as_json)
    except (ChainError, ValueError) as error:
        _cannot(str(error))
    except sqlalchemy.exc.SQLAlchemyError as error:
        _cannot(f"the database can't be read ({type(error).__name__})")
    _print(member, report, as_json)
    if not report.clean:
        raise typer.Exit(1)


def _check(member: str, database: str, url: str, address: str, *, show: bool) -> Report:
    client = ChainClient(url)
    view = TrustedChain(client, address)
    view.require_present()
    note_keys = view.note_keys(member)
    if not note_keys:
        raise ValueError(f"the chain's registry has no member {member!r} with a note key")
    engine = make_engine(database, application_name="countersign verify-ledger")
    try:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not show,
            transient=True,
        ) as bar:
            task = bar.add_task("Hashing rows", total=None)
            return check_ledger(
                engine,
                Origin(view.chain_id, address.lower(), member),
                view.registry,
                note_keys,
                lambda done, total: bar.update(task, completed=done, total=total),
                view.message_keys,
                view.predecessors,
            )
    finally:
        engine.dispose()


def _cannot(why: str) -> NoReturn:
    typer.echo(f"CANNOT CHECK: {why}", err=True)
    raise typer.Exit(2)


def _print(member: str, report: Report, as_json: bool) -> None:
    counts = {
        "anchored_seq": report.anchored_seq,
        "anchored_rows": report.anchored_rows,
        "sealed_rows": report.sealed_rows,
        "unsealed_rows": report.unsealed_rows,
    }
    if as_json:
        findings = [
            {
                "table": finding.table,
                "row": finding.row,
                "column": finding.column,
                "change": finding.change.value,
                "detail": finding.detail,
            }
            for finding in report.findings
        ]
        document = {"member": member, "ok": report.clean, "findings": findings, **counts}
        document |= {"unjudged": report.unjudged, "retired_key": report.retired_key}
        typer.echo(json.dumps(document))
        return
    typer.echo(
        f"{member}: {report.anchored_rows} rows in {report.anchored_seq} anchors,"
        f" {report.sealed_rows - report.anchored_rows} sealed and not anchored yet,"
        f" {report.unsealed_rows} not sealed yet"
    )
    for finding in report.findings[:_LISTED]:
        typer.echo(f"  {finding}")
    if len(report.findings) > _LISTED:
        typer.echo(f"  ... and {len(report.findings) - _LISTED} more")
    if report.retired_key:
        typer.echo(
            f"  batches signed by a note key that ended before they were anchored:"
            f" {report.retired_key} (proven by the next anchor under a valid key)"
        )
    if report.unjudged:
        typer.echo(f"  batches not judged, for those before them: {report.unjudged}")
    typer.echo("UNCHANGED" if report.clean else f"CHANGED: {len(report.findings)} findings")
