"""`countersign govern`: the MemberRegistry's governance by k of n governors (docs/contracts.md).

Whoever prepares an action writes it to a file; each governor looks at it and signs on a machine of
their own; anybody sends it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from nodes.chain.anchors import AnchorRegistry
from nodes.chain.client import ChainClient
from nodes.chain.contracts import GOVERNANCE_QUORUM, MEMBER_REGISTRY
from nodes.chain.deploy import create
from nodes.chain.deploy import govern as send_as_owner
from nodes.chain.errors import ChainError, ChainReverted
from nodes.chain.governance import Quorum
from nodes.chain.signer import LocalSigner
from nodes.chain.succession import check_succession, deploy_successor
from nodes.chain.succession import retire as retire_for
from nodes.crypto.keystore import Keystore, KeystoreError
from sandbox.commands.govern_actions import (
    FUNCTIONS,
    ActionRefused,
    call_of,
    parse_action,
    prepare_action,
)
from sandbox.commands.network_file import checked_address, read_network

govern = typer.Typer(
    name="govern",
    help="Govern the members by k of n: found a quorum, propose, sign and execute its actions.",
    no_args_is_help=True,
)

KeyFile = Annotated[
    Path | None, typer.Option(help="Your chain key: 32 bytes in hex, in a file of your own.")
]
KeystoreDir = Annotated[
    Path | None,
    typer.Option(help="Instead: a directory with keystore and passphrase (a sandbox's keys/...)."),
]
Rpc = Annotated[str, typer.Option(help="URL of a chain node that you trust.")]
Registry = Annotated[str, typer.Option(help="The MemberRegistry that you trust.")]
Anchors = Annotated[
    str, typer.Option(help="The AnchorRegistry that now takes the members' anchors.")
]
Network = Annotated[Path | None, typer.Option(help="network.json, for what isn't given.")]


@govern.command()
def show(
    rpc: Rpc = "",
    member_registry: Registry = "",
    anchor_registry: Anchors = "",
    network: Network = None,
) -> None:
    """Who governs: one address, or a quorum with its governors and its next number. And the
    versions of AnchorRegistry, where one is given.

    Exit status 0, 1 refused by the chain, 2 if it can't be asked.
    """
    with _said():
        client, registry = _chain(rpc, member_registry, network)
        owner, pending = _owner(client, registry, "owner"), _owner(client, registry, "pendingOwner")
        typer.echo(f"MemberRegistry {registry}")
        if not client.code(owner):
            typer.echo(f"  governed by the one address {owner}")
        for name, address in (("governed by", owner), ("handed over to", pending)):
            if int(address, 16) and client.code(address):
                governors, threshold = Quorum(client, address).governors()
                typer.echo(f"  {name} the quorum {address}: {threshold} of {len(governors)}")
                for governor in governors:
                    typer.echo(f"    {governor}")
        given = checked_address("--anchor-registry", anchor_registry)
        if given := given or read_network(network).anchor_registry:
            _show_versions(AnchorRegistry(client, given))


@govern.command()
def found(
    governor: Annotated[list[str], typer.Option(help="A governor's address; give each.")],
    threshold: Annotated[int, typer.Option(help="How many of them have to sign.", min=1)],
    out: Annotated[Path, typer.Option(help="Where to write the acceptance, to be signed.")],
    key_file: KeyFile = None,
    keystore: KeystoreDir = None,
    rpc: Rpc = "",
    member_registry: Registry = "",
    network: Network = None,
) -> None:
    """Deploy a quorum and offer it the MemberRegistry; the key is the present owner's.

    It governs once its governors have signed the acceptance that this writes, and it was executed:
    a quorum that can't act never becomes the owner. Exit status 0, 1 refused by the chain, 2
    can't.
    """
    with _said():
        client, registry = _chain(rpc, member_registry, network)
        owner = _signer(key_file, keystore)
        listed = sorted(set(governor), key=lambda address: int(address, 16))
        types = ["address[]", "uint32"]
        address = create(client, owner, GOVERNANCE_QUORUM, types, [listed, threshold])
        send_as_owner(client, owner, registry, "transferOwnership", address)
        action = prepare_action(client, Quorum(client, address), registry, "acceptOwnership", [])
        out.write_text(action.encode(), encoding="ascii")
    typer.echo(f"quorum {address}, {threshold} of {len(listed)}; it accepts by {out}")


@govern.command()
def propose(
    function: Annotated[str, typer.Argument(help=f"One of: {', '.join(FUNCTIONS)}.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Its arguments, as `countersign govern` lists them.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write the action, to be signed.")] = Path(
        "action.json"
    ),
    rpc: Rpc = "",
    member_registry: Registry = "",
    network: Network = None,
) -> None:
    """Write the quorum's next action, good for a day: e.g. rotateKey aurora note HEX.

    Exit status 0, 1 refused by the chain, 2 with what is wrong with it.
    """
    with _said():
        client, registry = _chain(rpc, member_registry, network)
        quorum = Quorum(client, _quorum_of(client, registry))
        if function == "retire":
            call_of(function, arguments or [])
            old, new = arguments or []
            check_succession(client, old, new, registry)
        action = prepare_action(client, quorum, registry, function, arguments or [])
        out.write_text(action.encode(), encoding="ascii")
    typer.echo(f"{out}: {action.says}")


@govern.command()
def sign(
    file: Annotated[Path, typer.Argument(help="The action.")],
    key_file: KeyFile = None,
    keystore: KeystoreDir = None,
) -> None:
    """Show what an action does, and add a governor's signature to its file. Asks no chain.

    What is shown is what is signed: a file whose call isn't that of its function and arguments is
    refused. Exit status 0, 1 refused, 2 can't be read.
    """
    with _said():
        action = parse_action(file.read_bytes())
        signer = _signer(key_file, keystore)
        signed = action.signed_by(signer)
        file.write_text(signed.encode(), encoding="ascii")
    typer.echo(f"{action.says}\nsigned by {signer.address}; {len(signed.signatures)} signatures")


@govern.command()
def execute(
    file: Annotated[Path, typer.Argument(help="The action with its signatures.")],
    key_file: KeyFile = None,
    keystore: KeystoreDir = None,
    rpc: Rpc = "",
    member_registry: Registry = "",
    network: Network = None,
) -> None:
    """Send a signed action; any address that the chain admits may.

    Exit status 0 done; 1 refused, with the contract's reason; 2 can't.
    """
    with _said():
        client, registry = _chain(rpc, member_registry, network)
        action = parse_action(file.read_bytes())
        if int(action.member_registry, 16) != int(registry, 16):
            raise ActionRefused(f"it is for the registry {action.member_registry}")
        if action.function == "retire":
            old, new = action.arguments
            check_succession(client, old, new, registry)
        signatures = [bytes.fromhex(made) for made in action.signatures.values()]
        quorum = Quorum(client, action.quorum)
        receipt = quorum.execute(_signer(key_file, keystore), action.action, signatures)
    typer.echo(f"{action.says}\ndone in block {receipt.block_number}")


@govern.command("deploy-successor")
def deploy_next(
    key_file: KeyFile = None,
    keystore: KeystoreDir = None,
    rpc: Rpc = "",
    member_registry: Registry = "",
    anchor_registry: Anchors = "",
    network: Network = None,
) -> None:
    """Deploy the next version of AnchorRegistry; any address that the chain admits may.

    It takes no anchor before governance has retired the present one for it. Exit status 0, 1
    refused by the chain, 2 with what is wrong.
    """
    with _said():
        client, registry = _chain(rpc, member_registry, network)
        old = _anchors(anchor_registry, network)
        address = deploy_successor(client, _signer(key_file, keystore), old, registry)
    typer.echo(f"AnchorRegistry {address}, successor of {old}: waits for `retire`")


@govern.command()
def retire(
    successor: Annotated[str, typer.Argument(help="The successor, as deploy-successor told it.")],
    key_file: KeyFile = None,
    keystore: KeystoreDir = None,
    rpc: Rpc = "",
    member_registry: Registry = "",
    anchor_registry: Anchors = "",
    network: Network = None,
) -> None:
    """Retire the present AnchorRegistry for its successor, for good; the key is the one owner's.

    From then on its heads are frozen, and each member's log goes on at the successor. Where a
    quorum governs: `propose retire OLD NEW`. Exit status 0, 1 refused by the chain, 2 with what is
    wrong.
    """
    with _said():
        client, registry = _chain(rpc, member_registry, network)
        old = _anchors(anchor_registry, network)
        new = checked_address("SUCCESSOR", successor)
        if not new:
            raise ValueError("SUCCESSOR is empty")
        owner, signer = _owner(client, registry, "owner"), _signer(key_file, keystore)
        if client.code(owner):
            raise ValueError(f"the quorum {owner} governs: govern propose retire {old} {new}")
        if signer.address != owner:
            raise ValueError(f"the key is that of {signer.address}; {owner} governs")
        receipt = retire_for(client, signer, old, new, registry)
    typer.echo(f"{old} is retired for {new} in block {receipt.block_number}")


def _show_versions(registry: AnchorRegistry) -> None:
    """A contract with those before it and those after it, each the nearest first."""
    before, after = registry.predecessors(), registry.successors()
    typer.echo(f"AnchorRegistry {registry.address}")
    for name, addresses in (("predecessor", before), ("successor", after)):
        for address in addresses:
            typer.echo(f"  {name} {address}")
    if after:
        typer.echo("  retired: its heads are frozen")
    elif not registry.is_open():
        typer.echo("  takes no anchors before its predecessor is retired for it")


def _anchors(anchor_registry: str, network: Path | None) -> str:
    address = checked_address("--anchor-registry", anchor_registry)
    address = address or read_network(network).anchor_registry
    if not address:
        raise ValueError("give --anchor-registry, or a network.json")
    return address


def _chain(rpc: str, member_registry: str, network: Path | None) -> tuple[ChainClient, str]:
    described = read_network(network)
    url, registry = rpc or described.rpc_url, member_registry or described.member_registry
    if not (url and registry):
        raise ValueError("give --rpc and --member-registry, or a network.json")
    return ChainClient(url), registry


def _owner(client: ChainClient, registry: str, function: str) -> str:
    contract = client.contract(MEMBER_REGISTRY, registry)
    return str(client.read(contract.functions[function]()))


def _quorum_of(client: ChainClient, registry: str) -> str:
    owner = _owner(client, registry, "owner")
    if not client.code(owner):
        raise ValueError(f"no quorum governs: the owner is the one address {owner}")
    return owner


def _signer(key_file: Path | None, keystore: Path | None) -> LocalSigner:
    """The key of a file or a keystore's `operator`."""
    if (key_file is None) == (keystore is None):
        raise ValueError("give --key-file or --keystore")
    if keystore is not None:
        passphrase = (keystore / "passphrase").read_text(encoding="utf-8")
        try:
            return LocalSigner(Keystore.open(keystore / "keystore", passphrase).secret("operator"))
        except KeystoreError as error:
            raise ValueError(f"{keystore}: {error}") from None
    assert key_file is not None
    text = key_file.read_text(encoding="ascii").strip().removeprefix("0x")
    try:
        return LocalSigner(bytes.fromhex(text))
    except ValueError:
        raise ValueError(f"{key_file}: not a chain key, 32 bytes in hex") from None


@contextmanager
def _said() -> Iterator[None]:
    """What a step was refused for (exit status 1), or why it can't be done (2), in words."""
    try:
        yield
    except ChainReverted as refused:
        typer.echo(f"REFUSED by the chain: {refused.reason}", err=True)
        raise typer.Exit(1) from None
    except ActionRefused as error:
        typer.echo(f"REFUSED: {error}", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        _cannot(f"{error.filename}: {error.strerror}")
    except (ChainError, ValueError) as error:
        _cannot(str(error))


def _cannot(why: str) -> NoReturn:
    typer.echo(f"CANNOT: {why}", err=True)
    raise typer.Exit(2)
