"""The JSON of closes, breaks and cases."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from nodes.api.schemas import Hex32, Sent
from nodes.clearing.model import BreakKind, CaseState, CaseStep, CloseStage, Resolution


class CloseItem(BaseModel):
    """A revision of a day's close; amounts in minor units of `currency`."""

    close_id: int
    acquirer: str
    issuer: str
    currency: str
    business_date: date
    revision: int
    party: Literal["acquirer", "issuer"]
    stage: CloseStage
    stage_at: datetime
    items: int
    debits: int = Field(description="What the issuer owes the acquirer.")
    credits: int = Field(description="What the acquirer owes the issuer.")
    close_root: Hex32
    totals_hash: Hex32
    other_root: Hex32 | None = Field(description="What the other side revealed.")
    closed_at: datetime
    breaks: int
    open_breaks: int
    compared_at: datetime | None
    compared_bytes: int | None = Field(description="Of the comparison's messages, both ways.")
    settlement_state: str | None = Field(
        description="Of this revision's newest statement (/v1/settlements)."
    )


class CaseEventItem(BaseModel):
    """One step of a case."""

    number: int
    step: CaseStep
    state: CaseState
    member: str
    actor: str
    resolution: Resolution | None
    note: str
    entry_txid: Hex32 | None
    at: datetime


class BreakItem(BaseModel):
    """A break with its case."""

    break_ref: Hex32
    close_id: int
    kind: BreakKind = Field(description="As it is now: what was late may be missing.")
    found_as: BreakKind
    txid: Hex32 | None
    fields: list[str]
    pair_seq: int | None
    lacking: Literal["acquirer", "issuer"] | None
    other_date: date | None
    first_txid: Hex32 | None
    late_until: datetime | None
    state: CaseState
    owner: str | None = Field(description="The institution whose move it is.")
    taken_by: str | None = Field(description="Whose desk it lies on in this institution.")
    taken_at: datetime | None
    opened_at: datetime
    age_s: int
    due_at: datetime
    overdue: bool
    proposed_by: str | None
    resolution: Resolution | None


class BreakDetail(BreakItem):
    """The same with its history and each side's version."""

    versions: dict[str, dict[str, Any]]
    events: list[CaseEventItem]


class CloseDetail(CloseItem):
    """A close with its stages and breaks (the first 500; GET /v1/breaks has all)."""

    stages: list[dict[str, Any]]
    break_items: list[BreakItem]


class NewProposal(Sent):
    """How a break should be resolved, and why."""

    resolution: Literal["TAKE_ACQUIRER", "TAKE_ISSUER", "ACKNOWLEDGE"]
    note: str = Field(min_length=1, max_length=500, examples=["terminal log of 11-20 shows it"])


class Desk(Sent):
    """In whose name; without it the API key's."""

    person: str | None = Field(
        default=None, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$", examples=["mara"]
    )


class Refusal(Sent):
    """Why a proposal isn't countersigned."""

    note: str = Field(min_length=1, max_length=500, examples=["the receipt says otherwise"])
