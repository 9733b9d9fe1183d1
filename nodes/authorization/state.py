"""What a decision depends on, and what it makes of it: frozen snapshots, versions of one stream.

Everything about an account that a decision looks at (balances by purse, holds, the standing of its
cards, window counters, what is owed) is one `Account`, and every change of it is its next version.
The store appends versions and lets one win: nobody decides on what has changed meanwhile.
Amounts are minor units of the account's currency; moments are milliseconds since 1970, UTC.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from nodes.authorization.controls import Rule, Terms
from nodes.authorization.model import Kind, Outcome
from nodes.emv.chip_data import ChipData

#: PIN tries of a new card, and again after a right PIN.
PIN_TRIES = 3


class CardEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a card was made with beside its number: chip keys, check values; or nothing physical."""

    psn: str = "00"
    #: Of the chip: profile and derivation of its keys (nodes/crypto/emv.py); None: no chip.
    profile: str | None = None
    derivation: str = "A"
    virtual: bool = False


class ShownCode(msgspec.Struct, frozen=True):
    """A consumer's single-use code. A later number was issued later."""

    number: int
    expires_ms: int


class Card(msgspec.Struct, frozen=True):
    """What never changes of a card without its account's next version. See CardStanding."""

    card_id: int
    card_token: bytes
    account_id: int
    pan_masked: str
    expiry: str  # YYMM
    service_code: str
    pin_lookup: bytes | None
    #: None: a plain card, of which only the number is known and checked.
    entry: CardEntry | None = None
    #: Of a card that was found by a consumer's code.
    code: ShownCode | None = None


class CardStanding(msgspec.Struct, frozen=True, array_like=True):
    """What decisions and people change of a card; `status` as in cards.status."""

    status: str
    pin_tries_left: int = PIN_TRIES
    #: Approved uses so far; the terms say how many there may be.
    uses: int = 0


class Purse(msgspec.Struct, frozen=True, array_like=True):
    """One ledger account of the card account. Available is balance - held + overdraft_limit."""

    account_id: int
    name: str  # "main", or as the terms name it
    balance: int = 0
    held: int = 0
    overdraft_limit: int = 0

    @property
    def available(self) -> int:
        return self.balance - self.held + self.overdraft_limit


class Hold(msgspec.Struct, frozen=True, array_like=True):
    """What an authorization still holds. It ends once: captured, released or expired."""

    txid: bytes
    #: (ledger account of the purse, amount), in the order in which they are taken.
    parts: tuple[tuple[int, int], ...]
    expires_ms: int

    @property
    def amount(self) -> int:
        return sum(amount for _, amount in self.parts)


class Counter(msgspec.Struct, frozen=True, array_like=True):
    """What a rule's window has counted: the window's number (controls.period), amount, count."""

    period: int
    amount: int = 0
    count: int = 0


class Disputed(msgspec.Struct, frozen=True, array_like=True):
    """A payment of which people have yet to decide who bears it.

    Either it is owed, as what paid is taken for a copy of the card; or the holder has paid it and
    disputes it (`paid`): then merchants can't give it back beside that.
    """

    txid: bytes
    amount: int
    paid: bool = False


class Account(msgspec.Struct, frozen=True, omit_defaults=True):
    """A card account at one version. The first purse is the main one; its id is the account's."""

    account_id: int
    version: int
    currency: str
    purses: tuple[Purse, ...]
    status: str = "open"  # open, frozen, closed
    #: Owed by the cardholder after forced postings over what was there; what is disputed, too.
    receivable: int = 0
    cards: dict[int, CardStanding] = {}
    holds: tuple[Hold, ...] = ()
    #: By rule id.
    counters: dict[str, Counter] = {}
    #: Loads so far: a product that isn't reloadable takes one.
    loads: int = 0
    #: By card: set aside for offline payments and not yet spent. No part of balance or available.
    offline: dict[int, int] = {}
    #: What waits for people's decision. The unpaid ones are parts of `receivable`, and no credit
    #: repays them before.
    disputed: tuple[Disputed, ...] = ()

    @property
    def balance(self) -> int:
        """Ledger balance over all purses."""
        return sum(purse.balance for purse in self.purses)

    @property
    def held(self) -> int:
        return sum(purse.held for purse in self.purses)

    @property
    def available(self) -> int:
        return sum(purse.available for purse in self.purses)


class Counted(msgspec.Struct, frozen=True, array_like=True):
    """What an approval added to a rule's window, so that a reversal can give it back."""

    rule_id: str
    period: int


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """What became of an authorization, purchase, capture or refund since; amounts are sums."""

    #: Authorization: what was authorized in all, increments included. Else the approved amount.
    authorized: int
    captured: int = 0
    refunded: int = 0
    #: By reversals and voids: given back, or for an authorization released.
    reversed: int = 0
    #: A reversal or void of the whole has ended it.
    ended: bool = False


class Original(msgspec.Struct, frozen=True):
    """An earlier transaction that a follow-up names, and what became of it."""

    txid: bytes
    kind: Kind
    outcome: Outcome
    amount: int  # approved, or requested where it was declined
    currency: str
    acquirer: str
    merchant_id: str
    terminal_id: str
    account_id: int | None
    card_token: bytes | None
    pan_masked: str | None
    mcc: str
    decided_ms: int
    progress: Progress
    #: The original of this original: of a capture or an increment, the authorization.
    original_txid: bytes | None = None
    #: From its own decision: which purses paid (ledger account, amount) and what it counted.
    parts: tuple[tuple[int, int], ...] = ()
    #: Posted over what was there: owed by the cardholder until repaid.
    shortfall: int = 0
    counted: tuple[Counted, ...] = ()
    card_id: int | None = None
    used: bool = False
    #: Asked for, where a part was approved (Detail.requested): a reversal may name either amount.
    requested: int | None = None
    #: Paid out of what was reserved for offline payments.
    reserve: int = 0


class Moment(msgspec.Struct, frozen=True):
    """Now, at the issuer: `local` is aware, in the program's time zone."""

    now_ms: int
    local: datetime

    @property
    def year_month(self) -> str:
        """YYMM, for the expiry check."""
        return f"{self.local.year % 100:02d}{self.local.month:02d}"


class ChipCheck(msgspec.Struct, frozen=True):
    """What the issuer's module says of a message's chip data; `data` None: it can't be read."""

    data: ChipData | None = None
    fault: str = ""
    genuine: bool = False


class OfflineFacts(msgspec.Struct, frozen=True):
    """What the issuer knows of an offline record's card key and counter."""

    #: The card that the key belongs to; None: no such key.
    card_token: bytes | None = None
    genuine: bool = False  # the key has signed this record
    #: Hashes of the records that were posted under this (card, ATC), the first one's first.
    posted: tuple[bytes, ...] = ()


class OnlineUse(StrEnum):
    """What became of a request that reached the issuer online under a card's counter (ATC)."""

    REFUSED = "refused"
    HELD = "held"  # an authorization of which nothing was captured
    CAPTURED = "captured"  # an authorization
    PAID = "paid"
    UNDONE = "undone"  # reversed or voided as a whole
    OTHER = "other"  # no payment: a top-up, an inquiry


class Paid(msgspec.Struct, frozen=True):
    """What one of a card's counters (ATC) was used for: a posted advice, or an online request."""

    atc: int
    #: Its cryptogram and the bytes that covers, and whether the card made it; None: only a record
    #: told of it.
    chip: bytes | None
    genuine: bool
    #: Whether an offline record came with it: those are compared by OfflineFacts.posted.
    recorded: bool
    terminal_id: str
    amount: int
    currency: str
    #: Of an online request what became of it; None: an advice.
    online: OnlineUse | None = None
    #: Of an online request.
    txid: bytes = b""


class Facts(msgspec.Struct, frozen=True):
    """All that the issuer's rules may look at, for one request."""

    moment: Moment
    terms: Terms
    #: Of product, account and card, in force at this moment.
    rules: tuple[Rule, ...] = ()
    card: Card | None = None
    account: Account | None = None
    original: Original | None = None
    #: The original of `original`: the authorization behind a capture or an increment, or what a
    #: refund gave back.
    root: Original | None = None
    #: Of a card-to-card transfer: where the money goes.
    to_card: Card | None = None
    to_account: Account | None = None
    to_terms: Terms | None = None
    #: A reversal of this very txid came first.
    reversed_before: bool = False
    #: Whether the PIN block holds the card's PIN; None where no PIN block came or it is unusable.
    pin_matches: bool | None = None
    #: Where chip data came.
    chip: ChipCheck | None = None
    #: Which check value was wrong ("cvv", "icvv", "cvv2"); None: none, or none was there.
    wrong_check_value: str | None = None
    #: Of an advice with an offline record.
    offline: OfflineFacts | None = None
    #: Of an advice: what was posted under the counters that it names.
    paid: tuple[Paid, ...] = ()


class Side(StrEnum):
    """A ledger account that isn't a cardholder's, by what it is for; the engine knows its id."""

    SETTLEMENT = "settlement"  # with the acquirer of the transaction
    OFFLINE = "offline_reserved"  # what cards may spend without a connection
    FUNDING = "funding"  # where loads come from
    RECEIVABLE = "receivable"  # what cardholders owe
    ADJUSTMENT = "adjustment"  # the other side of corrections


class Move(msgspec.Struct, frozen=True):
    """An amount (positive) from one ledger account to another: a purse's id or a Side."""

    debit: int | Side
    credit: int | Side
    amount: int


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request was declined, in the terms of people: what was compared with what.

    `values` are facts by name (amount, available, used, limit, mcc ...), as stored and shown.
    """

    code: str  # an Outcome, or a rule's
    rule_id: str | None = None
    rule_name: str | None = None
    values: dict[str, int | str] = {}


class Detail(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept beside a decision's row, for follow-ups and for people."""

    #: Amount asked for, where another one was approved.
    requested: int | None = None
    parts: tuple[tuple[int, int], ...] = ()
    shortfall: int = 0
    counted: tuple[Counted, ...] = ()
    card_id: int | None = None
    used: bool = False
    reason: Reason | None = None
    #: Rules in shadow mode that would have declined.
    shadow: tuple[Reason, ...] = ()
    #: Holds whose time was over and which this decision released: (txid, amount).
    expired: tuple[tuple[bytes, int], ...] = ()
    #: Paid out of what was reserved for offline payments.
    reserve: int = 0
    #: Where the message came from, as rules look at it: a back-test sees what the decision saw.
    channel: str = "pos"
    #: Approved by the acquirer in the issuer's place, and posted here later.
    stand_in: bool = False


class Decision(msgspec.Struct, frozen=True):
    """The outcome and what it changes. Snapshots come back whole, with their next version."""

    outcome: Outcome
    #: Approved, minor units: at most what was asked for. 0 in a refusal.
    amount: int = 0
    #: The account after it; None where no account was found. Its version is one more than before
    #: (also for a refusal: the reason is kept with it).
    account: Account | None = None
    to_account: Account | None = None
    moves: tuple[Move, ...] = ()
    #: New states of earlier transactions, by txid.
    progress: dict[bytes, Progress] = {}
    detail: Detail = Detail()
    #: The original is unknown: should it come, it is declined.
    tombstone: bool = False
