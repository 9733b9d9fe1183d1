"""The JSON of the HTTP API. Amounts are integers of minor units; texts are checked by pattern."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Amount = Annotated[int, Meta(ge=1, le=999_999_999_999, description="Minor units.")]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$", description="ISO 4217.")]
LocalTime = Annotated[
    str,
    Meta(
        pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3])"
        r":[0-5][0-9]:[0-5][0-9]$",
        description="Of the terminal. Its date is the business date; a retry repeats it.",
    ),
]
Digits = Annotated[str, Meta(pattern=r"^[0-9]{13,19}$")]
Terminal = Annotated[
    str,
    Meta(
        pattern=r"^[ -~]{8}$",
        description="One of the merchant's terminals, for a key that is the merchant's.",
    ),
]
Rrn = Annotated[str, Meta(pattern=r"^[0-9A-Za-z]{12}$")]


Session = Annotated[str, Meta(pattern=r"^[0-9a-f]{48}$")]


class PinKeyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fresh SM2 public key of the PIN pad, x and y in hex, for this one answer."""

    public_key: Annotated[str, Meta(pattern=r"^[0-9a-f]{128}$")]


class PinKeyAnswer(msgspec.Struct, frozen=True):
    """`key`: 16 bytes of SM4, encrypted to the ephemeral key (C1, C3, C2); `check_value` in hex;
    `signature`: of the gateway's SM2 key over what `granted` says. Bytes are base64."""

    session: str
    expires_at: str
    key: bytes
    check_value: str
    signature: bytes

    def __repr__(self) -> str:
        return f"PinKeyAnswer({self.session})"


class PinBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A PIN: 16 bytes under the session's key (base64), the SM block of docs/iso8583.md."""

    session: Session
    block: Annotated[bytes, Meta(min_length=16, max_length=16)]

    def __repr__(self) -> str:
        return "PinBody()"


class CardBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a card was read; with its PIN, if there is a PIN pad (POST /v1/pin-keys)."""

    entry: Literal["ecommerce", "manual", "stripe", "fallback", "chip", "contactless"]
    pan: Digits | None = None
    expiry: Annotated[str, Meta(pattern=r"^[0-9]{2}(0[1-9]|1[0-2])$")] | None = None
    cvv2: Annotated[str, Meta(pattern=r"^[0-9]{3}$")] | None = None
    track2: Annotated[str, Meta(pattern=r"^[0-9]{13,19}D[0-9]{7,16}$", max_length=37)] | None = None
    icc: Annotated[bytes, Meta(max_length=255)] | None = None
    sequence: Annotated[str, Meta(pattern=r"^[0-9]{2,3}$")] | None = None
    pin: PinBody | None = None

    def __repr__(self) -> str:
        return f"CardBody({self.entry})"


class PaymentBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A purchase or an authorization; of a card, or of a consumer's code that was scanned."""

    amount: Amount
    currency: Currency
    local_time: LocalTime
    card: CardBody | None = None
    code: Annotated[str, Meta(min_length=8, max_length=512)] | None = None
    capture: bool = True  # false: an authorization, whose amount is held
    partial: bool = False
    terminal_id: Terminal | None = None

    def __repr__(self) -> str:
        return "PaymentBody()"


class FollowUpBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A refund, capture or void of what was answered with this rrn. `pan`: of the same card."""

    rrn: Rrn
    amount: Amount
    currency: Currency
    local_time: LocalTime
    pan: Digits
    final: bool = True
    terminal_id: Terminal | None = None

    def __repr__(self) -> str:
        return "FollowUpBody()"


class ReversalBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Take back the payment that was sent under this idempotency key, answered or not."""

    idempotency_key: Annotated[str, Meta(pattern=r"^[!-~]{8,128}$")]
    amount: Amount
    currency: Currency
    local_time: LocalTime
    pan: Digits
    terminal_id: Terminal | None = None

    def __repr__(self) -> str:
        return "ReversalBody()"


class OrderBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An order that one wallet may pay."""

    amount: Amount
    currency: Currency
    local_time: LocalTime
    reference: Annotated[str, Meta(max_length=64, pattern=r"^[ -~]*$")] = ""
    lifetime_s: Annotated[int, Meta(ge=30, le=86_400)] = 900
    terminal_id: Terminal | None = None


class OrderPaymentBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wallet pays an order with a fresh single-use code."""

    code: Annotated[str, Meta(min_length=8, max_length=512)]

    def __repr__(self) -> str:
        return "OrderPaymentBody()"


class PaymentAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was decided. `code` is DE39 of the POS link; `outcome` says it in words."""

    approved: bool
    outcome: str
    code: str
    amount: int
    currency: str
    rrn: str
    approval_code: str | None = None
    txid: str | None = None
    icc: bytes | None = None  # base64: ARPC and scripts for the chip
    available: int | None = None
    ledger: int | None = None


class OrderAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """An order as it is now. `qr`: the text of the merchant-presented code; `page`: shows it."""

    order_id: str
    state: str
    amount: int
    currency: str
    reference: str
    expires_at: str
    qr: str
    page: str
    rrn: str | None = None
    txid: str | None = None
