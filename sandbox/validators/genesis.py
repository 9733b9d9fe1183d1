"""What the validators start from: keys, genesis and settings, as geth reads them.

Free gas, as permissioned networks have it: no base fee at the start, blocks so large that it never
rises, and no price that the validators ask for. Peers are the network's own validators alone.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_keys.datatypes import PrivateKey

#: The base fee rises when a block is more than half full; at 100,000 gas an anchor none ever is.
GAS_LIMIT = 1_000_000_000
#: Blocks after which clique forgets open votes.
_EPOCH = 30_000
_VANITY, _SEAL = bytes(32), bytes(65)
#: Rules of the EVM up to London, from the first block on.
_MILESTONES = (
    "homesteadBlock",
    "eip150Block",
    "eip155Block",
    "eip158Block",
    "byzantiumBlock",
    "constantinopleBlock",
    "petersburgBlock",
    "istanbulBlock",
    "berlinBlock",
    "londonBlock",
)
# The key file's password stands beside it: a costly derivation would protect nothing.
_KEY_ROUNDS = 2


@dataclass(frozen=True)
class Validator:
    """One validator: where it keeps its data, its ports on loopback, its two identities.

    `address` seals blocks; `enode` is how the others reach it. The keys stand in `directory`.
    """

    index: int
    directory: Path
    peer_port: int
    rpc_port: int
    address: str
    enode: str
    password_file: Path = field(repr=False)

    @property
    def rpc_url(self) -> str:
        return f"http://127.0.0.1:{self.rpc_port}"

    @property
    def ipc(self) -> Path:
        return self.directory / "geth.ipc"

    @property
    def log(self) -> Path:
        return self.directory / "geth.log"

    @property
    def settings_file(self) -> Path:
        return self.directory / "geth.toml"


def make_validator(directory: Path, index: int, peer_port: int, rpc_port: int) -> Validator:
    """A validator with fresh keys, both written into its directory (mode 0600)."""
    directory.mkdir(parents=True, mode=0o700)
    node_key = PrivateKey(secrets.token_bytes(32))
    (directory / "geth").mkdir(mode=0o700)
    _write_private(directory / "geth" / "nodekey", node_key.to_hex()[2:])
    password = secrets.token_hex(16)
    _write_private(directory / "password", password)
    sealer = Account.create()
    encrypted = Account.encrypt(sealer.key, password, kdf="scrypt", iterations=_KEY_ROUNDS)
    (directory / "keystore").mkdir(mode=0o700)
    _write_private(directory / "keystore" / "sealer.json", json.dumps(encrypted))
    return Validator(
        index=index,
        directory=directory,
        peer_port=peer_port,
        rpc_port=rpc_port,
        address=str(sealer.address),
        enode=f"enode://{node_key.public_key.to_hex()[2:]}@127.0.0.1:{peer_port}",
        password_file=directory / "password",
    )


def genesis(
    *,
    chain_id: int,
    period_s: int,
    signers: Sequence[str],
    balances: dict[str, int],
    timestamp: int = 0,
) -> dict[str, Any]:
    """The genesis file of a clique network. Its signers stand in extraData, in ascending order.

    `timestamp`: Unix seconds; the first block is made a period later, at the earliest.
    """
    addresses = sorted(bytes.fromhex(address[2:]) for address in signers)
    return {
        "config": {
            "chainId": chain_id,
            **dict.fromkeys(_MILESTONES, 0),
            "clique": {"period": period_s, "epoch": _EPOCH},
        },
        "timestamp": hex(timestamp),
        "difficulty": "0x1",
        "gasLimit": hex(GAS_LIMIT),
        "baseFeePerGas": "0x0",
        "extradata": "0x" + (_VANITY + b"".join(addresses) + _SEAL).hex(),
        "alloc": {address: {"balance": hex(wei)} for address, wei in balances.items()},
    }


def write_settings(validator: Validator, validators: Sequence[Validator], chain_id: int) -> None:
    """geth's configuration file. A validator calls the others and is called by them alone: of its
    places for peers none is for a caller that isn't trusted."""
    others = [other.enode for other in validators if other != validator]
    text = f"""\
[Eth]
NetworkId = {chain_id}

[Eth.Miner]
Etherbase = "{validator.address}"
GasCeil = {GAS_LIMIT}

[Eth.GPO]
Default = 0

[Node]
DataDir = "{validator.directory}"
IPCPath = "geth.ipc"
HTTPHost = "127.0.0.1"
HTTPPort = {validator.rpc_port}
HTTPModules = ["eth", "net", "web3"]
AuthAddr = "127.0.0.1"
InsecureUnlockAllowed = true
SmartCardDaemonPath = ""

[Node.P2P]
MaxPeers = {max(len(others), 1)}
DialRatio = 1
NoDiscovery = true
BootstrapNodes = []
BootstrapNodesV5 = []
StaticNodes = {json.dumps(others)}
TrustedNodes = {json.dumps(others)}
NetRestrict = ["127.0.0.0/8"]
ListenAddr = "127.0.0.1:{validator.peer_port}"
"""
    validator.settings_file.write_text(text)


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
