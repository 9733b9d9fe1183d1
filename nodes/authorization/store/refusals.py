"""What terminals were told without any transaction of that: the acquirer's own refusals, and
requests that no issuer answered. Merchants hear of them by webhook (nodes/acquiring/online).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg

from nodes.authorization.model import (
    AuthorizationRequest,
    Outcome,
    TerminalAnswer,
    TerminalRequest,
)
from nodes.crypto.pan import mask
from nodes.db.writes import Writes, append_rows

Connection = psycopg.Connection[Any]

_TYPES = {
    "idempotency_key": "bytea",
    "merchant_id": "text",
    "terminal_id": "text",
    "kind": "text",
    "outcome": "text",
    "amount": "bigint",
    "currency": "text",
    "rrn": "text",
    "pan_masked": "text",
    "batch": "text",
    "stan": "text",
    "refused_ms": "bigint",
}
_PAN_LENGTHS = range(13, 20)


class Refusal(msgspec.Struct, frozen=True):
    """One of them. `merchant_id`: as the request named it; amount in minor units, as asked."""

    idempotency_key: bytes
    merchant_id: str
    terminal_id: str
    kind: str
    outcome: str
    amount: int
    currency: str
    rrn: str
    pan_masked: str
    batch: str
    stan: str
    refused_ms: int


def refused_request(
    key: bytes, request: TerminalRequest, answer: TerminalAnswer, now_ms: int
) -> Refusal:
    """Of a request that didn't go on to an issuer."""
    pan = request.pan
    shown = mask(pan) if len(pan) in _PAN_LENGTHS and pan.isascii() and pan.isdigit() else ""
    return _refusal(key, request, answer.outcome, answer.rrn, shown, now_ms)


def unanswered_request(
    key: bytes, asked: AuthorizationRequest, outcome: Outcome, pan_masked: str, now_ms: int
) -> Refusal:
    """Of a request that went on, and whose terminal was told `outcome` for want of an answer."""
    return _refusal(key, asked, outcome, asked.rrn, pan_masked, now_ms)


def append_refusals(into: Connection | Writes, refusals: Sequence[Refusal]) -> None:
    """Append them; in the commit that stores the answers."""
    append_rows(
        into, "acquirer_refusals", _TYPES, [msgspec.structs.astuple(one) for one in refusals]
    )


def _refusal(
    key: bytes,
    asked: TerminalRequest | AuthorizationRequest,
    outcome: Outcome,
    rrn: str,
    pan_masked: str,
    now_ms: int,
) -> Refusal:
    return Refusal(
        key,
        asked.merchant_id,
        asked.terminal_id,
        asked.kind.value,
        outcome.value,
        asked.amount,
        asked.currency,
        rrn,
        pan_masked,
        asked.batch,
        asked.stan,
        now_ms,
    )
