"""The OpenAPI document of the HTTP API: made from the very structs that decode bodies."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Any

import msgspec

from gateway.http.bodies import (
    FollowUpBody,
    OrderAnswer,
    OrderBody,
    OrderPaymentBody,
    PaymentAnswer,
    PaymentBody,
    PinKeyAnswer,
    PinKeyBody,
    ReversalBody,
)
from gateway.http.problems import MEDIA_TYPE

_REF = "#/components/schemas/{name}"
_PAN, _TIME = "6223001000001236", "2026-11-23T10:15:00"
#: A point of the SM2 curve: five times its base point.
_POINT = (
    "c749061668652e26040e008fdd5eb77a344a417b7fce19dba575da57cc372a9e"
    "f2df5db2d144e9454504c622b51cf38f5006206eb579ff7da6976eff5fbe6480"
)
_PROBLEMS = {
    "400": "Not a well-formed request, or a header is missing.",
    "401": "The signature is missing, wrong, too old or was used before.",
    "404": "There is no such thing.",
    "408": "The body came too slowly.",
    "409": "The Idempotency-Key was used for another request, or the order can't be paid.",
    "413": "The body is too large.",
    "415": "The body is not application/json.",
    "422": "A value is missing or wrong; `at` says where.",
    "429": "Too many at once.",
    "503": "Nothing was done; see Retry-After.",
    "504": "Whether it was decided isn't known: send the same request again.",
}
_FOLLOW_UP = {
    "rrn": "000000000042",
    "amount": 500,
    "currency": "CNY",
    "local_time": _TIME,
    "pan": _PAN,
}
#: Path -> (what it does, body, answer, status, example, signed).
_POSTS: dict[str, tuple[str, type, type, str, dict[str, Any], bool]] = {
    "/v1/payments": (
        "A purchase; with capture false an authorization.",
        PaymentBody,
        PaymentAnswer,
        "200",
        {
            "amount": 2_500,
            "currency": "CNY",
            "local_time": _TIME,
            "card": {"entry": "ecommerce", "pan": _PAN, "expiry": "3012", "cvv2": "123"},
        },
        True,
    ),
    "/v1/pin-keys": (
        "A key for a PIN pad, encrypted to a fresh SM2 key of the pad.",
        PinKeyBody,
        PinKeyAnswer,
        "201",
        {"public_key": _POINT},
        True,
    ),
    "/v1/refunds": ("Give back.", FollowUpBody, PaymentAnswer, "200", _FOLLOW_UP, True),
    "/v1/captures": (
        "Take of an authorization.",
        FollowUpBody,
        PaymentAnswer,
        "200",
        _FOLLOW_UP,
        True,
    ),
    "/v1/voids": ("Take back the whole.", FollowUpBody, PaymentAnswer, "200", _FOLLOW_UP, True),
    "/v1/reversals": (
        "Take back a payment whose answer didn't come.",
        ReversalBody,
        PaymentAnswer,
        "200",
        {
            "idempotency_key": "cart-4711-1",
            "amount": 2_500,
            "currency": "CNY",
            "local_time": _TIME,
            "pan": _PAN,
        },
        True,
    ),
    "/v1/orders": (
        "An order with its merchant-presented QR code and its page.",
        OrderBody,
        OrderAnswer,
        "201",
        {"amount": 1_250, "currency": "CNY", "local_time": _TIME, "reference": "Table 7"},
        True,
    ),
    "/v1/orders/{order_id}/payments": (
        "A wallet pays an order with a fresh single-use code.",
        OrderPaymentBody,
        PaymentAnswer,
        "200",
        {"code": "hQVDUFYwMWEYTwbwQ1NHTgFXDmIjABCYdlQyEE0wEiAf"},
        False,
    ),
}
_ANSWERS: dict[type, str] = {
    PaymentAnswer: "The decision, approved or not.",
    OrderAnswer: "The order.",
    PinKeyAnswer: "The key.",
}
_TXID = "9b1f" * 16
#: Answers as they come; texts that stand for bytes are base64.
_TOLD: dict[type, dict[str, Any]] = {
    PaymentAnswer: {
        "approved": True,
        "outcome": "approved",
        "code": "00",
        "amount": 2_500,
        "currency": "CNY",
        "rrn": "000000000042",
        "approval_code": "712637",
        "txid": _TXID,
    },
    OrderAnswer: {
        "order_id": "MZXW6YTBOI5DKMRQ",
        "state": "open",
        "amount": 1_250,
        "currency": "CNY",
        "reference": "Table 7",
        "expires_at": "2026-11-23T02:30:00Z",
        "qr": "000201010212...6304A13C",
        "page": "https://pay.example/o/MZXW6YTBOI5DKMRQ",
    },
    PinKeyAnswer: {
        "session": "6a6fd4e400112233445566778899aabbccddeeff00112233",
        "expires_at": "2026-11-23T02:30:00Z",
        "key": base64.b64encode(bytes(112)).decode(),
        "check_value": "3a29d87b",
        "signature": base64.b64encode(bytes(64)).decode(),
    },
}
_PROBLEM_TOLD = {
    "type": "urn:countersign:problem:idempotency-key-reused",
    "title": "Conflict",
    "status": 409,
    "detail": "the key was used for another request",
}
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457. `at` names the place in the request that is wrong.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "at": {"type": "string"},
    },
    "example": _PROBLEM_TOLD,
}


@lru_cache(maxsize=4)
def document(server: str) -> dict[str, Any]:
    """The whole document."""
    structs = {one for entry in _POSTS.values() for one in entry[1:3]}
    _, schemas = msgspec.json.schema_components(structs, ref_template=_REF)
    paths: dict[str, Any] = {
        path: {"post": _operation(path, *entry)} for path, entry in _POSTS.items()
    }
    paths["/v1/orders/{order_id}"] = {
        "get": {
            "summary": "An order as it is now.",
            "parameters": [_ORDER_ID],
            "security": [{"jws": []}],
            "responses": {"200": _content("An order.", OrderAnswer), **_refusals()},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Countersign payments for smart terminals and online merchants",
            "version": "1",
            "description": "docs/http-api.md. Amounts are integers of minor units.",
        },
        "servers": [{"url": server}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "securitySchemes": {
                "jws": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "JWS-Signature",
                    "description": "Detached JWS (RFC 7515, appendix F), ES256 or SM2.",
                }
            },
        },
    }


_ORDER_ID = {
    "name": "order_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Z2-7]{16}$"},
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "Made by the caller; a retry repeats it, and gets the stored answer.",
    "schema": {"type": "string", "minLength": 8, "maxLength": 128},
}


def _operation(
    path: str,
    summary: str,
    body: type,
    answer: type,
    status: str,
    example: dict[str, Any],
    signed: bool,
) -> dict[str, Any]:
    parameters = [_ORDER_ID] if "{order_id}" in path else []
    return {
        "summary": summary,
        "parameters": [*parameters, *([_KEY] if signed else [])],
        "security": [{"jws": []}] if signed else [],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": _REF.format(name=body.__name__)},
                    "example": example,
                }
            },
        },
        "responses": {status: _content(_ANSWERS[answer], answer), **_refusals()},
    }


def _content(description: str, of: type) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=of.__name__)}
    content = {"schema": schema, "example": _TOLD[of]}
    return {"description": description, "content": {"application/json": content}}


def _refusals() -> dict[str, Any]:
    schema = {"$ref": _REF.format(name="Problem")}
    return {
        status: {"description": text, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status, text in _PROBLEMS.items()
    }
