"""Makes what the four validators start from, with fresh keys, in network/ beside this file.

    python deploy/besu-qbft/make_network.py --governance 0x... [--permit 0x... ...] [--out DIR]

For each validator a directory with its key, its peers (static-nodes.json) and who may connect and
send (permissions_config.toml), and for all of them genesis.json: genesis.template.json with the
validators' addresses in extraData. Keys are made here and stand nowhere else; an existing network
is never overwritten. With --permissions, only the permissions of an existing one are written anew.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

import rlp
from eth_keys.datatypes import PrivateKey
from eth_utils.address import is_address, to_checksum_address

HERE = Path(__file__).resolve().parent
#: The validators' addresses in compose.yaml's network; the chain's peers talk on one port.
HOSTS = ("172.30.66.11", "172.30.66.12", "172.30.66.13", "172.30.66.14")
PEER_PORT = 30303


def extra_data(validators: Sequence[bytes]) -> bytes:
    """QBFT's extraData of a genesis block: 32 bytes of vanity, the validators' addresses (20 bytes
    each) in ascending order, no vote, round 0, no seals; as one RLP list."""
    return bytes(rlp.encode([bytes(32), sorted(validators), [], b"", []]))


def enode(key: PrivateKey, host: str) -> str:
    """How a validator is reached by the others."""
    return f"enode://{key.public_key.to_hex()[2:]}@{host}:{PEER_PORT}"


def make_network(out: Path, permitted: Sequence[str]) -> list[str]:
    """Writes a new network's files; the validators' addresses. FileExistsError if one is there."""
    out.mkdir(mode=0o700, parents=True)
    keys = [PrivateKey(secrets.token_bytes(32)) for _ in HOSTS]
    genesis = json.loads((HERE / "genesis.template.json").read_text())
    genesis["extraData"] = (
        "0x" + extra_data([key.public_key.to_canonical_address() for key in keys]).hex()
    )
    _write(out / "genesis.json", json.dumps(genesis, indent=2) + "\n", 0o644)
    enodes = [enode(key, host) for key, host in zip(keys, HOSTS, strict=True)]
    for number, key in enumerate(keys, 1):
        directory = out / f"validator-{number}"
        directory.mkdir(mode=0o700)
        _write(directory / "key", key.to_hex() + "\n", 0o600)
        others = [url for url in enodes if url != enodes[number - 1]]
        _write(directory / "static-nodes.json", json.dumps(others, indent=2) + "\n", 0o644)
    write_permissions(out, permitted)
    return [str(key.public_key.to_checksum_address()) for key in keys]


def write_permissions(out: Path, permitted: Sequence[str]) -> None:
    """Who may connect (the validators) and who may send, the same list for every validator."""
    enodes: set[str] = set()
    directories = sorted(out.glob("validator-*"))
    for directory in directories:
        enodes.update(json.loads((directory / "static-nodes.json").read_text()))
    accounts = sorted({to_checksum_address(address) for address in permitted})
    text = (
        f"accounts-allowlist={json.dumps(accounts)}\nnodes-allowlist={json.dumps(sorted(enodes))}\n"
    )
    for directory in directories:
        _write(directory / "permissions_config.toml", text, 0o644)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description="Make a four-validator Besu QBFT network.")
    parser.add_argument("--governance", type=_address, required=True, help="who deploys")
    parser.add_argument("--permit", type=_address, action="append", default=[], help="an operator")
    parser.add_argument("--out", type=Path, default=HERE / "network")
    parser.add_argument("--permissions", action="store_true", help="only who may send, anew")
    options = parser.parse_args(argv)
    permitted = [options.governance, *options.permit]
    if options.permissions:
        if not (options.out / "genesis.json").exists():
            parser.error(f"there is no network in {options.out}")
        write_permissions(options.out, permitted)
        return 0
    try:
        validators = make_network(options.out, permitted)
    except FileExistsError:
        parser.error(f"{options.out} is there already, and its keys are not thrown away")
    for number, address in enumerate(validators, 1):
        sys.stdout.write(f"validator-{number} {address}\n")
    return 0


def _address(text: str) -> str:
    if not is_address(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no address")
    return to_checksum_address(text)


def _write(path: Path, text: str, mode: int) -> None:
    """Written in one piece: Besu may read it at any moment."""
    unfinished = path.with_name(path.name + ".new")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
    unfinished.replace(path)


if __name__ == "__main__":
    sys.exit(main())
