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
    "authorization": "Authorization",
    "increment": "Increment",
    "capture": "Capture",
    "void": "Void",
    "advice": "Advice",
    "expiry": "Expiry of a hold",
    "adjustment": "Adjustment",
    "transfer": "Transfer",
    "top_up": "Top-up",
    "reserve": "Reserved for offline",
    "release": "Released from offline",
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
    "code_not_valid": "QR code not valid",
    "chip_data_invalid": "Invalid chip data",
    "cryptogram_wrong": "Wrong cryptogram",
    "entry_not_permitted": "Card may not be read like this",
    "check_value_wrong": "Wrong card check value",
    "fallback_not_permitted": "Stripe of a chip card not permitted",
    "pin_tries_exceeded": "PIN tries exceeded",
    "pin_required": "PIN required",
    "pin_wrong": "Wrong PIN",
    "cvm_required": "PIN or signature required",
    "original_mismatch": "Doesn't match its original",
    "already_reversed": "Already reversed",
    "under_dispute": "Under dispute",
    "hold_ended": "Hold has ended",
    "over_original_amount": "More than the original",
    "account_frozen": "Account frozen",
    "offline_clone": "Copied card (offline counter reused)",
    "offline_record_invalid": "Offline record not the card's",
    "card_not_permitted": "Card not permitted here",
    "uses_exhausted": "Uses exhausted",
    "rule_declined": "Declined by a rule",
    "amount_limit": "Over an amount limit",
    "count_limit": "Over a count limit",
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
    "04": "QR code of an order",
    "05": "Chip",
    "07": "Contactless chip",
    "80": "Magnetic stripe (fallback)",
    "81": "Online",
    "95": "Chip",
    "90": "Magnetic stripe",
    "91": "Contactless stripe",
}

ACCOUNT_KINDS = {
    "cardholder": "Cardholder",
    "funding": "Funding",
    "clearing": "Corrections",
    "settlement": "Settlement",
    "merchant": "Merchant",
    "receivable": "Receivable",
    "offline_reserved": "Reserved for offline",
    "adjustment": "Adjustments",
}

#: Status of a card account -> (words, what it means).
ACCOUNT_STATES = {
    "open": ("Open", "It pays and takes money."),
    "frozen": ("Frozen", "It pays nothing; refunds, reversals and loads still come in."),
    "closed": ("Closed", "It neither pays nor takes money, and stays closed."),
}

CARD_STATES = {
    "active": "Active",
    "blocked": "Blocked",
    "lost": "Lost",
    "stolen": "Stolen",
    "cancelled": "Cancelled",
    "expired": "Expired",
}

#: The window of a limit -> words behind the limit: "500.00 a day".
WINDOWS = {
    "transaction": "a transaction",
    "day": "a day",
    "week": "a week",
    "month": "a month",
    "lifetime": "in all",
}

CHANNELS = {"pos": "At a terminal", "ecommerce": "Online shop"}
#: What rules may name as a channel: any of those, or the way in which a card was read.
RULE_CHANNELS = CHANNELS | {
    "chip": "Chip",
    "contactless": "Contactless",
    "stripe": "Magnetic stripe",
    "fallback": "Stripe of a card with a chip",
    "manual": "Keyed in",
    "qr": "Code of a cardholder",
    "order_qr": "Code of a merchant",
}

ADJUSTMENT_STATES = {"proposed": "Proposed", "posted": "Posted", "rejected": "Rejected"}

#: States of a version of a product's terms: how it looks, its icon, its words.
TERMS_STATES = {
    "proposed": ("bg-warn", "hourglass", "Proposed"),
    "rejected": ("bg-bad", "x", "Rejected"),
    "to_come": ("bg-warn", "clock", "To come"),
    "in_force": ("bg-good", "check", "In force"),
    "over": ("bg-plain", "history", "Over"),
}

#: Why the node didn't do what somebody wanted, by the problem's name.
NOT_DONE = {
    "maker-is-checker": "You proposed this: somebody else must check it.",
    "terms-decided": "Somebody has decided on this version meanwhile.",
    "adjustment-decided": "Somebody has decided on this adjustment meanwhile.",
    "payment-unknown": "Only a payment that a card of this institution has made can be disputed.",
    "under-dispute": "This payment is disputed already.",
    "already-reversed": "This payment was undone: nothing of it is left.",
    "over-original-amount": "That is more than is left of this payment.",
    "dispute-closed": "Somebody has closed this dispute meanwhile.",
    "over-disputed": "That is more than is still disputed of this payment.",
    "insufficient-funds": "The account hasn't enough for it: the adjustment stays proposed.",
    "account-unknown": "There is no such card account.",
    "currency-not-permitted": "The account is in another currency.",
    "amount-invalid": "The amount can't be posted.",
    "key-reused": "This form was sent before with other content: open it anew.",
    "role-too-small": "Your key at this node isn't an operator's.",
    "subject-unknown": "The card, account or product of this rule isn't known any more.",
    "already-so": "The terminal is so already.",
    "terminal-retired": "The terminal is retired: nothing of it changes any more.",
    "terminal-in-use": "It must have been disabled for 75 seconds before it goes to another"
    " merchant.",
    "batch-open": "It has payments that stand in no batch close: close its batch first.",
    "currency-differs": "That merchant's currency is another one than the terminal's.",
    "merchant-unknown": "There is no such merchant.",
    "terminal-unknown": "There is no such terminal.",
    "key-taken": "There is a key of that name: revoked ones keep theirs.",
    "key-invalid": "The public key isn't a point of its curve.",
    "key-unknown": "There is no such key.",
    "endpoint-unknown": "There is no such endpoint.",
    "delivery-unknown": "There is no such message.",
    "authority-unknown": "There is no such authority.",
    "certificate-invalid": "This certificate isn't one of an authority that can be trusted.",
    "taken": "There is a terminal of that number.",
    "parameters-moved-on": "Somebody has changed the parameters meanwhile: look at them again.",
    "parameters-invalid": "These parameters contradict each other: a payment's limit is at most a"
    " card's, a card's at most the terminal's, and a floor limit needs a chip and offline.",
    "case-moved-on": "Somebody has moved this case on meanwhile: look at it again.",
    "case-keeper-unreachable": "The acquirer's node keeps the case and doesn't answer now. "
    "Nothing was done: try again.",
    "break-not-due": "What is late may still come: nothing can be proposed before that time.",
    "resolution-not-applicable": "This resolution doesn't fit this class of break.",
    "caller-not-permitted": "Your institution isn't the one whose move it is.",
    "close-not-confirmed": "The close isn't confirmed: there is nothing to settle yet.",
    "already-settled": "A statement of this close waits or stands already.",
    "not-to-sign": "There is nothing to sign: the other side hasn't proposed it, or it is signed.",
    "not-disputable": "It can't be disputed now: the time is over, or it isn't confirmed.",
    "not-disputed": "It isn't disputed: there is nothing to resolve.",
    "books-differ": "This institution's own books give other numbers: it doesn't sign.",
    "order-waiting": "Something was ordered for this statement before and is still under way.",
    "evidence-not-anchored": "No anchored transaction of this pair has that id here.",
    "deadline-passed": "The deadline is over.",
    "settlement-off": "This node has no settlement contract.",
}

RULE_SCOPES = {"product": "Product", "account": "Account", "card": "Card"}

#: What a rule is about, by condition.
CONDITIONS = {
    "mccs": "MCC",
    "merchants": "merchant",
    "countries": "country",
    "channels": "channel",
    "entry_modes": "entry mode",
    "kinds": "kind",
}

#: Why a payment is declined: values in braces are shown as amounts, counts or texts.
REASONS = {
    "amount_invalid": "The amount {amount} can't be posted.",
    "original_not_found": "The transaction that this names isn't known, or it was declined.",
    "reversed_before_arrival": "Its reversal came first.",
    "deadline_passed": "It came {late_ms} ms after the terminal had stopped waiting.",
    "card_unknown": "The card isn't known.",
    "card_lost": "The card is reported lost.",
    "card_stolen": "The card is reported stolen.",
    "card_blocked": "The card is {status}.",
    "card_expired": "The card expired with {expiry} (year and month).",
    "currency_not_permitted": "The account is in {of_account}, the payment in {currency}.",
    "code_not_valid": "The QR code can't be used: {fault}.",
    "chip_data_invalid": "The chip's data can't be used: {fault}.",
    "cryptogram_wrong": "The chip's cryptogram is refused: {fault} (counter {atc}, last"
    " {last_atc}).",
    "entry_not_permitted": "The card may not be read like this ({entry}): {why}.",
    "check_value_wrong": "A check value of the card is wrong: {which}.",
    "fallback_not_permitted": "The chip card's stripe isn't taken: {why}.",
    "cvm_required": "Without a PIN this isn't taken any more: {why}; {amount} was asked for.",
    "pin_tries_exceeded": "The PIN was wrong too often: no try is left.",
    "pin_required": "The card needs a PIN and none came.",
    "pin_wrong": "The PIN was wrong. Tries left: {tries_left}.",
    "original_mismatch": "It doesn't fit the transaction that it names: {differs}.",
    "already_reversed": "What it names was undone before.",
    "under_dispute": "The cardholder disputes {disputed} of it, and that isn't decided yet.",
    "hold_ended": "Nothing is held any more: of {authorized}, {captured} were captured and "
    "{reversed} released; the rest expired or was set free.",
    "over_original_amount": "{amount} is more than what is left to undo or to capture.",
    "account_frozen": "The account is {status}.",
    "offline_clone": "The card's counter {atc} was used for another offline payment: it is copied.",
    "offline_record_invalid": "The offline record isn't one that this card has signed: {differs}.",
    "uses_exhausted": "All {limit} uses of the card are spent.",
    "insufficient_funds": "{amount} was asked for and {available} is available for it.",
    "rule_declined": "The rule “{rule}” declines payments like this.",
    "amount_limit": "The rule “{rule}” allows {limit} {window}: {used} were used before, "
    "and this asks for {amount}.",
    "transaction_limit": "The rule “{rule}” allows {limit} a transaction, and this asks for "
    "{amount}.",
    "count_limit": "The rule “{rule}” allows {limit} payments {window}, and {used} were made.",
    "max_balance": "With {amount} more, the balance of {balance} would exceed the maximum of "
    "{max_balance}.",
}

#: Names of the values that were compared.
VALUES = {
    "amount": "Asked for",
    "available": "Available for it",
    "balance": "Ledger balance",
    "held": "Held",
    "limit": "Limit",
    "used": "Used before",
    "window": "Counted over",
    "max_balance": "Maximum balance",
    "mcc": "MCC",
    "merchant": "Merchant",
    "country": "Country",
    "channel": "Channel",
    "entry_mode": "Entry mode",
    "time": "Local time",
    "weekday": "Weekday",
    "status": "Status",
    "expiry": "Expiry",
    "asked": "Expiry in the message",
    "tries_left": "Tries left",
    "late_ms": "Too late by (ms)",
    "differs": "What differs",
    "original": "Original amount",
    "disputed": "Disputed",
    "of_account": "Currency of the account",
    "currency": "Currency",
    "service": "Service",
    "fault": "What is wrong",
    "why": "Because of",
    "which": "Check value",
    "entry": "Read by",
    "atc": "Transaction counter",
    "last_atc": "Last counter",
}

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

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
    "increment": "Hold raised",
    "capture": "Capture",
    "void": "Void",
    "expiry": "Hold expired",
    "reversal acknowledged": "Reversal acknowledged by the issuer",
}


def not_done(kind: str, detail: str = "") -> str:
    """Why the node didn't do it, in words."""
    return NOT_DONE.get(kind) or detail or words({}, kind)


def words(table: dict[str, str], code: object) -> str:
    """The words of a code, or the code itself made readable."""
    text = str(code)
    return table.get(text) or text.replace("_", " ").capitalize()


#: Terminal standing -> words and colour.
TERMINAL_STATES = {"active": "Active", "disabled": "Disabled", "retired": "Retired"}
#: Of a key, an authority, an endpoint -> words.
TRUST_STATES = {"active": "In use", "revoked": "Revoked", "ended": "Ended"}
#: A terminal's algorithms, the ways to get its keys, and what it can do, as forms name them.
SUITES = {"SM": "SM (national)", "AES": "AES", "LEGACY": "3DES (legacy)"}
KEY_WAYS = {
    "tmk": "Terminal master key",
    "sm2": "SM2 certificate",
    "dukpt": "AES DUKPT",
}
CAPABILITIES = {
    "chip": "Chip",
    "contactless": "Contactless",
    "stripe": "Stripe",
    "qr": "QR codes",
    "manual": "Manual entry",
    "pin_pad": "PIN pad",
    "printer": "Printer",
    "offline": "Offline",
    "partial": "Partial approval",
}
#: What happened to a terminal -> words.
TERMINAL_CHANGES = {
    "enrolled": "Enrolled",
    "parameters": "New parameters",
    "keys": "Next key",
    "disabled": "Disabled",
    "enabled": "Enabled",
    "details": "New details",
    "suite": "Other algorithms",
    "moved": "Another merchant",
    "retired": "Retired",
}
#: A terminal's parameters in the order of the form; "amount", "count", "hours" or "choice".
PARAMETERS = {
    "floor_limit": ("Floor limit", "amount"),
    "no_cvm_limit": ("Contactless without PIN up to", "amount"),
    "offline_per_transaction": ("Offline, a payment", "amount"),
    "offline_count_per_card": ("Offline, payments a card", "count"),
    "offline_per_card": ("Offline, a card", "amount"),
    "offline_per_terminal": ("Offline, this terminal", "amount"),
    "offline_hours": ("Offline, hours", "count"),
    "hotlist_max_age_hours": ("Hotlist at most so old, hours", "count"),
}
LANGUAGES = {"en": "English", "zh": "Chinese"}
#: Whose paper a receipt is.
COPIES = {"customer": "Customer's copy", "merchant": "Merchant's copy"}
