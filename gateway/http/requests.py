"""Bodies of the HTTP API to a terminal's request, and a decision back to JSON. Pure.

The request's idempotency key at the node is (terminal, business date, batch HTTP, trace number),
and the trace number follows from the Idempotency-Key: so the node's stored answer is the API's,
whichever front and however often it is asked.
"""

from __future__ import annotations

import hashlib

import msgspec

from gateway.http.bodies import (
    CardBody,
    FollowUpBody,
    PaymentAnswer,
    PaymentBody,
    ReversalBody,
)
from gateway.http.pins import PinKeys
from gateway.http.problems import ApiProblem
from gateway.pos.entry import discretionary
from gateway.pos.response_codes import CODE_OF_OUTCOME, PARTIALLY_APPROVED
from gateway.pos.translate import FINGERPRINT_KEY
from nodes import money
from nodes.acquiring.online.model import HTTP_BATCH, ORDER_BATCH, FrontKey, Order, trace_number
from nodes.authorization.model import Kind, Outcome, TerminalAnswer, TerminalRequest
from nodes.crypto.hsm import Hsm
from nodes.crypto.pan import is_valid_pan
from nodes.emv.qr import ConsumerCode, QrMalformed, decode_consumer

#: DE22 of each way to read a card, its last digit without a PIN.
_ENTRY_MODES = {
    "ecommerce": "812",
    "manual": "012",
    "stripe": "022",
    "fallback": "802",
    "chip": "052",
    "contactless": "072",
}
#: Ways with a PIN pad beside the reader; the last digit of DE22 with a PIN.
_WITH_PIN_PAD, _PIN_GIVEN = ("stripe", "fallback", "chip", "contactless"), "1"
_SCANNED, _ORDER_PAID = "032", "042"
_TRACK_FIXED = 7


class Accepting(msgspec.Struct, frozen=True):
    """What every request of a front is made with."""

    hsm: Hsm
    pins: PinKeys
    currencies: frozenset[str]
    max_amount: int
    deadline_ms: int


def payment(
    body: PaymentBody, caller: FrontKey, idempotency_key: str, front: Accepting, now_ms: int
) -> TerminalRequest:
    """A purchase or authorization. ApiProblem 422 names what is wrong."""
    if (body.card is None) is (body.code is None):
        raise ApiProblem(422, "card-or-code", "Give either card or code.", at="$")
    kind = Kind.PURCHASE if body.capture else Kind.AUTHORIZATION
    fields = _common(body, caller, front, now_ms) | {
        "kind": kind,
        "stan": trace_number(idempotency_key),
        "partial_ok": body.partial,
    }
    if body.code is not None:
        return _finished(fields | _of_code(body.code, _SCANNED), front)
    assert body.card is not None
    return _finished(fields | _of_card(body.card, caller, front, now_ms), front)


def order_payment(
    order: Order, code: str, stan: str, front: Accepting, now_ms: int
) -> TerminalRequest:
    """One attempt of a wallet to pay an order."""
    fields = {
        "terminal_id": order.terminal_id,
        "merchant_id": order.merchant_id,
        "business_date": order.business_date,
        "local_time": f"{order.business_date}T00:00:00",
        "batch": ORDER_BATCH,
        "stan": stan,
        "kind": Kind.PURCHASE,
        "amount": order.amount,
        "currency": order.currency,
        "deadline_ms": now_ms + front.deadline_ms,
    }
    return _finished(fields | _of_code(code, _ORDER_PAID), front)


def follow_up(
    kind: Kind,
    body: FollowUpBody,
    caller: FrontKey,
    idempotency_key: str,
    front: Accepting,
    now_ms: int,
) -> TerminalRequest:
    """A refund, capture or void."""
    fields = _common(body, caller, front, now_ms) | {
        "kind": kind,
        "stan": trace_number(idempotency_key),
        "rrn": body.rrn,
        "pan": _checked(body.pan, "$.pan"),
        "entry_mode": _ENTRY_MODES["ecommerce"],
        "channel": "ecommerce",
        "final": kind is Kind.CAPTURE and body.final,
    }
    return _finished(fields, front)


def reversal(
    body: ReversalBody, caller: FrontKey, front: Accepting, now_ms: int
) -> TerminalRequest:
    """The reversal has the trace number of what it reverses."""
    fields = _common(body, caller, front, now_ms) | {
        "kind": Kind.REVERSAL,
        "stan": trace_number(body.idempotency_key),
        "pan": _checked(body.pan, "$.pan"),
        "entry_mode": _ENTRY_MODES["ecommerce"],
        "channel": "ecommerce",
    }
    return _finished(fields, front)


def answer(request: TerminalRequest, told: TerminalAnswer) -> PaymentAnswer:
    """A decision as JSON. ApiProblem 409 or 422 where the request itself was at fault."""
    outcome = told.outcome
    if outcome is Outcome.KEY_REUSED:
        raise ApiProblem(
            409, "idempotency-key-reused", "This Idempotency-Key was used for another request."
        )
    if outcome is Outcome.MALFORMED:
        raise ApiProblem(422, "request-malformed", "The node can't read this request.")
    code = CODE_OF_OUTCOME[outcome]
    approved = outcome is Outcome.APPROVED
    if approved and 0 < told.amount < request.amount and request.partial_ok:
        code = PARTIALLY_APPROVED
    return PaymentAnswer(
        approved=approved,
        outcome=outcome.value,
        code=code,
        amount=told.amount if approved else 0,
        currency=told.currency,
        rrn=told.rrn,
        approval_code=told.approval_code,
        txid=told.txid.hex() if told.txid is not None else None,
        icc=told.icc,
        available=told.available,
        ledger=told.ledger,
    )


# --- parts ---------------------------------------------------------------------------------------


def terminal_of(named: str | None, caller: FrontKey) -> str:
    """The terminal that a request is of: the key's own, or the one that it names."""
    if caller.terminal_id is None and named is None:
        raise ApiProblem(
            422,
            "terminal-missing",
            "This key is a merchant's: name a terminal.",
            at="$.terminal_id",
        )
    if caller.terminal_id is not None and named not in (None, caller.terminal_id):
        raise ApiProblem(
            422, "terminal-of-another", "This key is another terminal's.", at="$.terminal_id"
        )
    return caller.terminal_id or named or ""


def _common(
    body: PaymentBody | FollowUpBody | ReversalBody,
    caller: FrontKey,
    front: Accepting,
    now_ms: int,
) -> dict[str, object]:
    amount, currency, local_time = body.amount, body.currency, body.local_time
    if currency not in money.CURRENCIES or currency not in front.currencies:
        raise ApiProblem(422, "currency-not-permitted", "Not a currency here.", at="$.currency")
    if amount > front.max_amount:
        raise ApiProblem(422, "amount-too-large", "Over this front's maximum.", at="$.amount")
    return {
        "terminal_id": terminal_of(body.terminal_id, caller),
        "merchant_id": caller.merchant_id,
        "business_date": local_time[:10],
        "local_time": local_time,
        "batch": HTTP_BATCH,
        "amount": amount,
        "currency": currency,
        "deadline_ms": now_ms + front.deadline_ms,
    }


def _of_card(card: CardBody, caller: FrontKey, front: Accepting, now_ms: int) -> dict[str, object]:
    pan, expiry, service_code = card.pan, card.expiry, None
    if card.track2 is not None:
        track_pan, _, rest = card.track2.partition("D")
        if pan not in (None, track_pan) or expiry not in (None, rest[:4]):
            raise ApiProblem(
                422, "card-contradicts-itself", "pan or expiry differs.", at="$.card.track2"
            )
        pan, expiry, service_code = track_pan, rest[:4], rest[4:_TRACK_FIXED]
    if pan is None or expiry is None:
        raise ApiProblem(422, "card-incomplete", "pan and expiry, or track2.", at="$.card")
    if card.entry in ("stripe", "fallback") and card.track2 is None:
        raise ApiProblem(422, "card-incomplete", "A stripe has a track.", at="$.card.track2")
    if card.icc is not None and card.entry not in ("chip", "contactless"):
        raise ApiProblem(422, "card-contradicts-itself", "No chip was read.", at="$.card.icc")
    pan, mode, pin_block = _checked(pan, "$.card.pan"), _ENTRY_MODES[card.entry], None
    if card.pin is not None:
        if card.entry not in _WITH_PIN_PAD:
            raise ApiProblem(422, "card-contradicts-itself", "No PIN pad.", at="$.card.pin")
        pin_block = front.pins.translated(card.pin, caller, pan, now_ms // 1_000)
        mode = mode[:2] + _PIN_GIVEN
    return {
        "pan": pan,
        "expiry": expiry,
        "service_code": service_code,
        "pin_block": pin_block,
        "entry_mode": mode,
        "channel": "ecommerce" if card.entry == "ecommerce" else "pos",
        "icc": card.icc,
        "card_sequence": card.sequence if card.icc is not None else None,
        "track2": discretionary(card.track2),
        "cvv2": card.cvv2,
    }


def _of_code(payload: str, entry_mode: str) -> dict[str, object]:
    try:
        code: ConsumerCode = decode_consumer(payload)
    except QrMalformed as error:
        raise ApiProblem(422, "code-malformed", str(error), at="$.code") from None
    return {
        "pan": _checked(code.number, "$.code"),
        "expiry": code.expiry,
        "service_code": code.service_code,
        "entry_mode": entry_mode,
    }


def _checked(pan: str, at: str) -> str:
    if not is_valid_pan(pan):
        raise ApiProblem(422, "card-number-invalid", "The check digit is wrong.", at=at)
    return pan


def _finished(fields: dict[str, object], front: Accepting) -> TerminalRequest:
    """With the fingerprint of its content; card data enters as a keyed tag, as on the POS link."""
    secret = ("pan", "expiry", "service_code", "track2", "cvv2")
    card = "\x1f".join(str(fields.get(name) or "") for name in secret)
    # The PIN block is the translated one: a retry under another session's key is the same.
    pin_block = fields.get("pin_block")
    sealed = pin_block if isinstance(pin_block, bytes) else b""
    tag = front.hsm.mac(FINGERPRINT_KEY, card.encode("ascii") + sealed)
    plain = [
        str(fields.get(name) or "")
        for name in sorted(fields)
        if name not in (*secret, "pin_block", "deadline_ms", "icc")
    ]
    icc = fields.get("icc")
    content = "\x1f".join(["http", *plain]).encode() + tag
    digest = hashlib.sha256(content + (icc if isinstance(icc, bytes) else b"")).digest()
    return msgspec.convert(fields | {"fingerprint": digest}, TerminalRequest)
