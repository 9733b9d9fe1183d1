"""Offline payments at the issuer: what a card may spend is set aside before, and drawn on later.

Amounts are minor units. A record that the card has signed is posted whatever stands against it:
out of the reserve, then out of the purses, and what neither has is owed (purchases.decide_advice).
"""

from __future__ import annotations

from nodes import money
from nodes.authorization.model import AuthorizationRequest, Outcome
from nodes.authorization.rules import standing
from nodes.authorization.rules.draft import Draft, approved, not_enough, refused
from nodes.authorization.rules.naming import draft_of
from nodes.authorization.rules.purses import available_in, split, total
from nodes.authorization.state import (
    Card,
    Decision,
    Detail,
    Facts,
    Move,
    OfflineFacts,
    Side,
)
from nodes.crypto.offline_record import RecordMalformed, decode_record

#: The most that may be set aside for one card (pos-link.md, Offline: 1,000 a card), minor units.
MAX_RESERVE = 100_000
#: The most that one payment may be (200 a transaction): a larger one is posted, and told of.
MAX_PAYMENT = 20_000


def decide_reserve(amount: int, facts: Facts) -> Decision:
    """Set an amount aside for a card's offline payments: what is available falls by it."""
    draft, card = draft_of(facts), facts.card
    if not 0 < amount <= money.MAX_TRANSACTION_AMOUNT:
        return refused(draft, Outcome.AMOUNT_INVALID, {"amount": amount})
    if draft is None or card is None or card.card_id not in draft.cards:
        return refused(draft, Outcome.CARD_UNKNOWN)
    card_id = card.card_id
    refusal = standing.refuse_status(draft, card_id) or standing.refuse_account(draft, card_id)
    if refusal is not None:
        return refusal
    reserved = draft.offline.get(card_id, 0)
    if reserved + amount > MAX_RESERVE:
        values: dict[str, int | str] = {
            "amount": amount,
            "reserved": reserved,
            "limit": MAX_RESERVE,
        }
        return refused(draft, Outcome.AMOUNT_LIMIT, values, card_id)
    parts = split(amount, draft.purses)
    if total(parts) < amount:
        return not_enough(draft, amount, available_in(draft.purses), card_id)
    draft.pay(parts, Side.OFFLINE)
    draft.reserve(card_id, amount)
    return approved(draft, amount, Detail(parts=parts, card_id=card_id, expired=draft.expired))


def decide_release(amount: int, facts: Facts) -> Decision:
    """Give an amount of the reserve back to the main purse; what is owed is repaid out of it.

    For people who know that the card won't spend it: a card that pays offline later is still
    posted, and what isn't there is owed.
    """
    draft, card = draft_of(facts), facts.card
    if not 0 < amount <= money.MAX_TRANSACTION_AMOUNT:
        return refused(draft, Outcome.AMOUNT_INVALID, {"amount": amount})
    if draft is None or card is None or card.card_id not in draft.cards:
        return refused(draft, Outcome.CARD_UNKNOWN)
    card_id = card.card_id
    reserved = draft.offline.get(card_id, 0)
    if amount > reserved:
        return not_enough(draft, amount, reserved, card_id)
    draft.reserve(card_id, -amount)
    parts = ((draft.purses[0].account_id, amount),)
    draft.credit(parts, Side.OFFLINE)
    return approved(draft, amount, Detail(parts=parts, card_id=card_id, expired=draft.expired))


def spend_reserve(draft: Draft, card_id: int, amount: int) -> None:
    """An offline payment draws on what was set aside for it."""
    if amount:
        draft.reserve(card_id, -amount)
        draft.moves.append(Move(Side.OFFLINE, Side.SETTLEMENT, amount))


def refuse_record(
    request: AuthorizationRequest, facts: Facts, draft: Draft, card: Card
) -> Decision | None:
    """What isn't a payment of this card: not signed by its key, or posted already."""
    known = facts.offline
    try:
        record = decode_record(request.offline or b"")
    except RecordMalformed:
        return _invalid(draft, "record", card)
    fits = {
        "terminal": record.terminal_id == request.terminal_id,
        "amount": record.amount == request.amount,
        "currency": record.currency == request.currency,
        "key": known is not None and known.card_token == card.card_token,
        "signature": known is not None and known.genuine,
    }
    for name, fit in fits.items():
        if not fit:
            return _invalid(draft, name, card)
    if known is not None and record.hash in known.posted:
        # Posted already, under another message: whoever sent this one was told so.
        return refused(draft, Outcome.KEY_REUSED, {"atc": record.atc}, card.card_id)
    return None


def is_clone(known: OfflineFacts | None) -> bool:
    """Whether a genuine record's counter has paid another one: there is a copy of the card.

    For what refuse_record lets pass.
    """
    return known is not None and bool(known.posted)


def post_clone(draft: Draft, card_id: int, amount: int) -> Decision:
    """A copy's payment posts like any late advice: the merchant was promised it.

    Which of two payments under one counter is the holder's nobody can tell. So it draws on nothing
    that is the holder's, counts in no window and as no use: it is owed as a whole, until people
    have decided who bears it.
    """
    draft.owe(amount, Side.SETTLEMENT)
    return approved(draft, amount, Detail(shortfall=amount, card_id=card_id, expired=draft.expired))


def _invalid(draft: Draft, what: str, card: Card) -> Decision:
    return refused(draft, Outcome.OFFLINE_RECORD_INVALID, {"differs": what}, card.card_id)
