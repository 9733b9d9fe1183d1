"""The problems that a step of a case may end in."""

from __future__ import annotations

from nodes.api.dependencies import refused
from nodes.clearing.model import CaseOutcome

_STATUS_OF = {
    CaseOutcome.KEY_REUSED: 409,
    CaseOutcome.BREAK_UNKNOWN: 404,
    CaseOutcome.CASE_KEEPER_UNREACHABLE: 503,
    CaseOutcome.CASE_MOVED_ON: 409,
    CaseOutcome.CASE_TAKEN: 409,
    CaseOutcome.CASE_NOT_YOURS: 403,
    CaseOutcome.BREAK_NOT_DUE: 409,
    CaseOutcome.RESOLUTION_NOT_APPLICABLE: 422,
    CaseOutcome.MAKER_IS_CHECKER: 403,
}


def require_done(outcome: CaseOutcome) -> None:
    """Problem unless the step was taken."""
    if outcome is not CaseOutcome.DONE:
        raise refused(_STATUS_OF[outcome], outcome.value)
