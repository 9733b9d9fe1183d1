"""The JSON of what an issuer has of its own: accounts, products, rules, adjustments, simulations.

As in schemas.py: amounts are integers of minor units, what is sent is taken strictly.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, Field

from nodes.api.schemas import (
    AccountItem,
    Amount,
    Currency,
    ExpiredHold,
    Hex16,
    Hex32,
    PartItem,
    ReasonItem,
    Sent,
)
from nodes.authorization.operations.control_checks import CHANNELS, RULED_KINDS
from nodes.authorization.operations.controlling import MAX_BACKTEST
from nodes.money import MAX_TRANSACTION_AMOUNT

Moment = Annotated[AwareDatetime, Field(strict=False, examples=["2026-11-22T08:00:00Z"])]
Scope = Literal["product", "account", "card"]
ProductId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$", examples=["meal-2026"])]
_Strings = Annotated[list[str], Field(max_length=1_000)]

# -- reasons and accounts


class PurseItem(BaseModel):
    """One purse; `available` is balance - held + overdraft limit."""

    account_id: int
    name: str
    balance: int
    held: int
    overdraft_limit: int
    available: int


class HoldItem(BaseModel):
    """What an authorization still holds; it ends by itself at `expires_at`."""

    txid: Hex32
    amount: int
    expires_at: datetime
    parts: list[PartItem]


class WindowItem(BaseModel):
    """A rule's present window on the account: `used` of `maximum`, in its measure; it begins anew
    at `resets_at`, null: never."""

    rule_id: str
    rule_name: str
    window: str
    measure: str
    maximum: int
    used: int
    resets_at: datetime | None
    shadow: bool


class AccountCardItem(BaseModel):
    card_token: Hex16
    pan_masked: str
    expiry: str
    status: str
    uses: int
    pin_tries_left: int
    product_id: str


class DisputedItem(BaseModel):
    """What people have yet to decide about a payment. `paid` false: it is owed, as what paid is
    taken for a copy of the card; true: the holder has paid it and disputes it (`/v1/disputes`)."""

    txid: Hex32
    amount: int
    paid: bool


class CardAccountItem(BaseModel):
    """A card account at its last version, over all of its purses.

    `receivable`: what the cardholder owes after forced postings; the next credit repays it first,
    but for what is `disputed` and not `paid`: that waits for an adjustment which names its payment.
    """

    account_id: int
    version: int
    status: Literal["open", "frozen", "closed"]
    currency: Currency
    product_id: str
    balance: int
    held: int
    available: int
    receivable: int
    disputed: list[DisputedItem]
    loads: int
    purses: list[PurseItem]
    holds: list[HoldItem]
    windows: list[WindowItem]
    cards: list[AccountCardItem]


class AccountDetail(AccountItem):
    """`card_account`: of a cardholder's ledger account the card account that it is a purse of."""

    card_account: CardAccountItem | None


class VersionTransaction(BaseModel):
    txid: Hex32
    kind: str
    outcome: str
    amount: int
    merchant_name: str


class VersionItem(BaseModel):
    """One version of an account. `transaction` null: a change by people, see the cards' events."""

    version: int
    at: datetime
    status: str
    balance: int
    held: int
    available: int
    receivable: int
    open_holds: int
    transaction: VersionTransaction | None
    reason: ReasonItem | None
    shadow: list[ReasonItem]
    expired: list[ExpiredHold]


class AccountStatusChange(Sent):
    status: Literal["open", "frozen", "closed"]
    reason: str = Field(min_length=1, max_length=200, examples=["court order 17/2026"])


class AccountStatusItem(BaseModel):
    account_id: int
    status: str


# -- transfers and adjustments


class NewTransfer(Sent):
    to_card_token: Hex16
    amount: Amount
    currency: Currency
    reference: str = Field(min_length=1, max_length=80, examples=["lunch on Friday"])


class TransferMadeItem(BaseModel):
    """Both balances are those after the transfer."""

    txid: Hex32
    amount: int
    currency: Currency
    balance: int
    to_balance: int


class NewAdjustment(Sent):
    """A correction to propose; `amount` positive: to the cardholder."""

    account_id: int = Field(ge=1, lt=1 << 62)
    amount: int = Field(ge=-MAX_TRANSACTION_AMOUNT, le=MAX_TRANSACTION_AMOUNT, examples=[-250])
    currency: Currency
    reason: str = Field(min_length=1, max_length=80, examples=["fee charged twice on 11-20"])
    disputed: Hex32 | None = Field(
        default=None,
        description="The disputed payment (txid) that this decides about: a positive amount lets"
        " the issuer bear it, a negative one the holder, where it is owed.",
    )


class NewDispute(Sent):
    """A holder disputes a payment; without `amount` all that is left of it."""

    txid: Hex32
    amount: Amount | None = None
    reason: str = Field(min_length=1, max_length=200, examples=["goods never came"])


class DisputeClosing(Sent):
    reason: str = Field(min_length=1, max_length=200, examples=["the holder withdrew it"])


class DisputeItem(BaseModel):
    """A dispute of a payment. `disputed`: how much of `amount` is not decided yet. `state`: open,
    or how it ended: dropped by people, given back by the issuer, or reversed by the payment's
    terminal (then `closed_by` is its acquirer)."""

    dispute_id: int
    txid: Hex32
    account_id: int
    amount: int
    disputed: int
    currency: Currency
    reason: str
    opened_by: str
    opened_at: datetime
    closed_by: str | None
    closed_at: datetime | None
    closing_reason: str | None
    state: Literal["open", "dropped", "given_back", "reversed"]


class AdjustmentItem(BaseModel):
    adjustment_id: int
    account_id: int
    amount: int
    currency: Currency
    reason: str
    made_by: str
    made_at: datetime
    state: Literal["proposed", "posted", "rejected"]
    checked_by: str | None
    checked_at: datetime | None
    txid: Hex32 | None
    disputed: Hex32 | None


# -- products and rules


class PurseTermsBody(Sent):
    """A purse of the product. Without `mccs` it takes every purchase."""

    name: str = Field(examples=["meal"])
    mccs: _Strings = Field(default=[], examples=[["5411", "5811-5814"]])
    fallback: _Strings = Field(
        default=[], description="Purses that pay the rest when this one hasn't enough, in order."
    )


class EntryTermsBody(Sent):
    """How the product's cards may be read, where they have a chip, check values or are virtual.

    Quick Pay is contactless without a PIN: of an amount, and by count and sum since the last PIN.
    """

    manual: bool = Field(default=False, description="Keyed in at a terminal.")
    quick_pay_amount: int = Field(default=30_000, ge=0)
    quick_pay_count: int = Field(default=5, ge=0)
    quick_pay_total: int = Field(default=100_000, ge=0)
    signature_amount: int = Field(default=0, ge=0, description="Contactless with a signature.")
    fallback_amount: int = Field(default=50_000, ge=0, description="A chip card by its stripe.")
    fallback_count: int = Field(default=3, ge=0, description="Since its chip was last read.")


class TermsBody(Sent):
    """What a product allows; what is left out is as with the plain reloadable card."""

    reloadable: bool = True
    uses: int | None = Field(default=None, description="Approved uses of a card; 1: single-use.")
    merchants: _Strings = Field(default=[], description="The only merchants; none given: all.")
    purses: list[PurseTermsBody] = Field(default=[PurseTermsBody(name="main")], max_length=8)
    partial_approval: bool = False
    hold_seconds: int = 7 * 86_400
    over_capture_percent: dict[str, int] = Field(
        default={}, description="By MCC or range.", examples=[{"5812": 20}]
    )
    transfers: bool = Field(default=False, description="Card to card.")
    max_balance: int | None = None
    time_zone: str = "Asia/Shanghai"
    entry: EntryTermsBody = EntryTermsBody()


class NewProduct(Sent):
    product_id: ProductId
    name: str = Field(min_length=1, max_length=80, examples=["Meal card 2026"])
    terms: TermsBody


class ProductItem(BaseModel):
    """A product with the version of its terms that is in force."""

    product_id: str
    name: str
    version: int
    terms: TermsBody
    created_at: datetime


class NewTerms(Sent):
    """Other terms of a product; left out members are as with the plain reloadable card."""

    terms: TermsBody
    effective_from: Moment | None = Field(
        default=None, description="None, or past: a second after the approval."
    )
    reason: str = Field(min_length=1, max_length=200, examples=["holds of hotels last 14 days"])


class TermsItem(BaseModel):
    """Terms of a product beside its first ones; in force from `effective_from` on once approved."""

    product_id: str
    version: int
    terms: TermsBody
    effective_from: datetime
    reason: str
    made_by: str
    made_at: datetime
    state: Literal["proposed", "approved", "rejected"]
    checked_by: str | None
    checked_at: datetime | None


class ConditionsBody(Sent):
    """Which payments: all that are given must hold; none given: every one."""

    mccs: _Strings = Field(default=[], examples=[["7995", "5811-5814"]])
    merchants: _Strings = Field(default=[])
    countries: _Strings = Field(default=[], description="ISO 3166-1 alpha-2.", examples=[["CN"]])
    from_minute: int | None = Field(default=None, description="Of the program's local day.")
    to_minute: int | None = Field(default=None, description="Before from_minute: over midnight.")
    weekdays: list[int] = Field(default=[], max_length=7, description="1 is Monday.")
    channels: _Strings = Field(default=[], description=f"Of {', '.join(CHANNELS)}.")
    entry_modes: _Strings = Field(default=[], description="First two digits of DE22.")
    kinds: _Strings = Field(
        default=[],
        description=f"Of {', '.join(RULED_KINDS)}; none given: purchase and authorization.",
    )


class LimitBody(Sent):
    """At most `maximum` (minor units, or payments) in a window of the program's time zone."""

    window: Literal["transaction", "day", "week", "month", "lifetime"]
    measure: Literal["amount", "count"]
    maximum: int = Field(examples=[50_000])


class RuleBody(Sent):
    """Declines what matches (no limit), or what would exceed the limit of what matches; `unless`:
    what doesn't match (an allow-list). `shadow`: evaluated and recorded, but nothing is declined.
    `subject`: product id, account id, or card token."""

    scope: Scope
    subject: str = Field(min_length=1, max_length=40, examples=["standard"])
    name: str = Field(max_length=80, examples=["500.00 a day at restaurants"])
    when: ConditionsBody = ConditionsBody()
    unless: bool = False
    limit: LimitBody | None = None


class NewRule(RuleBody):
    shadow: bool = False
    effective_from: Moment | None = Field(default=None, description="None given: now.")
    effective_to: Moment | None = None


class RuleItem(BaseModel):
    """In force from `effective_from` until before `effective_to`, at every process of the node."""

    rule_id: str
    scope: Scope
    subject: str
    name: str
    when: ConditionsBody
    unless: bool
    limit: LimitBody | None
    shadow: bool
    effective_from: datetime
    effective_to: datetime | None
    created_by: str
    created_at: datetime
    ended_by: str | None


class NewBacktest(RuleBody):
    """A rule to try on the approved payments of the last days; it need not exist."""

    days: int = Field(default=30, ge=1, le=366)
    maximum: int = Field(default=50_000, ge=1, le=MAX_BACKTEST, description="Payments at most.")


class WouldDecline(BaseModel):
    txid: Hex32
    at: datetime
    account_id: int
    amount: int
    reason: ReasonItem


class BacktestItem(BaseModel):
    """`examined` payments were looked at, `concerned` is how many the rule is about; `declined` has
    the first 100 that it would have declined. `complete` false: there are more, later than `until`.
    """

    examined: int
    concerned: int
    declined_count: int
    declined_amount: int
    declined: list[WouldDecline]
    complete: bool
    until: datetime | None


# -- simulations


class NewSimulation(Sent):
    """A payment that nobody has asked for, with a card or (its first card) an account."""

    card_token: Hex16 | None = None
    account_id: int | None = Field(default=None, ge=1, lt=1 << 62, examples=[None])
    kind: Literal["purchase", "authorization", "balance_inquiry", "advice", "load"] = "purchase"
    amount: int = Field(ge=0, le=MAX_TRANSACTION_AMOUNT, examples=[12_500])
    currency: Currency
    merchant_id: str = Field(default="SIMULATION00001", pattern=r"^[A-Za-z0-9]{15}$")
    mcc: str = Field(default="5411", pattern=r"^[0-9]{4}$")
    country: str = Field(default="CN", pattern=r"^[A-Z]{2}$")
    channel: Literal["pos", "ecommerce"] = "pos"
    entry_mode: str = Field(default="051", pattern=r"^[0-9]{3}$", description="DE22.")
    partial_ok: bool = False
    at: Moment | None = Field(default=None, description="None given: now.")


class RuleSeenItem(BaseModel):
    """A rule over the simulated payment; `used` and `would_be` in the limit's measure."""

    rule_id: str
    name: str
    shadow: bool
    in_force: bool
    concerns: bool
    limit: LimitBody | None
    used: int | None
    would_be: int | None
    objection: ReasonItem | None


class BalancesItem(BaseModel):
    balance: int
    held: int
    available: int
    receivable: int
    purses: list[PurseItem]


class SimulationItem(BaseModel):
    """What would be answered, and why. Nothing was posted. `assumed` says what wasn't checked."""

    simulated: Literal[True]
    outcome: str
    approved: bool
    requested: int
    amount: int
    currency: Currency
    card_token: Hex16
    pan_masked: str
    account_id: int
    at: datetime
    parts: list[PartItem]
    shortfall: int
    reason: ReasonItem | None
    shadow: list[ReasonItem]
    rules: list[RuleSeenItem]
    before: BalancesItem
    after: BalancesItem
    assumed: list[str]
