"""What a checking command is told is named where it is wrong, before anything is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sandbox.cli import make_app

NOWHERE = ("--dsn", "postgresql://nobody@127.0.0.1:1/nothing")
MEMBER = ("--member", "aurora")
#: EIP-55's first example with another last letter.
SLIP = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeF"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["verify", str(Path(__file__))], "--anchor-registry"),
        (["verify-ledger", *MEMBER, *NOWHERE], "--anchor-registry"),
        (["check-invariants", *MEMBER, *NOWHERE], "--anchor-registry"),
        (["roots", "unwritten.json"], "--anchor-registry"),
        (["roots", "unwritten.json"], "--omission-registry"),
        (["audit", "--acquirer", "meridian", "--issuer", "aurora"], "--anchor-registry"),
        (["audit", "--acquirer", "meridian", "--issuer", "aurora"], "--close-registry"),
        (["audit", "--acquirer", "meridian", "--issuer", "aurora"], "--omission-registry"),
        (["receipt", "code"], "--anchor-registry"),
        (["receipt", "code"], "--omission-registry"),
    ],
)
@pytest.mark.parametrize("address", ["0x12", "registry", SLIP])
def test_what_is_no_address_is_named_with_its_option(
    command: list[str], option: str, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(make_app(), [*command, option, address])
    assert done.exit_code == 2
    assert f"{option} '{address}' is no contract's address" in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("token", ["4929130000000001", "zz", "", "00" * 15, "00" * 17])
def test_what_is_no_card_token_is_refused_and_not_repeated(token: str) -> None:
    """It could be a card's number."""
    done = CliRunner().invoke(
        make_app(),
        ["erase", *MEMBER, "--card-token", token, "--reason", "r", "--by", "b", *NOWHERE],
    )
    assert done.exit_code == 2
    assert "--card-token: a card token is 16 bytes" in done.output
    assert not token or token not in done.output
