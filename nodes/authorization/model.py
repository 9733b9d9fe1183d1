"""What an authorization is: the messages between gateway, acquirer and issuer, and the outcomes.

Pure data. The structs are also the JSON of the two batch endpoints (bytes travel as base64):
`POST /v1/terminal-requests` (gateway to its acquirer's node) carries TerminalRequest and
TerminalAnswer, `POST /v1/authorizations` (acquirer's node to issuer's node) carries
AuthorizationRequest and AuthorizationAnswer. Amounts are minor units; moments are
milliseconds since the Unix epoch, UTC.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec


class Kind(StrEnum):
    """What is asked for."""

    PURCHASE = "purchase"
    BALANCE_INQUIRY = "balance_inquiry"
    REFUND = "refund"
    REVERSAL = "reversal"
    LOAD = "load"
    AUTHORIZATION = "authorization"  # holds an amount; captures take it
    INCREMENT = "increment"  # raises an authorization's hold
    CAPTURE = "capture"  # takes from a hold: all of it, a part, or in several parts
    VOID = "void"  # the merchant takes back an authorization, a purchase or a capture
    ADVICE = "advice"  # a purchase that has happened already (offline): it always posts
    EXPIRY = "expiry"  # the issuer's own: a hold's time is over
    ADJUSTMENT = "adjustment"  # the issuer's own: made by one person, checked by another
    TRANSFER = "transfer"  # the issuer's own: from card to card
    TOP_UP = "top_up"  # cash at a merchant, value on the card
    RESERVE = "reserve"  # the issuer's own: set aside for what a card may spend offline
    RELEASE = "release"  # the issuer's own: back from there

    @property
    def word(self) -> int:
        """The number by which the kind enters the shared commitment."""
        return _KIND_WORDS[self]


_KIND_WORDS = {
    Kind.PURCHASE: 1,
    Kind.BALANCE_INQUIRY: 2,
    Kind.REFUND: 3,
    Kind.REVERSAL: 4,
    Kind.LOAD: 5,
    Kind.AUTHORIZATION: 6,
    Kind.INCREMENT: 7,
    Kind.CAPTURE: 8,
    Kind.VOID: 9,
    Kind.ADVICE: 10,
    Kind.EXPIRY: 11,
    Kind.ADJUSTMENT: 12,
    Kind.TRANSFER: 13,
    Kind.TOP_UP: 14,
    Kind.RESERVE: 15,
    Kind.RELEASE: 16,
}
#: What acquirers ask for; the others are the issuer's own transactions.
ACQUIRERS_KINDS = frozenset(
    {
        Kind.PURCHASE,
        Kind.BALANCE_INQUIRY,
        Kind.REFUND,
        Kind.REVERSAL,
        Kind.AUTHORIZATION,
        Kind.INCREMENT,
        Kind.CAPTURE,
        Kind.VOID,
        Kind.ADVICE,
        Kind.TOP_UP,
    }
)
#: Kinds that name an original transaction, and can't be read without it.
FOLLOW_UPS = frozenset({Kind.REFUND, Kind.REVERSAL, Kind.INCREMENT, Kind.CAPTURE, Kind.VOID})
#: Kinds that can't be decided on what is in memory of card and account alone.
LOOKING_UP = FOLLOW_UPS | {Kind.ADVICE}
#: Kinds that tell of what has happened: taken in whatever becomes of the issuer, and forwarded
#: until it has acknowledged them.
FORWARDED = frozenset({Kind.ADVICE, Kind.CAPTURE})


class Outcome(StrEnum):
    """How a request ends, in order of precedence: of two that apply, the upper one is answered.

    gateway/pos/response_codes.py maps each to DE39. `word` enters the shared commitment.
    """

    # Refused before anything is looked at.
    OVERLOADED = "overloaded"
    MALFORMED = "malformed"
    KEY_REUSED = "key_reused"
    # The acquirer's own checks.
    TERMINAL_NOT_PERMITTED = "terminal_not_permitted"
    MERCHANT_NOT_PERMITTED = "merchant_not_permitted"
    TRANSACTION_NOT_SUPPORTED = "transaction_not_supported"
    AMOUNT_INVALID = "amount_invalid"
    CARD_NUMBER_INVALID = "card_number_invalid"
    ISSUER_UNKNOWN = "issuer_unknown"
    REVERSED_BEFORE_ARRIVAL = "reversed_before_arrival"
    ORIGINAL_NOT_FOUND = "original_not_found"
    # The issuer's checks.
    DEADLINE_PASSED = "deadline_passed"
    CARD_UNKNOWN = "card_unknown"
    CARD_LOST = "card_lost"
    CARD_STOLEN = "card_stolen"
    CARD_BLOCKED = "card_blocked"
    CARD_EXPIRED = "card_expired"
    CURRENCY_NOT_PERMITTED = "currency_not_permitted"
    CODE_NOT_VALID = "code_not_valid"  # a consumer's QR code: used, expired, or shown otherwise
    CHIP_DATA_INVALID = "chip_data_invalid"  # missing, unreadable, or not of this transaction
    CRYPTOGRAM_WRONG = "cryptogram_wrong"  # not made by this card, or made before (its counter)
    ENTRY_NOT_PERMITTED = "entry_not_permitted"  # the card isn't to be read like this
    CHECK_VALUE_WRONG = "check_value_wrong"  # CVV, iCVV, CVV2 or service code
    FALLBACK_NOT_PERMITTED = "fallback_not_permitted"  # a chip card read by its stripe
    PIN_TRIES_EXCEEDED = "pin_tries_exceeded"
    PIN_REQUIRED = "pin_required"
    PIN_WRONG = "pin_wrong"
    CVM_REQUIRED = "cvm_required"  # Quick Pay has come to its limit: PIN or signature
    ORIGINAL_MISMATCH = "original_mismatch"
    ALREADY_REVERSED = "already_reversed"
    UNDER_DISPUTE = "under_dispute"  # the holder disputes what would be given back
    HOLD_ENDED = "hold_ended"
    OVER_ORIGINAL_AMOUNT = "over_original_amount"
    ACCOUNT_FROZEN = "account_frozen"
    OFFLINE_CLONE = "offline_clone"  # in old books: such a payment is posted now (rules/offline)
    OFFLINE_RECORD_INVALID = "offline_record_invalid"  # not what this card has signed
    CARD_NOT_PERMITTED = "card_not_permitted"  # this card isn't for this merchant or service
    USES_EXHAUSTED = "uses_exhausted"
    RULE_DECLINED = "rule_declined"
    AMOUNT_LIMIT = "amount_limit"
    COUNT_LIMIT = "count_limit"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    # Nothing is known of the issuer's decision in time.
    ISSUER_UNAVAILABLE = "issuer_unavailable"
    SYSTEM_ERROR = "system_error"
    APPROVED = "approved"

    @property
    def word(self) -> int:
        """The number by which the outcome enters the shared commitment; never reassigned."""
        return _OUTCOME_WORDS[self]


class _OutcomeWord(IntEnum):
    APPROVED = 0
    OVERLOADED = 1
    MALFORMED = 2
    KEY_REUSED = 3
    TERMINAL_NOT_PERMITTED = 4
    MERCHANT_NOT_PERMITTED = 5
    TRANSACTION_NOT_SUPPORTED = 6
    AMOUNT_INVALID = 7
    CARD_NUMBER_INVALID = 8
    ISSUER_UNKNOWN = 9
    ORIGINAL_NOT_FOUND = 10
    REVERSED_BEFORE_ARRIVAL = 11
    DEADLINE_PASSED = 12
    CARD_UNKNOWN = 13
    CARD_LOST = 14
    CARD_STOLEN = 15
    CARD_BLOCKED = 16
    CARD_EXPIRED = 17
    CURRENCY_NOT_PERMITTED = 18
    PIN_TRIES_EXCEEDED = 19
    PIN_REQUIRED = 20
    PIN_WRONG = 21
    ORIGINAL_MISMATCH = 22
    ALREADY_REVERSED = 23
    OVER_ORIGINAL_AMOUNT = 24
    INSUFFICIENT_FUNDS = 25
    ISSUER_UNAVAILABLE = 26
    SYSTEM_ERROR = 27
    HOLD_ENDED = 28
    ACCOUNT_FROZEN = 29
    CARD_NOT_PERMITTED = 30
    USES_EXHAUSTED = 31
    RULE_DECLINED = 32
    AMOUNT_LIMIT = 33
    COUNT_LIMIT = 34
    CODE_NOT_VALID = 50
    CHIP_DATA_INVALID = 51
    CRYPTOGRAM_WRONG = 52
    ENTRY_NOT_PERMITTED = 53
    CHECK_VALUE_WRONG = 54
    FALLBACK_NOT_PERMITTED = 55
    CVM_REQUIRED = 56
    UNDER_DISPUTE = 57
    OFFLINE_RECORD_INVALID = 35
    OFFLINE_CLONE = 36


_OUTCOME_WORDS = {outcome: int(_OutcomeWord[outcome.name]) for outcome in Outcome}


class TerminalRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One terminal's message, as the gateway hands it to its acquirer's node.

    (terminal_id, business_date, batch, stan, kind) is the idempotency key within the acquirer;
    `fingerprint` is the gateway's SHA-256 over the fields that make the content.
    """

    terminal_id: str  # DE41, 8 characters
    merchant_id: str  # DE42, 15 characters
    business_date: str  # YYYY-MM-DD, from DE13
    batch: str  # DE60, 6 digits
    stan: str  # DE11, 6 digits
    kind: Kind
    fingerprint: bytes
    amount: int  # minor units, DE4; 0 for a balance inquiry
    currency: str  # ISO 4217 alphabetic, from DE49
    pan: str  # DE2 or track 2; digits
    expiry: str | None = None  # DE14, YYMM
    service_code: str | None = None  # from track 2
    entry_mode: str  # DE22, 3 digits
    pin_block: bytes | None = None  # under the gateway-to-acquirer zone key
    local_time: str  # YYYY-MM-DDTHH:MM:SS, from DE12 and DE13
    rrn: str | None = None  # DE37: of the original, in a refund, capture, increment or void
    channel: str = "pos"  # or "ecommerce": where the message came from
    partial_ok: bool = False  # the terminal can do with a part of the amount (DE39 10)
    final: bool = False  # a capture after which nothing more comes: the rest of the hold is freed
    deadline_ms: int  # after this moment the terminal no longer waits
    icc: bytes | None = None  # DE55, BER-TLV
    card_sequence: str | None = None  # DE23, 3 digits
    track2: str | None = None  # its discretionary data only
    cvv2: str | None = None  # of e-commerce, 3 digits
    advice: bool = False  # an authorization that was given already (by voice, in stand-in)
    offline: bytes | None = None  # DE57: the record of a payment without connection

    def __repr__(self) -> str:
        return f"TerminalRequest({self.kind.value}, {self.terminal_id}, stan={self.stan})"


class TerminalAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the acquirer's node answers; equal bytes for an equal request."""

    outcome: Outcome
    rrn: str  # 12 characters; the acquirer's
    approval_code: str | None = None  # DE38, 6 characters
    amount: int = 0  # approved, minor units
    currency: str
    available: int | None = None  # DE54, balance inquiry only, minor units
    ledger: int | None = None
    txid: bytes | None = None
    icc: bytes | None = None  # DE55 of the answer: ARPC (tag 91), issuer scripts (71, 72)


class AuthorizationRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One transaction, as an acquirer's node asks the issuer's node for it."""

    txid: bytes
    network_ref: bytes
    acquirer: str  # member id; must be the caller's
    issuer: str
    kind: Kind
    amount: int
    currency: str
    pan: str | None  # None in a reversal or refund that names its original
    expiry: str | None = None
    service_code: str | None = None
    entry_mode: str
    pin_block: bytes | None = None  # under the acquirer-to-issuer zone key
    merchant_id: str
    merchant_name: str
    mcc: str
    country: str
    terminal_id: str
    terminal_seq: int
    business_date: str
    batch: str
    stan: str
    rrn: str
    transmitted_ms: int  # when the acquirer accepted it; enters C
    local_time: str
    salt_fin: bytes
    salt_pii: bytes
    original_txid: bytes | None = None
    channel: str = "pos"
    partial_ok: bool = False
    final: bool = False
    deadline_ms: int
    # What the card presented; never kept by the acquirer.
    icc: bytes | None = None
    card_sequence: str | None = None
    track2: str | None = None
    cvv2: str | None = None
    advice: bool = False
    offline: bytes | None = None  # nodes/crypto/offline_record.py

    def __repr__(self) -> str:
        return f"AuthorizationRequest({self.kind.value}, {self.txid.hex()})"


class AuthorizationAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The issuer's decision; stored, and repeated byte for byte to a repeated request."""

    txid: bytes
    outcome: Outcome
    approval_code: str | None = None
    amount: int = 0  # approved, minor units
    currency: str
    card_token: bytes | None = None  # 16 bytes; None where no card was found
    commitment: bytes  # C
    pair_seq: int
    decided_ms: int
    available: int | None = None
    ledger: int | None = None
    #: In a reversal's answer: what the issuer had answered to the original, if it had seen it, so
    #: that an acquirer that never got that answer closes the gap in its record.
    original: AuthorizationAnswer | None = None
    icc: bytes | None = None  # see TerminalAnswer.icc
    #: The issuer's share of its signature over (txid, C, pair_seq): nodes/crypto/answer_signature.
    #: None on us, and where no number was given.
    signature: bytes | None = None


class TerminalBatch(msgspec.Struct, frozen=True):
    requests: list[TerminalRequest]


class TerminalAnswers(msgspec.Struct, frozen=True):
    answers: list[TerminalAnswer]


class AuthorizationBatch(msgspec.Struct, frozen=True):
    requests: list[AuthorizationRequest]


class AuthorizationAnswers(msgspec.Struct, frozen=True):
    answers: list[AuthorizationAnswer]
