"""What is wrong with a gateway's settings is named by every command that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import gateway.__main__
import gateway.ceremony
import gateway.certify
import gateway.http.__main__
import gateway.iso8583.__main__
import gateway.periods
import gateway.provision

NODE_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw().hex()
SECRET = "a passphrase that nobody sees"
COMMANDS: list[tuple[ModuleType, list[str]]] = [
    (gateway.__main__, []),
    (gateway.http.__main__, []),
    (gateway.periods, []),
    (gateway.provision, []),
    (gateway.ceremony, ["--terminal", "POS00001", "--components", "a", "b"]),
    (gateway.certify, ["--authority", "ca.pem"]),
]


def settings(folder: Path, **changes: Any) -> Path:
    """Sound settings but for the changes; a keystore doesn't exist."""
    passphrase = folder / "passphrase"
    passphrase.write_text(SECRET)
    document = {
        "port": 0,
        "http_port": 0,
        "api_port": 0,
        "api_url": "http://127.0.0.1:1",
        "acquirer": "meridian",
        "node_url": "http://127.0.0.1:1",
        "node_message_key": NODE_KEY,
        "key_id": "gateway:meridian",
        "key_file": str(folder / "keystore"),
        "passphrase_file": str(passphrase),
        "period_file": str(folder / "periods.json"),
        "pkcs11": {"library": "/nonexistent.so", "token": "t", "pin_file": str(passphrase)},
        "terminals": [],
    }
    path = folder / "gateway.json"
    path.write_text(json.dumps(document | changes))
    return path


@pytest.mark.parametrize(("command", "more"), COMMANDS)
def test_each_command_names_file_and_field(
    command: ModuleType,
    more: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = settings(tmp_path, key_id=SECRET, deadline_ms="soon")
    assert command.main(["--config", str(wrong), *more]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in said] == [str(wrong)] * 2
    assert said[0].startswith(f"{wrong}: key_id: ")
    assert said[1].startswith(f"{wrong}: deadline_ms: ")
    assert SECRET not in "".join(said), "values aren't shown"
    wrong.write_text("{")
    assert command.main(["--config", str(wrong), *more]) == 2
    assert capsys.readouterr().err.startswith(f"{wrong}: Invalid JSON")
    assert command.main(["--config", str(tmp_path / "none"), *more]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/none: No such file or directory\n"
    assert command.main(["--config", str(settings(tmp_path)), *more]) == 2
    assert "keystore" in capsys.readouterr().err
    assert not (tmp_path / "ca.pem").exists()


def test_a_passphrase_that_is_no_text_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = settings(tmp_path)
    (tmp_path / "passphrase").write_bytes(b"\xff\xfe")
    assert gateway.periods.main(["--config", str(path)]) == 2
    assert capsys.readouterr().err == f"passphrase_file {tmp_path}/passphrase: no text\n"


def test_a_dialect_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.json"
    for content, said in ((b"\xff", "no text in UTF-8"), (b"[]", "not a JSON object")):
        file.write_bytes(content)
        path = settings(tmp_path, listeners=[{"port": 0, "dialect": str(file)}])
        assert gateway.__main__.main(["--config", str(path)]) == 2
        assert capsys.readouterr().err.startswith(f"{path}: dialect own.json: {said}")


def test_specs_that_cannot_be_written_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gateway.iso8583.__main__.main([str(tmp_path / "none")]) == 2
    assert f"{tmp_path}/none/iso8583-specs: No such file" in capsys.readouterr().err
