"""`/v1/simulations`: what would be answered to a payment, and why. Nothing is posted."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from nodes import clock
from nodes.api.account_views import balances_item, part_items, reason_item, reason_or_none
from nodes.api.auth import reader
from nodes.api.controls import limit_body
from nodes.api.dependencies import TheNode, moment, require_currency, require_role
from nodes.api.issuing_schemas import NewSimulation, RuleSeenItem, SimulationItem
from nodes.api.problems import Problem
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations.simulating import RuleSeen, Simulated, Supposed, simulate

router = APIRouter(prefix="/v1/simulations", tags=["simulations"])

_ASSUMED = {
    Kind.PURCHASE: ["The PIN was taken as right."],
    Kind.AUTHORIZATION: ["The PIN was taken as right."],
    Kind.BALANCE_INQUIRY: ["The PIN was taken as right."],
}


@router.post("", dependencies=[Depends(reader)])
def simulate_payment(node: TheNode, body: NewSimulation) -> SimulationItem:
    """What the issuer would answer now, or at a moment that is given (on the account as it is now):
    the outcome, which purses would pay, each rule with its window, and the balances around it."""
    require_role(node, "issuer")
    require_currency(body.currency)
    if (body.card_token is None) == (body.account_id is None):
        raise Problem(422, "subject-unknown", "Name either a card or an account.")
    supposed = Supposed(
        kind=Kind(body.kind),
        amount=body.amount,
        currency=body.currency,
        merchant_id=body.merchant_id,
        mcc=body.mcc,
        country=body.country,
        channel=body.channel,
        entry_mode=body.entry_mode,
        partial_ok=body.partial_ok,
        at_ms=clock.to_ms(body.at) if body.at is not None else None,
    )
    found = simulate(
        node.engine,
        node.settings.member_id,
        supposed,
        card_token=bytes.fromhex(body.card_token) if body.card_token is not None else None,
        account_id=body.account_id,
        now_ms=node.clock.now_ms(),
    )
    if found is None:
        kind = "card-unknown" if body.card_token is not None else "account-unknown"
        raise Problem(404, kind, "There is nothing of that name.")
    if isinstance(found, str):
        raise Problem(422, "simulation-invalid", found)
    return _item(body, supposed, found)


def _item(body: NewSimulation, supposed: Supposed, found: Simulated) -> SimulationItem:
    decision, detail = found.decision, found.decision.detail
    approved = decision.outcome is Outcome.APPROVED
    return SimulationItem(
        simulated=True,
        outcome=decision.outcome.value,
        approved=approved,
        requested=body.amount,
        amount=decision.amount if approved else 0,
        currency=body.currency,
        card_token=found.card.card_token.hex(),
        pan_masked=found.card.pan_masked,
        account_id=found.card.account_id,
        at=moment(found.at_ms),
        parts=part_items(detail.parts, found.after),
        shortfall=detail.shortfall,
        reason=reason_or_none(detail.reason),
        shadow=[reason_item(reason) for reason in detail.shadow],
        rules=[_rule(seen) for seen in found.rules],
        before=balances_item(found.before),
        after=balances_item(found.after),
        assumed=_ASSUMED.get(supposed.kind, []),
    )


def _rule(seen: RuleSeen) -> RuleSeenItem:
    return RuleSeenItem(
        rule_id=seen.rule.rule_id,
        name=seen.rule.name,
        shadow=seen.rule.shadow,
        in_force=seen.in_force,
        concerns=seen.concerns,
        limit=limit_body(seen.rule),
        used=seen.used,
        would_be=seen.would_be,
        objection=reason_or_none(seen.reason),
    )
