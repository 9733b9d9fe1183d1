"""Merchants and terminals of an acquirer."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Merchant(msgspec.Struct, frozen=True):
    """A merchant: `merchant_id` is DE42 (15 characters), `mcc` ISO 18245, `country` ISO 3166."""

    merchant_id: str
    name: str
    mcc: str
    country: str
    currency: str
    #: The merchant's own node, if it runs one: its member id.
    member_id: str | None = None


class Terminal(msgspec.Struct, frozen=True):
    """A terminal with its merchant, locked for the allocation of its sequence numbers."""

    terminal_id: str
    terminal_status: str
    last_seq: int
    merchant_id: str
    merchant_name: str
    mcc: str
    country: str
    currency: str
    merchant_account: int
    merchant_status: str

    @property
    def in_use(self) -> bool:
        """Whether it may pay: it and its merchant are active."""
        return self.terminal_status == "active" and self.merchant_status == "active"


class AcquiringOutcome(StrEnum):
    """How a registration ends, in order of precedence."""

    MERCHANT_ID_INVALID = "merchant_id_invalid"
    TERMINAL_ID_INVALID = "terminal_id_invalid"
    MCC_INVALID = "mcc_invalid"
    COUNTRY_INVALID = "country_invalid"
    NAME_INVALID = "name_invalid"
    CURRENCY_UNKNOWN = "currency_unknown"
    MEMBER_INVALID = "member_invalid"
    MERCHANT_UNKNOWN = "merchant_unknown"
    TAKEN = "taken"
    DONE = "done"
