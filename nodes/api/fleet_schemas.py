"""The JSON of the terminal fleet. As in schemas.py: what is sent is taken strictly."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from nodes.acquiring.fleet.model import MAX_SIGHTINGS, Capability, TerminalKeys
from nodes.acquiring.fleet.rules import MAX_COUNT, MAX_HOURS
from nodes.api.schemas import Currency, Sent
from nodes.crypto.certificates import MAX_TEXT
from nodes.money import MAX_TRANSACTION_AMOUNT

TerminalId = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{8}$", examples=["T0000001"])]
SuiteName = Literal["SM", "AES", "LEGACY"]
CapabilityName = Annotated[Capability, Field(strict=False)]
_Limit = Annotated[int, Field(ge=0, le=MAX_TRANSACTION_AMOUNT, examples=[20_000])]
_Hours = Annotated[int, Field(ge=0, le=MAX_HOURS, examples=[24])]
_Moment = Annotated[int | None, Field(default=None, ge=0, lt=1 << 53)]
#: Of an SM2 terminal: its X.509 certificate, DER in base64 (PEM without first and last line).
CertificateText = Annotated[str, Field(max_length=MAX_TEXT)]
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
    certificate: CertificateText = ""


class NewDetails(Sent):
    """Where a terminal stands, its name, and what the device can do; as a whole."""

    store: str = Field(max_length=60, examples=["Pier 3"])
    label: str = Field(max_length=60, examples=["Till 2"])
    capabilities: list[CapabilityName] = Field(max_length=len(Capability))
    reason: Reason


class NewSuite(Sent):
    """Other algorithms, or another way to have keys: with it comes the next key generation."""

    suite: SuiteName
    management: Annotated[TerminalKeys, Field(strict=False)] = TerminalKeys.TMK
    certificate: CertificateText = ""
    reason: Reason


class NewMerchant(Sent):
    """The merchant that a terminal goes to, and where it stands there."""

    merchant_id: str = Field(pattern=r"^[A-Za-z0-9]{15}$", examples=["HARBOR000000001"])
    store: str = Field(default="", max_length=60)
    label: str = Field(default="", max_length=60)
    reason: Reason


class NewAuthority(Sent):
    """The certificate of one who certifies terminals, self-signed; base64."""

    certificate: str = Field(max_length=MAX_TEXT)


class AuthorityItem(BaseModel):
    """One who certifies terminals; `fingerprint`: SHA-256 of the certificate, hex."""

    fingerprint: str
    subject: str
    status: str
    not_after: datetime
    created_by: str
    created_at: datetime


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


class CertificateShown(BaseModel):
    """A terminal's certificate: serial number (hex), who signed it, and when it holds."""

    serial: str
    issuer: str
    not_before: datetime
    not_after: datetime


class TerminalDetail(TerminalItem):
    """`keys_differ`: two gateways derive different keys of one generation; one is set up wrong."""

    parameters: TerminalParameters
    key_checks: list[KeyCheck]
    keys_differ: bool
    #: Of an SM2 terminal; null for others.
    certificate: CertificateShown | None


class TerminalChange(BaseModel):
    """One change of a terminal, with who and why, and what it led to."""

    change_id: int
    kind: Literal[
        "enrolled",
        "parameters",
        "keys",
        "disabled",
        "enabled",
        "details",
        "suite",
        "moved",
        "retired",
    ]
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
    valid_from_ms: int
    valid_until_ms: int
    certified_by: str
    retired: bool
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
