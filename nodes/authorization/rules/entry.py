"""How the card was read, and whether it may be: chip, stripe, contactless, codes, e-commerce. Pure.

For cards that were made with something to check (state.CardEntry), and for whoever shows a code or
sends chip data; a plain card never comes here.
"""

from __future__ import annotations

from nodes.authorization.entry_modes import (
    CHIP_MODES,
    CODE_MODES,
    STRIPE_MODES,
    EntryMode,
    entry_mode_of,
)
from nodes.authorization.model import AuthorizationRequest, Outcome
from nodes.authorization.rules.chip import refuse_chip
from nodes.authorization.rules.draft import Draft, refused
from nodes.authorization.state import Card, CardEntry, Counted, Counter, Decision, Facts

_PLAIN = CardEntry()
#: First digit of the service code: there is a chip (ISO/IEC 7813).
_WITH_CHIP = frozenset("26")


def quick_id(card_id: int) -> str:
    """Where Quick Pay since the card's last PIN is counted; its period is the number of PINs."""
    return f"quick:{card_id}"


def fallback_id(card_id: int) -> str:
    """Where reads by the stripe since the chip was last read are counted."""
    return f"fallback:{card_id}"


def code_id(card_id: int) -> str:
    """Where the number of the last code that was used is kept."""
    return f"code:{card_id}"


def refuse_entry(
    request: AuthorizationRequest, facts: Facts, card: Card, draft: Draft
) -> Decision | None:
    """Everything about how the card was presented, in order of precedence, but its PIN."""
    mode = entry_mode_of(request.entry_mode, request.channel)
    refusal = _refuse_code(mode, facts, card, draft)
    if refusal is not None or card.code is not None:
        return refusal
    entry = card.entry or _PLAIN
    if request.icc is not None or (mode in CHIP_MODES and entry.profile is not None):
        refusal = _refuse_chip_mode(request, mode, facts, card, draft)
        if refusal is not None:
            return refusal
    if card.entry is None:
        return None
    refusal = _refuse_mode(mode, entry, facts, card, draft)
    if refusal is None:
        refusal = _refuse_check_value(request, mode, facts, card, draft)
    if refusal is None and mode in STRIPE_MODES:
        refusal = _refuse_stripe(request, mode, facts, card, draft)
    return refusal


def _refuse_code(mode: EntryMode | None, facts: Facts, card: Card, draft: Draft) -> Decision | None:
    """A code is shown as a code, in its time, once; a card number is never shown as one."""
    card_id, code = card.card_id, card.code
    if code is None:
        if mode not in CODE_MODES:
            return None
        return refused(draft, Outcome.CODE_NOT_VALID, {"fault": "it is no code"}, card_id)
    last = draft.counters.get(code_id(card_id), Counter(0)).period
    if mode not in CODE_MODES:
        fault = "a code was entered as a card number"
    elif code.number <= last:
        fault = "it was used before"
    elif facts.moment.now_ms >= code.expires_ms:
        fault = f"it expired {facts.moment.now_ms - code.expires_ms} ms ago"
    else:
        draft.set_counter(code_id(card_id), Counter(code.number))
        return None
    return refused(draft, Outcome.CODE_NOT_VALID, {"fault": fault}, card_id)


def _refuse_chip_mode(
    request: AuthorizationRequest, mode: EntryMode | None, facts: Facts, card: Card, draft: Draft
) -> Decision | None:
    card_id = card.card_id
    if mode not in CHIP_MODES:
        values: dict[str, int | str] = {"fault": "chip data, but no chip was read"}
        return refused(draft, Outcome.CHIP_DATA_INVALID, values, card_id)
    if card.entry is None or card.entry.profile is None:
        values = {"fault": "the card has no chip"}
        return refused(draft, Outcome.CHIP_DATA_INVALID, values, card_id)
    refusal = refuse_chip(request, facts.chip, card, draft)
    if refusal is None and fallback_id(card_id) in draft.counters:
        draft.set_counter(fallback_id(card_id), Counter(0))
    return refusal


def _refuse_mode(
    mode: EntryMode | None, entry: CardEntry, facts: Facts, card: Card, draft: Draft
) -> Decision | None:
    """A virtual card is for the network alone; a number without its card only where permitted."""
    if mode is EntryMode.ECOMMERCE:
        return None
    why = ""
    if mode is None:
        why = "unknown entry mode"
    elif entry.virtual:
        why = "a virtual card"
    elif mode is EntryMode.MANUAL and not facts.terms.entry.manual:
        why = "the product takes no keyed-in numbers"
    elif mode in CHIP_MODES and entry.profile is None:
        why = "the card has no chip"
    if not why:
        return None
    values: dict[str, int | str] = {"entry": mode.value if mode is not None else "?", "why": why}
    return refused(draft, Outcome.ENTRY_NOT_PERMITTED, values, card.card_id)


def _refuse_check_value(
    request: AuthorizationRequest, mode: EntryMode | None, facts: Facts, card: Card, draft: Draft
) -> Decision | None:
    """CVV by the stripe, iCVV in the chip's image of it, CVV2 online: right, and there."""
    wrong = facts.wrong_check_value
    if wrong is None and mode is EntryMode.ECOMMERCE and request.cvv2 is None:
        wrong = "cvv2 is missing"
    elif wrong is None and mode in STRIPE_MODES and request.track2 is None:
        wrong = "cvv is missing"
    elif mode in STRIPE_MODES and request.service_code != card.service_code:
        wrong = "service code"
    if wrong is None:
        return None
    return refused(draft, Outcome.CHECK_VALUE_WRONG, {"which": wrong}, card.card_id)


def _refuse_stripe(
    request: AuthorizationRequest, mode: EntryMode | None, facts: Facts, card: Card, draft: Draft
) -> Decision | None:
    """The stripe of a chip card is taken as a marked fallback only, so often and for so much."""
    card_id, terms = card.card_id, facts.terms.entry
    has_chip = card.service_code[:1] in _WITH_CHIP
    if not has_chip and mode is not EntryMode.FALLBACK:
        return None
    used = draft.counters.get(fallback_id(card_id), Counter(0))
    values: dict[str, int | str] = {"amount": request.amount, "limit": terms.fallback_amount}
    if not has_chip:
        values = {"why": "the card has no chip to fall back from"}
    elif mode is not EntryMode.FALLBACK:
        values = {"why": "its chip was not tried"}
    elif request.amount > terms.fallback_amount:
        values["why"] = "the amount"
    elif used.count >= terms.fallback_count:
        values = {"why": "the count", "limit": terms.fallback_count, "used": used.count}
    else:
        draft.set_counter(fallback_id(card_id), Counter(0, 0, used.count + 1))
        return None
    return refused(draft, Outcome.FALLBACK_NOT_PERMITTED, values, card_id)


# --- Quick Pay -----------------------------------------------------------------------------------


def is_quick_pay(request: AuthorizationRequest, facts: Facts, card: Card) -> bool:
    """Contactless without a CVM, by a card whose issuer counts that.

    A signature is a CVM up to the product's amount; that one was given is the terminal's word.
    """
    if (
        card.entry is None
        or request.pin_block is not None
        or entry_mode_of(request.entry_mode, request.channel) is not EntryMode.CONTACTLESS
    ):
        return False
    chip = facts.chip.data if facts.chip is not None else None
    signed = chip is not None and chip.signed_for
    return not (signed and request.amount <= facts.terms.entry.signature_amount)


def refuse_quick_pay(
    request: AuthorizationRequest, facts: Facts, card: Card, draft: Draft
) -> Decision | None:
    """No CVM up to a limit: of this amount, and of count and sum since the card's last PIN."""
    terms, amount = facts.terms.entry, request.amount
    used = draft.counters.get(quick_id(card.card_id), Counter(0))
    values: dict[str, int | str] = {"amount": amount}
    if amount > terms.quick_pay_amount:
        values |= {"why": "this amount", "limit": terms.quick_pay_amount}
    elif used.count >= terms.quick_pay_count:
        values |= {"why": "the count", "limit": terms.quick_pay_count, "used": used.count}
    elif used.amount + amount > terms.quick_pay_total:
        values |= {"why": "the sum", "limit": terms.quick_pay_total, "used": used.amount}
    else:
        return None
    return refused(draft, Outcome.CVM_REQUIRED, values, card.card_id)


def count_quick_pay(draft: Draft, card_id: int, amount: int) -> Counted:
    """An approval without a CVM; a reversal gives its share back."""
    used = draft.counters.get(quick_id(card_id), Counter(0))
    draft.set_counter(quick_id(card_id), Counter(used.period, used.amount + amount, used.count + 1))
    return Counted(quick_id(card_id), used.period)


def forget_quick_pay(draft: Draft, card_id: int) -> None:
    """A right PIN: what was counted since the last one counts no more."""
    used = draft.counters.get(quick_id(card_id))
    if used is not None and used.count:
        draft.set_counter(quick_id(card_id), Counter(used.period + 1))
