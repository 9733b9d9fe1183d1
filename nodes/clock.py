"""Time is passed in: everything that needs the time gets a Clock. Standard library only."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the present moment in milliseconds since the Unix epoch (UTC)."""

    def now_ms(self) -> int: ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class FixedClock:
    """A clock that stands until it is moved: for tests and simulation."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def advance(self, milliseconds: int) -> None:
        self._now_ms += milliseconds


def to_datetime(unix_ms: int) -> datetime:
    """An aware UTC datetime of a millisecond time stamp."""
    return datetime.fromtimestamp(unix_ms / 1000, tz=UTC)


def to_ms(moment: datetime) -> int:
    """The millisecond time stamp of an aware datetime."""
    if moment.tzinfo is None:
        raise ValueError("a naive datetime names no moment")
    return round(moment.timestamp() * 1000)
