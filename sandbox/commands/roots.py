"""`countersign roots FILE`: take the anchored roots along, to verify without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from nodes.anchoring.roots_reader import read_roots
from nodes.chain.anchors import AnchorRegistry
from nodes.chain.client import ChainClient
from nodes.chain.errors import ChainError
from sandbox.commands.network_file import checked_address, read_network


def roots(
    file: Annotated[Path, typer.Argument(help="Where to write them.")],
    member: Annotated[
        list[str] | None, typer.Option(help="Only these members; may be given again.")
    ] = None,
    since_seq: Annotated[int, typer.Option(help="From this anchor number on.", min=1)] = 1,
    rpc: Annotated[str, typer.Option(help="URL of a chain node that you trust.")] = "",
    anchor_registry: Annotated[str, typer.Option(help="The anchor contract you trust.")] = "",
    omission_registry: Annotated[str, typer.Option(help="The omission contract you trust.")] = "",
    network: Annotated[
        Path | None, typer.Option(help="network.json, for what isn't given.")
    ] = None,
) -> None:
    """Write the members' final anchors and keys into a file of cached roots.

    `countersign verify --roots`, `countersign receipt --roots` and the verifier's page judge by it
    offline. Whoever uses the file trusts the chain node that was asked. Exit status 0, or 2 if the
    chain can't be asked.
    """
    try:
        described = read_network(network)
        url = rpc or described.rpc_url
        address = checked_address("--anchor-registry", anchor_registry) or described.anchor_registry
        omissions = checked_address("--omission-registry", omission_registry)
        if not (url and address):
            raise ValueError("give --rpc and --anchor-registry, or a network.json")
        client = ChainClient(url)
        wanted = None
        if member or since_seq > 1:
            registry = AnchorRegistry(client, address)
            heads = {name: registry.head(name) for name in member or _all(client, address)}
            wanted = {
                name: range(since_seq, head.seq + 1 if head else 1) for name, head in heads.items()
            }
        found = read_roots(
            client, address, omissions or described.omission_registry or None, wanted
        )
        file.write_text(found.encode(), encoding="ascii")
    except OSError as error:
        _cannot(f"{file}: {error.strerror}")
    except (ChainError, ValueError) as error:
        _cannot(str(error))
    count = sum(len(entry.anchors) for entry in found.members.values())
    typer.echo(f"{count} anchors of {len(found.members)} members, at block {found.block_number}")


def _all(client: ChainClient, address: str) -> list[str]:
    return list(read_roots(client, address, None).members)


def _cannot(why: str) -> NoReturn:
    typer.echo(f"CANNOT CHECK: {why}", err=True)
    raise typer.Exit(2)
