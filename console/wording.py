"""Words for what the nodes report in codes. English; every text of the console is here or in a
template inside `_()`, so that a catalogue can translate it later."""

from __future__ import annotations

#: Kind of a transaction -> words.
KINDS = {
    "purchase": "Purchase",
    "balance_inquiry": "Balance inquiry",
    "refund": "Refund",
    "reversal": "Reversal",
    "load": "Load",
}

#: Outcome -> words. An unknown code is shown as it is, in words.
OUTCOMES = {
    "approved": "Approved",
    "overloaded": "Overloaded",
    "malformed": "Malformed message",
    "key_reused": "Key reused with other content",
    "terminal_not_permitted": "Terminal not permitted",
    "merchant_not_permitted": "Merchant not permitted",
    "transaction_not_supported": "Transaction not supported",
    "amount_invalid": "Invalid amount",
    "card_number_invalid": "Invalid card number",
    "issuer_unknown": "Issuer unknown",
    "original_not_found": "Original not found",
    "reversed_before_arrival": "Reversed before arrival",
    "deadline_passed": "Deadline passed",
    "card_unknown": "Card unknown",
    "card_lost": "Card lost",
    "card_stolen": "Card stolen",
    "card_blocked": "Card blocked",
    "card_expired": "Card expired",
    "currency_not_permitted": "Currency not permitted",
    "pin_tries_exceeded": "PIN tries exceeded",
    "pin_required": "PIN required",
    "pin_wrong": "Wrong PIN",
    "original_mismatch": "Doesn't match its original",
    "already_reversed": "Already reversed",
    "over_original_amount": "More than the original",
    "insufficient_funds": "Insufficient funds",
    "issuer_unavailable": "Issuer unavailable",
    "system_error": "System error",
}

#: State of the way to the chain -> (words, what it means).
ANCHOR_STATES = {
    "UNSEALED": ("Recorded", "In the ledger, not yet in the log."),
    "SEALED": ("Sealed", "In the log, its batch waits to be sent to the chain."),
    "SUBMITTED": ("Submitted", "Its batch's anchor was sent, the chain hasn't confirmed it yet."),
    "ANCHORED": ("Anchored", "Its batch's root stands on the chain."),
}

SIDES = {"issuer": "Issuer", "acquirer": "Acquirer", "merchant": "Merchant"}

#: Where DE22 says the card number came from (first two digits; ISO 8583:1987, data element 22).
ENTRY_MODES = {
    "01": "Keyed",
    "02": "Magnetic stripe",
    "03": "QR code",
    "05": "Chip",
    "07": "Contactless chip",
    "81": "Online",
    "90": "Magnetic stripe",
    "91": "Contactless stripe",
}

ACCOUNT_KINDS = {
    "cardholder": "Cardholder",
    "funding": "Funding",
    "settlement": "Settlement",
    "merchant": "Merchant",
}

#: The overview's chart.
CHART = {
    "approved": "Approved",
    "declined": "Declined",
    "amount": "Approved amount",
    "nothing": "Nothing in the time shown",
}

#: An event of a transaction's timeline -> words; others are shown as they are named.
EVENTS = {
    "accepted": "Accepted",
    "decided": "Decided",
    "recorded": "Recorded in the ledger",
    "sealed": "Sealed into the log",
    "submitted": "Anchor sent to the chain",
    "anchored": "Anchored on the chain",
    "purchase": "Purchased",
    "reversal": "Reversal",
    "refund": "Refund",
    "reversal acknowledged": "Reversal acknowledged by the issuer",
}


def words(table: dict[str, str], code: object) -> str:
    """The words of a code, or the code itself made readable."""
    text = str(code)
    return table.get(text) or text.replace("_", " ").capitalize()
