"""Keys of PIN pads on the HTTP API: made anew from the period's key, and not after it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from gateway.http.bodies import PinBody, PinKeyBody
from gateway.http.pins import LIFETIME_S, PinKeys
from gateway.http.problems import ApiProblem
from gateway.terminal_keys.enrolment import gateway_public_key
from gateway.terminal_keys.periods import PeriodKeys
from gateway.terminal_keys.ring import MASTER_KEY, SIGNING_KEY, SIGNING_LABEL, ZONE_KEY
from nodes.acquiring.online.model import FrontKey
from nodes.crypto.hsm import SoftwareHsm
from sandbox.cards.pin_pad import PinPad
from tests.factories.pos import secret

DAY_S = 86_400
#: Five minutes before the end of a period.
LATE_S = 20_700 * DAY_S - 300
PAN = "6226090000000001"
CALLER = FrontKey("pad-1", "SHOP0001", "SHOP00000000001", "ES256", bytes(64))


def _hsm() -> SoftwareHsm:
    hsm = SoftwareHsm({MASTER_KEY: secret(MASTER_KEY), ZONE_KEY: secret(ZONE_KEY)})
    hsm.derive_sm2(MASTER_KEY, SIGNING_LABEL, SIGNING_KEY)
    return hsm


def _front(file: Path, now_s: int) -> PinKeys:
    """A front process that has just started."""
    hsm = _hsm()
    return PinKeys(hsm, DAY_S, PeriodKeys(hsm, file, DAY_S, now_s * 1000))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "periods.json"
    PeriodKeys.create(_hsm(), path, DAY_S, LATE_S * 1000)
    return path


def _sealed(front: PinKeys, now_s: int) -> PinBody:
    pad = PinPad(gateway_public_key(_hsm()))
    answer = front.grant(PinKeyBody(pad.request()["public_key"]), CALLER, now_s)
    pad.accept(
        CALLER.key_id,
        {
            "session": answer.session,
            "key": base64.b64encode(answer.key).decode(),
            "check_value": answer.check_value,
            "signature": base64.b64encode(answer.signature).decode(),
        },
    )
    sealed = pad.seal("123456", PAN)
    return PinBody(sealed["session"], base64.b64decode(sealed["block"]))


def test_another_front_knows_the_key_until_the_session_ends(file: Path) -> None:
    """Also over the end of a period, and in a process that started after it."""
    front = _front(file, LATE_S)
    pin = _sealed(front, LATE_S)
    block = front.translated(pin, CALLER, PAN, LATE_S)
    last_s = LATE_S + LIFETIME_S - 1
    for other in (_front(file, LATE_S), _front(file, last_s)):
        other.advance(last_s * 1000)
        assert other.translated(pin, CALLER, PAN, last_s) == block
    with pytest.raises(ApiProblem, match="pin-key-expired"):
        front.translated(pin, CALLER, PAN, last_s + 1)


def test_who_gets_all_that_a_gateway_has_later_opens_no_recorded_pin(file: Path) -> None:
    front = _front(file, LATE_S)
    pin = _sealed(front, LATE_S)
    assert front.translated(pin, CALLER, PAN, LATE_S)
    # Two days on the file is another one; with master key, file and the clock's own word:
    later_s = LATE_S + 2 * DAY_S
    stolen = _front(file, later_s)
    with pytest.raises(ApiProblem, match="pin-key-expired"):
        stolen.translated(pin, CALLER, PAN, LATE_S)
    with pytest.raises(ApiProblem, match="keys-unavailable"):
        _sealed(stolen, LATE_S)
    assert stolen.translated(_sealed(stolen, later_s), CALLER, PAN, later_s)


def test_a_running_front_erases_by_itself(file: Path) -> None:
    front = _front(file, LATE_S)
    pin = _sealed(front, LATE_S)
    before = file.read_bytes()
    front.advance((LATE_S + 2 * DAY_S) * 1000)
    assert file.read_bytes() != before
    with pytest.raises(ApiProblem, match="pin-key-expired"):
        front.translated(pin, CALLER, PAN, LATE_S)


def test_without_a_period_file_the_master_key_gives_them(file: Path) -> None:
    plain = PinKeys(_hsm(), DAY_S)
    pin = _sealed(plain, LATE_S)
    assert PinKeys(_hsm(), DAY_S).translated(pin, CALLER, PAN, LATE_S)
    plain.advance(LATE_S * 1000)
    with pytest.raises(ApiProblem, match="pin-block-invalid"):
        _front(file, LATE_S).translated(pin, CALLER, PAN, LATE_S)
