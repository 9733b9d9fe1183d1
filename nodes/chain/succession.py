"""Moving the logs' heads to a new version of AnchorRegistry (ADR 16; docs/contracts.md).

Anybody whom the chain admits deploys the new version; the MemberRegistry's governance then retires
the old one for it. Each step is checked first, so that what is wrong is said in words, with
nothing sent.
"""

from __future__ import annotations

from eth_utils.address import to_checksum_address

from nodes.chain.anchors import AnchorRegistry
from nodes.chain.client import ChainClient, Receipt
from nodes.chain.contracts import ANCHOR_REGISTRY, artifact
from nodes.chain.deploy import create, send
from nodes.chain.errors import WrongChain
from nodes.chain.signer import Signer


def deploy_successor(client: ChainClient, signer: Signer, old: str, member_registry: str) -> str:
    """Deploys the version after `old`; its address. It takes no anchor before `old` is retired for
    it. WrongChain says what is wrong with `old`."""
    _check_present(client, old, member_registry)
    arguments = [to_checksum_address(member_registry), to_checksum_address(old)]
    return create(client, signer, ANCHOR_REGISTRY, ["address", "address"], arguments)


def check_succession(client: ChainClient, old: str, new: str, member_registry: str) -> None:
    """WrongChain, with what is wrong, unless `old` may be retired for `new`."""
    _check_present(client, old, member_registry)
    if not artifact(ANCHOR_REGISTRY).matches(client.code(new)):
        raise WrongChain(f"{new} does not hold AnchorRegistry as it is committed")
    before = AnchorRegistry(client, new).predecessors()
    if not before:
        raise WrongChain(f"the AnchorRegistry {new} has no predecessor: it is a first version")
    if before[0] != to_checksum_address(old):
        raise WrongChain(f"the AnchorRegistry {new} is the successor of {before[0]}, not of {old}")


def retire(
    client: ChainClient, governance: Signer, old: str, new: str, member_registry: str
) -> Receipt:
    """Freezes the heads in `old`, for good: `new` goes on from them. The signer is the
    MemberRegistry's owner; a quorum does it by an action. WrongChain or ChainReverted."""
    check_succession(client, old, new, member_registry)
    contract = client.contract(ANCHOR_REGISTRY, old)
    data = contract.encode_abi("retire", args=[to_checksum_address(new)])
    return send(client, governance, {"to": contract.address, "data": data})


def _check_present(client: ChainClient, address: str, member_registry: str) -> None:
    """WrongChain unless this is the AnchorRegistry that now takes the members' anchors."""
    if not client.code(address):
        raise WrongChain(f"there is no contract at {address}")
    if not artifact(ANCHOR_REGISTRY).matches(client.code(address)):
        raise WrongChain(
            f"{address} does not hold AnchorRegistry as it is committed: the wrong address, or a"
            " version of a time when versions didn't know each other, which can't be retired"
        )
    registry = AnchorRegistry(client, address)
    if registry.member_registry() != to_checksum_address(member_registry):
        raise WrongChain(
            f"the AnchorRegistry {address} obeys the MemberRegistry {registry.member_registry()}"
        )
    if after := registry.successors():
        raise WrongChain(f"the AnchorRegistry {address} was retired already, for {after[0]}")
    if not registry.is_open():
        raise WrongChain(
            f"the AnchorRegistry {address} takes no anchors yet:"
            f" its predecessor {registry.predecessors()[0]} is not retired"
        )
