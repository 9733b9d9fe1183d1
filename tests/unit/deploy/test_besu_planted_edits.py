"""The consistency check of deploy/besu-qbft sees each edit that would break the network: on a copy
of the directory with one edit planted, the named check fails. An untouched copy passes them all.
"""

from __future__ import annotations

import inspect
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.deploy import test_besu_qbft as checks

#: What is edited, from what (once or more in the file, all of it), to what, and who has to object.
EDITS = [
    ("make_network.py", "sorted(validators)", "list(validators)[::-1]", "extra_data"),
    ("make_network.py", "bytes(32), sorted", "bytes(31), sorted", "extra_data"),
    ("make_network.py", '[], b"", []])', '[], b"\\x01", []])', "extra_data"),
    (
        "make_network.py",
        "[key.public_key.to_canonical_address() for key in keys]",
        "[PrivateKey(secrets.token_bytes(32)).public_key.to_canonical_address() for key in keys]",
        "names_the_validators",
    ),
    ("make_network.py", '"172.30.66.13"', '"172.30.66.15"', "knows_the_others"),
    ("make_network.py", "PEER_PORT = 30303", "PEER_PORT = 30304", "knows_the_others"),
    ("make_network.py", "if url != enodes[number - 1]", "if url != enodes[0]", "knows_the_others"),
    (
        "make_network.py",
        "permitted = [options.governance, *options.permit]",
        "permitted = [*options.permit]",
        "knows_the_others",
    ),
    (
        "make_network.py",
        "out.mkdir(mode=0o700, parents=True)",
        "out.mkdir(mode=0o755, parents=True)",
        "keys_are_private",
    ),
    ("make_network.py", '"\\n", 0o600)', '"\\n", 0o644)', "keys_are_private"),
    ("make_network.py", "secrets.token_bytes(32)", 'b"\\1" * 32', "names_the_validators"),
    ("genesis.template.json", '"londonBlock": 0', '"londonBlock": 5', "free_of_charge"),
    ("genesis.template.json", '"zeroBaseFee": true', '"zeroBaseFee": false', "free_of_charge"),
    ("genesis.template.json", '"baseFeePerGas": "0x0"', '"baseFeePerGas": "0x7"', "free_of_charge"),
    (
        "genesis.template.json",
        '"requesttimeoutseconds": 4',
        '"requesttimeoutseconds": 2',
        "free_of_charge",
    ),
    ("genesis.template.json", "0x6374696361", "0x6374696362", "free_of_charge"),
    ("genesis.template.json", '"chainId": 20268', '"chainId": 20269', "fit_the_genesis"),
    ("genesis.template.json", '"0x1c9c380"', '"0x1c9c381"', "fit_the_genesis"),
    ("config.toml", "network-id=20268", "network-id=20267", "fit_the_genesis"),
    ("config.toml", "p2p-port=30303", "p2p-port=30304", "knows_the_others"),
    ("config.toml", "max-peers=3", "max-peers=2", "knows_the_others"),
    ("config.toml", "discovery-enabled=false", "discovery-enabled=true", "knows_the_others"),
    (
        "config.toml",
        "permissions-accounts-config-file-enabled=true",
        "permissions-accounts-config-file-enabled=false",
        "fit_the_genesis",
    ),
    (
        "config.toml",
        'permissions-nodes-config-file="/data/permissions_config.toml"',
        'permissions-nodes-config-file="/permissions_config.toml"',
        "fit_the_genesis",
    ),
    ("config.toml", "min-gas-price=0", "min-gas-price=1", "fit_the_genesis"),
    ("config.toml", "target-gas-limit=30000000", "target-gas-limit=9000000", "fit_the_genesis"),
    ("config.toml", '"WEB3"]', '"WEB3","ADMIN"]', "fit_the_genesis"),
    ("config.toml", 'tx-pool="sequenced"', 'tx-pool="layered"', "fit_the_genesis"),
    ("config.toml", "account-percentage=1", "account-percentage=0.001", "fit_the_genesis"),
    ("config.toml", "rpc-http-port=8545", "rpc-http-port=8555", "services_are"),
    ("config.toml", 'data-path="/data"', 'data-path="/besu"', "services_are"),
    ("config.toml", 'genesis-file="/genesis.json"', 'genesis-file="/g.json"', "services_are"),
    ("config.toml", '"validator-3",', "", "services_are"),
    ("compose.yaml", "172.30.66.12", "172.30.66.21", "knows_the_others"),
    ("compose.yaml", "172.30.66.0/24", "172.30.67.0/24", "services_are"),
    ("compose.yaml", '"127.0.0.1:8546:8545"', '"0.0.0.0:8546:8545"', "services_are"),
    ("compose.yaml", '"127.0.0.1:8546:8545"', '"127.0.0.1:8545:8545"', "services_are"),
    ("compose.yaml", "./network/validator-2:/data", "./network/validator-1:/data", "services_are"),
    ("compose.yaml", "  validator-4:", "  validator-5:", "services_are"),
    ("compose.yaml", '["--config-file=/config.toml"]', '["--config-file=/c"]', "services_are"),
    ("compose.yaml", "hyperledger/besu:25.8.0", "hyperledger/besu:latest", "services_are"),
]
CHECKS: dict[str, Callable[..., None]] = {
    name: check
    for name, check in vars(checks).items()
    if name.startswith("test_") and name != "test_what_is_no_address_is_refused"
}


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the directory, which the checks look at instead."""
    copy = tmp_path / "repository" / "deploy" / "besu-qbft"
    ignored = shutil.ignore_patterns("network", "__pycache__")
    shutil.copytree(checks.BESU, copy, ignore=ignored)
    shutil.copy(checks.BESU.parents[1] / ".gitignore", copy.parents[1])
    monkeypatch.setattr(checks, "BESU", copy)
    return copy


def run_check(name: str, copied: Path, tmp_path: Path) -> None:
    """One check of the copy, on a network that the copy's script makes."""
    network = tmp_path / "made" / "network"
    if not network.exists():
        done = checks.run(
            *("--governance", checks.GOVERNANCE, "--permit", checks.OPERATOR),
            *("--out", str(network)),
        )
        assert done.returncode == 0, done.stderr
    given: dict[str, Any] = {"network": network, "tmp_path": tmp_path}
    wanted = inspect.signature(CHECKS[name]).parameters
    if "compose" in wanted:
        given["compose"] = checks.read_yaml((copied / "compose.yaml").read_text())
    if "settings" in wanted:
        given["settings"] = tomllib.loads((copied / "config.toml").read_text())
    CHECKS[name](**{each: given[each] for each in wanted})


def test_an_untouched_copy_passes(copied: Path, tmp_path: Path) -> None:
    for name in CHECKS:
        run_check(name, copied, tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new", "objects"),
    EDITS,
    ids=[f"{file}-{number}" for number, (file, *_) in enumerate(EDITS, 1)],
)
def test_a_planted_edit_is_seen(
    copied: Path, tmp_path: Path, file: str, old: str, new: str, objects: str
) -> None:
    path = copied / file
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new))
    (name,) = [name for name in CHECKS if objects in name]
    with pytest.raises(AssertionError):
        run_check(name, copied, tmp_path)
