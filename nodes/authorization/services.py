"""What terminals ask of their acquirer beside payments: batch close, upload, downloads. Pure data.

The structs are also the JSON of `POST /v1/terminal-services` (gateway to its acquirer's node; bytes
travel as base64). Amounts are minor units; moments milliseconds since 1970, UTC.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from nodes.authorization.model import TerminalRequest


class Service(StrEnum):
    """What is asked for."""

    BATCH_CLOSE = "batch_close"  # 0500
    BATCH_UPLOAD = "batch_upload"  # 0320: one transaction of a batch whose totals differ
    HOTLIST = "hotlist"  # 0800: a page of cards that may not pay offline
    PARAMETERS = "parameters"  # 0800: the caps of offline payments


class ServiceOutcome(StrEnum):
    """How it ends, in order of precedence; gateway/pos/response_codes.py maps each to DE39."""

    KEY_REUSED = "key_reused"
    TERMINAL_NOT_PERMITTED = "terminal_not_permitted"
    MERCHANT_NOT_PERMITTED = "merchant_not_permitted"
    NOT_EXPECTED = "not_expected"  # an upload for a batch whose totals were never found to differ
    DIFFERS = "differs"  # totals: upload, then close again
    SYSTEM_ERROR = "system_error"
    DONE = "done"


class CurrencyTotals(msgspec.Struct, frozen=True, order=True):
    """Counts and sums of a batch in one currency; debits take money from cardholders."""

    currency: str
    debits: int = 0
    debit_amount: int = 0
    credits: int = 0
    credit_amount: int = 0


class ServiceRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One terminal's message. `item` (of an upload) is the transaction as it would be sent."""

    service: Service
    terminal_id: str
    merchant_id: str
    business_date: str  # YYYY-MM-DD
    batch: str = ""
    stan: str
    fingerprint: bytes
    totals: tuple[CurrencyTotals, ...] = ()
    item: TerminalRequest | None = None
    version: int = 0  # of the hotlist that the terminal has
    deadline_ms: int

    def __repr__(self) -> str:
        return f"ServiceRequest({self.service.value}, {self.terminal_id}, stan={self.stan})"


class ServiceAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the acquirer's node answers; equal for an equal request."""

    outcome: ServiceOutcome
    totals: tuple[CurrencyTotals, ...] = ()  # the acquirer's, where they differ
    next_batch: str | None = None
    data: bytes | None = None  # a download's page


class ServiceBatch(msgspec.Struct, frozen=True):
    requests: list[ServiceRequest]


class ServiceAnswers(msgspec.Struct, frozen=True):
    answers: list[ServiceAnswer]
