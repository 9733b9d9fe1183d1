"""Whether a card may be used at all: its status, its dates, its PIN."""

from __future__ import annotations

from nodes.authorization.model import AuthorizationRequest, Outcome
from nodes.authorization.rules.draft import Draft, refused
from nodes.authorization.state import PIN_TRIES, Card, CardStanding, Decision, Facts

CARD_REFUSALS = {
    "lost": Outcome.CARD_LOST,
    "stolen": Outcome.CARD_STOLEN,
    "inactive": Outcome.CARD_BLOCKED,
    "blocked": Outcome.CARD_BLOCKED,
    "cancelled": Outcome.CARD_BLOCKED,
}
#: Third digit of the service code: PIN required (ISO/IEC 7813, table of service codes).
PIN_REQUIRED = frozenset("03567")


def refuse_status(draft: Draft, card_id: int) -> Decision | None:
    """A card that isn't active pays nothing."""
    status = draft.cards[card_id].status
    if status == "active":
        return None
    return refused(draft, CARD_REFUSALS[status], {"status": status}, card_id)


def refuse_card(request: AuthorizationRequest, facts: Facts, draft: Draft) -> Decision | None:
    """Status, expiry and currency, in order of precedence."""
    card = facts.card
    if card is None:
        return refused(draft, Outcome.CARD_UNKNOWN)
    refusal = refuse_status(draft, card.card_id)
    if refusal is not None:
        return refusal
    expiry, asked = card.expiry, request.expiry
    if expiry < facts.moment.year_month or (asked is not None and asked != expiry):
        values: dict[str, int | str] = {"expiry": expiry}
        if asked is not None and asked != expiry:
            values["asked"] = asked
        return refused(draft, Outcome.CARD_EXPIRED, values, card.card_id)
    return refuse_currency(request, draft, card.card_id)


def refuse_currency(
    request: AuthorizationRequest, draft: Draft, card_id: int | None
) -> Decision | None:
    currency = draft.account.currency
    if request.currency == currency:
        return None
    values: dict[str, int | str] = {"currency": request.currency, "of_account": currency}
    return refused(draft, Outcome.CURRENCY_NOT_PERMITTED, values, card_id)


def refuse_pin(
    request: AuthorizationRequest, facts: Facts, card: Card, draft: Draft
) -> Decision | None:
    """The PIN, where the card asks for one or one came: a wrong one costs a try, a right one
    gives all tries back, whatever becomes of the request."""
    if request.pin_block is None and card.service_code[2:3] not in PIN_REQUIRED:
        return None
    card_id = card.card_id
    standing = draft.cards[card_id]
    left = standing.pin_tries_left
    if left <= 0:
        return refused(draft, Outcome.PIN_TRIES_EXCEEDED, {"tries_left": 0}, card_id)
    if request.pin_block is None:
        return refused(draft, Outcome.PIN_REQUIRED, {"tries_left": left}, card_id)
    if not facts.pin_matches:
        draft.set_card(card_id, CardStanding(standing.status, left - 1, standing.uses))
        return refused(draft, Outcome.PIN_WRONG, {"tries_left": left - 1}, card_id)
    if left != PIN_TRIES:
        draft.set_card(card_id, CardStanding(standing.status, PIN_TRIES, standing.uses))
    return None


def refuse_account(draft: Draft, card_id: int | None) -> Decision | None:
    """A frozen or closed account pays nothing; what was held for a merchant still goes to him."""
    if draft.status == "open":
        return None
    return refused(draft, Outcome.ACCOUNT_FROZEN, {"status": draft.status}, card_id)


def refuse_terms(
    request: AuthorizationRequest, facts: Facts, draft: Draft, card_id: int
) -> Decision | None:
    """What the product is made for: its merchants and its number of uses."""
    terms = facts.terms
    if terms.merchants and request.merchant_id not in terms.merchants:
        values: dict[str, int | str] = {"merchant": request.merchant_id}
        return refused(draft, Outcome.CARD_NOT_PERMITTED, values, card_id)
    if terms.uses is not None and draft.cards[card_id].uses >= terms.uses:
        values = {"used": draft.cards[card_id].uses, "limit": terms.uses}
        return refused(draft, Outcome.USES_EXHAUSTED, values, card_id)
    return None


def count_use(draft: Draft, card_id: int, times: int = 1) -> None:
    """An approved use more, or one given back (-1)."""
    standing = draft.cards[card_id]
    draft.set_card(
        card_id, CardStanding(standing.status, standing.pin_tries_left, standing.uses + times)
    )
