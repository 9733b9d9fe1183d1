"""Writes network.json: the running network, for any program (docs/sandbox.md, field by field)."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.cmac import CMAC

from gateway.terminal_keys.ring import static_label
from nodes.crypto.emv import TRANSPORT_KEY
from sandbox.network import (
    ACQUIRER,
    LOGINS,
    MERCHANTS,
    TPDU,
    MemberPlan,
    Terminal,
    api_url,
    write_json,
)
from sandbox.postgres import HOST
from sandbox.services import Network

SUITE_SM = 1


def describe(network: Network) -> dict[str, Any]:
    """The document as a dictionary."""
    state = network.state
    return {
        "version": 1,
        "warning": "Sandbox data only. Every secret in this file is a test secret.",
        "chain": {
            "rpc": network.rpc_url,
            "chain_id": state.chain_id,
            "finality_depth": 1,
            "governance": network.governance.address,
            "contracts": {
                name: {
                    "address": address,
                    "abi": str(files("contracts").joinpath(f"artifacts/{name}.json")),
                }
                for name, address in state.contracts.items()
            },
        },
        "members": [_member(network, plan) for plan in network.directory.plan.members],
        "gateways": [
            {
                "acquirer": ACQUIRER,
                "iso8583": {"host": HOST, "port": state.ports["gateway"]},
                "ports": {
                    "bcd-tpdu": state.ports["gateway"],
                    "ascii": state.ports["gateway-ascii"],
                    "ebcdic": state.ports["gateway-ebcdic"],
                },
                "http": network.gateway_url,
                "api": network.front_url,
                # What simulated terminals' keys are derived from.
                "master_key": network.directory.keystore("gateway").secret("master").hex(),
            }
        ],
        "console": {"url": network.console_url, "logins": state.logins},
        "merchants": [
            {
                "merchant_id": merchant.merchant_id,
                "name": merchant.name,
                "mcc": merchant.mcc,
                "acquirer": ACQUIRER,
                "member": merchant.member_id,
            }
            for merchant in MERCHANTS
        ],
        "cards": state.cards,
        "terminals": [_terminal(terminal) for terminal in state.terminals],
        "processes": str(network.directory.processes_file),
    }


def write_description(network: Network) -> None:
    """Write network.json, mode 0600."""
    write_json(network.directory.network_file, describe(network))


def _member(network: Network, plan: MemberPlan) -> dict[str, Any]:
    name = plan.member_id
    store = network.directory.keystore(name)
    opens: dict[str, Any] = {}
    if "issuer" in plan.roles:
        opens["card_transport_key"] = store.secret(TRANSPORT_KEY).hex()
    return opens | {
        "id": name,
        "name": plan.name,
        "roles": list(plan.roles),
        "bins": list(plan.bins),
        "api": api_url(network.state, name),
        "api_keys": network.state.api_keys[name],
        "dsn": network.dsn(name, "owner"),
        "dsns": {login: network.dsn(name, login) for login in LOGINS},
        "operator": network.operator(name),
        "promise_key": network.promiser(name),
        "note_key": network.public_key(name, "note").hex(),
        "message_key": network.public_key(name, "message").hex(),
    }


def _terminal(terminal: Terminal) -> dict[str, Any]:
    return {
        "terminal_id": terminal["terminal_id"],
        "merchant_id": terminal["merchant_id"],
        "acquirer": ACQUIRER,
        "suite": SUITE_SM,
        "keys": terminal_keys(terminal["tmk"]),
        "tpdu": TPDU,
    }


def terminal_keys(tmk: str) -> dict[str, str]:
    """Master key and the working keys of epoch 0, in hex (docs/iso8583.md, Keys)."""
    keys = {"tmk": tmk}
    for use in ("mac", "pin"):
        derivation = CMAC(SM4(bytes.fromhex(tmk)))
        derivation.update(static_label(use))
        keys[use] = derivation.finalize().hex()
    return keys
