"""The issuer's own transactions and what people change: loads, corrections, transfers, statuses."""

from __future__ import annotations

from nodes import money
from nodes.authorization.controls import Terms
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.rules import limits, standing
from nodes.authorization.rules.chip import Script, queue_script
from nodes.authorization.rules.draft import (
    Draft,
    approved,
    not_enough,
    refused,
    refused_because,
)
from nodes.authorization.rules.limits import Verdict
from nodes.authorization.rules.naming import draft_of
from nodes.authorization.rules.purses import available_in, split, total
from nodes.authorization.state import (
    Account,
    CardStanding,
    Decision,
    Detail,
    Facts,
    Purse,
    Reason,
    Side,
)

#: A card that has ended takes no load; a blocked or inactive one does.
_ENDED = frozenset({"lost", "stolen", "cancelled"})


def first_snapshot(
    account_id: int,
    currency: str,
    purses: tuple[tuple[int, str], ...],
    cards: dict[int, str],
) -> Account:
    """An account without versions: `purses` are (ledger account, name), `cards` status by id."""
    return Account(
        account_id,
        0,
        currency,
        tuple(Purse(ledger_account, name) for ledger_account, name in purses),
        cards={card_id: CardStanding(status) for card_id, status in cards.items()},
    )


def decide_load(amount: int, facts: Facts, purse: str | None = None) -> Decision:
    """Put value on a card, into a purse by name or the main one. A frozen account takes it."""
    draft, card = draft_of(facts), facts.card
    if not 0 < amount <= money.MAX_TRANSACTION_AMOUNT:
        return refused(draft, Outcome.AMOUNT_INVALID, {"amount": amount})
    if draft is None or card is None or card.card_id not in draft.cards:
        return refused(draft, Outcome.CARD_UNKNOWN)
    card_id, status = card.card_id, draft.cards[card.card_id].status
    into = _purse(draft, purse)
    if status in _ENDED:
        return refused(draft, standing.CARD_REFUSALS[status], {"status": status}, card_id)
    if draft.status == "closed":
        return refused(draft, Outcome.ACCOUNT_FROZEN, {"status": "closed"}, card_id)
    if into is None:
        return refused(draft, Outcome.CARD_NOT_PERMITTED, {"purse": purse or ""}, card_id)
    if draft.loads and not facts.terms.reloadable:
        return refused(draft, Outcome.CARD_NOT_PERMITTED, {"loads": draft.loads}, card_id)
    verdict = limits.evaluate(
        facts.rules, limits.Spend(Kind.LOAD, amount), draft.counters, facts.moment
    )
    refusal = _refuse_limits(draft, verdict, _over_balance(draft, facts.terms, amount), card_id)
    if refusal is not None:
        return refusal
    parts = ((into.account_id, amount),)
    draft.credit(parts, Side.FUNDING)
    draft.loads += 1
    detail = Detail(
        parts=parts,
        counted=limits.count(draft, verdict, Kind.LOAD, amount, facts.moment.local),
        card_id=card_id,
        shadow=verdict.shadow,
        expired=draft.expired,
    )
    return approved(draft, amount, detail)


def decide_adjustment(amount: int, facts: Facts, purse: str | None = None) -> Decision:
    """A correction: positive to the cardholder, negative from him; one purse, or the main one.

    It is posted whatever the card's or the account's status, but never over a limit.
    """
    draft = draft_of(facts)
    card_id = facts.card.card_id if facts.card is not None else None
    if not 0 < abs(amount) <= money.MAX_TRANSACTION_AMOUNT:
        return refused(draft, Outcome.AMOUNT_INVALID, {"amount": amount}, card_id)
    if draft is None:
        return refused(None, Outcome.CARD_UNKNOWN)
    of = _purse(draft, purse)
    if of is None:
        return refused(draft, Outcome.CARD_NOT_PERMITTED, {"purse": purse or ""}, card_id)
    parts = ((of.account_id, abs(amount)),)
    if amount > 0:
        draft.credit(parts, Side.ADJUSTMENT)
    elif of.available < -amount:
        return not_enough(draft, -amount, of.available, card_id)
    else:
        draft.pay(parts, Side.ADJUSTMENT)
    detail = Detail(parts=parts, card_id=card_id, expired=draft.expired)
    return approved(draft, abs(amount), detail)


def decide_transfer(amount: int, facts: Facts) -> Decision:
    """From card to card: out of the purses in order, into the other account's main purse."""
    draft, card, to_card, to_account = draft_of(facts), facts.card, facts.to_card, facts.to_account
    if not 0 < amount <= money.MAX_TRANSACTION_AMOUNT:
        return refused(draft, Outcome.AMOUNT_INVALID, {"amount": amount})
    if draft is None or card is None or to_card is None or to_account is None:
        return refused(draft, Outcome.CARD_UNKNOWN)
    card_id = card.card_id
    other = Draft(to_account, 0)  # its holds are its own next decision's
    refusal = _refuse_transfer(amount, facts, draft, other)
    if refusal is not None:
        return refusal
    spend = limits.Spend(Kind.TRANSFER, amount)
    verdict = limits.evaluate(facts.rules, spend, draft.counters, facts.moment)
    over = None if facts.to_terms is None else _over_balance(other, facts.to_terms, amount)
    refusal = _refuse_limits(draft, verdict, over, card_id)
    if refusal is not None:
        return refusal
    parts = split(amount, draft.purses)
    if total(parts) < amount:
        return not_enough(draft, amount, available_in(draft.purses), card_id, verdict.shadow)
    into = other.purses[0].account_id
    draft.pay(parts, into)
    for paid_by, paid in parts:
        other.credit(((into, paid),), paid_by)
    # The first moves of both are the same money: the payer's are kept, then what repays a debt.
    repaying = [move for move in other.moves if move.credit is Side.RECEIVABLE]
    draft.moves.extend(repaying)
    detail = Detail(
        parts=parts,
        counted=limits.count(draft, verdict, Kind.TRANSFER, amount, facts.moment.local),
        card_id=card_id,
        shadow=verdict.shadow,
        expired=draft.expired,
    )
    return Decision(
        Outcome.APPROVED,
        amount,
        draft.next_version(),
        other.next_version(),
        tuple(draft.moves),
        {},
        detail,
    )


def _refuse_transfer(amount: int, facts: Facts, draft: Draft, other: Draft) -> Decision | None:
    """Both cards must be active and in date, both accounts of one currency; never to oneself."""
    card, to_card = facts.card, facts.to_card
    if (
        card is None
        or to_card is None
        or card.card_id not in draft.cards
        or to_card.card_id not in other.cards
    ):
        return refused(draft, Outcome.CARD_UNKNOWN)
    card_id = card.card_id
    statuses = (draft.cards[card_id].status, other.cards[to_card.card_id].status)
    refusals = {standing.CARD_REFUSALS[status]: status for status in statuses if status != "active"}
    for outcome in (Outcome.CARD_LOST, Outcome.CARD_STOLEN, Outcome.CARD_BLOCKED):
        if outcome in refusals:
            return refused(draft, outcome, {"status": refusals[outcome]}, card_id)
    expiry = min(card.expiry, to_card.expiry)
    if expiry < facts.moment.year_month:
        return refused(draft, Outcome.CARD_EXPIRED, {"expiry": expiry}, card_id)
    if draft.account.currency != other.account.currency:
        values: dict[str, int | str] = {
            "currency": other.account.currency,
            "of_account": draft.account.currency,
        }
        return refused(draft, Outcome.CURRENCY_NOT_PERMITTED, values, card_id)
    if draft.status != "open" or other.status == "closed":
        status = draft.status if draft.status != "open" else other.status
        return refused(draft, Outcome.ACCOUNT_FROZEN, {"status": status}, card_id)
    if draft.account.account_id == other.account.account_id:
        return refused(draft, Outcome.CARD_NOT_PERMITTED, {"to": "the same account"}, card_id)
    if not facts.terms.transfers:
        return refused(draft, Outcome.CARD_NOT_PERMITTED, {"service": "transfer"}, card_id)
    return None


def decide_standing(facts: Facts, card_id: int, status: str) -> Decision:
    """People change a card's status. Whether it may follow on the old one is the cards' rule."""
    draft = draft_of(facts)
    if draft is None or card_id not in draft.cards:
        return refused(draft, Outcome.CARD_UNKNOWN)
    before = draft.cards[card_id]
    draft.set_card(card_id, CardStanding(status, before.pin_tries_left, before.uses))
    return approved(draft, 0, Detail(card_id=card_id, expired=draft.expired))


def decide_script(facts: Facts, card_id: int, script: Script) -> Decision:
    """People have a chip told something: it waits until the card says that it has done it."""
    draft = draft_of(facts)
    if draft is None or card_id not in draft.cards:
        return refused(draft, Outcome.CARD_UNKNOWN)
    queue_script(draft, card_id, script)
    return approved(draft, 0, Detail(card_id=card_id, expired=draft.expired))


def decide_account_status(facts: Facts, status: str) -> Decision:
    """People freeze, open or close an account: "open", "frozen" or "closed", which is final."""
    draft = draft_of(facts)
    if draft is None:
        return refused(None, Outcome.CARD_UNKNOWN)
    if draft.status == "closed" and status != "closed":
        return refused(draft, Outcome.ACCOUNT_FROZEN, {"status": "closed"})
    draft.status = status
    return approved(draft, 0, Detail(expired=draft.expired))


def _purse(draft: Draft, name: str | None) -> Purse | None:
    if name is None:
        return draft.purses[0]
    return next((purse for purse in draft.purses if purse.name == name), None)


def _over_balance(draft: Draft, terms: Terms, amount: int) -> Reason | None:
    """The balance after a load (what is owed is repaid out of it) may not be over the maximum."""
    maximum = terms.max_balance
    balance = sum(purse.balance for purse in draft.purses)
    if maximum is None or balance + amount - min(amount, draft.repayable) <= maximum:
        return None
    values: dict[str, int | str] = {"amount": amount, "balance": balance, "max_balance": maximum}
    return Reason(Outcome.AMOUNT_LIMIT.value, values=values)


def _refuse_limits(
    draft: Draft, verdict: Verdict, over_balance: Reason | None, card_id: int
) -> Decision | None:
    """What the rules decline, or the maximum balance: it is an amount limit like theirs."""
    outcome, reason = verdict.outcome, verdict.reason
    if over_balance is not None and outcome in (None, Outcome.COUNT_LIMIT):
        outcome, reason = Outcome.AMOUNT_LIMIT, over_balance
    if outcome is None or reason is None:
        return None
    return refused_because(draft, outcome, reason, verdict.shadow, card_id)
