"""The compiled contracts and the names of what they refuse with.

The artifacts are committed (contracts/artifacts/*.json); docs/contracts.md tells how they are
built.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

MEMBER_REGISTRY = "MemberRegistry"
ANCHOR_REGISTRY = "AnchorRegistry"
CLOSE_REGISTRY = "CloseRegistry"
SETTLEMENT_REGISTRY = "SettlementRegistry"
OMISSION_REGISTRY = "OmissionRegistry"
GOVERNANCE_QUORUM = "GovernanceQuorum"
PUBLISHED = (
    MEMBER_REGISTRY,
    ANCHOR_REGISTRY,
    CLOSE_REGISTRY,
    SETTLEMENT_REGISTRY,
    OMISSION_REGISTRY,
    GOVERNANCE_QUORUM,
)

_PANIC = bytes.fromhex("4e487b71")  # Panic(uint256), from Solidity's own checks
_ERROR = bytes.fromhex("08c379a0")  # Error(string), from require(..., "text")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One compiled contract. `immutables` are (start, length) byte ranges of the deployed code
    that the constructor fills in."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: bytes
    deployed_bytecode: bytes
    immutables: tuple[tuple[int, int], ...]
    compiler: str

    def matches(self, code: bytes) -> bool:
        """Whether `code`, read from a chain, is this contract, immutables left aside."""
        return self._masked(code) == self._masked(self.deployed_bytecode)

    def _masked(self, code: bytes) -> bytes:
        masked = bytearray(code)
        for start, length in self.immutables:
            masked[start : start + length] = bytes(length)
        return bytes(masked)


@functools.cache
def artifact(name: str) -> Artifact:
    """The committed artifact of a contract, e.g. artifact(MEMBER_REGISTRY)."""
    stored = json.loads(files("contracts").joinpath(f"artifacts/{name}.json").read_text("utf-8"))
    return Artifact(
        name=stored["contractName"],
        abi=stored["abi"],
        bytecode=bytes.fromhex(stored["bytecode"][2:]),
        deployed_bytecode=bytes.fromhex(stored["deployedBytecode"][2:]),
        immutables=tuple(
            (entry["start"], entry["length"]) for entry in stored["immutableReferences"]
        ),
        compiler=stored["compiler"],
    )


def signature(entry: Mapping[str, Any]) -> str:
    """The canonical signature of an ABI entry, e.g. "WrongSequence(uint64,uint64)"."""
    return f"{entry['name']}({','.join(_type(part) for part in entry.get('inputs', []))})"


def _type(part: Mapping[str, Any]) -> str:
    kind = str(part["type"])
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(_type(inner) for inner in part['components'])}){kind[5:]}"


@functools.cache
def _errors_by_selector() -> dict[bytes, dict[str, Any]]:
    return {
        keccak(signature(entry).encode())[:4]: entry
        for name in PUBLISHED
        for entry in artifact(name).abi
        if entry["type"] == "error"
    }


def decode_revert(data: bytes) -> tuple[str, dict[str, object]]:
    """(name, arguments) of the revert data that a call returned.

    "Error" for require with a text, "Panic" for Solidity's own checks, "Unnamed" for no data
    (out of gas, or a call into nothing) and "Unknown" for an error of another contract.
    """
    if not data:
        return "Unnamed", {}
    selector, body = data[:4], data[4:]
    try:
        if selector == _ERROR:
            return "Error", {"message": decode(["string"], body)[0]}
        if selector == _PANIC:
            return "Panic", {"code": decode(["uint256"], body)[0]}
        entry = _errors_by_selector().get(selector)
        if entry is not None:
            inputs = entry["inputs"]
            values = decode([_type(part) for part in inputs], body)
            return str(entry["name"]), {
                part["name"]: to_checksum_address(value) if part["type"] == "address" else value
                for part, value in zip(inputs, values, strict=True)
            }
    except DecodingError:
        pass
    return "Unknown", {"data": data}
