"""Offline payments at the issuer: what a card may spend is set aside before, and drawn on later.

Amounts are minor units. A record that the card has signed is posted whatever stands against it:
out of the reserve, then out of the purses, and what neither has is owed (purchases.decide_advice).
"""

from __future__ import annotations

from collections.abc import Iterator

from nodes import money
from nodes.authorization.model import AuthorizationRequest, Kind, Outcome
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
    OnlineUse,
    Paid,
    Progress,
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


def refuse_repeat(
    request: AuthorizationRequest, facts: Facts, draft: Draft, card: Card
) -> Decision | None:
    """A payment that was posted under another message, or paid online, isn't posted again."""
    for paid, same in _under_its_counter(request, facts):
        if same and _has_paid(paid, request):
            values: dict[str, int | str] = {"atc": paid.atc}
            if paid.online is not None:
                values["online"] = paid.online.value
            return refused(draft, Outcome.KEY_REUSED, values, card.card_id)
    return None


def online_use(kind: Kind, outcome: Outcome, progress: Progress) -> OnlineUse:
    """What became of an online request, for advices under its counter."""
    if kind not in (Kind.PURCHASE, Kind.AUTHORIZATION):
        return OnlineUse.OTHER
    if outcome is not Outcome.APPROVED:
        return OnlineUse.REFUSED
    if progress.ended:
        return OnlineUse.UNDONE
    if kind is not Kind.AUTHORIZATION:
        return OnlineUse.PAID
    return OnlineUse.CAPTURED if progress.captured else OnlineUse.HELD


def used_online(request: AuthorizationRequest, facts: Facts) -> OnlineUse | None:
    """What an advice's counter was used for before, by the same payment and online; None: nothing.

    A terminal whose online request failed may end the payment offline under the same counter (EMV
    4.3 Book 3: the second GENERATE AC). So it posts, but people are told.
    """
    uses = (paid.online for paid, same in _under_its_counter(request, facts) if same)
    return next((use for use in uses if use is not None), None)


def is_clone(request: AuthorizationRequest, facts: Facts) -> bool:
    """Whether a genuine payment's counter has paid another one: there is a copy of the card.

    For what refuse_record and refuse_repeat let pass. What a stranger has made up under a counter
    says nothing about the card's own payment.
    """
    known, check = facts.offline, facts.chip
    if known is not None and known.posted:
        return True
    own = request.offline is not None or (check is not None and check.genuine)
    return own and any(
        paid.genuine and not (same and paid.online is not None)
        for paid, same in _under_its_counter(request, facts)
    )


def _has_paid(paid: Paid, request: AuthorizationRequest) -> bool:
    """Whether the same payment has taken its money already."""
    if paid.online is OnlineUse.CAPTURED:
        return paid.amount == request.amount
    return paid.online in (None, OnlineUse.PAID)


def _under_its_counter(request: AuthorizationRequest, facts: Facts) -> Iterator[tuple[Paid, bool]]:
    """What the advice's counter was used for, and whether that is the same payment.

    Chip data is compared with chip data; where one of the two came without, terminal, amount and
    currency must do, and so where the other went online: its cryptogram is the first of two. An
    authorization's amount isn't final. Records are compared with each other by their hashes, before
    this.
    """
    data = facts.chip.data if facts.chip is not None else None
    record_atc = None
    if request.offline is not None:
        record_atc = decode_record(request.offline).atc
    for paid in facts.paid:
        told = (paid.terminal_id, paid.amount, paid.currency)
        if paid.online is not None:
            if paid.atc in (record_atc, data.atc if data is not None else None):
                held = paid.online in (OnlineUse.HELD, OnlineUse.CAPTURED)
                amount = paid.amount if held else request.amount
                again = data is not None and paid.chip == data.cryptogram + data.covered
                alike = told == (request.terminal_id, amount, request.currency)
                yield paid, again or (alike and paid.online is not OnlineUse.OTHER)
            continue
        if data is not None and paid.chip is not None:
            if paid.atc == data.atc:
                yield paid, paid.chip == data.cryptogram + data.covered
            continue
        by_hash = record_atc is not None and paid.recorded
        if not by_hash and paid.atc == (record_atc if data is None else data.atc):
            yield paid, told == (request.terminal_id, request.amount, request.currency)


def post_clone(draft: Draft, txid: bytes, card_id: int, amount: int) -> Decision:
    """A copy's payment posts like any late advice: the merchant was promised it.

    Which of two payments under one counter is the holder's nobody can tell. So it draws on nothing
    that is the holder's, counts in no window and as no use: it is owed as a whole, and no credit
    repays it until people have decided who bears it (own.decide_disputed).
    """
    draft.owe(amount, Side.SETTLEMENT)
    draft.dispute(txid, amount)
    return approved(draft, amount, Detail(shortfall=amount, card_id=card_id, expired=draft.expired))


def _invalid(draft: Draft, what: str, card: Card) -> Decision:
    return refused(draft, Outcome.OFFLINE_RECORD_INVALID, {"differs": what}, card.card_id)
