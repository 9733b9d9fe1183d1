"""DE39: one table from outcomes to response codes (docs/iso8583.md, Response codes).

The outcome is finer than the code; the node keeps the outcome. Codes are those of ISO 8583:1987,
with A0 (MAC) as bank-card networks in China use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from nodes.authorization.model import Outcome
from nodes.authorization.services import ServiceOutcome

APPROVED = "00"
#: Approved for less than was asked for; DE4 of the answer says how much.
PARTIALLY_APPROVED = "10"
KEY_REUSED = "94"

#: Every outcome of a node's decision, and what the terminal is told.
CODE_OF_OUTCOME: Mapping[Outcome, str] = {
    Outcome.APPROVED: APPROVED,
    Outcome.OVERLOADED: "96",
    Outcome.MALFORMED: "30",
    Outcome.KEY_REUSED: KEY_REUSED,
    Outcome.TERMINAL_NOT_PERMITTED: "58",
    Outcome.MERCHANT_NOT_PERMITTED: "03",
    Outcome.TRANSACTION_NOT_SUPPORTED: "12",
    Outcome.AMOUNT_INVALID: "13",
    Outcome.CARD_NUMBER_INVALID: "14",
    Outcome.ISSUER_UNKNOWN: "15",
    Outcome.ORIGINAL_NOT_FOUND: "25",
    Outcome.REVERSED_BEFORE_ARRIVAL: "05",
    Outcome.DEADLINE_PASSED: "91",
    Outcome.CARD_UNKNOWN: "14",
    Outcome.CARD_LOST: "41",
    Outcome.CARD_STOLEN: "43",
    Outcome.CARD_BLOCKED: "62",
    Outcome.CARD_EXPIRED: "54",
    Outcome.CURRENCY_NOT_PERMITTED: "13",
    Outcome.CODE_NOT_VALID: "14",
    Outcome.CHIP_DATA_INVALID: "30",
    Outcome.CRYPTOGRAM_WRONG: "88",
    Outcome.ENTRY_NOT_PERMITTED: "57",
    Outcome.CHECK_VALUE_WRONG: "82",
    Outcome.FALLBACK_NOT_PERMITTED: "57",
    Outcome.PIN_TRIES_EXCEEDED: "75",
    Outcome.PIN_REQUIRED: "55",
    Outcome.PIN_WRONG: "55",
    Outcome.CVM_REQUIRED: "70",
    Outcome.ORIGINAL_MISMATCH: "12",
    Outcome.ALREADY_REVERSED: "12",
    Outcome.OVER_ORIGINAL_AMOUNT: "64",
    Outcome.UNDER_DISPUTE: "57",
    Outcome.HOLD_ENDED: "12",
    Outcome.ACCOUNT_FROZEN: "62",
    Outcome.OFFLINE_CLONE: "34",
    Outcome.OFFLINE_RECORD_INVALID: "34",
    Outcome.CARD_NOT_PERMITTED: "57",
    Outcome.USES_EXHAUSTED: "65",
    Outcome.RULE_DECLINED: "57",
    Outcome.AMOUNT_LIMIT: "61",
    Outcome.COUNT_LIMIT: "65",
    Outcome.INSUFFICIENT_FUNDS: "51",
    Outcome.ISSUER_UNAVAILABLE: "91",
    Outcome.SYSTEM_ERROR: "96",
}


#: How services end that are no payments: batch close, upload, downloads.
CODE_OF_SERVICE: Mapping[ServiceOutcome, str] = {
    ServiceOutcome.KEY_REUSED: KEY_REUSED,
    ServiceOutcome.TERMINAL_NOT_PERMITTED: "58",
    ServiceOutcome.MERCHANT_NOT_PERMITTED: "03",
    ServiceOutcome.NOT_EXPECTED: "12",
    ServiceOutcome.DIFFERS: "95",
    ServiceOutcome.SYSTEM_ERROR: "96",
    ServiceOutcome.DONE: APPROVED,
}


class Refusal(Enum):
    """What the gateway refuses by itself, before its node hears of it; the value is a label."""

    FORMAT = "format"
    ELEMENT_MISSING = "element_missing"
    ELEMENT_NOT_PERMITTED = "element_not_permitted"
    MTI_UNKNOWN = "mti_unknown"
    PROCESSING_CODE_UNKNOWN = "processing_code_unknown"
    TERMINAL_UNKNOWN = "terminal_unknown"
    MERCHANT_UNKNOWN = "merchant_unknown"
    MAC = "mac"
    AMOUNT = "amount"
    CURRENCY = "currency"
    CARD_NUMBER = "card_number"
    PIN_BLOCK = "pin_block"
    OVERLOADED = "overloaded"
    #: The gateway's clock stands before a period whose key is erased: it can't tell which key.
    KEYS_UNAVAILABLE = "keys_unavailable"
    NODE_UNAVAILABLE = "node_unavailable"


CODE_OF_REFUSAL: Mapping[Refusal, str] = {
    Refusal.FORMAT: "30",
    Refusal.ELEMENT_MISSING: "30",
    Refusal.ELEMENT_NOT_PERMITTED: "30",
    Refusal.MTI_UNKNOWN: "12",
    Refusal.PROCESSING_CODE_UNKNOWN: "12",
    Refusal.TERMINAL_UNKNOWN: "58",
    Refusal.MERCHANT_UNKNOWN: "03",
    Refusal.MAC: "A0",
    Refusal.AMOUNT: "13",
    Refusal.CURRENCY: "13",
    Refusal.CARD_NUMBER: "14",
    Refusal.PIN_BLOCK: "55",
    Refusal.OVERLOADED: "96",
    Refusal.KEYS_UNAVAILABLE: "96",
    Refusal.NODE_UNAVAILABLE: "96",
}
