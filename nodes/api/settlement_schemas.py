"""The JSON of settlement statements and of the orders about them."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, Field

from nodes.api.schemas import Hex32, Sent
from nodes.settlement.model import OrderAction, StatementState

SignatureHex = Annotated[str, Field(pattern=r"^[0-9a-f]{130}$")]
VerdictName = Literal["UPHELD", "ANNULLED"]


class SettlementOrder(BaseModel):
    """What somebody ordered; the worker, which has the operator's key, carries it out."""

    order_id: int
    action: OrderAction
    close_id: int | None
    settlement_id: Hex32 | None
    state: Literal["waiting", "done", "refused"]
    refusal: str | None = Field(description="Why it can't be carried out; the chain's named error.")
    ordered_by: str
    ordered_at: datetime
    ended_at: datetime | None


class SettlementItem(BaseModel):
    """A statement of one revision of a close; amounts in minor units of `currency`."""

    settlement_id: Hex32
    close_id: int
    acquirer: str
    issuer: str
    currency: str
    business_date: date
    close_revision: int
    party: Literal["acquirer", "issuer"]
    state: StatementState
    state_at: datetime
    payer: str | None = Field(description="None: nothing is to be paid.")
    payee: str | None
    net: int
    gross: int
    debits: int = Field(description="What the issuer owes the acquirer.")
    credits: int = Field(description="What the acquirer owes the issuer.")
    items: int
    proposer: str
    acquirer_signed: bool
    issuer_signed: bool
    agrees: bool = Field(description="This node's own books lead to the same statement.")
    deadline: datetime
    disputable_until: datetime | None
    verdict: VerdictName | None
    supersedes: Hex32 | None
    superseded_by: Hex32 | None
    actions: list[Literal["countersign", "dispute", "resolve", "propose_again"]] = Field(
        description="What this institution may order now."
    )
    order: SettlementOrder | None = Field(description="The newest that waits.")


class SettlementSignature(BaseModel):
    """A party's EIP-712 signature over settlement_id, 65 bytes."""

    member: str
    signature: SignatureHex
    at: datetime


class SettlementStep(BaseModel):
    """One step of a statement."""

    state: StatementState
    at: datetime
    block_number: int | None
    tx_hash: Hex32 | None


class SettlementDispute(BaseModel):
    """Who disputes a statement, by which transaction of whose log."""

    by: str
    txid: Hex32
    leaf_member: str
    reason_hash: Hex32
    reason: str | None = Field(description="Only at the node where it was ordered.")
    at: datetime


class SettlementDetail(SettlementItem):
    """A statement with its history."""

    totals_hash: Hex32
    statement_hash: Hex32
    nonce: int
    signatures: list[SettlementSignature]
    steps: list[SettlementStep]
    dispute: SettlementDispute | None
    orders: list[SettlementOrder]


class NewSettlement(Sent):
    """Which confirmed close is to be settled."""

    close_id: int = Field(ge=1, lt=1 << 62)


class NewDispute(Sent):
    """What speaks against a statement: an anchored transaction of the pair, and why."""

    txid: Hex32
    reason: str = Field(min_length=1, max_length=500)


class NewResolution(Sent):
    """What arbiters have decided, with their signatures (see `resolution`)."""

    verdict: VerdictName
    reason: str = Field(min_length=1, max_length=500)
    deadline: AwareDatetime = Field(strict=False, description="Until when the signatures are good.")
    signatures: list[SignatureHex] = Field(min_length=1, max_length=15)


class ResolutionToSign(BaseModel):
    """What arbiters sign: the EIP-712 digest of Resolution (docs/contracts.md)."""

    digest: Hex32
    reason_hash: Hex32
    deadline: datetime
    arbiters: list[str]
    threshold: int
