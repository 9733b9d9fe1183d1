"""The file of the periods' keys, as an operator and a running gateway have it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway import __main__ as gateway_main
from gateway import app, periods
from gateway.app import Gateway
from gateway.settings import GatewaySettings
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY
from nodes.clock import FixedClock
from nodes.crypto.keystore import Keystore
from sandbox.enrolled import certificate_text
from tests.factories.pos import secret
from tests.factories.suites import record, sm2_private, terminal
from tests.integration.gateway.running import GATEWAY_SEED, NODE_KEY, document, play, write_files

WAY = "sm-certificate"
#: Noon, so that a day later is the next period with all its grace over.
NOON_MS = 1_790_000_000_000
DAY_MS = 86_400_000


def _config(folder: Path, **changes: Any) -> Path:
    values = {MASTER_KEY: secret(MASTER_KEY), ZONE_KEY: secret(ZONE_KEY), "message": GATEWAY_SEED}
    files = write_files(folder, values, "a passphrase")
    known = record(WAY)
    terminals = [
        {
            "terminal_id": known.terminal_id,
            "merchant_id": known.merchant_id,
            "suite": int(known.suite),
            "management": known.management.value,
            "certificate": certificate_text(known, sm2_private(WAY)),
        }
    ]
    changes = {"period_file": str(folder / "periods.json"), "terminals": terminals, **changes}
    path = folder / "gateway.json"
    path.write_text(json.dumps(document("http://127.0.0.1:9", NODE_KEY, **files, **changes)))
    return path


def test_an_operator_makes_the_file_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(_config(tmp_path))
    assert gateway_main.main(["--config", config]) == 2
    assert "python -m gateway.periods makes it" in capsys.readouterr().err
    assert periods.main(["--config", config]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'periods.json'}\n"
    assert periods.main(["--config", config]) == 2
    assert "File exists" in capsys.readouterr().err
    document = json.loads((tmp_path / "periods.json").read_text())
    assert document["period_s"] == 86_400


def test_without_a_place_for_it_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(_config(tmp_path, period_file=None))
    assert periods.main(["--config", config]) == 2
    assert "the settings name no period_file" in capsys.readouterr().err
    assert periods.main(["--config", str(tmp_path / "nosuch.json")]) == 2


def test_a_running_gateway_erases_while_nothing_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = GatewaySettings.load(_config(tmp_path))
    file = periods.make(settings, NOON_MS)
    keystore = Keystore.open(settings.key_file, "a passphrase")
    monkeypatch.setattr(app, "_ERASE_EVERY_S", 0.02)
    clock = FixedClock(NOON_MS)

    async def scenario() -> None:
        gateway = Gateway(settings, keystore, clock=clock)
        await gateway.start()
        try:
            pos = terminal(WAY, gateway.pos_port)
            assert (await pos.sign_on()).approved
            assert (await pos.echo()).approved
            first = file.read_bytes()
            clock.advance(2 * DAY_MS)
            for _ in range(1_000):
                await asyncio.sleep(0.02)
                if file.read_bytes() != first:
                    break
            # The keys of that day are gone with it; a sign-on gives those of today.
            assert (await pos.echo()).code == "A0"
            assert (await pos.sign_on()).approved
            assert (await pos.echo()).approved
            await pos.close()
        finally:
            await gateway.close()

    play(scenario)


@pytest.mark.parametrize(("now_ms", "code"), [(NOON_MS, "00"), (2_500_000_000_000, "A0")])
def test_a_certificate_in_the_settings_has_its_time(tmp_path: Path, now_ms: int, code: str) -> None:
    settings = GatewaySettings.load(_config(tmp_path, period_file=None))
    keystore = Keystore.open(settings.key_file, "a passphrase")

    async def scenario() -> None:
        gateway = Gateway(settings, keystore, clock=FixedClock(now_ms))
        await gateway.start()
        try:
            pos = terminal(WAY, gateway.pos_port)
            assert (await pos.sign_on()).code == code
            await pos.close()
        finally:
            await gateway.close()

    play(scenario)
