"""A card is presented: purchase, authorization, balance inquiry; and the advice of a purchase."""

from __future__ import annotations

from nodes.authorization.model import AuthorizationRequest, Kind, Outcome
from nodes.authorization.rules import chip, entry, limits, standing
from nodes.authorization.rules.draft import (
    Draft,
    approved,
    not_enough,
    refused,
    refused_because,
)
from nodes.authorization.rules.naming import draft_of
from nodes.authorization.rules.offline import (
    is_clone,
    post_clone,
    refuse_record,
    refuse_repeat,
    spend_reserve,
)
from nodes.authorization.rules.purses import available_in, payers, split, total
from nodes.authorization.state import Counted, Decision, Detail, Facts, Hold, Side

#: DE22 of consumers' codes: a card number that is shown as one is refused, whatever its card.
_CODES = frozenset({"03", "04"})


def decide_presentment(request: AuthorizationRequest, facts: Facts) -> Decision:
    """Purchase, authorization and balance inquiry: the card is there, and its PIN."""
    card, account = facts.card, facts.account
    if card is None or account is None or card.card_id not in account.cards:
        return refused(draft_of(facts), Outcome.CARD_UNKNOWN)
    draft = Draft(account, facts.moment.now_ms)
    refusal = standing.refuse_card(request, facts, draft)
    special = card.entry is not None or request.icc is not None or card.code is not None
    if refusal is None and (special or request.entry_mode[:2] in _CODES):
        refusal = entry.refuse_entry(request, facts, card, draft)
    quick = special and entry.is_quick_pay(request, facts, card)
    if refusal is None and not quick:
        refusal = standing.refuse_pin(request, facts, card, draft)
    elif refusal is None and request.kind is not Kind.BALANCE_INQUIRY:
        refusal = entry.refuse_quick_pay(request, facts, card, draft)
    if refusal is not None:
        return refusal
    if special and facts.pin_matches:
        entry.forget_quick_pay(draft, card.card_id)
    if request.kind is Kind.BALANCE_INQUIRY:
        return approved(draft, 0, Detail(card_id=card.card_id, expired=draft.expired))
    refusal = standing.refuse_account(draft, card.card_id)
    if refusal is None:
        refusal = standing.refuse_terms(request, facts, draft, card.card_id)
    return _spend(request, facts, draft, card.card_id, quick) if refusal is None else refusal


def _spend(
    request: AuthorizationRequest, facts: Facts, draft: Draft, card_id: int, quick: bool
) -> Decision:
    """Rules and funds; then a purchase is paid, an authorization held."""
    able = payers(facts.terms, draft.purses, request.mcc)
    if not able:
        return refused(draft, Outcome.CARD_NOT_PERMITTED, {"mcc": request.mcc}, card_id)
    amount = request.amount
    parts = split(amount, able)
    there = total(parts)
    enough = there == amount
    if not enough and there and request.partial_ok and facts.terms.partial_approval:
        amount, enough = there, True
    verdict = limits.NO_RULES
    if facts.rules:
        spend = spend_of(request, amount)
        verdict = limits.evaluate(facts.rules, spend, draft.counters, facts.moment)
        if verdict.outcome is not None and verdict.reason is not None:
            return refused_because(draft, verdict.outcome, verdict.reason, verdict.shadow, card_id)
    if not enough:
        return not_enough(draft, amount, available_in(able), card_id, verdict.shadow)
    if request.kind is Kind.AUTHORIZATION:
        draft.hold(parts)
        until = facts.moment.now_ms + 1_000 * facts.terms.hold_seconds
        draft.replace_hold(Hold(request.txid, parts, until))
    else:
        draft.pay(parts, Side.SETTLEMENT)
    standing.count_use(draft, card_id)
    counted: tuple[Counted, ...] = ()
    if verdict.counting:
        counted = limits.count(draft, verdict, request.kind, amount, facts.moment.local)
    if quick:
        counted = (*counted, entry.count_quick_pay(draft, card_id, amount))
    detail = Detail(
        requested=request.amount if amount != request.amount else None,
        parts=parts,
        counted=counted,
        card_id=card_id,
        used=True,
        shadow=verdict.shadow,
        expired=draft.expired,
        channel=request.channel,
    )
    return approved(draft, amount, detail)


def decide_advice(request: AuthorizationRequest, facts: Facts) -> Decision:
    """A purchase that has happened already (offline, in stand-in): it posts whatever stands
    against it.

    What the purses don't have is owed. It counts as a use and in the windows, over any limit; what
    rules would have said is kept like that of rules in shadow mode.
    """
    card, account = facts.card, facts.account
    if card is None or account is None or card.card_id not in account.cards:
        return refused(draft_of(facts), Outcome.CARD_UNKNOWN)
    draft = Draft(account, facts.moment.now_ms)
    refusal = standing.refuse_currency(request, draft, card.card_id)
    if refusal is not None:
        return refusal
    amount, reserve = request.amount, 0
    if request.offline is not None:
        refusal = refuse_record(request, facts, draft, card)
    if refusal is None and facts.paid:
        refusal = refuse_repeat(request, facts, draft, card)
    if refusal is not None:
        return refusal
    if is_clone(request, facts):
        return post_clone(draft, request.txid, card.card_id, amount)
    if request.offline is not None:
        reserve = min(amount, draft.offline.get(card.card_id, 0))
    chip.note_advice(request, facts, card, draft)
    parts = split(amount - reserve, payers(facts.terms, draft.purses, request.mcc))
    shortfall = amount - reserve - total(parts)
    spend = spend_of(request, amount)
    verdict = limits.evaluate(facts.rules, spend, draft.counters, facts.moment)
    shadow = verdict.shadow
    if verdict.reason is not None:
        shadow = (verdict.reason, *shadow)
    spend_reserve(draft, card.card_id, reserve)
    draft.pay(parts, Side.SETTLEMENT)
    draft.owe(shortfall, Side.SETTLEMENT)
    standing.count_use(draft, card.card_id)
    detail = Detail(
        parts=parts,
        shortfall=shortfall,
        counted=limits.count(draft, verdict, request.kind, amount, facts.moment.local),
        card_id=card.card_id,
        used=True,
        shadow=shadow,
        expired=draft.expired,
        reserve=reserve,
        channel=request.channel,
        stand_in=request.advice,
    )
    return approved(draft, amount, detail)


def decide_authorization_advice(request: AuthorizationRequest, facts: Facts) -> Decision:
    """An authorization that was given already (by voice, in stand-in): what is there is held.

    Neither status, PIN nor rules stand against it: the merchant was promised it. More than what is
    there can't be held; the answer's amount says how much is.
    """
    card, account = facts.card, facts.account
    if card is None or account is None or card.card_id not in account.cards:
        return refused(draft_of(facts), Outcome.CARD_UNKNOWN)
    draft = Draft(account, facts.moment.now_ms)
    refusal = standing.refuse_currency(request, draft, card.card_id)
    if refusal is not None:
        return refusal
    able = payers(facts.terms, draft.purses, request.mcc)
    parts = split(request.amount, able)
    amount = total(parts)
    if not amount:
        return not_enough(draft, request.amount, available_in(able), card.card_id)
    verdict = limits.evaluate(facts.rules, spend_of(request, amount), draft.counters, facts.moment)
    shadow = verdict.shadow
    if verdict.reason is not None:
        shadow = (verdict.reason, *shadow)
    draft.hold(parts)
    until = facts.moment.now_ms + 1_000 * facts.terms.hold_seconds
    draft.replace_hold(Hold(request.txid, parts, until))
    standing.count_use(draft, card.card_id)
    detail = Detail(
        requested=request.amount if amount != request.amount else None,
        parts=parts,
        counted=limits.count(draft, verdict, request.kind, amount, facts.moment.local),
        card_id=card.card_id,
        used=True,
        shadow=shadow,
        expired=draft.expired,
        channel=request.channel,
    )
    return approved(draft, amount, detail)


def decide_top_up(request: AuthorizationRequest, facts: Facts) -> Decision:
    """Cash at a merchant becomes value on the card: like a load, but the acquirer owes it."""
    card, account = facts.card, facts.account
    if card is None or account is None or card.card_id not in account.cards:
        return refused(draft_of(facts), Outcome.CARD_UNKNOWN)
    draft, card_id = Draft(account, facts.moment.now_ms), card.card_id
    refusal = standing.refuse_card(request, facts, draft)
    if refusal is None and request.icc is not None:
        refusal = entry.refuse_entry(request, facts, card, draft)
    if refusal is None and request.pin_block is not None:
        refusal = standing.refuse_pin(request, facts, card, draft)
    if refusal is not None:
        return refusal
    if draft.status == "closed":
        return refused(draft, Outcome.ACCOUNT_FROZEN, {"status": "closed"}, card_id)
    if draft.loads and not facts.terms.reloadable:
        return refused(draft, Outcome.CARD_NOT_PERMITTED, {"loads": draft.loads}, card_id)
    amount = request.amount
    verdict = limits.evaluate(
        facts.rules, limits.Spend(Kind.LOAD, amount), draft.counters, facts.moment
    )
    if verdict.outcome is not None and verdict.reason is not None:
        return refused_because(draft, verdict.outcome, verdict.reason, verdict.shadow, card_id)
    maximum, balance = facts.terms.max_balance, sum(purse.balance for purse in draft.purses)
    if maximum is not None and balance + amount - min(amount, draft.repayable) > maximum:
        values: dict[str, int | str] = {
            "amount": amount,
            "balance": balance,
            "max_balance": maximum,
        }
        return refused(draft, Outcome.AMOUNT_LIMIT, values, card_id)
    parts = ((draft.purses[0].account_id, amount),)
    draft.credit(parts, Side.SETTLEMENT)
    draft.loads += 1
    detail = Detail(
        parts=parts,
        counted=limits.count(draft, verdict, Kind.LOAD, amount, facts.moment.local),
        card_id=card_id,
        shadow=verdict.shadow,
        expired=draft.expired,
        channel=request.channel,
    )
    return approved(draft, amount, detail)


def spend_of(request: AuthorizationRequest, amount: int, before: int = 0) -> limits.Spend:
    """What rules look at of an acquirer's request."""
    return limits.Spend(
        request.kind,
        amount,
        request.mcc,
        request.merchant_id,
        request.country,
        request.channel,
        request.entry_mode,
        before,
    )
