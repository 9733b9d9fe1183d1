"""The keys of periods: working keys follow from them, and none outlasts its period.

The first one is random and made once (`python -m gateway.periods`). Each next one is a CMAC under
the one before, which is erased then: from a period's key follow those of all later periods and
of no earlier one. So who gets the gateway's master key later, or the gateway's whole disk, can't
tell the working keys of periods that are over. Gateways that begin with copies of one file have the
same keys, and needn't speak to each other.

The file holds the key of the oldest period that may still be needed, encrypted under a key that
follows from the gateway's master key. It is replaced at each period's end.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
import structlog

from gateway.terminal_keys.ring import GRACE_S, MASTER_KEY
from nodes.crypto.hsm import BLOCK, Hsm, KeyUnavailable, WrappedKeyInvalid

_log = structlog.get_logger("gateway.terminal_keys")

#: The longest that an answer may be under way after its request was accepted.
_UNDER_WAY_S = 60
#: A clock that is further ahead of the file than this is taken for wrong: erased is erased.
_LONGEST_LEAP_S = 400 * 86_400
_WRAPPING = "period_wrapping"
_WRAPPING_LABEL = b"countersign/period-wrapping/1"
_NEXT = b"countersign/next-period/1"


class PeriodFileUnusable(OSError):
    """The file of the periods' keys isn't there, isn't this gateway's, or contradicts the clock."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is in the file. `key`: wrapped, hexadecimal, with its check value behind it."""

    period_s: Annotated[int, msgspec.Meta(ge=1)]
    period: Annotated[int, msgspec.Meta(ge=0)]
    key: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40}$")]
    version: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1


class PeriodKeys:
    """The keys of the periods that are still needed, by their numbers. They stay in the HSM.

    A period is `period_s` seconds, counted since 1970; terminals change over at different moments,
    so the one before and the one after may be needed, too.
    """

    def __init__(self, hsm: Hsm, path: Path, period_s: int, now_ms: int) -> None:
        """Open the file. PeriodFileUnusable, WrappedKeyInvalid."""
        self._hsm = hsm
        self._path = path
        self._period_s = period_s
        found = _read(path)
        if found.period_s != period_s:
            raise PeriodFileUnusable(
                f"{path}: its periods last {found.period_s} s, those of the settings {period_s} s"
            )
        if now_ms // 1000 // period_s < found.period:
            raise PeriodFileUnusable(f"{path}: is of a later time than the clock's")
        raw = bytes.fromhex(found.key)
        _derive_wrapping(hsm)
        #: The oldest period whose key is there, and the newest that was derived.
        self.oldest = self._newest = found.period
        try:
            hsm.unwrap(_WRAPPING, raw[:BLOCK], raw[BLOCK:], _name(found.period))
        except WrappedKeyInvalid:
            raise PeriodFileUnusable(f"{path}: is another gateway's") from None
        self.advance(now_ms)

    @staticmethod
    def create(hsm: Hsm, path: Path, period_s: int, now_ms: int) -> None:
        """Make the file, from this period on (mode 0600); FileExistsError if there is one."""
        period = _oldest(now_ms, period_s)
        _derive_wrapping(hsm)
        hsm.generate(_name(period))
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            _write(descriptor, _content(hsm, period_s, period))
        finally:
            hsm.forget(_name(period))

    def key(self, period: int) -> str:
        """The name of a period's key in the HSM. KeyUnavailable if it was erased."""
        if period < self.oldest:
            raise KeyUnavailable(f"key of period {period}")
        while self._newest < period:
            self._step(self._newest)
            self._newest += 1
        return _name(period)

    def advance(self, now_ms: int) -> int:
        """Erase the keys of periods that nothing needs any more; the oldest one's number.

        PeriodFileUnusable if the clock has leapt too far ahead to believe it. What can't be written
        isn't erased, and tried again by the next call.
        """
        oldest = _oldest(now_ms, self._period_s)
        if oldest <= self.oldest:
            return self.oldest
        if (oldest - self.oldest) * self._period_s > _LONGEST_LEAP_S:
            raise PeriodFileUnusable(f"{self._path}: the clock is more than 400 days ahead of it")
        while self._newest < oldest:
            self._step(self._newest)
            # Of a long time in which no gateway ran, only the last key is kept.
            if self._newest > self.oldest:
                self._hsm.forget(_name(self._newest))
            self._newest += 1
        try:
            _replace(self._path, _content(self._hsm, self._period_s, oldest))
        except OSError as error:
            _log.warning("period_file_not_written", reason=error.strerror)
            self._restore_way(oldest)
            return self.oldest
        for period in range(self.oldest, oldest):
            self._hsm.forget(_name(period))
        self.oldest = oldest
        _log.info("period_keys_erased", before=oldest)
        return oldest

    def _restore_way(self, until: int) -> None:
        """The keys between the oldest and `until` again: they are still needed."""
        for period in range(self.oldest, until):
            self._step(period)

    def _step(self, period: int) -> None:
        self._hsm.derive(_name(period), _NEXT, _name(period + 1))


def _oldest(now_ms: int, period_s: int) -> int:
    """The oldest period of which an epoch may still be accepted, or an answer under way."""
    return max(0, (now_ms // 1000 - GRACE_S - _UNDER_WAY_S) // period_s)


def _name(period: int) -> str:
    return f"period:{period}"


def _derive_wrapping(hsm: Hsm) -> None:
    hsm.derive(MASTER_KEY, _WRAPPING_LABEL, _WRAPPING)


def _content(hsm: Hsm, period_s: int, period: int) -> bytes:
    name = _name(period)
    key = hsm.wrap(_WRAPPING, name) + hsm.check_value(name)
    return msgspec.json.encode(_File(period_s, period, key.hex()))


def _read(path: Path) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        raise PeriodFileUnusable(
            f"{path}: is not there (python -m gateway.periods makes it; other gateways of this"
            " acquirer need a copy)"
        ) from None
    except msgspec.MsgspecError:
        raise PeriodFileUnusable(f"{path}: is no file of the periods' keys") from None


def _replace(path: Path, content: bytes) -> None:
    """At one stroke, and on the disk when this returns: then the old one isn't needed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    _write(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), content)
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
