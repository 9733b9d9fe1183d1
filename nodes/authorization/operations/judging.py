"""Whether an issuer's answer can be taken: does it fit the request, the amount and C?"""

from __future__ import annotations

from nodes.authorization.model import AuthorizationAnswer, AuthorizationRequest, Kind, Outcome
from nodes.authorization.operations.answering import shared_facts
from nodes.authorization.operations.pending import Pending
from nodes.crypto.commitment import shared_commitment

#: What the merchant is paid for.
PAYMENTS = frozenset({Kind.PURCHASE, Kind.CAPTURE, Kind.ADVICE})
#: What the merchant pays for.
CREDITS = frozenset({Kind.REFUND, Kind.TOP_UP})


def doubtful(pending: Pending, answer: AuthorizationAnswer) -> str | None:
    """Why an issuer's answer can't be taken; None if it fits the request and its commitment."""
    request = pending.request
    if answer.txid != request.txid or answer.currency != request.currency:
        return "answer to another request"
    if answer.outcome is Outcome.APPROVED and not _may_approve(pending, answer.amount):
        return "approved another amount"
    # On us it was computed here, of the same request.
    foreign = request.issuer != request.acquirer
    if foreign and answer.pair_seq > 0 and answer.commitment != own_commitment(request, answer):
        return "commitment differs"
    if answer.pair_seq == 0 and answer.outcome is Outcome.APPROVED:
        return "approved without a number"
    if answer.original is not None and pending.original is not None:
        doubt = doubtful(pending.original, answer.original)
        return None if doubt is None else f"of the original: {doubt}"
    return None


def _may_approve(pending: Pending, amount: int) -> bool:
    request = pending.request
    if amount == request.amount:
        return True
    if request.kind in (Kind.REVERSAL, Kind.VOID):
        # What was there to give back: less after a partial approval, nothing after a refusal. Of
        # an authorization more, if it was raised; but nothing moves here then.
        moves = pending.original_kind in PAYMENTS or pending.original_kind in CREDITS
        return amount >= 0 and not (moves and amount > pending.original_amount)
    return request.partial_ok and 0 < amount < request.amount


def own_commitment(request: AuthorizationRequest, answer: AuthorizationAnswer) -> bytes:
    """C as the acquirer computes it."""
    facts = shared_facts(request, answer.outcome, answer.card_token, answer.amount)
    return shared_commitment(request.txid, facts, request.salt_fin, request.salt_pii)


def is_passing(answer: AuthorizationAnswer) -> bool:
    """Whether the issuer says that it couldn't decide: it is to be asked again."""
    return answer.pair_seq == 0 and answer.outcome in (Outcome.SYSTEM_ERROR, Outcome.OVERLOADED)
