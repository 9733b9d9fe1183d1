"""The genesis file: what a chain starts from and whose transactions it takes."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rlp
from eth_hash.auto import keccak
from eth_keys.datatypes import PrivateKey
from eth_utils.address import to_canonical_address, to_checksum_address

DEFAULT_GAS_LIMIT = 30_000_000


@dataclass(frozen=True, slots=True)
class Genesis:
    """Addresses are 20 bytes, `timestamp` is in seconds, `balances` in wei.

    `permitted` may always send transactions. Besides, whoever the contract at `member_registry`
    names as the operator of an active member may. These two are rules of the sealer and not part
    of block 0: they may be changed in the file while the chain is stopped.
    """

    chain_id: int
    timestamp: int
    gas_limit: int
    sealer: bytes
    balances: Mapping[bytes, int]
    permitted: frozenset[bytes]
    member_registry: bytes | None
    sealer_key: PrivateKey


def create_genesis(
    directory: Path,
    *,
    chain_id: int,
    governance: str,
    permitted: Iterable[str] = (),
    balances: Mapping[str, int] | None = None,
    timestamp: int | None = None,
) -> Path:
    """Writes genesis.json and a fresh sealer.key (mode 0600) into `directory`; returns the former.

    `governance` is the address that will deploy the contracts: it may send, and the first
    contract that it creates is taken for the MemberRegistry.
    """
    directory.mkdir(parents=True, exist_ok=True)
    key = PrivateKey(secrets.token_bytes(32))
    _write_private(directory / "sealer.key", key.to_hex() + "\n")
    first_contract = keccak(rlp.encode([to_canonical_address(governance), 0]))[12:]
    content = {
        "chain_id": chain_id,
        "timestamp": int(time.time()) if timestamp is None else timestamp,
        "gas_limit": DEFAULT_GAS_LIMIT,
        "sealer": key.public_key.to_checksum_address(),
        "sealer_key_file": "sealer.key",
        "balances": {to_checksum_address(a): str(n) for a, n in (balances or {}).items()},
        "permitted": [to_checksum_address(a) for a in (governance, *permitted)],
        "member_registry": to_checksum_address(first_contract),
    }
    path = directory / "genesis.json"
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return path


def load_genesis(path: Path) -> Genesis:
    """Reads a genesis file and the sealer's key that it names. ValueError if they don't fit."""
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    key_text = (path.parent / content["sealer_key_file"]).read_text("ascii").strip()
    key = PrivateKey(bytes.fromhex(key_text.removeprefix("0x")))
    sealer = to_canonical_address(content["sealer"])
    if key.public_key.to_canonical_address() != sealer:
        raise ValueError("the sealer's key file holds another address's key")
    registry = content.get("member_registry")
    return Genesis(
        chain_id=int(content["chain_id"]),
        timestamp=int(content["timestamp"]),
        gas_limit=int(content["gas_limit"]),
        sealer=sealer,
        balances={to_canonical_address(a): int(n) for a, n in content.get("balances", {}).items()},
        permitted=frozenset(map(to_canonical_address, content["permitted"])),
        member_registry=to_canonical_address(registry) if registry else None,
        sealer_key=key,
    )


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(text)
