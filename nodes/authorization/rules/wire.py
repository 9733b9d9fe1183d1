"""What can be refused by the message alone, at the issuer and at the acquirer.

`malformed` runs for every authorization, so in the good case it makes one pass: the texts are
checked as one string, and only if something is wrong they are looked at one by one to name it.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache

from nodes import ids, money
from nodes.authorization.model import (
    ACQUIRERS_KINDS,
    FOLLOW_UPS,
    AuthorizationRequest,
    Kind,
    Outcome,
    TerminalRequest,
)
from nodes.crypto.pan import is_valid_pan

_MAX_MS = 1 << 53
CHANNELS = frozenset({"pos", "ecommerce"})
#: The longest text of each field.
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
#: Kinds whose amount may be 0: nothing is asked for, or a void of all of it.
_ZERO_ALLOWED = frozenset({Kind.BALANCE_INQUIRY, Kind.REVERSAL, Kind.VOID})


def malformed(request: AuthorizationRequest, issuer: str) -> str | None:
    """Why the issuer can't read a request as one meant for it; None if it can."""
    kind, original = request.kind, request.original_txid
    if len(request.txid) != 32 or len(request.salt_fin) != 32 or len(request.salt_pii) != 32:
        return _wrong_length(request)
    if original is not None and len(original) != 32:
        return "original_txid is not 32 bytes"
    if len(request.network_ref) != 16:
        return "network_ref is not 16 bytes"
    if request.issuer != issuer:
        return "issuer is another member"
    try:
        derived = ids.txid(request.acquirer, issuer, request.network_ref)
    except (ValueError, UnicodeEncodeError):
        return "acquirer is not a member id"
    if derived != request.txid:
        return "txid is not derived from network_ref"
    if kind not in ACQUIRERS_KINDS:
        return "kind is not one that acquirers send"
    if request.currency not in money.CURRENCIES:
        return "currency is unknown"
    amount = request.amount
    if not 0 < amount <= money.MAX_TRANSACTION_AMOUNT and (amount or kind not in _ZERO_ALLOWED):
        return "amount is out of range"
    if amount and kind is Kind.BALANCE_INQUIRY:
        return "amount is out of range"
    if not (0 < request.transmitted_ms < _MAX_MS and 0 < request.deadline_ms < _MAX_MS):
        return "a time is out of range"
    if not 0 <= request.terminal_seq < _MAX_MS:
        return "terminal_seq is out of range"
    if original is None:
        if request.pan is None and kind is not Kind.REVERSAL:
            return "pan is missing"
        if kind in FOLLOW_UPS:
            return "original_txid is missing"
    elif kind not in FOLLOW_UPS:
        return "original_txid is not for this kind"
    if request.channel not in CHANNELS:
        return "channel is not pos or ecommerce"
    return _malformed_text(request)


def _wrong_length(request: AuthorizationRequest) -> str | None:
    lengths = {
        "txid": len(request.txid),
        "salt_fin": len(request.salt_fin),
        "salt_pii": len(request.salt_pii),
    }
    return next((f"{name} is not 32 bytes" for name, n in lengths.items() if n != 32), None)


def _malformed_text(request: AuthorizationRequest) -> str | None:
    merchant_id, mcc, country = request.merchant_id, request.mcc, request.country
    terminal_id, batch, stan = request.terminal_id, request.batch, request.stan
    rrn, entry_mode, name = request.rrn, request.entry_mode, request.merchant_name
    day, local_time = request.business_date, request.local_time
    ascii_texts = (
        f"{merchant_id}{mcc}{country}{terminal_id}{batch}{stan}{rrn}{entry_mode}{day}{local_time}"
    )
    if not (
        0 < len(merchant_id) <= 15
        and 0 < len(name) <= 80
        and 0 < len(mcc) <= 4
        and 0 < len(country) <= 2
        and 0 < len(terminal_id) <= 8
        and 0 < len(batch) <= 12
        and 0 < len(stan) <= 12
        and 0 < len(rrn) <= 12
        and 0 < len(entry_mode) <= 4
        and 0 < len(local_time) <= 32
        and len(day) == 10
        and ascii_texts.isascii()
        and ascii_texts.isprintable()
        and name.isprintable()
    ):
        return _wrong_text(request)
    return None if _is_date(day) else "business_date is not YYYY-MM-DD"


def _wrong_text(request: AuthorizationRequest) -> str:
    for name, longest in _TEXTS.items():
        value = getattr(request, name)
        if not 0 < len(value) <= longest or not value.isprintable():
            return f"{name} is empty, too long or not printable"
        if name != "merchant_name" and not value.isascii():
            return f"{name} is not ASCII"
    return "business_date is not YYYY-MM-DD"


@lru_cache(maxsize=64)
def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def refuse_at_acquirer(request: TerminalRequest) -> Outcome | None:
    """What the acquirer refuses by the message alone; None if it goes on."""
    kind, rrn = request.kind, request.rrn
    batch, stan, entry_mode = request.batch, request.stan, request.entry_mode
    terminal_id, merchant_id = request.terminal_id, request.merchant_id
    local_time = request.local_time
    texts = f"{batch}{stan}{entry_mode}{local_time}{rrn or ''}{terminal_id}{merchant_id}"
    if not (
        len(request.fingerprint) == 32
        and _is_date(request.business_date)
        and texts.isascii()
        and texts.isprintable()
        and 0 < len(batch) <= 12
        and 0 < len(stan) <= 12
        and 0 < len(entry_mode) <= 4
        and 0 < len(local_time) <= 32
        and 0 < len(terminal_id) <= 32
        and 0 < len(merchant_id) <= 32
        and len(rrn or "") <= 12
        and 0 < request.deadline_ms < _MAX_MS
        and request.channel in CHANNELS
        # A reversal finds its original by the terminal's batch and STAN; others name it.
        and (rrn or kind not in FOLLOW_UPS or kind is Kind.REVERSAL)
    ):
        return Outcome.MALFORMED
    if kind not in ACQUIRERS_KINDS:
        return Outcome.TRANSACTION_NOT_SUPPORTED
    if not _amount_fits(kind, request.amount) or request.currency not in money.CURRENCIES:
        return Outcome.AMOUNT_INVALID
    if not is_valid_pan(request.pan):
        return Outcome.CARD_NUMBER_INVALID
    return None


def _amount_fits(kind: Kind, amount: int) -> bool:
    if kind is Kind.BALANCE_INQUIRY:
        return amount == 0
    if amount == 0:
        return kind is Kind.VOID
    return 0 < amount <= money.MAX_TRANSACTION_AMOUNT
