"""The JSON of the terminal fleet. As in schemas.py: what is sent is taken strictly."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from nodes.acquiring.fleet.model import MAX_SIGHTINGS, Capability, TerminalKeys
from nodes.acquiring.fleet.rules import MAX_COUNT, MAX_HOURS
from nodes.api.schemas import Currency, Sent
from nodes.money import MAX_TRANSACTION_AMOUNT

TerminalId = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{8}$", examples=["T0000001"])]
SuiteName = Literal["SM", "AES", "LEGACY"]
CapabilityName = Annotated[Capability, Field(strict=False)]
_Limit = Annotated[int, Field(ge=0, le=MAX_TRANSACTION_AMOUNT, examples=[20_000])]
_Hours = Annotated[int, Field(ge=0, le=MAX_HOURS, examples=[24])]
_Moment = Annotated[int | None, Field(default=None, ge=0, lt=1 << 53)]
Reason = Annotated[str, Field(min_length=1, max_length=200, examples=["reported stolen"])]


class TerminalParameters(Sent):
    """What a terminal downloads; amounts in minor units of `currency`. docs/fleet.md."""

    currency: Currency
    receipt_language: Literal["en", "zh"]
    receipt_width_mm: Literal[58, 80]
    floor_limit: _Limit
    offline_per_transaction: _Limit
    offline_count_per_card: Annotated[int, Field(ge=0, le=MAX_COUNT, examples=[3])]
    offline_per_card: _Limit
    offline_per_terminal: _Limit
    offline_hours: _Hours
    hotlist_max_age_hours: _Hours
    no_cvm_limit: _Limit


class NewTerminal(Sent):
    """A terminal to be enrolled. Without `parameters` it starts with the usual ones."""

    terminal_id: TerminalId
    merchant_id: str = Field(pattern=r"^[A-Za-z0-9]{15}$", examples=["HARBOR000000001"])
    store: str = Field(default="", max_length=60, examples=["Pier 3"])
    label: str = Field(default="", max_length=60, examples=["Till 2"])
    suite: SuiteName = "SM"
    capabilities: list[CapabilityName] = Field(default=[], max_length=len(Capability))
    parameters: TerminalParameters | None = None
    #: Whether its master key is derived at the gateway; without, the gateway's settings hold it.
    with_key: bool = False
    management: Annotated[TerminalKeys, Field(strict=False)] = TerminalKeys.TMK
    #: Of an SM2 terminal's certificate: serial number, and public key (x and y).
    certificate: str = Field(default="", pattern=r"^([0-9a-f]{2}){0,20}$")
    sm2_public_key: str = Field(default="", pattern=r"^([0-9a-f]{128})?$")


class TerminalReason(Sent):
    reason: Reason


class NewParameters(Sent):
    """`based_on`: the version that these replace; 409 if another one came between."""

    parameters: TerminalParameters
    based_on: int = Field(ge=0, lt=1 << 31)
    reason: Reason


class TerminalItem(BaseModel):
    """A terminal in a list. `key_generation` 0: its key is not by enrolment here."""

    terminal_id: str
    merchant_id: str
    merchant_name: str | None = None
    status: str
    last_seq: int
    store: str
    label: str
    suite: SuiteName
    capabilities: list[Capability]
    management: TerminalKeys
    key_generation: int
    parameters_version: int
    last_seen_at: datetime | None
    last_sign_on_at: datetime | None
    gateway: str | None
    #: DE60 of its last payment.
    batch: str | None


class KeyCheck(BaseModel):
    """The check value of a master key (hex), as a gateway derived it."""

    generation: int
    check_value: str
    gateway: str
    reported_at: datetime


class TerminalDetail(TerminalItem):
    """`keys_differ`: two gateways derive different keys of one generation; one is set up wrong."""

    parameters: TerminalParameters
    key_checks: list[KeyCheck]
    keys_differ: bool


class TerminalChange(BaseModel):
    """One change of a terminal, with who and why, and what it led to."""

    change_id: int
    kind: Literal["enrolled", "parameters", "keys", "disabled", "enabled"]
    actor: str
    reason: str
    changed_at: datetime
    enabled: bool
    key_generation: int
    parameters_version: int
    parameters: TerminalParameters


class FleetRecordItem(BaseModel):
    """A terminal as its gateway takes it; `suite` is the byte in the header of its messages."""

    terminal_id: str
    merchant_id: str
    store: str
    label: str
    suite: int
    capabilities: list[Capability]
    parameters: TerminalParameters
    parameters_version: int
    key_generation: int
    enabled: bool
    management: TerminalKeys
    certificate: str
    sm2_public_key: str
    change_id: int


class FleetChanges(BaseModel):
    """Terminals that changed, each as it is now; `next` is what to ask after the next time."""

    items: list[FleetRecordItem]
    next: int


class SightingBody(Sent):
    """What a gateway saw of a terminal; moments in ms since 1970, UTC."""

    terminal_id: TerminalId
    last_seen_ms: _Moment
    last_sign_on_ms: _Moment
    batch: str | None = Field(default=None, pattern=r"^[0-9]{6}$")
    key_generation: int | None = Field(default=None, ge=0, lt=1 << 31)
    check_value: str | None = Field(default=None, pattern=r"^([0-9A-Fa-f]{2}){2,16}$")


class FleetReport(Sent):
    sightings: list[SightingBody] = Field(max_length=MAX_SIGHTINGS)


class ReportTaken(BaseModel):
    """Of how many of the terminals this acquirer knows."""

    known: int
