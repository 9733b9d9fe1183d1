"""What governance does on the chain: deploying the contracts, admitting and changing members."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

import rlp
from eth_abi.abi import encode
from eth_hash.auto import keccak
from eth_utils.address import to_canonical_address, to_checksum_address

from nodes.chain.anchors import AnchorRegistry
from nodes.chain.client import ChainClient, Receipt
from nodes.chain.contracts import (
    ANCHOR_REGISTRY,
    CLOSE_REGISTRY,
    MEMBER_REGISTRY,
    OMISSION_REGISTRY,
    SETTLEMENT_REGISTRY,
    artifact,
)
from nodes.chain.directory import KEY_KINDS, ROLE_BITS
from nodes.chain.errors import WrongChain
from nodes.chain.signer import Signer
from nodes.ids import member_word

# Estimates are made on the newest state; what a transaction meets may cost a little more.
_GAS_MARGIN = 1.25
#: What stands for no contract; an AnchorRegistry's predecessor if it is the first version.
NO_ADDRESS = "0x" + "0" * 40

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the network's contracts stand. A network may do without the last three: its nodes then
    post no closes, settle off the chain and promise nothing."""

    member_registry: str
    anchor_registry: str
    close_registry: str | None = None
    settlement_registry: str | None = None
    omission_registry: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """The times (seconds) and arbiters that the contracts are deployed with; times can't be changed
    afterwards, arbiters by governance.

    commit_s, reveal_s: for the other side's commitment to a close, then for both reveals.
    dispute_s: from a settlement's confirmation. answer_s: from a claim of omission; claim_s: from
    a promise's merge deadline; max_merge_delay_s: how far away a merge deadline may be.
    """

    commit_s: int = _DAY
    reveal_s: int = _DAY
    dispute_s: int = 2 * _DAY
    arbiters: tuple[str, ...] = ()
    arbiter_threshold: int = 0
    answer_s: int = _DAY
    claim_s: int = 180 * _DAY
    max_merge_delay_s: int = 7 * _DAY


def planned_addresses(deployer: str, first_nonce: int = 0) -> Addresses:
    """Where `deploy` puts the contracts if the deployer's next transaction is `first_nonce`."""
    raw = to_canonical_address(deployer)
    return Addresses(
        *(_created_by(raw, first_nonce + place) for place in range(len(fields(Addresses))))
    )


def deploy(
    client: ChainClient,
    signer: Signer,
    *,
    governance: str | None = None,
    terms: Terms | None = None,
) -> Addresses:
    """Deploys all contracts; MemberRegistry is governed by `governance` (the signer if none is
    named).

    MemberRegistry is the signer's first contract here, where the chain permits by registry: see
    nodes/chain/embedded/genesis.py.
    """
    planned = planned_addresses(signer.address, client.nonce(signer.address))
    complete_deployment(client, signer, planned, governance=governance, terms=terms)
    return planned


def complete_deployment(
    client: ChainClient,
    signer: Signer,
    planned: Addresses,
    *,
    governance: str | None = None,
    terms: Terms | None = None,
) -> None:
    """Deploys those of `planned_addresses` that aren't there yet, in their order: a deployment
    that was broken off goes on. WrongChain if one would come to stand elsewhere."""
    steps = _steps(planned, to_checksum_address(governance or signer.address), terms or Terms())
    for name, address, types, values in steps:
        if client.code(address):
            continue
        coming = _created_by(to_canonical_address(signer.address), client.nonce(signer.address))
        if coming != address:
            raise WrongChain(f"{name} is to stand at {address} and would come to stand at {coming}")
        create(client, signer, name, types, values)


def _created_by(address: bytes, nonce: int) -> str:
    """The address of the contract that an account's transaction creates (Yellow Paper, 7)."""
    return str(to_checksum_address(keccak(rlp.encode([address, nonce]))[-20:]))


def check_deployment(client: ChainClient, addresses: Addresses) -> None:
    """WrongChain unless the addresses hold the committed contracts, each pointing to the others.

    Where AnchorRegistry was moved, others may point to a version before the present one: that asks
    its successor.
    """
    steps = _steps(addresses, addresses.member_registry, Terms())
    for name, address, _, _ in steps:
        if not artifact(name).matches(client.code(address)):
            raise WrongChain(f"{address} does not hold {name} as it is committed")
    for name, function, obeyed in (
        (ANCHOR_REGISTRY, "members", addresses.member_registry),
        (CLOSE_REGISTRY, "members", addresses.member_registry),
        (SETTLEMENT_REGISTRY, "closes", addresses.close_registry),
        (SETTLEMENT_REGISTRY, "anchors", addresses.anchor_registry),
        (OMISSION_REGISTRY, "anchors", addresses.anchor_registry),
    ):
        for address in (step[1] for step in steps if step[0] == name):
            contract = client.contract(name, address)
            found = to_checksum_address(client.read(contract.functions[function]()))
            wanted: list[str] = [to_checksum_address(obeyed or "")]
            if function == "anchors":
                wanted += AnchorRegistry(client, wanted[0]).predecessors()
            if found not in wanted:
                raise WrongChain(f"the {name} obeys other {function} than this network's")


def _steps(
    planned: Addresses, owner: str, terms: Terms
) -> list[tuple[str, str, list[str], list[Any]]]:
    """(contract, address, constructor's types, its arguments) of each contract that has an
    address."""
    judges = sorted(terms.arbiters, key=str.lower)
    members, anchors, closes = (
        planned.member_registry,
        planned.anchor_registry,
        planned.close_registry,
    )
    settling = [closes, anchors, terms.dispute_s, judges, terms.arbiter_threshold]
    windows = [terms.answer_s, terms.claim_s, terms.max_merge_delay_s]
    steps: list[tuple[str, str | None, list[str], list[Any]]] = [
        (MEMBER_REGISTRY, members, ["address"], [owner]),
        (ANCHOR_REGISTRY, anchors, ["address", "address"], [members, NO_ADDRESS]),
        (
            CLOSE_REGISTRY,
            closes,
            ["address", "uint64", "uint64"],
            [members, terms.commit_s, terms.reveal_s],
        ),
        (
            SETTLEMENT_REGISTRY,
            planned.settlement_registry,
            ["address", "address", "uint64", "address[]", "uint32"],
            settling,
        ),
        (
            OMISSION_REGISTRY,
            planned.omission_registry,
            ["address", "uint64", "uint64", "uint64"],
            [anchors, *windows],
        ),
    ]
    return [
        (name, to_checksum_address(address), types, values)
        for name, address, types, values in steps
        if address is not None
    ]


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
    """Replaces a member's key; kind "operator" or "promise" (a 20-byte address), "note" or
    "message". There is no promise key before the first is put in place.

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
    """Estimates, signs and sends a transaction, and waits until it is mined for good.

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


def create(
    client: ChainClient, signer: Signer, name: str, types: Sequence[str], values: Sequence[Any]
) -> str:
    """Deploys one of our contracts with its constructor's arguments; returns its address."""
    compiled = artifact(name)
    data = compiled.bytecode + encode(types, values)
    receipt = send(client, signer, {"data": "0x" + data.hex()})
    if receipt.contract_address is None or not compiled.matches(
        client.code(receipt.contract_address)
    ):
        raise WrongChain(f"{name} was not deployed")
    return to_checksum_address(receipt.contract_address)
