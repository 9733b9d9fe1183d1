"""The JSON of the API off the authorization path, as Pydantic models.

Amounts are integers of minor units beside an ISO 4217 currency; bytes are lower-case hex; moments
are RFC 3339 in UTC. What is sent to a node is taken strictly: no coercion, no unknown keys.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from nodes.anchoring.model import AnchorState
from nodes.money import CURRENCIES, MAX_TRANSACTION_AMOUNT

T = TypeVar("T")

Hex16 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", examples=["0f" * 16])]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", examples=["0f" * 32])]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["CNY"])]
Amount = Annotated[int, Field(ge=1, le=MAX_TRANSACTION_AMOUNT, examples=[12500])]
KNOWN_CURRENCIES = frozenset(CURRENCIES)


class Sent(BaseModel):
    """A body that a caller sends."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Nothing(Sent):
    """`{}`: the path says it all."""


class Page(BaseModel, Generic[T]):
    """A page: `next` is the cursor of the following one, null on the last."""

    items: list[T]
    next: str | None


class Info(BaseModel):
    member_id: str
    name: str | None
    roles: list[str]
    chain_id: int | None
    anchor_registry: str
    member_registry: str
    note_key: Hex32
    message_key: Hex32


class Health(BaseModel):
    status: Literal["ok"]


class Readiness(BaseModel):
    """`checks`: each part and whether it is there; the chain is not among what is needed."""

    ready: bool
    checks: dict[str, bool]


class TransactionItem(BaseModel):
    txid: Hex32
    side: Literal["issuer", "acquirer", "merchant"]
    kind: str
    outcome: str
    amount: int
    currency: Currency
    approval_code: str | None
    merchant_id: str
    merchant_name: str
    mcc: str
    country: str
    terminal_id: str
    acquirer: str
    issuer: str
    pan_masked: str | None
    card_token: Hex16 | None
    stan: str
    rrn: str
    batch: str
    business_date: date
    pair_seq: int
    terminal_seq: int
    entry_mode: str
    original_txid: Hex32 | None
    transmitted_at: datetime
    decided_at: datetime
    recorded_at: datetime
    commitment: Hex32
    log_index: int | None
    batch_seq: int | None
    anchor_state: AnchorState


class AccountName(BaseModel):
    account_id: int
    kind: str
    owner: str


class TransferItem(BaseModel):
    """`balance_after`: the cardholder's, where one of the two accounts is a cardholder's."""

    line: int
    debit: AccountName
    credit: AccountName
    amount: int
    currency: Currency
    balance_after: int | None


class TimelineEntry(BaseModel):
    at: datetime
    event: str
    detail: str


class ReasonItem(BaseModel):
    """Why: `text` says it in words, `values` are the facts that were compared."""

    code: str
    text: str
    rule_id: str | None
    rule_name: str | None
    values: dict[str, int | str]


class PartItem(BaseModel):
    """What one purse pays, holds or gets."""

    account_id: int
    purse: str | None
    amount: int


class ExpiredHold(BaseModel):
    txid: Hex32
    amount: int


class ProgressItem(BaseModel):
    """What became of a transaction: sums of what later ones did. `held`: what it still holds."""

    authorized: int
    captured: int
    refunded: int
    reversed: int
    held: int
    ended: bool


class CountedItem(BaseModel):
    """A rule whose window an approval counted in."""

    rule_id: str
    rule_name: str
    window: str | None


class DecisionItem(BaseModel):
    """The issuer's decision. `parts`: which purses pay, hold or got; `shortfall`: what was posted
    over what was there; `counted`: the windows that it used; `shadow`: rules in shadow mode that
    would have declined; `stand_in`: the acquirer had approved it in the issuer's place."""

    account_id: int
    account_version: int
    requested: int
    approved: int
    parts: list[PartItem]
    shortfall: int
    counted: list[CountedItem]
    reason: ReasonItem | None
    shadow: list[ReasonItem]
    expired: list[ExpiredHold]
    balance_after: int
    held_after: int
    available_after: int
    stand_in: bool
    progress: ProgressItem | None


class RelatedItem(BaseModel):
    """The original of a transaction, or what was done to either of them."""

    txid: Hex32
    kind: str
    outcome: str
    amount: int
    currency: Currency
    decided_at: datetime
    is_original: bool


class TransactionDetail(TransactionItem):
    """`decision`: in the issuer's books, where the card's account was found."""

    transfers: list[TransferItem]
    timeline: list[TimelineEntry]
    related: list[Hex32]
    related_items: list[RelatedItem]
    decision: DecisionItem | None


class BatchTotals(BaseModel):
    currency: Currency
    approved_count: int
    approved_amount: int
    declined_count: int


class BatchItem(BaseModel):
    seq: int
    first_index: int
    size: int
    leaf_count: int
    prev_root: Hex32
    root: Hex32
    sealed_at: datetime
    totals: list[BatchTotals]
    state: AnchorState
    tx_hash: Hex32 | None
    block_number: int | None
    block_hash: Hex32 | None
    anchored_at: datetime | None
    gas_used: int | None


class BatchDetail(BatchItem):
    """`consistency`: the RFC 9162 proof from the batch before."""

    checkpoint: str
    consistency: list[Hex32]


class LogEntry(BaseModel):
    log_index: int
    leaf: str
    leaf_hash: Hex32
    batch_seq: int


class LogEntries(BaseModel):
    entries: list[LogEntry]
    size: int


class ConsistencyProof(BaseModel):
    first: int
    second: int
    proof: list[Hex32]


class InclusionProof(BaseModel):
    index: int
    size: int
    leaf_hash: Hex32
    proof: list[Hex32]


class Making(Sent):
    """What a card is made as, beside its number. A plain one has nothing to check but its PIN."""

    form: Literal["plain", "stripe", "chip", "virtual"] = Field(
        default="plain", description="Its service code begins with 2 or 6 if, and only if, chip."
    )
    profile: Literal["des-common", "des-emv2000", "sm4"] = Field(
        default="des-common", description="Of a chip's keys."
    )
    derivation: Literal["A", "B"] = Field(
        default="A", description="Of a chip's keys (EMV 4.3 Book 2, A1.4)."
    )
    psn: str = Field(default="01", pattern=r"^[0-9]{2}$", description="Card sequence number.")


class NewCard(Sent):
    """A card to issue. Without `pan` the node draws one in its first BIN range."""

    pan: str | None = Field(default=None, pattern=r"^[0-9]{12,19}$", examples=[None])
    expiry: str = Field(pattern=r"^[0-9]{2}(0[1-9]|1[0-2])$", description="YYMM", examples=["3012"])
    service_code: str = Field(pattern=r"^[0-9]{3}$", examples=["220"])
    pin: str | None = Field(default=None, pattern=r"^[0-9]{4,12}$", examples=["4711"])
    currency: Currency
    product_id: str = Field(default="standard", min_length=1, max_length=40)
    overdraft_limit: int = Field(default=0, ge=0, le=0, description="Only 0 so far.")
    making: Making = Making()

    def __repr__(self) -> str:
        return "NewCard()"


class IssuedCardItem(BaseModel):
    """`pan` stands here only if the node drew it, and only in the answer to the creation."""

    card_token: Hex16
    pan_masked: str
    expiry: str
    pan: str | None = None
    cvv2: str | None = Field(default=None, description="Of a virtual card; shown this once.")
    personalization: str | None = Field(
        default=None,
        description="What is written onto the card, in base64: AES-256-GCM under the issuer's"
        " transport key.",
    )

    def __repr__(self) -> str:
        return f"IssuedCardItem({self.card_token})"


class CodeItem(BaseModel):
    """A consumer's code. `payload`: the text of the QR code (EMVCo consumer-presented, base64)."""

    payload: str
    expires_at: datetime

    def __repr__(self) -> str:
        return "CodeItem()"


class NewScript(Sent):
    """What a chip is to be told at its next visits, until it says that it has done it."""

    script: Literal["block_card", "block_application", "unblock_application", "reset_offline"]
    reason: str = Field(min_length=1, max_length=200)


class ScriptItem(BaseModel):
    """`number`: under which the card confirms it. `waiting`: all that the card hasn't confirmed."""

    number: int
    waiting: list[str]


class CardItem(BaseModel):
    """`available` is balance - held + overdraft limit, over all purses of the card's account."""

    card_token: Hex16
    pan_masked: str
    expiry: str
    service_code: str
    status: str
    pin_tries_left: int
    uses: int = Field(description="Approved uses so far.")
    product_id: str
    account_id: int
    account_status: str
    currency: Currency
    balance: int
    held: int
    available: int
    issued_at: datetime


class CardEvent(BaseModel):
    event: str
    actor: str
    reason: str
    occurred_at: datetime


class CardDetail(CardItem):
    events: list[CardEvent]


class NewLoad(Sent):
    """`purse`: into which purse of the product; none given: the main one."""

    amount: Amount
    currency: Currency
    reference: str = Field(min_length=1, max_length=80, examples=["payroll 2026-11"])
    purse: str | None = Field(default=None, min_length=1, max_length=40, examples=[None])


class LoadItem(BaseModel):
    txid: Hex32
    amount: int
    currency: Currency
    balance: int


class StatusChange(Sent):
    status: Literal["active", "blocked", "lost", "stolen", "cancelled"]
    reason: str = Field(min_length=1, max_length=200, examples=["reported by the holder"])


class CardStatusItem(BaseModel):
    card_token: Hex16
    status: str


class NewMerchant(Sent):
    merchant_id: str = Field(pattern=r"^[A-Za-z0-9]{15}$", examples=["HARBOR000000001"])
    name: str = Field(min_length=1, max_length=80)
    mcc: str = Field(pattern=r"^[0-9]{4}$", examples=["5411"])
    country: str = Field(pattern=r"^[A-Z]{2}$", examples=["CN"])
    currency: Currency
    member_id: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9-]{1,30}$")


class MerchantItem(BaseModel):
    merchant_id: str
    name: str
    mcc: str
    country: str
    currency: Currency
    member_id: str | None
    status: str
    account_id: int | None = None


class AccountItem(BaseModel):
    """`balance` is current; `available` is balance - held + overdraft limit."""

    account_id: int
    kind: str
    owner: str
    currency: Currency
    balance: int
    held: int
    available: int
    opened_at: datetime


class MemberItem(BaseModel):
    member_id: str
    name: str
    roles: list[str]
    api_url: str
    bins: list[str]
    operator: str
    note_key: Hex32
    message_key: Hex32
    active: bool


class MinuteVolume(BaseModel):
    minute: datetime
    approved: int
    declined: int
    amount: int


class Totals(BaseModel):
    """Of the business day so far, in the node's time zone, since `since`."""

    since: datetime
    currency: Currency
    approved: int
    declined: int
    amount: int


class LogSummary(BaseModel):
    """Sizes in leaves; `lag_seconds`: age of the oldest record without a final anchor."""

    size: int
    sealed_seq: int
    anchored_seq: int
    anchored_size: int
    unsealed: int
    lag_seconds: float


class AccountSummary(BaseModel):
    kind: str
    currency: Currency
    count: int
    balance: int


class OpenWorkItem(BaseModel):
    pending_requests: int
    pending_reversals: int


class Overview(BaseModel):
    """Amounts are approved purchases in the totals' currency. Only transactions of `side` count,
    so an on-us one counts once. `volume` has each minute, the empty ones too; `declines` are
    those of the same time, by outcome."""

    member_id: str
    side: str
    volume: list[MinuteVolume]
    declines: dict[str, int]
    totals: Totals
    log: LogSummary
    accounts: list[AccountSummary]
    open_work: OpenWorkItem
