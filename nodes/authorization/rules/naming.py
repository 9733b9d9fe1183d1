"""Who may name whose transaction as the original of a follow-up."""

from __future__ import annotations

from nodes.authorization.model import AuthorizationRequest, Kind, Outcome
from nodes.authorization.rules.draft import Draft, refused
from nodes.authorization.state import Decision, Facts, Original

#: What takes money from the cardholder.
TAKING = (Kind.PURCHASE, Kind.CAPTURE, Kind.ADVICE)


def draft_of(facts: Facts) -> Draft | None:
    return None if facts.account is None else Draft(facts.account, facts.moment.now_ms)


def named_original(facts: Facts, kinds: tuple[Kind, ...]) -> tuple[Original, Draft] | Decision:
    """The approved original of one of these kinds, with its account; or that there is none."""
    original, draft = facts.original, draft_of(facts)
    if (
        original is None
        or draft is None
        or original.kind not in kinds
        or original.outcome is not Outcome.APPROVED
    ):
        return refused(draft, Outcome.ORIGINAL_NOT_FOUND)
    return original, draft


def refuse_mismatch(
    request: AuthorizationRequest,
    facts: Facts,
    original: Original,
    draft: Draft | None,
    also: tuple[tuple[str, bool], ...] = (),
) -> Decision | None:
    """It must be the same merchant of the same acquirer, with the same card; and not undone.

    `also` are further (name, whether it fits) of one kind of follow-up.
    """
    compared = {
        "acquirer": original.acquirer == request.acquirer,
        "merchant": original.merchant_id == request.merchant_id,
        "currency": original.currency == request.currency,
        "card": same_card(request, facts, original),
        **dict(also),
    }
    differs = [name for name, same in compared.items() if not same]
    if differs:
        values: dict[str, int | str] = {"differs": ", ".join(differs)}
        return refused(draft, Outcome.ORIGINAL_MISMATCH, values, original.card_id)
    if original.progress.ended:
        values = {"reversed": original.progress.reversed}
        return refused(draft, Outcome.ALREADY_REVERSED, values, original.card_id)
    return None


def same_card(request: AuthorizationRequest, facts: Facts, original: Original) -> bool:
    """A follow-up may leave the card number out; one that came must be the original's card."""
    if facts.card is None:
        return request.pan is None
    return facts.card.card_token == original.card_token
