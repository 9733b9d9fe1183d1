"""Which of a worker's jobs are due, and doing them in their order. Standard library only.

One ring of the clock does all that is due, so that an idle worker is woken once a second and not
once for each of its jobs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

#: A clock rings at least this often (seconds).
RING_S = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """A job of a worker; `work` returns something true if there was something to do.

    Then `then` is due at once: in the same round if it stands below, or else in the next one.
    Without `period_s` (seconds) nothing else makes the job due.
    """

    name: str
    work: Callable[[], Any]
    period_s: float | None = None
    then: str | None = None


class Rounds:
    """The jobs of a worker in the order of a round. Times are seconds of any clock that runs on."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = {job.name: job for job in jobs}
        if len(self.jobs) != len(jobs):
            raise ValueError("two jobs have one name")
        unknown = {job.then for job in jobs if job.then} - self.jobs.keys()
        if unknown:
            raise ValueError(f"no such job: {min(unknown)}")
        periods = [job.period_s for job in jobs if job.period_s is not None]
        #: How often to ring.
        self.period_s = min([RING_S, *periods])
        self._due: dict[str, float] = {}
        self._began = False

    def ring(self, now_s: float) -> int:
        """Do what is due; how many jobs had something to do. A job that fails holds no other up:
        ExceptionGroup after the round.

        The first ring begins the periods: what is seldom done isn't what a start waits for.
        """
        if not self._began:
            self._began = True
            for job in self.jobs.values():
                if job.period_s is not None:
                    self._due.setdefault(job.name, now_s + job.period_s - self.period_s)
        # A ring comes a little early or late: a period isn't missed for it.
        early_s = now_s + self.period_s / 2
        found, failed = 0, []
        for name in self.jobs:
            if self._due.get(name, math.inf) > early_s:
                continue
            try:
                found += self.do(name, now_s)
            except Exception as error:  # noqa: BLE001 - it is raised below
                failed.append(error)
        if failed:
            raise ExceptionGroup("jobs of a round failed", failed)
        return found

    def do(self, name: str, now_s: float) -> bool:
        """Do one job, due or not; whether there was something to do. KeyError for no job."""
        job = self.jobs[name]
        self._due.pop(name, None)
        if job.period_s is not None:
            self._due[name] = now_s + job.period_s
        found = bool(job.work())
        if found and job.then:
            self._due[job.then] = now_s
        return found
