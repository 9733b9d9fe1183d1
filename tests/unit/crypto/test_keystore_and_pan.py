"""Secrets stay secret; card numbers are found, sealed and shown as the network says."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from nodes.crypto.keystore import Keystore, KeystoreError
from nodes.crypto.pan import PanVault, is_valid_pan, luhn_digit, mask, random_pan


def test_a_keystore_gives_back_what_was_put_in_and_shows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    Keystore.create(path, "correct horse", {"note": b"\x01" * 32, "zone:aurora": b"\x02" * 16})
    opened = Keystore.open(path, "correct horse")
    assert opened.secret("zone:aurora") == b"\x02" * 16
    assert opened.names() == {"note", "zone:aurora"}
    assert (b"\x01" * 32).hex() not in path.read_text() + repr(opened)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_wrong_passphrase_an_altered_file_and_a_stray_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    Keystore.create(path, "right", {"note": b"secret"})
    with pytest.raises(KeystoreError, match="wrong passphrase"):
        Keystore.open(path, "wrong")
    document = json.loads(path.read_text())
    altered = "00" if document["ciphertext"][:2] != "00" else "01"
    document["ciphertext"] = altered + document["ciphertext"][2:]
    path.write_text(json.dumps(document))
    with pytest.raises(KeystoreError, match="altered file"):
        Keystore.open(path, "right")
    path.write_text("{}")
    with pytest.raises(KeystoreError, match="not a keystore"):
        Keystore.open(path, "right")
    with pytest.raises(KeystoreError, match="No such file"):
        Keystore.open(tmp_path / "none", "right")


def test_a_keystore_is_never_overwritten_and_names_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    made = Keystore.create(path, "right", {"note": b"secret"})
    with pytest.raises(FileExistsError):
        Keystore.create(path, "right", {})
    with pytest.raises(KeystoreError, match="'operator'"):
        made.secret("operator")


@pytest.mark.parametrize(
    ("body", "digit"), [("7992739871", "3"), ("411111111111111", "1"), ("37828224631000", "5")]
)
def test_the_check_digit_is_that_of_iso_7812(body: str, digit: str) -> None:
    assert luhn_digit(body) == digit


@given(st.text("0123456789", min_size=11, max_size=18), st.integers(0, 17), st.integers(1, 9))
def test_every_single_digit_error_is_noticed(body: str, position: int, shift: int) -> None:
    pan = body + luhn_digit(body)
    assert is_valid_pan(pan)
    position %= len(pan)
    wrong = str((int(pan[position]) + shift) % 10)
    assert not is_valid_pan(pan[:position] + wrong + pan[position + 1 :])


@pytest.mark.parametrize("pan", ["", "4" * 11, "4" * 20, "411111111111111x", "４111111111111111"])
def test_what_is_no_card_number_is_refused(pan: str) -> None:
    assert not is_valid_pan(pan)


def test_a_sealed_number_opens_only_with_its_token() -> None:
    vault = PanVault(b"\x01" * 32, b"\x02" * 32)
    pan, token = random_pan("62230010"), b"\x03" * 16
    assert pan.startswith("62230010")
    assert is_valid_pan(pan)
    assert len(pan) == 16
    sealed = vault.seal(pan, token)
    assert vault.open(sealed, token) == pan
    assert pan.encode() not in sealed
    assert sealed != vault.seal(pan, token)
    with pytest.raises(InvalidTag):
        vault.open(sealed, b"\x04" * 16)
    assert vault.lookup(pan) != PanVault(b"\x01" * 32, b"\x03" * 32).lookup(pan)
    assert mask(pan) == pan[:6] + "******" + pan[-4:]
