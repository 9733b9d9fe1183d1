"""Governance of the members by three governors, over the command, as people would do it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nodes.chain.directory import Directory
from nodes.chain.signer import LocalSigner
from nodes.crypto.keystore import Keystore
from sandbox.cli import make_app
from tests.factories.chain import ChainFixture, start_chain

NEW_KEY = "ab" * 32


@dataclass
class Governed:
    """A chain with a member, three governors' keys in files, and the command."""

    chain: ChainFixture
    directory: Path
    governors: list[LocalSigner]

    def run(self, *arguments: str, asks_chain: bool = True) -> Result:
        chain = ["--rpc", self.chain.rpc_url, "--member-registry", self.chain.member_registry]
        return CliRunner().invoke(
            make_app(), ["govern", *arguments, *(chain if asks_chain else [])]
        )

    def key(self, name: str) -> str:
        return str(self.directory / name)

    def sign(self, file: Path, *names: str) -> None:
        for name in names:
            done = self.run("sign", str(file), "--key-file", self.key(name), asks_chain=False)
            assert done.exit_code == 0, done.output


@pytest.fixture
def governed(tmp_path: Path) -> Iterator[Governed]:
    (tmp_path / "chain").mkdir()
    chain = start_chain(tmp_path / "chain")
    try:
        chain.add_member("aurora", roles=("issuer",), bins=["622300"])
        governors = [LocalSigner(secret) for secret in _keys(tmp_path)]
        (tmp_path / "operator").write_text(secrets.token_hex(32))
        yield Governed(chain, tmp_path, governors)
    finally:
        chain.stop()


def _keys(directory: Path) -> Iterator[bytes]:
    for name in ("ada", "bo", "cy"):
        secret = secrets.token_bytes(32)
        (directory / name).write_text("0x" + secret.hex() + "\n")
        yield secret


def _owner_keystore(governed: Governed) -> Path:
    """The present owner's key as a sandbox keeps it."""
    place = governed.directory / "governance"
    place.mkdir()
    (place / "passphrase").write_text("words")
    secret = bytes(governed.chain.deployer._account.key)
    Keystore.create(place / "keystore", "words", {"operator": secret})
    return place


def found(governed: Governed) -> tuple[Path, Path]:
    """A quorum, two of three, that governs; the keystore of who sends, and the acceptance."""
    keys, file = _owner_keystore(governed), governed.directory / "accept.json"
    listed = [part for one in governed.governors for part in ("--governor", one.address)]
    made = governed.run(
        *("found", *listed, "--threshold", "2", "--out", str(file), "--keystore", str(keys))
    )
    assert made.exit_code == 0, made.output
    assert "handed over to the quorum" in governed.run("show").output
    early = governed.run("execute", str(file), "--keystore", str(keys))
    assert (early.exit_code, "TooFewSignatures" in early.stderr) == (1, True)
    governed.sign(file, "ada", "cy")
    done = governed.run("execute", str(file), "--keystore", str(keys))
    assert done.exit_code == 0, done.output
    return keys, file


def test_a_quorum_rotates_a_members_key(governed: Governed) -> None:
    keys, accepted = found(governed)
    shown = governed.run("show").output
    assert "governed by the quorum" in shown
    assert "2 of 3" in shown
    again = governed.run("execute", str(accepted), "--keystore", str(keys))
    assert (again.exit_code, "WrongNonce" in again.stderr) == (1, True)

    file = governed.directory / "rotate.json"
    made = governed.run("propose", "rotateKey", "aurora", "note", NEW_KEY, "--out", str(file))
    assert made.exit_code == 0, made.output
    governed.sign(file, "bo")
    alone = governed.run("execute", str(file), "--keystore", str(keys))
    assert (alone.exit_code, "TooFewSignatures" in alone.stderr) == (1, True)
    governed.sign(file, "bo")  # twice is once
    assert len(json.loads(file.read_text())["signatures"]) == 1
    governed.sign(file, "ada")
    done = governed.run("execute", str(file), "--keystore", str(keys))
    assert done.exit_code == 0, done.output
    directory = Directory(governed.chain.client(), governed.chain.member_registry)
    directory.refresh()
    member = directory.member("aurora")
    assert member is not None
    periods = member.note_keys
    assert [period.key.hex() for period in periods][-1] == NEW_KEY
    assert len(periods) == 2
    # The old key keeps its interval of blocks, which ends where the new one's begins.
    assert periods[0].last == periods[1].first


def test_one_address_no_longer_governs_and_governors_are_changed_by_themselves(
    governed: Governed,
) -> None:
    keys, _ = found(governed)
    file = governed.directory / "change.json"
    ada, bo, _ = (one.address for one in governed.governors)
    changed = governed.run("propose", "setGovernors", f"{ada},{bo}", "1", "--out", str(file))
    assert changed.exit_code == 0, changed.output
    governed.sign(file, "bo", "cy")
    done = governed.run("execute", str(file), "--keystore", str(keys))
    assert done.exit_code == 0, done.output
    assert "1 of 2" in governed.run("show").output
    governed.run("propose", "revoke", "aurora", "--out", str(file))
    governed.sign(file, "cy")
    gone = governed.run("execute", str(file), "--keystore", str(keys))
    assert (gone.exit_code, "NotGovernor" in gone.stderr) == (1, True)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("arguments", ["aurora", "message", NEW_KEY], "another one than its function"),
        ("data", "00", "another one than its function"),
        ("nonce", 9, "isn't one over this action"),
        ("deadline", 1, "isn't one over this action"),
        ("chain_id", 1, "isn't one over this action"),
    ],
)
def test_what_a_governor_reads_is_what_is_signed(
    governed: Governed, name: str, value: object, said: str
) -> None:
    found(governed)
    file = governed.directory / "rotate.json"
    governed.run("propose", "rotateKey", "aurora", "note", NEW_KEY, "--out", str(file))
    governed.sign(file, "ada")
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    refused = governed.run("sign", str(file), "--key-file", governed.key("bo"), asks_chain=False)
    assert (refused.exit_code, said in refused.stderr) == (1, True)


def test_what_is_wrong_is_named(governed: Governed) -> None:
    one = governed.run("propose", "revoke", "aurora")
    assert (one.exit_code, "no quorum governs" in one.stderr) == (2, True)
    found(governed)
    for arguments, said in (
        (["setFee", "1"], "'setFee' is no action"),
        (["rotateKey", "aurora"], "rotateKey takes MEMBER KIND KEY"),
        (["rotateKey", "aurora", "pin", NEW_KEY], "'pin' is no kind of key"),
        (["rotateKey", "aurora", "note", "ab"], "neither a key of 32 bytes"),
        (["setRoles", "aurora", "issuer,king"], "'king' is no role"),
    ):
        refused = governed.run("propose", *arguments)
        assert (refused.exit_code, said in refused.stderr) == (2, True), refused.stderr
    missing = governed.run("sign", "nowhere.json", "--key-file", "x", asks_chain=False)
    assert (missing.exit_code, "nowhere.json" in missing.stderr) == (2, True)
