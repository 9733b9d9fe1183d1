"""`countersign verify --validators`: proofs judged by the seals of their blocks, with no node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sandbox.campaigns.sealed_bundles import DIRECTORY, recorded
from sandbox.cli import make_app

QBFT = recorded("qbft")
ADDRESSES = ",".join(QBFT.validators)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A proof, its roots and its genesis; no network is described anywhere."""
    monkeypatch.setenv("DEMO_DIR", str(tmp_path / "none"))
    (tmp_path / "proof").write_bytes(QBFT.bundles[1])
    document = json.loads((DIRECTORY / "qbft.json").read_text(encoding="ascii"))
    (tmp_path / "roots.json").write_text(json.dumps(document["roots"]))
    (tmp_path / "genesis.json").write_text(json.dumps(document["genesis"]))
    return tmp_path


def run(files: Path, *more: str) -> Result:
    return CliRunner().invoke(make_app(), ["verify", str(files / "proof"), *more])


def contract(registry: str = QBFT.anchor_registry) -> tuple[str, str]:
    return "--anchor-registry", registry


def test_a_genesis_and_the_contract_are_enough(files: Path) -> None:
    said = run(files, "--validators", str(files / "genesis.json"), *contract(), "--json")
    assert said.exit_code == 0, said.output
    details = json.loads(said.stdout)["details"]
    assert (details["finality"], details["sealed_by"]) == ("QBFT_FINALITY", "3 of 4 validators")
    assert details["note_signature"].startswith("not checked")


def test_addresses_want_the_chains_id(files: Path) -> None:
    said = run(files, "--validators", ADDRESSES, *contract())
    assert said.exit_code == 2
    assert "--chain-id" in said.stderr
    said = run(files, "--validators", ADDRESSES, *contract(), "--chain-id", str(QBFT.chain_id))
    assert said.exit_code == 0, said.output
    assert "PROVEN" in said.stdout
    assert run(files, "--validators", ADDRESSES, *contract(), "--chain-id", "1").exit_code == 1


def test_with_roots_the_note_is_checked_too(files: Path) -> None:
    said = run(files, "--validators", ADDRESSES, "--roots", str(files / "roots.json"))
    assert said.exit_code == 0, said.output
    assert "QBFT_FINALITY" in said.stdout
    assert "note_signature" not in said.stdout


def test_without_validators_finality_is_anothers_word(files: Path) -> None:
    said = run(files, "--roots", str(files / "roots.json"))
    assert said.exit_code == 0
    assert "DEV_FINALITY" in said.stdout


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--validators", ",".join(["0x" + "11" * 20, *QBFT.validators[:2]])), "SEALER_UNKNOWN"),
        (("--validators", ADDRESSES + ",0x" + "11" * 20), "SEALS_TOO_FEW"),
        (("--validators", ADDRESSES, *contract("0x" + "22" * 20)), "UNTRUSTED_REGISTRY"),
    ],
)
def test_refusals_have_their_names(files: Path, more: tuple[str, ...], reason: str) -> None:
    given = more if "--anchor-registry" in more else (*more, *contract())
    said = run(files, *given, "--chain-id", str(QBFT.chain_id))
    assert said.exit_code == 1
    assert said.stdout.startswith(f"REFUSED {reason}:")


@pytest.mark.parametrize(
    ("validators", "said"),
    [
        ("0x12", "'0x12' is no validator's address"),
        ("nowhere.json", "nowhere.json: No such file"),
        ("roots.json", "no extraData"),
        ("proof", "is no validator's address"),
    ],
)
def test_what_names_no_validators_is_told(files: Path, validators: str, said: str) -> None:
    given = validators if validators.startswith("0x") else str(files / validators)
    found = run(files, "--validators", given, *contract(), "--chain-id", "1")
    assert found.exit_code == 2
    assert said in found.stderr


class TestAfterAMove:
    """No seal tells which versions came before the trusted contract."""

    NEW = "0x" + "cd" * 20

    def test_the_predecessor_is_named(self, files: Path) -> None:
        given = ("--validators", str(files / "genesis.json"), *contract(self.NEW))
        refused = run(files, *given)
        assert refused.stdout.startswith("REFUSED UNTRUSTED_REGISTRY:")
        other = run(files, *given, "--predecessor", "0x" + "ef" * 20)
        assert other.stdout.startswith("REFUSED UNTRUSTED_REGISTRY:")
        proven = run(files, *given, "--predecessor", QBFT.anchor_registry)
        assert proven.exit_code == 0, proven.output
        wrong = run(files, *given, "--predecessor", "0x12")
        assert (wrong.exit_code, "--predecessor '0x12' is no" in wrong.stderr) == (2, True)

    def test_the_network_file_may_name_it(self, files: Path) -> None:
        anchors = {"address": self.NEW, "predecessors": ["0x" + "ef" * 20, QBFT.anchor_registry]}
        described = {"rpc": "", "contracts": {"AnchorRegistry": anchors}}
        network = files / "network.json"
        network.write_text(json.dumps({"chain": described, "members": []}))
        given = ("--validators", str(files / "genesis.json"), "--network", str(network))
        assert run(files, *given).exit_code == 0
        # Another contract than the file's has no predecessors of the file's.
        mine = run(files, *given, *contract("0x" + "22" * 20))
        assert mine.stdout.startswith("REFUSED UNTRUSTED_REGISTRY:")

    def test_cached_roots_know_it(self, files: Path) -> None:
        roots = json.loads((files / "roots.json").read_text())
        moved = roots | {"anchor_registry": self.NEW, "predecessors": [QBFT.anchor_registry]}
        (files / "moved.json").write_text(json.dumps(moved))
        for given in (("--validators", ADDRESSES), ()):
            assert run(files, *given, "--roots", str(files / "moved.json")).exit_code == 0
