"""What happens to a hold: it is raised, captured, released or expires. It ends once."""

from __future__ import annotations

from nodes.authorization.controls import Terms
from nodes.authorization.model import AuthorizationRequest, Kind, Outcome
from nodes.authorization.rules import limits, standing
from nodes.authorization.rules.draft import (
    Draft,
    Parts,
    approved,
    not_enough,
    refused,
    refused_because,
)
from nodes.authorization.rules.naming import named_original, refuse_mismatch
from nodes.authorization.rules.purchases import spend_of
from nodes.authorization.rules.purses import (
    available_in,
    first_of,
    last_of,
    mcc_in,
    merged,
    payers,
    split,
    total,
)
from nodes.authorization.state import (
    Decision,
    Detail,
    Facts,
    Hold,
    Original,
    Progress,
    Side,
)


def decide_increment(request: AuthorizationRequest, facts: Facts) -> Decision:
    """Raise an authorization's hold: spending like the authorization itself, but for the PIN."""
    found = named_original(facts, (Kind.AUTHORIZATION,))
    if isinstance(found, Decision):
        return found
    original, draft = found
    refusal = _refuse_raise(request, facts, original, draft)
    hold = draft.find_hold(original.txid)
    if refusal is None and hold is None:
        refusal = hold_ended(draft, original)
    if refusal is None:
        refusal = standing.refuse_account(draft, original.card_id)
    if refusal is not None or hold is None or original.card_id is None:
        return refusal or refused(draft, Outcome.ORIGINAL_NOT_FOUND)
    amount, card_id, progress = request.amount, original.card_id, original.progress
    able = payers(facts.terms, draft.purses, original.mcc)
    merchants = facts.terms.merchants
    if not able or (merchants and request.merchant_id not in merchants):
        values: dict[str, int | str] = {"mcc": original.mcc, "merchant": request.merchant_id}
        return refused(draft, Outcome.CARD_NOT_PERMITTED, values, card_id)
    spend = spend_of(request, amount, progress.authorized - progress.reversed)
    verdict = limits.evaluate(facts.rules, spend, draft.counters, facts.moment)
    if verdict.outcome is not None and verdict.reason is not None:
        return refused_because(draft, verdict.outcome, verdict.reason, verdict.shadow, card_id)
    parts = split(amount, able)
    if total(parts) < amount:
        return not_enough(draft, amount, available_in(able), card_id, verdict.shadow)
    draft.hold(parts)
    draft.replace_hold(Hold(hold.txid, merged(hold.parts, parts), hold.expires_ms))
    detail = Detail(
        parts=parts,
        counted=limits.count(draft, verdict, request.kind, amount, facts.moment.local),
        card_id=card_id,
        shadow=verdict.shadow,
        expired=draft.expired,
        channel=request.channel,
    )
    return approved(draft, amount, detail, {original.txid: _more(progress, authorized=amount)})


def _refuse_raise(
    request: AuthorizationRequest, facts: Facts, original: Original, draft: Draft
) -> Decision | None:
    """The card as for a purchase, then whether this merchant may name the authorization."""
    refusal = None
    if facts.card is not None and facts.card.card_id in draft.cards:
        refusal = standing.refuse_card(request, facts, draft)
    elif original.card_id is not None:
        refusal = standing.refuse_status(draft, original.card_id)
    return refusal or refuse_mismatch(request, facts, original, draft)


def decide_capture(request: AuthorizationRequest, facts: Facts) -> Decision:
    """Take from a hold, whatever has become of card or account since: the merchant was promised it.

    Within the MCC's tolerance a capture may exceed the hold; that part is new spending.
    """
    found = named_original(facts, (Kind.AUTHORIZATION,))
    if isinstance(found, Decision):
        return found
    original, draft = found
    refusal = refuse_mismatch(request, facts, original, draft)
    hold = draft.find_hold(original.txid)
    if refusal is not None or hold is None:
        return refusal or hold_ended(draft, original)
    amount, progress = request.amount, original.progress
    most = capturable(facts.terms, original)
    if progress.captured + amount > most:
        values: dict[str, int | str] = {
            "amount": amount,
            "captured": progress.captured,
            "authorized": progress.authorized - progress.reversed,
            "limit": most,
        }
        return refused(draft, Outcome.OVER_ORIGINAL_AMOUNT, values, original.card_id)
    from_hold = first_of(hold.parts, amount)[0]
    excess = amount - total(from_hold)
    more: Parts = ()
    if excess:
        able = payers(facts.terms, draft.purses, original.mcc)
        more = split(excess, able)
        refusal = standing.refuse_account(draft, original.card_id)
        if refusal is not None:
            return refusal
        if total(more) < excess:
            return not_enough(draft, excess, available_in(able), original.card_id)
    release(draft, hold, amount if not request.final else hold.amount, from_front=True)
    parts = merged(from_hold, more)
    draft.pay(parts, Side.SETTLEMENT)
    detail = Detail(parts=parts, card_id=original.card_id, expired=draft.expired)
    return approved(draft, amount, detail, {original.txid: _more(progress, captured=amount)})


def capturable(terms: Terms, authorization: Original) -> int:
    """The most that all captures of an authorization may come to, minor units (rounded down)."""
    progress = authorization.progress
    return (
        (progress.authorized - progress.reversed)
        * (100 + over_capture_percent(terms, authorization.mcc))
        // 100
    )


def over_capture_percent(terms: Terms, mcc: str) -> int:
    """By the MCC itself, else by the first range that it lies in; else nothing."""
    table = terms.over_capture_percent
    if mcc in table:
        return table[mcc]
    return next((percent for pattern, percent in table.items() if mcc_in(mcc, (pattern,))), 0)


def release(draft: Draft, hold: Hold, amount: int, *, from_front: bool = False) -> int:
    """Free up to `amount` of a hold, the last part first; how much it was. Empty, it has ended."""
    if from_front:
        freed, rest = first_of(hold.parts, amount)
    else:
        freed = last_of(hold.parts, amount)
        rest = first_of(hold.parts, hold.amount - total(freed))[0]
    draft.hold(tuple((purse, -part) for purse, part in freed))
    draft.replace_hold(Hold(hold.txid, rest, hold.expires_ms))
    return total(freed)


def decide_expiry(facts: Facts) -> Decision | None:
    """Release the holds whose time is over; None if there is none."""
    if facts.account is None:
        return None
    draft = Draft(facts.account, facts.moment.now_ms)
    if not draft.expired:
        return None
    return approved(
        draft, sum(amount for _, amount in draft.expired), Detail(expired=draft.expired)
    )


def hold_ended(draft: Draft, original: Original) -> Decision:
    progress = original.progress
    values: dict[str, int | str] = {
        "authorized": progress.authorized,
        "captured": progress.captured,
        "reversed": progress.reversed,
    }
    return refused(draft, Outcome.HOLD_ENDED, values, original.card_id)


def _more(progress: Progress, *, authorized: int = 0, captured: int = 0) -> Progress:
    return Progress(
        progress.authorized + authorized,
        progress.captured + captured,
        progress.refunded,
        progress.reversed,
        progress.ended,
    )
