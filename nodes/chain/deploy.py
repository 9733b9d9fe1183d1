"""What governance does on the chain: deploying the contracts, admitting and changing members."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address

from nodes.chain.client import ChainClient, Receipt
from nodes.chain.contracts import ANCHOR_REGISTRY, MEMBER_REGISTRY, artifact
from nodes.chain.directory import KEY_KINDS, ROLE_BITS
from nodes.chain.errors import WrongChain
from nodes.chain.signer import Signer
from nodes.ids import member_word

# Estimates are made on the newest state; what a transaction meets may cost a little more.
_GAS_MARGIN = 1.25


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the network's contracts stand."""

    member_registry: str
    anchor_registry: str


def deploy(client: ChainClient, signer: Signer, *, governance: str | None = None) -> Addresses:
    """Deploys MemberRegistry, governed by `governance` (the signer if none is named), and
    AnchorRegistry.

    MemberRegistry is the signer's first contract here, where the chain permits by registry: see
    nodes/chain/embedded/genesis.py.
    """
    owner = to_checksum_address(governance or signer.address)
    member_registry = _create(client, signer, MEMBER_REGISTRY, owner)
    anchor_registry = _create(client, signer, ANCHOR_REGISTRY, member_registry)
    return Addresses(member_registry, anchor_registry)


def check_deployment(client: ChainClient, addresses: Addresses) -> None:
    """WrongChain unless both addresses hold the committed contracts, the one pointing to the
    other."""
    for name, address in (
        (MEMBER_REGISTRY, addresses.member_registry),
        (ANCHOR_REGISTRY, addresses.anchor_registry),
    ):
        if not artifact(name).matches(client.code(address)):
            raise WrongChain(f"{address} does not hold {name} as it is committed")
    contract = client.contract(ANCHOR_REGISTRY, addresses.anchor_registry)
    obeyed = client.read(contract.functions.members())
    if to_checksum_address(obeyed) != to_checksum_address(addresses.member_registry):
        raise WrongChain("the AnchorRegistry obeys another MemberRegistry")


def register_member(
    client: ChainClient,
    signer: Signer,
    member_registry: str,
    *,
    member_id: str,
    name: str,
    roles: Collection[str],
    api_url: str,
    bins: Sequence[str],
    operator: str,
    note_key: bytes,
    message_key: bytes,
) -> Receipt:
    """Admits a member; the signer is governance. Keys are Ed25519 public keys (32 bytes), roles
    of "issuer", "acquirer", "merchant", "auditor"; only issuers have BINs."""
    registration = (
        member_word(member_id),
        role_mask(roles),
        name,
        api_url,
        list(bins),
        to_checksum_address(operator),
        note_key,
        message_key,
    )
    return govern(client, signer, member_registry, "register", registration)


def revoke_member(
    client: ChainClient, signer: Signer, member_registry: str, member_id: str
) -> Receipt:
    """Ends a membership, and with it the validity of the member's keys from the next block on."""
    return govern(client, signer, member_registry, "revoke", member_word(member_id))


def rotate_key(
    client: ChainClient,
    signer: Signer,
    member_registry: str,
    member_id: str,
    kind: str,
    key: bytes,
) -> Receipt:
    """Replaces a member's key; kind "operator" (a 20-byte address), "note" or "message".

    The signer is governance or the member's operator.
    """
    word = key.rjust(32, b"\0")
    return govern(
        client, signer, member_registry, "rotateKey", member_word(member_id), KEY_KINDS[kind], word
    )


def set_api_url(
    client: ChainClient, signer: Signer, member_registry: str, member_id: str, api_url: str
) -> Receipt:
    """Moves a member's API; the signer is governance or the member's operator."""
    word = member_word(member_id)
    return govern(client, signer, member_registry, "setApiUrl", word, api_url)


def govern(
    client: ChainClient, signer: Signer, member_registry: str, function: str, *arguments: Any
) -> Receipt:
    """Sends one transaction to the MemberRegistry and waits for it. ChainReverted names what is
    wrong with it."""
    contract = client.contract(MEMBER_REGISTRY, member_registry)
    data = contract.encode_abi(function, args=list(arguments))
    return send(client, signer, {"to": contract.address, "data": data})


def role_mask(roles: Collection[str]) -> int:
    """The contract's bit mask of role names. KeyError for an unknown one."""
    return sum(ROLE_BITS[role] for role in set(roles))


def send(client: ChainClient, signer: Signer, call: dict[str, Any]) -> Receipt:
    """Estimates, signs and sends a transaction, and waits until it is mined.

    For governance, which sends one thing after the other. Nodes persist what they sign before
    they send it (nodes/anchoring).
    """
    gas = client.estimate_gas({"from": signer.address, **call})
    transaction = {
        **call,
        "value": 0,
        "nonce": client.nonce(signer.address),
        "gas": int(gas * _GAS_MARGIN),
        "gasPrice": client.gas_price(),
        "chainId": client.chain_id(),
    }
    raw, _ = signer.sign_transaction(transaction)
    receipt = client.wait_for_receipt(client.send_raw(raw))
    if not receipt.ok:
        raise client.revert_of(receipt.tx_hash)
    return receipt


def _create(client: ChainClient, signer: Signer, name: str, argument: str) -> str:
    compiled = artifact(name)
    data = compiled.bytecode + encode(["address"], [argument])
    receipt = send(client, signer, {"data": "0x" + data.hex()})
    if receipt.contract_address is None or not compiled.matches(
        client.code(receipt.contract_address)
    ):
        raise WrongChain(f"{name} was not deployed")
    return to_checksum_address(receipt.contract_address)
