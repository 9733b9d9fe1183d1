"""A gateway whose master key lies in a PKCS#11 token (SoftHSM2): provisioned, started, used."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from gateway import periods, provision
from gateway.app import Gateway
from gateway.pos.session import Forward
from gateway.settings import GatewaySettings
from gateway.terminal_keys.enrolment import enrol
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY
from nodes.clock import FixedClock
from nodes.crypto.hsm import Algorithm, SoftwareHsm
from nodes.crypto.keystore import Keystore
from sandbox.enrolled import certificate_text
from sandbox.secure_module import TerminalKeys
from sandbox.terminal import Terminal
from tests.factories import tokens
from tests.factories.pos import CARD, NOW_MS, PIN
from tests.factories.suites import WAYS, record, sm2_private
from tests.integration.gateway.running import NODE_KEY, document, write_files
from tests.unit.gateway.test_suites import NOW, sign_on


def _settings(folder: Path, files: dict[str, str], label: str) -> GatewaySettings:
    (folder / "pin").write_text(tokens.PIN)
    token = {"library": str(tokens.library()), "token": label, "pin_file": str(folder / "pin")}
    terminals = [
        {
            "terminal_id": known.terminal_id,
            "merchant_id": known.merchant_id,
            "suite": int(known.suite),
            "management": known.management.value,
            "certificate": certificate_text(known, sm2_private(way)),
        }
        for way, known in ((way, record(way)) for way in WAYS)
    ]
    changes = {**files, "pkcs11": token, "terminals": terminals}
    return GatewaySettings.model_validate(document("http://127.0.0.1:9", NODE_KEY, **changes))


def _keys(way: str, master: bytes) -> TerminalKeys:
    """The terminal's, from the master key that is in the token now."""
    known = record(way)
    enrolment = enrol(SoftwareHsm({MASTER_KEY: master}, {MASTER_KEY: Algorithm.AES}), known)
    entered = TerminalKeys.from_components(
        known.suite, known.management, enrolment.components, enrolment.check_value
    )
    return replace(
        entered,
        key_id=enrolment.key_id,
        sm2_private=sm2_private(way),
        certificate=known.certificate,
        gateway_public_key=enrolment.gateway_public_key,
    )


def test_a_gateway_serves_every_suite_from_a_token(tmp_path: Path) -> None:
    if tokens.library() is None:
        pytest.skip("SoftHSM2 isn't installed here")
    shared = tokens.session()  # sets the library up; this test stores under the label it gave
    for held in shared.get_objects():
        held.destroy()
    assert os.environ["SOFTHSM2_CONF"]
    master, zone = secrets.token_bytes(16), secrets.token_bytes(16)
    values = {MASTER_KEY: master, ZONE_KEY: zone, "message": bytes(range(32))}
    files = write_files(tmp_path, values, "a passphrase")
    settings = _settings(tmp_path, files, tokens.TOKEN)

    path = provision.provision(settings)
    with pytest.raises(ValueError, match="is there already"):
        provision.provision(settings)
    keystore = Keystore.open(path, "a passphrase")
    assert MASTER_KEY not in keystore.names()
    assert zone not in keystore.secret(ZONE_KEY)
    assert keystore.secret("message") == values["message"]

    # The periods' keys lie under the token's key, too.
    settings = settings.model_copy(
        update={"key_file": path, "period_file": tmp_path / "periods.json"}
    )
    periods.make(settings, NOW_MS)
    gateway = Gateway(settings, keystore, clock=FixedClock(NOW_MS))
    issuer = SoftwareHsm({"zone": zone, "pin_lookup": b"l" * 32})
    for way in WAYS:
        known = record(way)
        pos = Terminal(
            known.terminal_id, known.merchant_id, b"", "", 0, keys=_keys(way, master), cover=True
        )
        if pos.module.signs_on:
            sign_on(gateway.session, pos)
        message = pos.request("0200", "000000", CARD, 1250, PIN, now=NOW)
        step = gateway.session.receive(pos.seal(message)[2:], NOW_MS)
        assert isinstance(step, Forward), way
        assert step.request.pan == CARD.pan
        assert step.request.pin_block == issuer.seal_pin("zone", PIN, CARD.pan)


def test_what_cannot_be_provisioned_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_files(tmp_path, {"message": bytes(32)}, "a passphrase")
    config = tmp_path / "gateway.json"
    plain = document("http://127.0.0.1:9", NODE_KEY, **files)
    config.write_text(GatewaySettings.model_validate(plain).model_dump_json())
    assert provision.main(["--config", str(config)]) == 2
    assert "no PKCS#11 token" in capsys.readouterr().err
    assert provision.main(["--config", str(tmp_path / "nosuch.json")]) == 2
    assert "nosuch.json" in capsys.readouterr().err
