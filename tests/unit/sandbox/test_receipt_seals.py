"""`countersign receipt --validators`: a promise's proof judged by seals, by roots older than it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nodes.anchoring.cached_roots import CachedRoots
from sandbox.campaigns.sealed_bundles import DIRECTORY, recorded
from sandbox.cli import make_app
from tests.factories.sealed_receipts import SealedReceipt, sealed_receipt

FINALITY = {"qbft": "QBFT_FINALITY", "clique": "CLIQUE_FINALITY"}


@pytest.fixture(params=["qbft", "clique"])
def network(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for files; no network is described anywhere."""
    monkeypatch.setenv("DEMO_DIR", str(tmp_path / "none"))
    return tmp_path


def run(files: Path, receipt: SealedReceipt, *more: str) -> Result:
    (files / "proof").write_bytes(receipt.proof)
    (files / "roots.json").write_text(receipt.roots.encode())
    code = receipt.promise.encode()
    options = ["--proof", str(files / "proof"), "--offline", *more]
    return CliRunner().invoke(make_app(), ["receipt", code, *options])


def roots(files: Path) -> tuple[str, str]:
    return "--roots", str(files / "roots.json")


def test_roots_from_before_the_anchor_and_the_validators_are_enough(
    files: Path, network: str
) -> None:
    receipt = sealed_receipt(network)
    alone = run(files, receipt, *roots(files), "--json")
    assert alone.exit_code == 1
    assert json.loads(alone.stdout)["reason"] == "NOT_ANCHORED"
    genesis = json.loads((DIRECTORY / f"{network}.json").read_text(encoding="ascii"))["genesis"]
    (files / "genesis.json").write_text(json.dumps(genesis))
    for named in (",".join(receipt.network.validators), str(files / "genesis.json")):
        said = run(files, receipt, *roots(files), "--validators", named, "--json")
        assert said.exit_code == 0, said.output
        details = json.loads(said.stdout)["details"]
        assert details["finality"] == FINALITY[network]
        assert details["sealed_by"].startswith("3 of 4 validators")
        assert details["seals"].startswith("judged by the 4 validators given: 0x")
        assert all(address in details["seals"] for address in receipt.network.validators)
        assert "note_signature" not in details
        assert details["late"] is False


def test_without_validators_it_says_that_nobody_judged_the_seals(files: Path) -> None:
    receipt = sealed_receipt()
    known = replace(receipt, roots=_with_anchors(receipt))
    said = run(files, known, *roots(files), "--json")
    assert said.exit_code == 0, said.output
    details = json.loads(said.stdout)["details"]
    assert details["finality"] == "DEV_FINALITY"
    assert details["seals"] == (
        "not judged: no validators were given (the proof carries 3 for QBFT_FINALITY)"
    )


def _with_anchors(receipt: SealedReceipt) -> CachedRoots:
    members = {
        member_id: replace(member, anchors=receipt.network.roots.members[member_id].anchors)
        for member_id, member in receipt.roots.members.items()
    }
    return replace(receipt.roots, members=members)


def test_late_is_told_by_the_sealed_blocks_time(files: Path) -> None:
    receipt = sealed_receipt(merge_deadline=1_700_000_000)
    named = ",".join(receipt.network.validators)
    said = run(files, receipt, *roots(files), "--validators", named)
    assert said.exit_code == 0, said.output
    assert said.stdout.startswith("PROVEN (anchored after the deadline)")


@pytest.mark.parametrize(
    ("validators", "reason"),
    [
        (recorded("clique").validators, "SEALER_UNKNOWN"),
        ([*recorded("qbft").validators, "0x" + "11" * 20], "SEALS_TOO_FEW"),
    ],
)
def test_refusals_have_their_names(files: Path, validators: list[str], reason: str) -> None:
    said = run(files, sealed_receipt(), *roots(files), "--validators", ",".join(validators))
    assert said.exit_code == 1
    assert said.stdout.startswith(f"REFUSED {reason}:")


def test_seals_alone_dont_tell_who_signs_promises(files: Path) -> None:
    receipt = sealed_receipt()
    said = run(files, receipt, "--validators", ",".join(receipt.network.validators))
    assert said.exit_code == 2
    assert "give --roots or --rpc" in said.stderr


def test_what_names_no_validators_is_told(files: Path) -> None:
    said = run(files, sealed_receipt(), *roots(files), "--validators", "0x12")
    assert said.exit_code == 2
    assert "'0x12' is no validator's address" in said.stderr
