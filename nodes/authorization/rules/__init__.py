"""The issuer's and the acquirer's decisions: pure functions of request and facts.

This is the specification: the engine stores what these functions return and decides nothing itself.
Of two refusals that apply the upper one of Outcome is answered; only REVERSED_BEFORE_ARRIVAL comes
before all others, as nothing is looked at then. A frozen, lost or expired card still takes refunds
and reversals: they give money back.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from nodes.authorization.model import (
    FOLLOW_UPS,
    FORWARDED,
    AuthorizationRequest,
    Kind,
    Outcome,
)
from nodes.authorization.rules.backtest import BacktestResult, Declined, Past, backtest
from nodes.authorization.rules.chip import doubt_about_advice
from nodes.authorization.rules.disputes import (
    Ended,
    decide_dispute,
    decide_disputed,
    decide_dropped,
    ended_disputes,
)
from nodes.authorization.rules.draft import refused
from nodes.authorization.rules.follow_ups import decide_refund, decide_reversal, decide_void
from nodes.authorization.rules.holds import decide_capture, decide_expiry, decide_increment
from nodes.authorization.rules.limits import channel_of, period
from nodes.authorization.rules.naming import draft_of
from nodes.authorization.rules.offline import (
    decide_release,
    decide_reserve,
    is_clone,
    online_use,
    used_online,
)
from nodes.authorization.rules.own import (
    decide_account_status,
    decide_adjustment,
    decide_load,
    decide_script,
    decide_standing,
    decide_transfer,
    first_snapshot,
)
from nodes.authorization.rules.purchases import (
    decide_advice,
    decide_authorization_advice,
    decide_presentment,
    decide_top_up,
)
from nodes.authorization.rules.reasons import explain
from nodes.authorization.rules.wire import malformed, refuse_at_acquirer
from nodes.authorization.state import Decision, Facts

__all__ = [
    "BacktestResult",
    "Declined",
    "Ended",
    "Past",
    "backtest",
    "channel_of",
    "decide",
    "decide_account_status",
    "decide_adjustment",
    "decide_dispute",
    "decide_disputed",
    "decide_dropped",
    "decide_expiry",
    "decide_load",
    "decide_release",
    "decide_reserve",
    "decide_script",
    "decide_standing",
    "decide_transfer",
    "doubt_about_advice",
    "ended_disputes",
    "explain",
    "first_snapshot",
    "is_clone",
    "malformed",
    "online_use",
    "period",
    "refuse_at_acquirer",
    "used_online",
]

_DECIDERS: dict[Kind, Callable[[AuthorizationRequest, Facts], Decision]] = {
    Kind.PURCHASE: decide_presentment,
    Kind.AUTHORIZATION: decide_presentment,
    Kind.BALANCE_INQUIRY: decide_presentment,
    Kind.ADVICE: decide_advice,
    Kind.TOP_UP: decide_top_up,
    Kind.INCREMENT: decide_increment,
    Kind.CAPTURE: decide_capture,
    Kind.REFUND: decide_refund,
    Kind.REVERSAL: decide_reversal,
    Kind.VOID: decide_void,
}


def decide(request: AuthorizationRequest, facts: Facts) -> Decision:
    """The issuer's decision on one well-formed request of an acquirer."""
    decider = _DECIDERS[request.kind]
    if decider is decide_reversal:
        return _with_requested(request, decide_reversal(request, facts))
    if facts.reversed_before:
        return refused(draft_of(facts), Outcome.REVERSED_BEFORE_ARRIVAL)
    if facts.moment.now_ms > request.deadline_ms and request.kind not in FORWARDED:
        return _too_late(request, facts)
    if request.advice and request.kind is Kind.AUTHORIZATION:
        return decide_authorization_advice(request, facts)
    if decider is decide_void:
        return _with_requested(request, decide_void(request, facts))
    return decider(request, facts)


def _with_requested(request: AuthorizationRequest, decision: Decision) -> Decision:
    """The approved amount is what was undone; the one that was asked for is kept beside it."""
    if decision.outcome is not Outcome.APPROVED or decision.amount == request.amount:
        return decision
    detail = msgspec.structs.replace(decision.detail, requested=request.amount)
    return msgspec.structs.replace(decision, detail=detail)


def _too_late(request: AuthorizationRequest, facts: Facts) -> Decision:
    """Nobody waits for the answer any more, and the acquirer has reversed by itself."""
    if request.kind in FOLLOW_UPS:
        decision = _DECIDERS[request.kind](request, facts)
        if decision.outcome is Outcome.ORIGINAL_NOT_FOUND:
            return decision
    late = facts.moment.now_ms - request.deadline_ms
    card_id = facts.card.card_id if facts.card is not None else None
    return refused(draft_of(facts), Outcome.DEADLINE_PASSED, {"late_ms": late}, card_id)
