"""A demo directory: whose it is, what it remembers, what is never used twice."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from nodes.crypto.pan import is_valid_pan
from sandbox.network import (
    ACQUIRER,
    ISSUERS,
    PORTS,
    AlreadyRunningError,
    DemoDirectory,
    NotADemoDirectoryError,
    choose_ports,
)
from sandbox.traffic import BusinessDay


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("do not delete")
    with pytest.raises(NotADemoDirectoryError), DemoDirectory(tmp_path).locked(fresh=True):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["precious"]
    assert precious.read_text() == "do not delete"


def test_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(NotADemoDirectoryError), DemoDirectory(file).locked(fresh=True):
        pass


def test_the_same_network_is_there_again(tmp_path: Path) -> None:
    directory = DemoDirectory(tmp_path / "demo")
    with directory.locked() as state:
        first = json.dumps(state.__dict__)
        operator = directory.keystore("aurora").secret("operator")
    with directory.locked() as state:
        assert json.dumps(state.__dict__) == first
        assert directory.keystore("aurora").secret("operator") == operator


def test_fresh_makes_another_network(tmp_path: Path) -> None:
    directory = DemoDirectory(tmp_path / "demo")
    with directory.locked() as state:
        cards = [card["pan"] for card in state.cards]
    with directory.locked(fresh=True) as state:
        assert not {card["pan"] for card in state.cards} & set(cards)


def test_only_one_launcher_at_a_time(tmp_path: Path) -> None:
    directory = DemoDirectory(tmp_path / "demo")
    with directory.locked(), pytest.raises(AlreadyRunningError):
        with DemoDirectory(tmp_path / "demo").locked(fresh=True):
            pass
    with directory.locked():
        pass


def test_secrets_are_readable_by_the_owner_alone(tmp_path: Path) -> None:
    directory = DemoDirectory(tmp_path / "demo")
    with directory.locked():
        files = [path for path in directory.path.rglob("*") if path.is_file()]
    assert mode(directory.path) == 0o700
    assert {path.name for path in files} >= {"state.json", "keystore", "passphrase"}
    assert {mode(path) for path in files} == {0o600}


def test_no_secret_stands_in_the_clear_beside_the_keystores(tmp_path: Path) -> None:
    directory = DemoDirectory(tmp_path / "demo")
    with directory.locked():
        stores = ("aurora", "borealis", "meridian", "harbor", "gateway", "governance")
        secrets = {
            value
            for owner in stores
            for name in directory.keystore(owner).names()
            if not name.startswith("tmk:")  # the terminals' own, which state.json holds for them
            for value in [directory.keystore(owner).secret(name)]
        }
        for path in directory.path.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert not [
                    value
                    for value in secrets
                    if value in content or value.hex().encode() in content
                ]


def test_pairs_share_their_zone_key(tmp_path: Path) -> None:
    directory = DemoDirectory(tmp_path / "demo")
    with directory.locked():
        acquirer = directory.keystore(ACQUIRER)
        zones = [acquirer.secret(f"zone:{issuer}") for issuer in ISSUERS]
        for issuer, zone in zip(ISSUERS, zones, strict=True):
            assert directory.keystore(issuer).secret(f"zone:{ACQUIRER}") == zone
        assert directory.keystore("gateway").secret("zone") == acquirer.secret("zone:gateway")
        assert len({*zones, acquirer.secret("zone:gateway")}) == len(ISSUERS) + 1


def test_keys_that_were_being_made_when_the_demo_was_killed_are_made_anew(tmp_path: Path) -> None:
    directory = DemoDirectory(tmp_path / "demo")
    with directory.locked():
        pass
    directory.keys.rename(directory.path / "keys.new")
    (directory.path / "keys.new" / "aurora" / "keystore").unlink()
    with directory.locked():
        assert directory.keystore("aurora").secret("operator")
    assert not (directory.path / "keys.new").exists()


def test_cards_are_numbers_of_their_issuer_with_a_check_digit(tmp_path: Path) -> None:
    with DemoDirectory(tmp_path / "demo").locked() as state:
        for card in state.cards:
            assert is_valid_pan(card["pan"])
            assert card["pan"].startswith(
                {"aurora": "62230010", "borealis": "622400"}[card["member"]]
            )
        assert {card["member"] for card in state.cards} == set(ISSUERS)


def test_ports_are_kept_unless_someone_took_them() -> None:
    ports: dict[str, int] = {}
    choose_ports(ports)
    assert len(set(ports.values())) == len(PORTS)
    before = dict(ports)
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", ports["console"]))
        squatter.listen()
        choose_ports(ports)
    assert ports.pop("console") != before.pop("console")
    assert ports == before


def test_a_day_never_takes_the_numbers_of_another(tmp_path: Path) -> None:
    directory = DemoDirectory(tmp_path / "demo")
    batches = set()
    for number in range(1, 4):
        with directory.locked() as state:
            day = BusinessDay(directory, state, lambda step: None).day  # and is broken off
            batches.add(day.batch)
            assert day.number == number
    assert len(batches) == 3


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    directory = DemoDirectory(tmp_path / "demo")
    with directory.locked():
        pass
    file = directory.path / "state.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "version": 99}))
    with pytest.raises(NotADemoDirectoryError, match="--fresh"), directory.locked():
        pass
    with directory.locked(fresh=True) as state:
        assert state.ports


def test_a_directory_that_is_not_ours_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with DemoDirectory(tmp_path / "a" / "demo").locked():
        pass
    assert mode(tmp_path) == 0o755
    assert os.listdir(tmp_path / "a") == ["demo"]
