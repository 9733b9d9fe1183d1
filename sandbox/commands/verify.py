"""`countersign verify FILE`: is this proof true, by the chain?"""

from __future__ import annotations

import json
from collections.abc import Set
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from nodes.anchoring.bundle import MAX_BYTES
from nodes.anchoring.cached_roots import CachedRoots, parse_roots
from nodes.anchoring.chain_view import CachedChain, TrustedChain
from nodes.anchoring.validators import NamedValidators
from nodes.anchoring.verifier import SealTrust, Verdict
from nodes.anchoring.verifier import verify as judge
from nodes.authorization.model import Kind, Outcome
from nodes.chain.client import ChainClient
from nodes.chain.errors import ChainError
from sandbox.commands.by_seals import VALIDATORS_HELP, named_validators, trust_of_roots
from sandbox.commands.network_file import checked_address, read_network

_KINDS = {kind.word: kind.value for kind in Kind}
_OUTCOMES = {outcome.word: outcome.value for outcome in Outcome}
_NO_ADDRESS = "0x" + "0" * 40


def verify(
    file: Annotated[Path, typer.Argument(help="The bundle, as GET .../proof gives it.")],
    rpc: Annotated[str, typer.Option(help="URL of a chain node that you trust.")] = "",
    anchor_registry: Annotated[
        str, typer.Option(help="Address of the anchor contract that you trust.")
    ] = "",
    predecessor: Annotated[
        list[str] | None,
        typer.Option(
            help="With --validators: a version before the anchor contract, whose anchors count too;"
            " give each, the newest first. Cached roots know them, and a chain node is asked."
        ),
    ] = None,
    network: Annotated[
        Path | None, typer.Option(help="network.json, for what isn't given.")
    ] = None,
    roots: Annotated[
        Path | None, typer.Option(help="File of cached roots: nothing is asked of any chain.")
    ] = None,
    validators: Annotated[str, typer.Option(help=VALIDATORS_HELP)] = "",
    chain_id: Annotated[
        int | None, typer.Option(help="With --validators: the chain's id, if no genesis tells it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify the proof of one transaction or event.

    Exit status: 0 proven; 1 refused, with the reason's name; 2 can't be checked (no file or chain).
    The trusted anchor contract is never taken from the proof itself: give --anchor-registry, or a
    network.json (by default that of DEMO_DIR), else the proof is refused as UNTRUSTED_REGISTRY.
    With --validators and --roots the file gives chain, contract and the members' note keys alone.
    """
    try:
        described = read_network(network)
        trusted = checked_address("--anchor-registry", anchor_registry)
        before = [checked_address("--predecessor", each).lower() for each in predecessor or []]
        cached = None if roots is None else parse_roots(roots.read_bytes())
        named = named_validators(validators)
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        _cannot(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        _cannot(str(error))
    address = trusted or described.anchor_registry or _NO_ADDRESS
    if not trusted and not before:
        before = [*described.anchor_predecessors]
    if named is not None and not rpc:
        trust = _by_seals(named, cached, chain_id or named.chain_id, address, before)
        verdict = judge(raw, trust)
    else:
        url = rpc or described.rpc_url
        addresses = named.addresses if named else None
        verdict = _by_chain(raw, cached, url, address, addresses)
    _print(verdict, as_json)
    if not verdict.ok:
        raise typer.Exit(1)


def _by_seals(
    named: NamedValidators,
    cached: CachedRoots | None,
    chain_id: int | None,
    address: str,
    before: list[str],
) -> SealTrust:
    if cached is not None:
        return trust_of_roots(named, cached)
    if chain_id is None:
        _cannot("the chain's id isn't told: give --chain-id, or a genesis as --validators")
    return SealTrust(chain_id, address, named.addresses, predecessors=before)


def _by_chain(
    raw: bytes, cached: CachedRoots | None, url: str, address: str, validators: Set[bytes] | None
) -> Verdict:
    try:
        client = ChainClient(url or "http://127.0.0.1:1")
        view = CachedChain(cached) if cached else TrustedChain(client, address)
        return judge(raw, view, validators)
    except ChainError as error:
        _cannot(f"the chain at {url} can't be asked: {error}" if url else "no chain: give --rpc")
    except ValueError as error:
        _cannot(str(error))


def _cannot(why: str) -> NoReturn:
    typer.echo(f"CANNOT CHECK: {why}", err=True)
    raise typer.Exit(2)


def _print(verdict: Verdict, as_json: bool) -> None:
    details = dict(verdict.details)
    for name, names in (("kind", _KINDS), ("outcome", _OUTCOMES)):
        word = details.get(name)
        if isinstance(word, int):
            details[name] = names.get(word, word)
    if as_json:
        reason = verdict.reason.value if verdict.reason else None
        typer.echo(json.dumps({"ok": verdict.ok, "reason": reason, "details": details}))
        return
    if verdict.reason:
        typer.echo(f"REFUSED {verdict.reason.value}: {details['detail']}")
        return
    typer.echo("PROVEN")
    width = max(len(name) for name in details)
    for name, value in details.items():
        typer.echo(f"  {name.ljust(width)}  {value}")
