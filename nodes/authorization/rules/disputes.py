"""Payments of which people have to decide who bears them: opened, decided, dropped.

Two kinds. What is owed for a payment of a copied card is disputed from its posting on
(offline.post_clone). And the holder may dispute what he has paid: until that is decided, no refund
and no void gives it back (follow_ups), so that nobody gets one payment back twice. What the issuer
bears counts as refunded, in both: merchants can't refund it any more.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from nodes import money
from nodes.authorization.model import Outcome
from nodes.authorization.rules.draft import Draft, Parts, approved, refused
from nodes.authorization.rules.naming import TAKING, draft_of, named_original
from nodes.authorization.rules.purses import split
from nodes.authorization.state import (
    Account,
    Decision,
    Detail,
    Facts,
    Original,
    Progress,
    Side,
)


class Ended(StrEnum):
    """How a holder's dispute of a payment ends."""

    DROPPED = "dropped"
    GIVEN_BACK = "given_back"
    REVERSED = "reversed"


def ended_disputes(before: Account, after: Account) -> list[bytes]:
    """The payments that holders disputed before a decision, and of which nothing is left now."""
    if not before.disputed:
        return []
    left = {one.txid for one in after.disputed}
    return [one.txid for one in before.disputed if one.paid and one.txid not in left]


def decide_dispute(amount: int | None, facts: Facts) -> Decision:
    """The holder disputes an amount (minor units) of a payment (`facts.original`), or all that is
    left of it. No money moves; the decision's amount is what is disputed now."""
    found = named_original(facts, TAKING)
    if isinstance(found, Decision):
        return found
    original, draft = found
    if original.progress.ended:
        values: dict[str, int | str] = {"reversed": original.progress.reversed}
        return refused(draft, Outcome.ALREADY_REVERSED, values, original.card_id)
    disputed = draft.disputed_of(original.txid)
    if disputed:
        return refused(draft, Outcome.UNDER_DISPUTE, {"disputed": disputed}, original.card_id)
    progress = original.progress
    left = original.amount - progress.refunded - progress.reversed
    wanted = left if amount is None else amount
    if not 0 < wanted <= left:
        values = {
            "amount": wanted,
            "original": original.amount,
            "refunded": progress.refunded,
            "reversed": progress.reversed,
        }
        return refused(draft, Outcome.OVER_ORIGINAL_AMOUNT, values, original.card_id)
    draft.dispute(original.txid, wanted, paid=True)
    return approved(draft, wanted, Detail(card_id=original.card_id, expired=draft.expired))


def decide_dropped(txid: bytes, facts: Facts) -> Decision:
    """The holder's dispute of a payment ends and nothing is given back for what is left of it.

    What is owed for a copy's payment doesn't end like this: somebody has to bear it.
    """
    draft = draft_of(facts)
    found = None if draft is None else draft.find_dispute(txid)
    if draft is None or found is None or not found.paid:
        return refused(draft, Outcome.ORIGINAL_NOT_FOUND)
    draft.settle(txid, found.amount)
    return approved(draft, 0, Detail(expired=draft.expired))


def decide_disputed(amount: int, facts: Facts) -> Decision:
    """Who bears a disputed payment (`facts.original`), or a part of it, in minor units.

    Positive: the issuer does; the holder gets it, and a debt is repaid out of it. Negative, where
    it is owed: the holder does; the purses pay what they have, the rest is owed like any other
    debt. (A paid one that the holder is to bear is dropped.)
    """
    draft, original = draft_of(facts), facts.original
    card_id = facts.card.card_id if facts.card is not None else None
    if not 0 < abs(amount) <= money.MAX_TRANSACTION_AMOUNT:
        return refused(draft, Outcome.AMOUNT_INVALID, {"amount": amount}, card_id)
    if draft is None or original is None:
        return refused(draft, Outcome.ORIGINAL_NOT_FOUND, None, card_id)
    found = draft.find_dispute(original.txid)
    if found is None or abs(amount) > found.amount or (amount < 0 and found.paid):
        disputed = found.amount if found is not None and (amount > 0 or not found.paid) else 0
        values: dict[str, int | str] = {"amount": abs(amount), "disputed": disputed}
        return refused(draft, Outcome.OVER_ORIGINAL_AMOUNT, values, card_id)
    draft.settle(original.txid, abs(amount))
    parts: Parts
    changes: dict[bytes, Progress] = {}
    if amount > 0:
        parts = ((draft.purses[0].account_id, amount),)
        draft.credit(parts, Side.ADJUSTMENT)
        progress = original.progress
        refunded = progress.refunded + amount
        changes[original.txid] = msgspec.structs.replace(progress, refunded=refunded)
    else:
        parts = split(-amount, draft.purses)
        draft.repay(parts)
    detail = Detail(parts=parts, card_id=card_id, expired=draft.expired)
    return approved(draft, abs(amount), detail, changes)


def refuse_disputed(original: Original, draft: Draft) -> Decision | None:
    """What the holder disputes isn't given back beside it. A copy's debt may be: that repays it."""
    found = draft.find_dispute(original.txid)
    if found is None or not found.paid:
        return None
    return refused(draft, Outcome.UNDER_DISPUTE, {"disputed": found.amount}, original.card_id)
