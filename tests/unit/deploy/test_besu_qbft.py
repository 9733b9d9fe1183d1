"""deploy/besu-qbft: what the script makes, the genesis, Besu's settings and the compose file agree.

Keys, addresses and extraData are worked out here by other code than the script's.
"""

from __future__ import annotations

import ipaddress
import json
import re
import runpy
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import rlp
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from eth_hash.auto import keccak

from sandbox.validators.genesis import genesis as clique_genesis

BESU = Path(__file__).parents[3] / "deploy" / "besu-qbft"
GOVERNANCE = "0x" + "a1" * 20
OPERATOR = "0x" + "b2" * 20
NUMBERS = (1, 2, 3, 4)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BESU / "make_network.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("besu") / "network"
    done = run("--governance", GOVERNANCE, "--permit", OPERATOR, "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read_yaml((BESU / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return tomllib.loads((BESU / "config.toml").read_text())


def read_yaml(text: str) -> Any:
    """The part of YAML that the compose file uses: nested mappings and lists, scalars as JSON or as
    plain words. Anything else is an error."""
    lines = [
        (len(line) - len(line.lstrip()), line.strip())
        for line in text.splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    value, end = _block(lines, 0, 0)
    assert end == len(lines), lines[end]
    return value


def _block(lines: list[tuple[int, str]], at: int, indent: int) -> tuple[Any, int]:
    if lines[at][1].startswith("- "):
        items = []
        while at < len(lines) and lines[at][0] == indent and lines[at][1].startswith("- "):
            rest = lines[at][1][2:]
            if re.match(r"[a-z_]+: ", rest):
                key, scalar = rest.split(": ", 1)
                items.append({key: _scalar(scalar)})
            else:
                items.append(_scalar(rest))
            at += 1
        return items, at
    found: dict[str, Any] = {}
    while at < len(lines) and lines[at][0] == indent and not lines[at][1].startswith("- "):
        key, colon, rest = lines[at][1].partition(":")
        assert colon, lines[at]
        assert key not in found, key
        at += 1
        if rest:
            found[key] = _scalar(rest.strip())
        else:
            assert lines[at][0] > indent, lines[at]
            found[key], at = _block(lines, at, lines[at][0])
    return found, at


def _scalar(text: str) -> Any:
    if text[0] in '[{"0123456789' and not re.fullmatch(r"\d+s", text):
        return json.loads(text)
    assert re.fullmatch(r"[\w./:-]+", text), text
    return text


def public_key(network: Path, number: int) -> bytes:
    """The 64 bytes of a validator's public key, from its key file."""
    secret = (network / f"validator-{number}" / "key").read_text().strip()
    assert re.fullmatch("0x[0-9a-f]{64}", secret)
    key = ec.derive_private_key(int(secret, 16), ec.SECP256K1()).public_key()
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def address(network: Path, number: int) -> bytes:
    return bytes(keccak(public_key(network, number))[12:])


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_genesis_names_the_validators_whose_keys_were_made(network: Path) -> None:
    genesis = load(network / "genesis.json")
    vanity, validators, votes, round_number, seals = rlp.decode(
        bytes.fromhex(genesis["extraData"][2:])
    )
    assert vanity == bytes(32)
    assert validators == sorted(address(network, number) for number in NUMBERS)
    assert len(set(validators)) == 4
    assert (votes, round_number, seals) == ([], b"", [])


def test_extra_data_is_as_besu_documents_it() -> None:
    """The example of Besu's page on QBFT, which happens to be in no order: sorted here."""
    encode = runpy.run_path(str(BESU / "make_network.py"))["extra_data"]
    example = [
        "64a702e6263b7297a96638cac6ae65e6541f4169",
        "943923390ad55e90c237593b3b0e401f3b08a031",
        "8594aefdb9a738c9f433e5b6b212a6d62f6370c2",
        "9294c7eeb9a4e00ce683cf93039b212648e01c6c",
    ]
    expected = (
        "f87aa0" + "00" * 32 + "f854" + "".join("94" + one for one in sorted(example)) + "c080c0"
    )
    assert encode([bytes.fromhex(one) for one in example]).hex() == expected


def test_the_genesis_is_free_of_charge_and_has_the_rules_of_the_other_engine(network: Path) -> None:
    genesis, template = load(network / "genesis.json"), load(BESU / "genesis.template.json")
    assert {**template, "extraData": genesis["extraData"]} == genesis
    config = genesis["config"]
    assert config["zeroBaseFee"] is True
    assert genesis["baseFeePerGas"] == "0x0"
    assert genesis["alloc"] == {}
    assert config["qbft"]["requesttimeoutseconds"] > config["qbft"]["blockperiodseconds"] > 0
    other = clique_genesis(chain_id=1, period_s=1, signers=[], balances={})["config"]
    rules = {name: block for name, block in config.items() if name.endswith("Block")}
    assert rules == {name: block for name, block in other.items() if name.endswith("Block")}
    assert set(config) - set(rules) == {"chainId", "zeroBaseFee", "qbft"}
    # The hash that tells clients that headers are those of a Byzantine fault tolerant chain.
    assert bytes.fromhex(genesis["mixHash"][2:]) == b"ctical byzantine fault tolerance"
    assert genesis["difficulty"] == "0x1"


def test_everybody_knows_the_others_by_their_keys(
    network: Path, compose: dict[str, Any], settings: dict[str, Any]
) -> None:
    urls = {}
    for number in NUMBERS:
        host = compose["services"][f"validator-{number}"]["networks"]["chain"]["ipv4_address"]
        key = public_key(network, number).hex()
        urls[number] = f"enode://{key}@{host}:{settings['p2p-port']}"
    for number in NUMBERS:
        directory = network / f"validator-{number}"
        others = load(directory / "static-nodes.json")
        assert sorted(others) == sorted(url for other, url in urls.items() if other != number)
        permissions = tomllib.loads((directory / "permissions_config.toml").read_text())
        assert sorted(permissions["nodes-allowlist"]) == sorted(urls.values())
        accounts = [account.lower() for account in permissions["accounts-allowlist"]]
        assert accounts == [GOVERNANCE, OPERATOR]
    assert settings["max-peers"] == len(NUMBERS) - 1
    assert settings["discovery-enabled"] is False


def test_the_services_are_the_validators(
    network: Path, compose: dict[str, Any], settings: dict[str, Any]
) -> None:
    services = compose["services"]
    assert sorted(services) == [f"validator-{number}" for number in NUMBERS]
    assert set(services) < set(settings["host-allowlist"])
    subnet = ipaddress.ip_network(compose["networks"]["chain"]["ipam"]["config"][0]["subnet"])
    images, published, hosts = set(), set(), set()
    for name, service in services.items():
        images.add(service["image"])
        mounts = dict(mount.split(":")[:2] for mount in service["volumes"])
        assert mounts == {
            "./config.toml": "/config.toml",
            "./network/genesis.json": settings["genesis-file"],
            f"./network/{name}": settings["data-path"],
        }
        assert service["command"] == ["--config-file=/config.toml"]
        interface, port, inside = service["ports"][0].split(":")
        assert len(service["ports"]) == 1
        assert ipaddress.ip_address(interface).is_loopback
        assert int(inside) == settings["rpc-http-port"]
        published.add(port)
        host = ipaddress.ip_address(service["networks"]["chain"]["ipv4_address"])
        assert host in subnet
        hosts.add(host)
        assert (network / name / "key").exists()
    assert len(published) == len(hosts) == 4
    (image,) = images
    assert re.fullmatch(r"[a-z]+/besu:\d+\.\d+\.\d+", image)


def test_besus_settings_fit_the_genesis_and_the_nodes(
    network: Path, settings: dict[str, Any]
) -> None:
    from nodes.anchoring.operations.publishing import MAX_IN_FLIGHT

    genesis = load(network / "genesis.json")
    assert settings["network-id"] == genesis["config"]["chainId"]
    assert settings["target-gas-limit"] == int(genesis["gasLimit"], 16)
    assert settings["min-gas-price"] == 0
    assert settings["permissions-nodes-config-file-enabled"] is True
    assert settings["permissions-accounts-config-file-enabled"] is True
    for name in ("permissions-nodes-config-file", "permissions-accounts-config-file"):
        assert settings[name] == f"{settings['data-path']}/permissions_config.toml"
    assert set(settings["rpc-http-api"]) == {"ETH", "NET", "WEB3"}
    # Of the sequenced pool's 4,096 places.
    assert settings["tx-pool"] == "sequenced"
    assert settings["tx-pool-limit-by-account-percentage"] * 4_096 > MAX_IN_FLIGHT


def test_keys_are_private_fresh_and_not_committed(network: Path, tmp_path: Path) -> None:
    assert stat.S_IMODE(network.stat().st_mode) == 0o700
    for number in NUMBERS:
        key = network / f"validator-{number}" / "key"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert re.search("[0-9a-f]{64}", key.read_text())
    assert run("--governance", GOVERNANCE, "--out", str(tmp_path / "other")).returncode == 0
    assert not {address(network, n) for n in NUMBERS} & {
        address(tmp_path / "other", n) for n in NUMBERS
    }
    ignored = (BESU.parents[1] / ".gitignore").read_text().splitlines()
    assert "deploy/besu-qbft/network/" in ignored
    committed = [path for path in BESU.iterdir() if path.is_file()]
    for path in committed:
        secrets = set(re.findall("[0-9a-f]{64}", path.read_text()))
        assert secrets <= {load(BESU / "genesis.template.json")["mixHash"][2:]}, path


def test_a_network_is_not_overwritten_and_its_permissions_can_be(network: Path) -> None:
    before = {path: path.read_bytes() for path in network.rglob("*") if path.is_file()}
    refused = run("--governance", GOVERNANCE, "--out", str(network))
    assert refused.returncode == 2
    assert "is there already" in refused.stderr
    assert all(path.read_bytes() == content for path, content in before.items())

    newcomer = "0x" + "c3" * 20
    done = run(
        "--governance", GOVERNANCE, "--permit", newcomer, "--permissions", "--out", str(network)
    )
    assert done.returncode == 0, done.stderr
    for path, content in before.items():
        if path.name == "permissions_config.toml":
            changed = tomllib.loads(path.read_text())
            assert [a.lower() for a in changed["accounts-allowlist"]] == [GOVERNANCE, newcomer]
            old = tomllib.loads(content.decode())
            assert changed["nodes-allowlist"] == old["nodes-allowlist"]
            path.write_bytes(content)
        else:
            assert path.read_bytes() == content


@pytest.mark.parametrize("wrong", ["", "0x12", "governance", "0x" + "zz" * 20])
def test_what_is_no_address_is_refused(tmp_path: Path, wrong: str) -> None:
    refused = run("--governance", wrong, "--out", str(tmp_path / "network"))
    assert refused.returncode == 2
    assert "is no address" in refused.stderr
    assert not (tmp_path / "network").exists()


def test_enode_urls_are_read_as_they_are_written(network: Path) -> None:
    for url in load(network / "validator-1" / "static-nodes.json"):
        parts = urlsplit(url)
        assert (parts.scheme, len(parts.username or ""), parts.port) == ("enode", 128, 30303)
