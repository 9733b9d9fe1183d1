"""The periods' keys: what a gateway erases can't be had again, and all gateways still agree."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from gateway.iso8583 import codec
from gateway.pos.session import Forward, Reply, Session
from gateway.pos.translate import FINGERPRINT_KEY, FINGERPRINT_LABEL, Policy
from gateway.terminal_keys import periods, tlv
from gateway.terminal_keys.periods import PeriodFileUnusable, PeriodKeys
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY, KeyRing
from nodes.crypto.hsm import CoverInvalid, KeyUnavailable, SoftwareHsm
from sandbox.terminal import Terminal
from tests.factories.pos import DEADLINE_MS, NOW_MS, secret
from tests.factories.suites import record, terminal, terminal_id
from tests.unit.gateway.test_suites import code, purchase, receive, sign_on

PERIOD_S = 86_400
DAY_MS = 1000 * PERIOD_S
MINUTE_MS = 60_000
WAY = "sm-certificate"


def hsm() -> SoftwareHsm:
    """All that follows from the master key is in here, and nothing else."""
    made = SoftwareHsm({MASTER_KEY: secret(MASTER_KEY), ZONE_KEY: secret(ZONE_KEY)})
    made.derive(MASTER_KEY, FINGERPRINT_LABEL, FINGERPRINT_KEY)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "periods.json"
    PeriodKeys.create(hsm(), path, PERIOD_S, NOW_MS)
    return path


class Gateway:
    """A session over a file of periods' keys, and its parts."""

    def __init__(self, path: Path, now_ms: int = NOW_MS) -> None:
        self.hsm = hsm()
        self.keys = PeriodKeys(self.hsm, path, PERIOD_S, now_ms)
        self.ring = KeyRing(self.hsm, [record(WAY)], PERIOD_S, periods=self.keys)
        policy = Policy(frozenset({"CNY"}), 10_000_000_000, DEADLINE_MS)
        self.session = Session(self.hsm, self.ring, policy)


def covered_purchase(pos: Terminal) -> tuple[bytes, bytes, bytes]:
    """A purchase's frame, its cover in DE62, and what the cover is bound to."""
    message = purchase(pos)
    values = tlv.read(message.binary[62])
    assert values is not None
    bound = f"{message.mti}{message.text[11]}{message.text[41]}".encode()
    return pos.seal(message), values[tlv.COVER], bound


def opens(gateway: Gateway, covered: bytes, bound: bytes, period: int) -> bool:
    """Whether whoever has all that this gateway has can read what was recorded in a period."""
    # As KeyRing derives a data key.
    label = b"countersign/data/1" + terminal_id(WAY).encode() + period.to_bytes(8, "big")
    for parent in (MASTER_KEY, *(f"period:{number}" for number in range(period - 2, period + 9))):
        try:
            gateway.hsm.derive(parent, label, "tried")
            gateway.hsm.uncover("tried", covered, bound)
        except (CoverInvalid, KeyUnavailable):
            continue
        return True
    return False


def test_what_was_recorded_in_a_period_is_closed_to_who_gets_everything_later(file: Path) -> None:
    """Also to who gets the master key: the keys of that period follow from nothing any more."""
    gateway = Gateway(file)
    pos = terminal(WAY, cover=True)
    sign_on(gateway.session, pos)
    frame, covered, bound = covered_purchase(pos)
    assert isinstance(receive(gateway.session, pos, frame), Forward)
    shift = gateway.ring._held[terminal_id(WAY)].shift
    period = (NOW_MS // 1000 + shift) // PERIOD_S
    # This test finds what can be found: on the same day everything is open.
    assert opens(Gateway(file), covered, bound, period)
    early = file.read_bytes()

    later = NOW_MS + 2 * DAY_MS
    gateway.ring.advance(later)
    assert file.read_bytes() != early
    assert not opens(gateway, covered, bound, period)
    assert not opens(Gateway(file, later), covered, bound, period)
    # Who kept the file of that day, reads it: that is what is to be erased.
    file.write_bytes(early)
    assert opens(Gateway(file), covered, bound, period)


def test_working_keys_of_a_past_period_are_forgotten_by_the_process(file: Path) -> None:
    gateway = Gateway(file)
    pos = terminal(WAY)
    sign_on(gateway.session, pos)
    held = {name for name in gateway.hsm._keys if terminal_id(WAY) in name and ":p" in name}
    assert held
    gateway.ring.advance(NOW_MS + 3 * DAY_MS)
    assert held.isdisjoint(gateway.hsm._keys)


def test_gateways_with_copies_agree_for_ever(file: Path, tmp_path: Path) -> None:
    other_file = tmp_path / "copy.json"
    shutil.copy(file, other_file)
    one, two = Gateway(file), Gateway(other_file)
    now = NOW_MS
    for days in (0, 1, 1, 5, 30):
        now += days * DAY_MS
        one.ring.advance(now)
        if days != 1:
            two.ring.advance(now)  # the other one was off for some days
        pos = terminal(WAY)
        sign_on(one.session, pos, now)
        for gateway in (one, two, Gateway(file, now)):
            step = receive(gateway.session, pos, pos.seal(purchase(pos)), now)
            assert isinstance(step, Forward), step


def test_the_period_before_is_accepted_for_ten_minutes_also_after_a_restart(file: Path) -> None:
    shift = Gateway(file).ring._held[terminal_id(WAY)].shift
    end_ms = 1000 * (((NOW_MS // 1000 + shift) // PERIOD_S + 1) * PERIOD_S - shift)
    pos = terminal(WAY)
    sign_on(Gateway(file).session, pos, end_ms - 1000)
    grace = Gateway(file, end_ms + 9 * MINUTE_MS)
    grace.ring.advance(end_ms + 9 * MINUTE_MS)
    frame = pos.seal(purchase(pos))
    assert isinstance(receive(grace.session, pos, frame, end_ms + 9 * MINUTE_MS), Forward)
    late = receive(grace.session, pos, frame, end_ms + 10 * MINUTE_MS)
    assert isinstance(late, Reply)
    assert late.code == "A0"


def test_the_file_is_private_and_shows_no_key(file: Path) -> None:
    gateway = Gateway(file)
    assert file.stat().st_mode & 0o777 == 0o600
    gateway.ring.advance(NOW_MS + 2 * DAY_MS)
    assert file.stat().st_mode & 0o777 == 0o600
    key = gateway.hsm._secret(f"period:{gateway.keys.oldest}")
    assert key.hex() not in file.read_text()
    with pytest.raises(FileExistsError):
        PeriodKeys.create(hsm(), file, PERIOD_S, NOW_MS)


def test_what_cannot_be_written_is_not_erased(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway(file)
    pos = terminal(WAY)
    sign_on(gateway.session, pos)
    before, oldest = file.read_bytes(), gateway.keys.oldest
    later = NOW_MS + 3 * DAY_MS

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        gateway.ring.advance(later)
    assert (file.read_bytes(), gateway.keys.oldest) == (before, oldest)
    for period in range(oldest, oldest + 4):
        gateway.hsm.check_value(gateway.keys.key(period))
    gateway.ring.advance(later)
    assert gateway.keys.oldest == oldest + 3
    assert file.read_bytes() != before
    # And the keys are those of a gateway that could write at once.
    sign_on(gateway.session, pos, later)
    frame = pos.seal(purchase(pos))
    assert isinstance(receive(Gateway(file, later).session, pos, frame, later), Forward)


def test_a_clock_that_was_set_back_gets_no_keys_and_breaks_nothing(file: Path) -> None:
    gateway = Gateway(file)
    pos = terminal(WAY)
    sign_on(gateway.session, pos)
    gateway.ring.advance(NOW_MS + 3 * DAY_MS)
    frame = pos.seal(purchase(pos))
    assert code(pos, frame, receive(gateway.session, pos, frame)) == "A0"
    _, answer = sign_on(gateway.session, pos)
    assert codec.decode(answer[13:]).text[39] == "96"
    sign_on(gateway.session, pos, NOW_MS + 3 * DAY_MS)
    frame = pos.seal(purchase(pos))
    assert isinstance(receive(gateway.session, pos, frame, NOW_MS + 3 * DAY_MS), Forward)


def test_a_leap_of_the_clock_erases_nothing(file: Path) -> None:
    gateway, before = Gateway(file), file.read_bytes()
    with pytest.raises(PeriodFileUnusable, match="more than 400 days"):
        gateway.ring.advance(NOW_MS + 500 * DAY_MS)
    assert file.read_bytes() == before
    gateway.ring.advance(NOW_MS + 399 * DAY_MS)
    assert file.read_bytes() != before


def test_a_file_that_cannot_be_used_says_why(file: Path, tmp_path: Path) -> None:
    content = msgspec.json.decode(file.read_bytes())

    def opened(master: bytes = b"", period_s: int = PERIOD_S, now_ms: int = NOW_MS) -> PeriodKeys:
        known = SoftwareHsm({MASTER_KEY: master or secret(MASTER_KEY)})
        return PeriodKeys(known, file, period_s, now_ms)

    with pytest.raises(PeriodFileUnusable, match="another gateway's"):
        opened(master=bytes(16))
    with pytest.raises(PeriodFileUnusable, match="last 86400 s, those of the settings 3600 s"):
        opened(period_s=3600)
    with pytest.raises(PeriodFileUnusable, match="later time than the clock"):
        opened(now_ms=NOW_MS - 3 * DAY_MS)
    for wrong in (b"", b"{}", b"[1]", msgspec.json.encode({**content, "key": "00"})):
        file.write_bytes(wrong)
        with pytest.raises(PeriodFileUnusable, match="no file of the periods' keys"):
            opened()
    file.unlink()
    with pytest.raises(PeriodFileUnusable, match="is not there"):
        opened()


def test_periods_are_counted_the_same_by_ring_and_file() -> None:
    """A key is erased only when no terminal's epoch can need it, whatever its shift."""
    for now_s in range(10 * PERIOD_S, 12 * PERIOD_S, 997):
        oldest = periods._oldest(1000 * now_s, PERIOD_S)
        for shift in (0, 1, PERIOD_S // 2, PERIOD_S - 1):
            period, into = divmod(now_s + shift, PERIOD_S)
            assert oldest <= (period - 1 if into < periods.GRACE_S else period)
