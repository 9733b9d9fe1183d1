"""The issuer's and the acquirer's decisions: pure functions of request and facts.

Of two refusals that apply the upper one of Outcome is answered. A frozen, lost or expired card
still takes refunds and reversals: they give money back.
"""

from __future__ import annotations

from datetime import date

from nodes import ids, money
from nodes.authorization.model import AuthorizationRequest, Kind, Outcome, TerminalRequest
from nodes.authorization.state import Account, Card, Decision, Facts, Original
from nodes.crypto.pan import is_valid_pan

PIN_TRIES = 3
_CARD_REFUSALS = {
    "lost": Outcome.CARD_LOST,
    "stolen": Outcome.CARD_STOLEN,
    "inactive": Outcome.CARD_BLOCKED,
    "blocked": Outcome.CARD_BLOCKED,
    "cancelled": Outcome.CARD_BLOCKED,
}
#: Third digit of the service code: PIN required (ISO/IEC 7813, table of service codes).
_PIN_REQUIRED = frozenset("03567")
_REVERSIBLE = (Kind.PURCHASE, Kind.REFUND, Kind.BALANCE_INQUIRY)
_MAX_MS = 1 << 53


def decide(request: AuthorizationRequest, facts: Facts) -> Decision:
    """The issuer's decision on one well-formed request."""
    if request.kind is Kind.REVERSAL:
        return _decide_reversal(request, facts)
    if facts.reversed_before:
        return Decision(Outcome.REVERSED_BEFORE_ARRIVAL)
    if facts.now_ms > request.deadline_ms:
        return Decision(Outcome.DEADLINE_PASSED)
    if request.kind is Kind.REFUND:
        return _decide_refund(request, facts)
    card, account = facts.card, facts.account
    if card is None or account is None:
        return Decision(Outcome.CARD_UNKNOWN)
    refusal = _card_refusal(card, account, request, facts.year_month)
    if refusal is not None:
        return Decision(refusal)
    return _decide_with_pin(request, card, account, facts.pin_matches)


def _card_refusal(
    card: Card, account: Account, request: AuthorizationRequest, year_month: str
) -> Outcome | None:
    if card.status in _CARD_REFUSALS:
        return _CARD_REFUSALS[card.status]
    if card.expiry < year_month or (request.expiry is not None and request.expiry != card.expiry):
        return Outcome.CARD_EXPIRED
    if request.currency != account.currency:
        return Outcome.CURRENCY_NOT_PERMITTED
    return None


def _decide_with_pin(
    request: AuthorizationRequest, card: Card, account: Account, pin_matches: bool | None
) -> Decision:
    tries: int | None = None
    if request.pin_block is not None or card.service_code[2:3] in _PIN_REQUIRED:
        if card.pin_tries_left <= 0:
            return Decision(Outcome.PIN_TRIES_EXCEEDED)
        if request.pin_block is None:
            return Decision(Outcome.PIN_REQUIRED)
        if not pin_matches:
            return Decision(Outcome.PIN_WRONG, pin_tries_left=card.pin_tries_left - 1)
        tries = PIN_TRIES if card.pin_tries_left != PIN_TRIES else None
    if request.kind is Kind.BALANCE_INQUIRY:
        return Decision(Outcome.APPROVED, pin_tries_left=tries)
    if request.amount > account.available:
        return Decision(Outcome.INSUFFICIENT_FUNDS, pin_tries_left=tries)
    return Decision(Outcome.APPROVED, balance_change=-request.amount, pin_tries_left=tries)


def _decide_refund(request: AuthorizationRequest, facts: Facts) -> Decision:
    original, account = facts.original, facts.account
    if original is None or original.kind is not Kind.PURCHASE or account is None:
        return Decision(Outcome.ORIGINAL_NOT_FOUND)
    if original.outcome is not Outcome.APPROVED:
        return Decision(Outcome.ORIGINAL_NOT_FOUND)
    if (
        original.acquirer != request.acquirer
        or original.merchant_id != request.merchant_id
        or original.currency != request.currency
        or (facts.card is not None and facts.card.card_token != original.card_token)
        or (facts.card is None and request.pan is not None)
    ):
        return Decision(Outcome.ORIGINAL_MISMATCH)
    if original.reversed:
        return Decision(Outcome.ALREADY_REVERSED)
    if original.refunded + request.amount > original.amount:
        return Decision(Outcome.OVER_ORIGINAL_AMOUNT)
    return Decision(Outcome.APPROVED, balance_change=request.amount, refunded_change=request.amount)


def _decide_reversal(request: AuthorizationRequest, facts: Facts) -> Decision:
    original = facts.original
    if original is None:
        return Decision(Outcome.APPROVED, tombstone=True)
    if (
        original.kind not in _REVERSIBLE
        or original.acquirer != request.acquirer
        or original.merchant_id != request.merchant_id
        or original.terminal_id != request.terminal_id
        or original.currency != request.currency
    ):
        return Decision(Outcome.ORIGINAL_MISMATCH)
    if original.outcome is not Outcome.APPROVED:
        return Decision(Outcome.APPROVED)
    if original.reversed:
        return Decision(Outcome.ALREADY_REVERSED)
    if request.amount > original.amount:
        return Decision(Outcome.OVER_ORIGINAL_AMOUNT)
    if request.amount != original.amount or original.refunded:
        return Decision(Outcome.ORIGINAL_MISMATCH)
    change = effect_on_cardholder(original)
    account = facts.account
    if change > 0 and account is not None and change > account.available:
        return Decision(Outcome.INSUFFICIENT_FUNDS)
    return Decision(Outcome.APPROVED, balance_change=-change, reverses=True)


def effect_on_cardholder(original: Original) -> int:
    """What an approved original did to the cardholder's balance, minor units."""
    if original.kind is Kind.PURCHASE:
        return -original.amount
    return original.amount if original.kind is Kind.REFUND else 0


def malformed(request: AuthorizationRequest, issuer: str) -> str | None:
    """Why the issuer can't read a request as one meant for it; None if it can."""
    for name in ("txid", "salt_fin", "salt_pii"):
        if len(getattr(request, name)) != 32:
            return f"{name} is not 32 bytes"
    if request.original_txid is not None and len(request.original_txid) != 32:
        return "original_txid is not 32 bytes"
    if len(request.network_ref) != 16:
        return "network_ref is not 16 bytes"
    if request.issuer != issuer:
        return "issuer is another member"
    try:
        derived = ids.txid(request.acquirer, request.issuer, request.network_ref)
    except (ValueError, UnicodeEncodeError):
        return "acquirer is not a member id"
    if derived != request.txid:
        return "txid is not derived from network_ref"
    if request.kind is Kind.LOAD:
        return "kind is not one that acquirers send"
    if request.currency not in money.CURRENCIES:
        return "currency is unknown"
    lowest = 0 if request.kind is Kind.BALANCE_INQUIRY else 1
    highest = 0 if request.kind is Kind.BALANCE_INQUIRY else money.MAX_TRANSACTION_AMOUNT
    if request.kind is Kind.REVERSAL:
        lowest = 0
    if not lowest <= request.amount <= highest:
        return "amount is out of range"
    if not (0 < request.transmitted_ms < _MAX_MS and 0 < request.deadline_ms < _MAX_MS):
        return "a time is out of range"
    if not 0 <= request.terminal_seq < _MAX_MS:
        return "terminal_seq is out of range"
    if request.kind is not Kind.REVERSAL and request.original_txid is None and request.pan is None:
        return "pan is missing"
    if request.kind in (Kind.REVERSAL, Kind.REFUND) and request.original_txid is None:
        return "original_txid is missing"
    return _malformed_text(request)


def _malformed_text(request: AuthorizationRequest) -> str | None:
    for name, longest in _TEXTS.items():
        value = getattr(request, name)
        if not 0 < len(value) <= longest or not value.isprintable():
            return f"{name} is empty, too long or not printable"
        if name != "merchant_name" and not value.isascii():
            return f"{name} is not ASCII"
    if not _is_date(request.business_date):
        return "business_date is not YYYY-MM-DD"
    return None


_TEXTS = {
    "merchant_id": 15,
    "merchant_name": 80,
    "mcc": 4,
    "country": 2,
    "terminal_id": 8,
    "batch": 12,
    "stan": 12,
    "rrn": 12,
    "entry_mode": 4,
    "business_date": 10,
    "local_time": 32,
}


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def refuse_at_acquirer(request: TerminalRequest) -> Outcome | None:
    """What the acquirer refuses by the message alone; None if it goes on."""
    if len(request.fingerprint) != 32 or not _is_date(request.business_date):
        return Outcome.MALFORMED
    texts = (
        request.batch,
        request.stan,
        request.entry_mode,
        request.local_time,
        request.rrn or "0",
        request.terminal_id,
        request.merchant_id,
    )
    if not all(0 < len(text) <= 32 and text.isascii() and text.isprintable() for text in texts):
        return Outcome.MALFORMED
    if len(request.batch) > 12 or len(request.stan) > 12 or len(request.entry_mode) > 4:
        return Outcome.MALFORMED
    if len(request.rrn or "0") > 12 or not 0 < request.deadline_ms < _MAX_MS:
        return Outcome.MALFORMED
    if request.kind is Kind.LOAD:
        return Outcome.TRANSACTION_NOT_SUPPORTED
    if request.kind is Kind.BALANCE_INQUIRY:
        if request.amount != 0:
            return Outcome.AMOUNT_INVALID
    elif not 0 < request.amount <= money.MAX_TRANSACTION_AMOUNT:
        return Outcome.AMOUNT_INVALID
    if request.currency not in money.CURRENCIES:
        return Outcome.AMOUNT_INVALID
    if not is_valid_pan(request.pan):
        return Outcome.CARD_NUMBER_INVALID
    return None
