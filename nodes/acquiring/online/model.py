"""Orders, keys of callers, webhook messages: shapes and outcomes."""

from __future__ import annotations

import base64
import hashlib
from enum import StrEnum

import msgspec

#: DE60 of payments of orders and of other requests over HTTP: they aren't in terminals' batches.
ORDER_BATCH, HTTP_BATCH = "ORDER", "HTTP"


class FrontKey(msgspec.Struct, frozen=True):
    """A caller's public key (x || y, 64 bytes) and whose it is.

    `terminal_id` None: the merchant's; each request names one of the merchant's terminals.
    """

    key_id: str
    terminal_id: str | None
    merchant_id: str
    algorithm: str  # "ES256" or "SM2"
    public_key: bytes


class OrderState(StrEnum):
    """An order waits, is being paid, is paid, or has expired; the last two are final."""

    OPEN = "open"
    PAYING = "paying"
    PAID = "paid"
    EXPIRED = "expired"


class Order(msgspec.Struct, frozen=True):
    """One order. Amount in minor units; moments in milliseconds since 1970."""

    order_id: str
    terminal_id: str
    merchant_id: str
    merchant_name: str
    mcc: str
    country: str
    amount: int
    currency: str
    reference: str
    business_date: str
    state: OrderState
    attempt: int
    expires_ms: int
    created_ms: int
    txid: bytes | None = None
    rrn: str | None = None
    #: The merchant-presented QR code (nodes/emv/qr.py), signed by the acquirer.
    qr: str = ""


class NewOrder(msgspec.Struct, frozen=True):
    """An order to be made, at a terminal of the merchant that asks. `fingerprint`: SHA-256 of the
    request's content."""

    terminal_id: str
    merchant_id: str
    amount: int
    currency: str
    reference: str
    business_date: str
    idempotency_key: str
    fingerprint: bytes
    lifetime_s: int
    #: Where a wallet pays; stands in the code.
    pay_url: str


class OnlineOutcome(StrEnum):
    """How an operation of the front ends, in order of precedence."""

    TERMINAL_UNKNOWN = "terminal_unknown"
    MERCHANT_UNKNOWN = "merchant_unknown"
    KEY_UNKNOWN = "key_unknown"
    KEY_TAKEN = "key_taken"
    KEY_INVALID = "key_invalid"
    ORDER_UNKNOWN = "order_unknown"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    CURRENCY_NOT_PERMITTED = "currency_not_permitted"
    ORDER_EXPIRED = "order_expired"
    ORDER_PAID = "order_paid"
    ORDER_BEING_PAID = "order_being_paid"
    URL_REFUSED = "url_refused"
    ENDPOINT_UNKNOWN = "endpoint_unknown"
    DONE = "done"


def trace_number(*parts: str) -> str:
    """Twelve characters that follow from names: DE11 of a request over HTTP."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return base64.b32encode(digest[:10]).decode("ascii")[:12]
