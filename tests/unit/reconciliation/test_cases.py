"""A case's steps: which follow which, and who may take them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.clearing.model import (
    BreakKind,
    Case,
    CaseOutcome,
    CaseState,
    CaseStep,
    Resolution,
)
from nodes.clearing.rules.cases import applicable, corrected_party, owner, step

ACQUIRER, ISSUER = "meridian", "aurora"
MISSING = Case(bytes(32), BreakKind.MISSING_AT_ISSUER, CaseState.OPEN, 1, lacking="issuer")
LATE = Case(bytes(32), BreakKind.LATE, CaseState.OPEN, 1, lacking="issuer", due_ms=1000)


def take(case: Case, event: CaseStep, member: str = ACQUIRER, now_ms: int = 0) -> Case:
    resolution = Resolution.TAKE_ACQUIRER if event is CaseStep.PROPOSED else None
    outcome, moved = step(
        case, event, member=member, actor="x", now_ms=now_ms, resolution=resolution
    )
    assert outcome is CaseOutcome.DONE, outcome
    return moved


def outcome_of(case: Case, event: CaseStep, member: str = ACQUIRER, **more: object) -> CaseOutcome:
    resolution = more.pop("resolution", Resolution.TAKE_ACQUIRER)
    now_ms = more.pop("now_ms", 0)
    return step(case, event, member=member, actor="x", now_ms=now_ms, resolution=resolution)[0]  # type: ignore[arg-type]


def test_the_way_of_a_case_and_whose_move_it_is() -> None:
    case = MISSING
    assert owner(case, ACQUIRER, ISSUER) == ACQUIRER  # it has what the other lacks
    case = take(case, CaseStep.PROPOSED)
    assert owner(case, ACQUIRER, ISSUER) == ISSUER
    case = take(case, CaseStep.COUNTERSIGNED, ISSUER)
    assert corrected_party(case.resolution or Resolution.ACKNOWLEDGE) == "issuer"
    assert owner(case, ACQUIRER, ISSUER) == ISSUER
    case = take(case, CaseStep.CORRECTED, ISSUER)
    case = take(case, CaseStep.CLOSED)
    assert (case.state, case.number, owner(case, ACQUIRER, ISSUER)) == (CaseState.CLOSED, 5, None)


def test_a_refusal_takes_the_proposal_away() -> None:
    case = take(take(MISSING, CaseStep.PROPOSED, ISSUER), CaseStep.REFUSED)
    assert (case.state, case.proposed_by, case.resolution) == (CaseState.OPEN, None, None)


@pytest.mark.parametrize("event", [CaseStep.COUNTERSIGNED, CaseStep.REFUSED])
@pytest.mark.parametrize("member", [ACQUIRER, ISSUER])
def test_nobody_checks_an_own_proposal(event: CaseStep, member: str) -> None:
    case = take(MISSING, CaseStep.PROPOSED, member)
    assert outcome_of(case, event, member) is CaseOutcome.MAKER_IS_CHECKER


def test_late_is_neither_proposed_nor_overdue_before_its_time() -> None:
    assert outcome_of(LATE, CaseStep.PROPOSED, now_ms=5000) is CaseOutcome.BREAK_NOT_DUE
    assert outcome_of(LATE, CaseStep.OVERDUE, now_ms=999) is CaseOutcome.BREAK_NOT_DUE
    assert take(LATE, CaseStep.OVERDUE, now_ms=1000).kind is BreakKind.MISSING_AT_ISSUER
    assert take(LATE, CaseStep.ARRIVED).state is CaseState.CORRECTED
    assert outcome_of(MISSING, CaseStep.ARRIVED) is CaseOutcome.CASE_MOVED_ON


def test_what_a_class_can_be_resolved_by() -> None:
    for kind, both_hold in itertools.product(BreakKind, (False, True)):
        case = Case(bytes(32), kind, CaseState.OPEN, 1, both_hold=both_hold)
        noted = kind in (BreakKind.SEQ_GAP, BreakKind.UNSIGNED) or both_hold
        assert applicable(case, Resolution.ACKNOWLEDGE) is noted
        assert applicable(case, Resolution.TAKE_ISSUER) is not noted


@given(st.lists(st.tuples(st.sampled_from(CaseStep), st.sampled_from([ACQUIRER, ISSUER]))))
def test_whatever_is_tried_no_case_is_corrected_without_both_institutions(
    tries: list[tuple[CaseStep, str]],
) -> None:
    case, history = MISSING, list[tuple[CaseStep, str]]()
    for event, member in tries:
        outcome, moved = step(
            case, event, member=member, actor="x", now_ms=0, resolution=Resolution.TAKE_ISSUER
        )
        if outcome is CaseOutcome.DONE:
            history.append((event, member))
            case = moved
        else:
            assert moved == case
    if case.state in (CaseState.COUNTERSIGNED, CaseState.CORRECTED, CaseState.CLOSED):
        signed = max(i for i, (e, _) in enumerate(history) if e is CaseStep.COUNTERSIGNED)
        assert history[signed - 1][0] is CaseStep.PROPOSED
        assert history[signed - 1][1] != history[signed][1]
