"""A worker's rounds: what is due is done in its order, and nothing is lost or held up."""

from __future__ import annotations

import pytest

from nodes.rounds import Job, Rounds


class Recorder:
    """Jobs that note their names; `busy` says which had something to do."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.busy: set[str] = set()

    def job(self, name: str, period_s: float | None, then: str | None = None) -> Job:
        def work() -> bool:
            self.done.append(name)
            return name in self.busy

        return Job(name, work, period_s, then)

    def taken(self) -> list[str]:
        done, self.done = self.done, []
        return done


def test_each_job_is_done_once_a_period() -> None:
    seen = Recorder()
    rounds = Rounds([seen.job("often", 1.0), seen.job("seldom", 3.0)])
    assert rounds.period_s == 1.0
    for second in range(6):
        rounds.ring(100.0 + second)
    assert seen.taken() == (["often"] * 3 + ["seldom"]) * 2


def test_a_ring_that_comes_a_little_early_or_late_skips_no_period() -> None:
    seen = Recorder()
    rounds = Rounds([seen.job("often", 1.0), seen.job("second", 2.0)])
    for second in (0.0, 1.01, 1.99, 3.02, 3.98, 5.01):
        rounds.ring(second)
    assert seen.taken().count("second") == 3


def test_what_follows_is_done_in_the_same_round_if_it_stands_below_or_else_in_the_next() -> None:
    seen = Recorder()
    rounds = Rounds(
        [
            seen.job("confirm", 60.0),
            seen.job("seal", 1.0, then="publish"),
            seen.job("publish", 60.0, then="confirm"),
        ]
    )
    seen.busy = {"seal", "publish"}
    rounds.ring(0.0)
    assert seen.taken() == ["seal", "publish"]
    seen.busy = set()
    rounds.ring(1.0)
    assert seen.taken() == ["confirm", "seal"]


def test_a_job_without_a_period_is_done_only_when_another_asks_for_it() -> None:
    seen = Recorder()
    rounds = Rounds([seen.job("first", 1.0, then="last"), seen.job("last", None)])
    rounds.ring(0.0)
    assert seen.taken() == ["first"]
    seen.busy = {"first"}
    rounds.ring(1.0)
    seen.busy = set()
    rounds.ring(2.0)
    assert seen.taken() == ["first", "last", "first"]


def test_a_job_that_fails_holds_no_other_up_and_is_tried_again() -> None:
    seen = Recorder()

    def fails() -> bool:
        seen.done.append("fails")
        raise RuntimeError("a bug")

    rounds = Rounds([Job("fails", fails, 1.0), seen.job("other", 1.0)])
    for second in range(2):
        with pytest.raises(ExceptionGroup, match="jobs of a round failed"):
            rounds.ring(float(second))
    assert seen.taken() == ["fails", "other"] * 2


def test_a_ring_does_one_job_by_its_name_and_its_period_begins_anew() -> None:
    seen = Recorder()
    rounds = Rounds([seen.job("other", 1.0), seen.job("seal", 2.0)])
    rounds.ring(0.0)
    assert rounds.do("seal", 0.9) is False
    rounds.ring(1.0)
    assert seen.taken() == ["other", "seal", "other"]
    with pytest.raises(KeyError):
        rounds.do("sael", 3.0)


def test_jobs_that_name_no_job_or_one_name_twice_are_refused() -> None:
    seen = Recorder()
    with pytest.raises(ValueError, match="no such job: nothing"):
        Rounds([seen.job("seal", 1.0, then="nothing")])
    with pytest.raises(ValueError, match="two jobs have one name"):
        Rounds([seen.job("seal", 1.0), seen.job("seal", 2.0)])
