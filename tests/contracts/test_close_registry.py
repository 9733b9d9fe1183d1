"""CloseRegistry, method by method: what it does and by which name it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest

from nodes.chain.closes import CloseKey
from nodes.ids import ascii_word, member_word
from tests.contracts.closing import (
    BLIND,
    BROKEN,
    COMMIT_S,
    COMMITTING,
    CONFIRMED,
    EXPIRED,
    KEY,
    OPENING,
    REVEAL_S,
    REVEALING,
    ROOT,
    SUPERSEDED,
    TOTALS,
    Closing,
    founded,
)
from tests.contracts.machine import Answer, error_names
from tests.contracts.world import STRANGER, word

OTHER = (word("another root"), TOTALS, BLIND)


@pytest.fixture
def day() -> Closing:
    return founded().fork()


def names(answer: Answer) -> list[str]:
    assert answer.ok, answer
    return [event.name for event in answer.events]


class TestRound:
    def test_equal_closes_confirm_themselves(self, day: Closing) -> None:
        assert names(day.commit("meridian")) == ["CloseOpened", "CloseCommitted"]
        assert day.state() == COMMITTING
        assert names(day.commit("aurora")) == ["CloseCommitted"]
        assert day.state() == REVEALING
        assert names(day.reveal("aurora")) == ["ClosePosted"]
        assert day.closes.view("confirmedOf", KEY.close_id)[0] is False
        assert names(day.reveal("meridian")) == ["ClosePosted", "CloseMatched"]
        assert day.state() == CONFIRMED
        assert day.closes.view("confirmedOf", KEY.close_id) == (True, 0, ROOT, TOTALS)
        assert day.closes.view("latestOf", KEY.close_id) == (1, True, 0)
        parties = (member_word("meridian"), member_word("aurora"))
        assert day.closes.view("partiesOf", KEY.close_id) == parties

    @pytest.mark.parametrize("other", [OTHER, (ROOT, word("other totals"), BLIND)])
    def test_a_difference_in_root_or_totals_breaks_it(
        self, day: Closing, other: tuple[bytes, bytes, bytes]
    ) -> None:
        assert names(day.round(other=other)) == ["ClosePosted", "CloseBroken"]
        assert day.state() == BROKEN
        assert day.closes.view("confirmedOf", KEY.close_id)[0] is False

    def test_a_corrected_revision_supersedes_the_broken_one_which_stays(self, day: Closing) -> None:
        day.round(other=OTHER)
        answer = day.round(1)
        assert names(answer) == ["ClosePosted", "CloseMatched", "CloseSuperseded"]
        assert answer.events[-1].arguments == {
            "closeId": KEY.close_id,
            "revision": 0,
            "byRevision": 1,
        }
        assert (day.state(0), day.state(1)) == (SUPERSEDED, CONFIRMED)
        first = day.closes.view("roundOf", KEY.close_id, 0)
        assert [side[1] for side in first[2:]] == [ROOT, OTHER[0]]

    def test_a_confirmed_close_stays_in_force_until_both_confirm_another(
        self, day: Closing
    ) -> None:
        day.round()
        assert day.commit("aurora", 1).ok
        day.evm.pass_time(COMMIT_S + 1)
        assert (day.state(0), day.state(1)) == (CONFIRMED, EXPIRED)
        day.round(2, other=OTHER)
        assert day.closes.view("confirmedOf", KEY.close_id)[1] == 0
        day.round(3)
        assert day.closes.view("confirmedOf", KEY.close_id)[1] == 3
        assert [day.state(revision) for revision in range(4)] == [SUPERSEDED] * 3 + [CONFIRMED]

    def test_the_same_members_the_other_way_round_or_another_day_are_other_closes(
        self, day: Closing
    ) -> None:
        day.round()
        for key in (
            replace(KEY, business_date=date(2026, 11, 23)),
            replace(KEY, currency="USD"),
            replace(KEY, acquirer="borealis"),
        ):
            assert key.close_id != KEY.close_id
            day.round(key=key)
            assert day.state(key=key) == CONFIRMED

    def test_the_contract_derives_keys_and_commitments_as_python_does(self, day: Closing) -> None:
        assert day.closes.view("closeIdOf", *KEY.words()) == KEY.close_id
        made = day.closes.view(
            "commitmentOf", member_word("aurora"), KEY.close_id, 3, ROOT, TOTALS, BLIND
        )
        assert made == day.commitment("aurora", 3)


class TestSilence:
    def test_a_side_that_never_commits(self, day: Closing) -> None:
        day.commit("meridian")
        day.evm.pass_time(COMMIT_S + 1)
        assert day.state() == EXPIRED
        answer = day.closes.send(STRANGER.address, "expire", KEY.close_id)
        assert answer.events[0].arguments == {
            "closeId": KEY.close_id,
            "revision": 0,
            "acquirerSilent": False,
            "issuerSilent": True,
        }
        day.round(1)
        assert day.state(1) == CONFIRMED

    def test_a_side_that_never_reveals_confirms_nothing_and_cannot_go_on_with_a_copy(
        self, day: Closing
    ) -> None:
        day.both_commit(other=OTHER)
        day.reveal("meridian")
        day.evm.pass_time(REVEAL_S + 1)
        assert day.state() == EXPIRED
        # It has seen meridian's root now.
        assert day.commit("aurora", 1).refusal == "RevealWithheld"
        answer = day.commit("meridian", 1)
        assert names(answer) == ["CloseExpired", "CloseOpened", "CloseCommitted"]
        expired = answer.events[0].arguments
        assert (expired["acquirerSilent"], expired["issuerSilent"]) == (False, True)

    def test_when_neither_reveals_either_may_go_on(self, day: Closing) -> None:
        day.both_commit()
        day.evm.pass_time(REVEAL_S + 1)
        assert day.commit("aurora", 1).ok

    def test_the_last_second_counts(self, day: Closing) -> None:
        day.commit("meridian")
        day.evm.pass_time(COMMIT_S)
        assert day.commit("aurora").ok
        day.evm.pass_time(REVEAL_S)
        assert day.reveal("aurora").ok


class TestCopies:
    def test_the_others_commitment_can_be_copied_but_not_opened(self, day: Closing) -> None:
        day.commit("meridian")
        assert day.commit("aurora", commitment=day.commitment("meridian")).ok
        day.reveal("meridian")
        assert day.reveal("aurora").refusal == "CommitmentMismatch"

    def test_a_commitment_is_of_no_use_on_another_chain_or_contract(self, day: Closing) -> None:
        elsewhere = Closing.found(chain_id=1)
        for strange in (elsewhere.commitment("aurora"), b"\x01" + bytes(31)):
            fresh = founded().fork()
            fresh.commit("meridian")
            assert fresh.commit("aurora", commitment=strange).ok
            assert fresh.reveal("aurora").refusal == "CommitmentMismatch"

    def test_an_operator_that_took_over_reveals_what_the_old_one_committed(
        self, day: Closing
    ) -> None:
        day.both_commit()
        old = day.world.operator("aurora").address
        day.world.rotate("aurora")
        assert day.reveal("aurora", sender=old).refusal == "NotOperator"
        assert day.reveal("aurora").ok


def _zero_registry(day: Closing) -> Answer:
    return _constructed(day, bytes(20), 1, 1)


def _no_window(day: Closing) -> Answer:
    too_long = 30 * 86_400 + 1
    registry = day.world.registry.address
    for windows in ((0, 1), (1, 0), (too_long, 1)):
        assert _constructed(day, registry, *windows).refusal == "InvalidWindow"
    return _constructed(day, registry, 1, too_long)


def _constructed(day: Closing, *arguments: object) -> Answer:
    made, (refusal, named) = day.evm.try_deploy("CloseRegistry", STRANGER.address, *arguments)
    assert made is None
    return Answer(refusal, named, (), ())


def _of(key: CloseKey, **changes: object) -> Callable[[Closing], Answer]:
    changed = replace(key, **changes)  # type: ignore[arg-type]
    return lambda day: day.commit("meridian", key=changed)


def _raw(day: Closing, currency: bytes, number: int) -> Answer:
    words = (member_word("meridian"), member_word("aurora"), currency, number, 0, ROOT)
    return day.closes.send(day.world.operator("meridian").address, "commit", *words)


def _every_bad_currency(day: Closing) -> Answer:
    for text in ("", "CN", "cny", "CNYX", "C Y", "CN1"):
        assert _raw(day, ascii_word(text), 20_261_122).refusal == "InvalidCurrency", text
    return _raw(day, b"CNY" + bytes(28) + b"\1", 20_261_122)


def _every_bad_date(day: Closing) -> Answer:
    for number in (0, 19_991_231, 20_261_301, 20_260_001, 20_260_100, 20_260_431, 21_000_229):
        assert _raw(day, b"CNY".ljust(32, b"\0"), number).refusal == "InvalidDate", number
    assert _raw(day, b"CNY".ljust(32, b"\0"), 20_240_229).ok
    return _raw(day, b"CNY".ljust(32, b"\0"), 20_260_229)


def _revoked(day: Closing) -> Answer:
    day.commit("meridian")
    day.world.revoke("aurora")
    # Neither it nor, with it, anybody else.
    assert day.commit("meridian", 1).refusal == "MemberRevoked"
    return day.commit("aurora")


def _after(*steps: Callable[[Closing], object]) -> Callable[[Closing], Answer]:
    def run(day: Closing) -> Answer:
        answer: object = None
        for step in steps:
            answer = step(day)
        assert isinstance(answer, Answer)
        return answer

    return run


def _late(seconds: int) -> Callable[[Closing], object]:
    return lambda day: day.evm.pass_time(seconds)


def _expire(day: Closing) -> Answer:
    return day.closes.send(STRANGER.address, "expire", KEY.close_id)


REFUSALS: list[tuple[str, Callable[[Closing], Answer]]] = [
    ("ZeroRegistry", _zero_registry),
    ("InvalidWindow", _no_window),
    ("NotOperator", lambda day: day.commit("aurora", sender=STRANGER.address)),
    ("NotOperator", lambda day: day.reveal("aurora", sender=STRANGER.address)),
    ("MemberRevoked", _revoked),
    ("NotParty", lambda day: day.commit("borealis")),
    ("NotParty", _after(lambda day: day.both_commit(), lambda day: day.reveal("borealis"))),
    ("SameParty", _of(KEY, issuer="meridian")),
    ("WrongRole", _of(KEY, acquirer="aurora", issuer="meridian")),
    ("WrongRole", _of(KEY, issuer="harbor")),
    ("WrongRole", _of(KEY, issuer="nobody")),
    ("InvalidCurrency", _every_bad_currency),
    ("InvalidDate", _every_bad_date),
    ("ZeroCommitment", lambda day: day.commit("aurora", commitment=bytes(32))),
    ("UnknownClose", lambda day: day.reveal("aurora")),
    ("UnknownClose", _expire),
    ("WrongRevision", lambda day: day.commit("aurora", 1)),
    ("WrongRevision", _after(lambda day: day.round(), lambda day: day.commit("aurora", 2))),
    ("WrongRevision", _after(lambda day: day.round(), lambda day: day.reveal("aurora", 1))),
    ("RoundOpen", _after(lambda day: day.commit("aurora"), lambda day: day.commit("aurora", 1))),
    ("RoundOpen", _after(lambda day: day.both_commit(), lambda day: day.commit("aurora", 1))),
    (
        "RevealWithheld",
        _after(
            lambda day: day.both_commit(),
            lambda day: day.reveal("aurora"),
            _late(REVEAL_S + 1),
            _expire,
            lambda day: day.commit("meridian", 1),
        ),
    ),
    (
        "AlreadyCommitted",
        _after(lambda day: day.commit("aurora"), lambda day: day.commit("aurora")),
    ),
    ("AlreadyCommitted", _after(lambda day: day.both_commit(), lambda day: day.commit("aurora"))),
    ("AlreadyCommitted", _after(lambda day: day.round(), lambda day: day.commit("aurora"))),
    (
        "CommitTooLate",
        _after(
            lambda day: day.commit("aurora"),
            _late(COMMIT_S + 1),
            lambda day: day.commit("meridian"),
        ),
    ),
    (
        "RoundSettled",
        _after(
            lambda day: day.commit("aurora"),
            _late(COMMIT_S + 1),
            _expire,
            lambda day: day.commit("meridian"),
        ),
    ),
    (
        "RoundSettled",
        _after(
            lambda day: day.both_commit(),
            _late(REVEAL_S + 1),
            _expire,
            lambda day: day.reveal("aurora"),
        ),
    ),
    ("RoundSettled", _after(lambda day: day.round(), _expire)),
    ("NotCommitted", _after(lambda day: day.commit("meridian"), lambda day: day.reveal("aurora"))),
    (
        "CounterpartyNotCommitted",
        _after(lambda day: day.commit("aurora"), lambda day: day.reveal("aurora")),
    ),
    (
        "AlreadyRevealed",
        _after(
            lambda day: day.both_commit(),
            lambda day: day.reveal("aurora"),
            lambda day: day.reveal("aurora"),
        ),
    ),
    (
        "RevealTooLate",
        _after(
            lambda day: day.both_commit(), _late(REVEAL_S + 1), lambda day: day.reveal("aurora")
        ),
    ),
    (
        "CommitmentMismatch",
        _after(lambda day: day.both_commit(), lambda day: day.reveal("aurora", opening=OTHER)),
    ),
    (
        "CommitmentMismatch",
        _after(
            lambda day: day.both_commit(),
            lambda day: day.reveal("aurora", opening=(*OPENING[:2], word("another blind"))),
        ),
    ),
    ("NotOverdue", _after(lambda day: day.commit("aurora"), _late(COMMIT_S), _expire)),
    ("NotOverdue", _after(lambda day: day.both_commit(), _late(REVEAL_S), _expire)),
]


@pytest.mark.parametrize(("name", "attempt"), REFUSALS)
def test_refusals_have_names(day: Closing, name: str, attempt: Callable[[Closing], Answer]) -> None:
    assert attempt(day).refusal == name


def test_every_error_of_the_contract_is_seen_here() -> None:
    assert {name for name, _ in REFUSALS} == error_names("CloseRegistry")


def test_refusals_say_what_was_wrong(day: Closing) -> None:
    assert day.commit("aurora", 2).arguments == {"expected": 0, "given": 2}
    day.commit("aurora")
    deadline = day.evm.now + COMMIT_S
    assert day.commit("aurora", 1).arguments == {"revision": 0, "deadline": deadline}
