"""`countersign check-invariants`: do the books of a node hold together?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import sqlalchemy.exc
import typer

from nodes.anchoring.chain_view import TrustedChain
from nodes.chain.client import ChainClient
from nodes.chain.errors import ChainError
from nodes.db.engine import make_engine
from nodes.reconciliation.invariants import Violation
from nodes.reconciliation.invariants import check_invariants as check
from nodes.reconciliation.ledger_check import read_anchors
from sandbox.commands.network_file import Described, checked_address, read_network


def check_invariants(
    member: Annotated[
        str, typer.Option(help="The member's id; without it all of network.json.")
    ] = "",
    dsn: Annotated[str, typer.Option(help="The member's database, as owner or app.")] = "",
    rpc: Annotated[str, typer.Option(help="URL of a chain node, to compare roots.")] = "",
    anchor_registry: Annotated[str, typer.Option(help="Address of the anchor contract.")] = "",
    max_unsealed: Annotated[
        float | None, typer.Option(help="Refuse rows that wait longer for sealing, in seconds.")
    ] = None,
    network: Annotated[
        Path | None, typer.Option(help="network.json, for what isn't given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the invariants of docs/invariants.md in one snapshot of each database.

    Exit status: 0 all hold; 1 violations, each with its number and row; 2 can't be checked.
    """
    found: dict[str, list[Violation]] = {}
    try:
        described = read_network(network)
        databases = [(member, dsn or described.dsn(member))] if member or dsn else described.dsns
        if not databases or not all(url for _, url in databases):
            raise ValueError("give --dsn, or a network.json that has the member")
        address = checked_address("--anchor-registry", anchor_registry) or described.anchor_registry
        for name, url in databases:
            chain = Described(rpc or described.rpc_url, address)
            found[name] = _check(name, url, chain, max_unsealed)
    except (ChainError, ValueError) as error:
        _cannot(str(error))
    except sqlalchemy.exc.SQLAlchemyError as error:
        _cannot(f"the database can't be read ({type(error).__name__})")
    _print(found, as_json)
    if any(found.values()):
        raise typer.Exit(1)


def _check(member: str, dsn: str, chain: Described, max_unsealed: float | None) -> list[Violation]:
    anchors = None
    if member and chain.rpc_url and chain.anchor_registry:
        view = TrustedChain(ChainClient(chain.rpc_url), chain.anchor_registry)
        view.require_present()
        anchors = read_anchors(view.registry, member)
    engine = make_engine(dsn, application_name="countersign check-invariants")
    try:
        return check(engine, max_unsealed_s=max_unsealed, anchors=anchors)
    finally:
        engine.dispose()


def _cannot(why: str) -> NoReturn:
    typer.echo(f"CANNOT CHECK: {why}", err=True)
    raise typer.Exit(2)


def _print(found: dict[str, list[Violation]], as_json: bool) -> None:
    if as_json:
        document = {
            member: [
                {"invariant": v.invariant, "rule": v.rule, "detail": v.detail} for v in violations
            ]
            for member, violations in found.items()
        }
        typer.echo(json.dumps(document))
        return
    for member, violations in found.items():
        typer.echo(f"{member or 'database'}: {'HOLDS' if not violations else 'VIOLATED'}")
        for violation in violations:
            typer.echo(f"  {violation}")
