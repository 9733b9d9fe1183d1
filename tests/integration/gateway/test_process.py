"""`python -m gateway --config F`, as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY, tmk_name
from sandbox.enrolled import certificate_text
from sandbox.terminal import Terminal
from tests.factories.pos import CARD, MERCHANT, PIN, secret, tmk
from tests.factories.suites import record, sm2_private
from tests.integration.gateway.running import (
    GATEWAY_SEED,
    NODE_KEY,
    TERMINALS,
    document,
    write_files,
)

PASSPHRASE = "a passphrase of a test"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _config(folder: Path, **changes: object) -> Path:
    values = {name: secret(name) for name in (MASTER_KEY, ZONE_KEY)}
    values |= {tmk_name(name): tmk(name) for name in TERMINALS}
    files = write_files(folder, {**values, "message": GATEWAY_SEED}, PASSPHRASE)
    path = folder / "gateway.json"
    path.write_text(json.dumps({**document("http://127.0.0.1:9", NODE_KEY), **files, **changes}))
    return path


def _run(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "--config", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def _certificate(terminal_id: str) -> str:
    known = replace(record("sm-certificate"), terminal_id=terminal_id)
    return certificate_text(known, sm2_private("sm-certificate"))


def _wait_healthy(port: int) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
                assert answer.status == 200
                return
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    pos_port, http_port = _free_port(), _free_port()
    process = _run(_config(tmp_path, port=pos_port, http_port=http_port))
    try:
        _wait_healthy(http_port)

        async def scenario() -> str:
            async with Terminal(
                "POS00001", MERCHANT, tmk("POS00001"), "127.0.0.1", pos_port, timeout_s=5
            ) as pos:
                assert (await pos.sign_on()).approved
                return (await pos.purchase(CARD, 1250, PIN)).code

        assert asyncio.run(scenario()) == "96"  # no node behind it
        process.send_signal(number)
        output, errors = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert output == ""
    events = [json.loads(line)["event"] for line in errors.splitlines()]
    assert events[0] == "gateway_listening"
    assert events[-1] == "gateway_stopped"
    for private in (CARD.pan, PIN, PASSPHRASE, GATEWAY_SEED.hex(), tmk("POS00001").hex()):
        assert private not in errors


_POS = {"terminal_id": "POS00009", "merchant_id": MERCHANT}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"port": 70_000}, "port"),
        ({"nonsense": 1}, "nonsense"),
        ({"currencies": ["XXX"]}, "unknown currencies"),
        ({"node_message_key": "zz"}, "node_message_key: an Ed25519 public key is 64"),
        ({"node_message_key": "00" * 32}, "a point of small order"),
        ({"key_file": "/nonexistent/keystore"}, "keystore"),
        ({"terminals": [{"terminal_id": "POS7", "merchant_id": MERCHANT}]}, "terminal_id"),
        (
            {"terminals": [{**_POS, "management": "dukpt"}]},
            "terminal POS00009: DUKPT is of the AES suite",
        ),
        (
            {"terminals": [{**_POS, "management": "sm2", "certificate": "5a01c0ffee"}]},
            "not a CERTIFICATE in PEM or base64",
        ),
        (
            {"terminals": [{**_POS, "management": "sm2", "certificate": _certificate("POS00008")}]},
            "terminal POS00009: its certificate is of 'POS00008'",
        ),
        (
            {"terminals": [{**_POS, "certificate": _certificate("POS00009")}]},
            "terminal POS00009: a certificate is of an SM2 terminal",
        ),
        ({"listeners": [{"port": 0, "dialect": "morse"}]}, "dialect morse: one of"),
        ({"listeners": [{"port": 0, "dialect": "bcd-tpdu"}]}, "a dialect has two listeners"),
        ({"node_url": "ftp://node"}, "node_url: is an http or https URL without credentials"),
        ({"node_url": "http://127.0.0.1:70000"}, "node_url: its host or port can't be read"),
        ({"log_level": "shout"}, "log_level: Input should be"),
        ({"host": "no.such.host.invalid"}, "host no.such.host.invalid: "),
    ],
)
def test_settings_that_cannot_work_end_it_with_a_reason(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    process = _run(_config(tmp_path, **changes))
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert said in errors
    assert "Traceback" not in errors
    assert PASSPHRASE not in errors
    assert GATEWAY_SEED.hex() not in errors


def test_a_wrong_passphrase_ends_it(tmp_path: Path) -> None:
    path = _config(tmp_path)
    (tmp_path / "gateway.passphrase").write_text("another one")
    process = _run(path)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "passphrase" in errors
    assert "another one" not in errors


def test_a_port_in_use_ends_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = _run(_config(tmp_path, port=taken.getsockname()[1]))
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "Traceback" not in errors
