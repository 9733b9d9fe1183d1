"""A case's way from its opening to its end, as one table of steps. Pure.

The acquirer's node keeps the order of a pair's cases (it numbers their events); both institutions
hold the same history. Whoever proposes isn't who countersigns: the two are of two institutions.
"""

from __future__ import annotations

from dataclasses import replace

from nodes.clearing.model import (
    BreakKind,
    Case,
    CaseOutcome,
    CaseState,
    CaseStep,
    Party,
    Resolution,
    other_party,
)

_STEPS: dict[tuple[CaseState, CaseStep], CaseState] = {
    (CaseState.OPEN, CaseStep.PROPOSED): CaseState.PROPOSED,
    (CaseState.OPEN, CaseStep.ARRIVED): CaseState.CORRECTED,
    (CaseState.OPEN, CaseStep.OVERDUE): CaseState.OPEN,
    (CaseState.PROPOSED, CaseStep.REFUSED): CaseState.OPEN,
    (CaseState.PROPOSED, CaseStep.COUNTERSIGNED): CaseState.COUNTERSIGNED,
    (CaseState.COUNTERSIGNED, CaseStep.CORRECTED): CaseState.CORRECTED,
    (CaseState.CORRECTED, CaseStep.CLOSED): CaseState.CLOSED,
}
_NOTED = frozenset({BreakKind.SEQ_GAP, BreakKind.UNSIGNED})


def applicable(case: Case, resolution: Resolution) -> bool:
    """Whether a break of this kind can be resolved so."""
    if case.kind in _NOTED or case.both_hold:
        return resolution is Resolution.ACKNOWLEDGE
    return resolution is not Resolution.ACKNOWLEDGE


def corrected_party(resolution: Resolution) -> Party | None:
    """Whose books a resolution corrects."""
    match resolution:
        case Resolution.TAKE_ACQUIRER:
            return "issuer"
        case Resolution.TAKE_ISSUER:
            return "acquirer"
    return None


def step(
    case: Case,
    event: CaseStep,
    *,
    member: str,
    actor: str,
    now_ms: int,
    resolution: Resolution | None = None,
) -> tuple[CaseOutcome, Case]:
    """What a step makes of a case, and whether it may be taken."""
    state = _STEPS.get((case.state, event))
    if state is None:
        return CaseOutcome.CASE_MOVED_ON, case
    late = case.kind is BreakKind.LATE
    if event in (CaseStep.ARRIVED, CaseStep.OVERDUE) and not late:
        return CaseOutcome.CASE_MOVED_ON, case
    if late and event in (CaseStep.PROPOSED, CaseStep.OVERDUE) and now_ms < (case.due_ms or 0):
        return CaseOutcome.BREAK_NOT_DUE, case
    if event is CaseStep.PROPOSED and late:
        return CaseOutcome.BREAK_NOT_DUE, case
    if event is CaseStep.PROPOSED and (resolution is None or not applicable(case, resolution)):
        return CaseOutcome.RESOLUTION_NOT_APPLICABLE, case
    if event in (CaseStep.COUNTERSIGNED, CaseStep.REFUSED) and member == case.proposed_by:
        return CaseOutcome.MAKER_IS_CHECKER, case
    moved = replace(case, state=state, number=case.number + 1)
    if event is CaseStep.PROPOSED:
        moved = replace(moved, proposed_by=member, proposer=actor, resolution=resolution)
    elif event is CaseStep.REFUSED:
        moved = replace(moved, proposed_by=None, proposer=None, resolution=None)
    elif event is CaseStep.OVERDUE and case.lacking is not None:
        moved = replace(moved, kind=missing_at(case.lacking))
    return CaseOutcome.DONE, moved


def desk_outcome(
    case: Case, holder: str | None, person: str, *, taking: bool, any_desk: bool
) -> CaseOutcome:
    """Whether a person may take a case on, or lay it down. `any_desk`: also another's."""
    if taking and case.state is CaseState.CLOSED:
        return CaseOutcome.CASE_MOVED_ON
    if taking:
        return CaseOutcome.CASE_TAKEN if holder is not None else CaseOutcome.DONE
    mine = holder is not None and (holder == person or any_desk)
    return CaseOutcome.DONE if mine else CaseOutcome.CASE_NOT_YOURS


def missing_at(lacking: Party) -> BreakKind:
    """The break of a transaction that one party lacks."""
    return BreakKind.MISSING_AT_ISSUER if lacking == "issuer" else BreakKind.MISSING_AT_ACQUIRER


def owner(case: Case, acquirer: str, issuer: str) -> str | None:
    """The institution whose move it is; None once nothing is left to do."""
    members: dict[Party, str] = {"acquirer": acquirer, "issuer": issuer}
    match case.state:
        case CaseState.OPEN:
            # Who has what the other lacks knows best; of the rest the acquirer begins.
            return members[other_party(case.lacking)] if case.lacking else acquirer
        case CaseState.PROPOSED:
            return issuer if case.proposed_by == acquirer else acquirer
        case CaseState.COUNTERSIGNED:
            party = corrected_party(case.resolution) if case.resolution else None
            return members[party or "acquirer"]
        case CaseState.CORRECTED:
            return acquirer
    return None
