"""What a campaign counts: tries, what was found, what was rightly named, and what was not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: So many misses of a class are kept word by word.
_KEPT = 5


@dataclass
class Tally:
    """The tries of one class."""

    tried: int = 0
    found: int = 0
    named: int = 0
    misses: list[str] = field(default_factory=list)

    def add(self, *, found: bool, named: bool, what: str) -> None:
        """One try; `what` says what was done and what was said about it."""
        self.tried += 1
        self.found += found
        self.named += found and named
        if not (found and named) and len(self.misses) < _KEPT:
            self.misses.append(what)

    @property
    def complete(self) -> bool:
        """Whether everything was found and rightly named, and anything tried at all."""
        return self.tried > 0 and self.tried == self.found == self.named


def _nobody(name: str) -> None:
    """Told of tries, and tells nobody."""


@dataclass
class Tallies:
    """A campaign's classes by name, and its runs on what nobody touched."""

    seed: int
    classes: dict[str, Tally] = field(default_factory=dict)
    clean_runs: int = 0
    false_alarms: int = 0
    alarms: list[str] = field(default_factory=list)
    #: Told of each try, with its class.
    progress: Callable[[str], None] = _nobody

    def add(self, name: str, *, found: bool, named: bool, what: str) -> None:
        """One try of a class."""
        self.classes.setdefault(name, Tally()).add(found=found, named=named, what=what)
        self.progress(name)

    def clean(self, *, alarm: str = "") -> None:
        """One run on what nobody touched; `alarm`: what was found there nevertheless."""
        self.clean_runs += 1
        if alarm:
            self.false_alarms += 1
            if len(self.alarms) < _KEPT:
                self.alarms.append(alarm)

    def take(self, other: Tallies) -> None:
        """Add what another process has counted."""
        for name, tally in other.classes.items():
            mine = self.classes.setdefault(name, Tally())
            mine.tried += tally.tried
            mine.found += tally.found
            mine.named += tally.named
            mine.misses = [*mine.misses, *tally.misses][:_KEPT]
        self.clean_runs += other.clean_runs
        self.false_alarms += other.false_alarms
        self.alarms = [*self.alarms, *other.alarms][:_KEPT]

    def silent(self) -> Tallies:
        """The same without anybody who is told: it can go to another process."""
        self.progress = _nobody
        return self

    @property
    def held(self) -> bool:
        """Whether nothing was missed, nothing misnamed, and no alarm was false."""
        return all(t.complete for t in self.classes.values()) and not self.false_alarms

    def document(self) -> dict[str, Any]:
        """As it stands in var/tamper.json."""
        return {
            "classes": {
                name: {"tried": tally.tried, "found": tally.found, "named": tally.named}
                for name, tally in self.classes.items()
            },
            "clean_runs": self.clean_runs,
            "false_alarms": self.false_alarms,
            "seed": self.seed,
        }
