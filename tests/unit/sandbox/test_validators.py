"""The validators' engine and what they start from, without starting any."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path

import pytest
from eth_account import Account

from sandbox.validators import engine
from sandbox.validators.engine import MODULE_HASH, VERSION, EngineUnavailable
from sandbox.validators.genesis import GAS_LIMIT, genesis, make_validator, write_settings
from sandbox.validators.network import NetworkFailed, ValidatorNetwork

# What `go` says and does here: `env GOVERSION`, `mod download -json`, `build ... -o FILE`.
GO = """#!/bin/sh
echo "$@" >> {calls}
case "$1" in
  env) echo {version} ;;
  mod) echo '{{"Sum": "{hash}", "Dir": "{directory}"}}' ;;
  build)
    {build}
    while [ "$1" != -o ]; do shift; done
    printf '#!/bin/sh\\necho geth\\n' > "$2" && chmod +x "$2" ;;
esac
"""


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


def with_go(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    version: str = "go1.26.8",
    module_hash: str = MODULE_HASH,
    build: str = "",
) -> Path:
    """A `go` command that is found first; returns a directory for engines."""
    commands = tmp_path / "bin"
    commands.mkdir()
    script = GO.format(
        calls=tmp_path / "calls",
        version=version,
        hash=module_hash,
        directory=tmp_path,
        build=build,
    )
    (commands / "go").write_text(script)
    (commands / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    return tmp_path / "engines"


def test_the_engine_is_fetched_and_built_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Path
) -> None:
    engines = with_go(tmp_path, monkeypatch)
    said: list[str] = []
    path = engine.get(engines, said.append)
    assert path == engine.built(engines)
    assert len(said) == 2
    before = calls.read_text()
    assert f"@{VERSION}" in before
    assert "-checklinkname=0" in before
    assert engine.get(engines, said.append) == path
    assert calls.read_text() == before
    assert len(said) == 2


def test_an_older_go_is_not_given_a_flag_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Path
) -> None:
    engine.get(with_go(tmp_path, monkeypatch, version="go1.21.3"), lambda _: None)
    assert "-checklinkname" not in calls.read_text()


@pytest.mark.parametrize(
    ("go", "reason"),
    [
        ({"module_hash": "h1:another"}, "has the hash h1:another, not"),
        ({"version": "go1.19.1"}, "needs Go 1.20, not go1.19.1"),
        ({"version": "devel"}, "no version"),
        ({"build": "echo no room on the disk >&2; exit 1"}, "no room on the disk"),
    ],
)
def test_an_engine_that_can_not_be_had_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go: dict[str, str], reason: str
) -> None:
    engines = with_go(tmp_path, monkeypatch, **go)  # type: ignore[arg-type]
    with pytest.raises(EngineUnavailable, match=reason):
        engine.get(engines, lambda _: None)
    with pytest.raises(EngineUnavailable, match="make validators-engine"):
        engine.built(engines)


def test_without_go_there_is_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnavailable, match="no `go`"):
        engine.get(tmp_path, lambda _: None)


def test_the_genesis_names_its_signers_in_order_and_charges_nothing() -> None:
    signers = ["0x" + "33" * 20, "0x" + "11" * 20, "0x" + "22" * 20]
    made = genesis(chain_id=7, period_s=3, signers=signers, balances={"0x" + "44" * 20: 5})
    extra = bytes.fromhex(made["extradata"][2:])
    assert extra == bytes(32) + b"\x11" * 20 + b"\x22" * 20 + b"\x33" * 20 + bytes(65)
    assert (made["config"]["chainId"], made["config"]["clique"]["period"]) == (7, 3)
    assert made["baseFeePerGas"] == "0x0"
    assert made["alloc"] == {"0x" + "44" * 20: {"balance": "0x5"}}


def test_a_validators_keys_are_its_own(tmp_path: Path) -> None:
    made = make_validator(tmp_path / "one", 0, 30_000, 8_000)
    files = [made.directory / "geth" / "nodekey", made.directory / "keystore" / "sealer.json"]
    for path in [*files, made.password_file]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = Account.decrypt(json.loads(files[1].read_text()), made.password_file.read_text())
    assert Account.from_key(key).address == made.address
    assert files[0].read_text() not in repr(made)


def test_a_validator_has_no_place_for_a_caller_that_it_does_not_know(tmp_path: Path) -> None:
    made = [make_validator(tmp_path / str(n), n, 30_000 + n, 8_000 + n) for n in range(3)]
    write_settings(made[1], made, 7)
    settings = tomllib.loads(made[1].settings_file.read_text())
    peers = settings["Node"]["P2P"]
    assert peers["StaticNodes"] == peers["TrustedNodes"] == [made[0].enode, made[2].enode]
    # Of its places for peers all are for those that it calls itself.
    assert (peers["MaxPeers"], peers["DialRatio"]) == (2, 1)
    assert peers["NoDiscovery"] is True
    assert peers["ListenAddr"] == "127.0.0.1:30001"
    node = settings["Node"]
    assert (node["HTTPHost"], node["HTTPModules"]) == ("127.0.0.1", ["eth", "net", "web3"])
    assert settings["Eth"]["Miner"]["GasCeil"] == GAS_LIMIT


def test_a_path_that_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    network = ValidatorNetwork(tmp_path / ("n" * 100), tmp_path / "geth")
    with pytest.raises(NetworkFailed, match="too long"):
        network.start()
    network.stop()


@pytest.mark.parametrize("wrong", [{"count": 0}, {"period_s": 0}])
def test_no_network_of_nobody(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ValidatorNetwork(tmp_path, tmp_path / "geth", **wrong)  # type: ignore[arg-type]
