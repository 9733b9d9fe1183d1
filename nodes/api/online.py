"""What the acquirer's HTTP front asks its node (`/v1/front/...`, gateways only), and what people
set up for it: keys of callers, webhook endpoints, the delivery log."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from nodes.acquiring.online import store, webhooks
from nodes.acquiring.online.model import FrontKey, NewOrder, OnlineOutcome, Order
from nodes.acquiring.online.webhooks import UrlRefused
from nodes.acquiring.store import merchant_exists
from nodes.api.auth import Principal, gateway, operator, reader
from nodes.api.dependencies import (
    Cursor,
    Limit,
    OptionalKey,
    TheNode,
    moment,
    refused,
    require_role,
)
from nodes.api.once import answer_once
from nodes.api.problems import Problem
from nodes.api.reads import cursor_of, number_of_cursor, text_of_cursor
from nodes.api.schemas import Nothing, Page, Sent
from nodes.authorization.operations import ordering
from nodes.clock import to_datetime
from nodes.db.engine import transaction

keys = APIRouter(prefix="/v1/front-keys", tags=["online"])
front = APIRouter(prefix="/v1/front", tags=["online"], dependencies=[Depends(gateway)])
endpoints = APIRouter(prefix="/v1/webhook-endpoints", tags=["online"])
deliveries = APIRouter(prefix="/v1/webhook-deliveries", tags=["online"])

Operator = Annotated[Principal, Depends(operator)]
#: Longer than any front takes a signature: 60 s before and after its iat, and clocks that differ.
JTI_KEPT_MS = 240_000
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_STATUS_OF = {
    OnlineOutcome.TERMINAL_UNKNOWN: 422,
    OnlineOutcome.MERCHANT_UNKNOWN: 422,
    OnlineOutcome.KEY_UNKNOWN: 404,
    OnlineOutcome.KEY_TAKEN: 409,
    OnlineOutcome.ORDER_UNKNOWN: 404,
    OnlineOutcome.IDEMPOTENCY_KEY_REUSED: 409,
    OnlineOutcome.ORDER_EXPIRED: 409,
    OnlineOutcome.ORDER_PAID: 409,
    OnlineOutcome.ORDER_BEING_PAID: 409,
    OnlineOutcome.ENDPOINT_UNKNOWN: 404,
}
KeyId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
_OrderId = Annotated[str, Field(pattern=r"^[A-Z2-7]{16}$")]
_Url = Annotated[str, Field(max_length=87, pattern=r"^https?://[!-~]+$")]


class NewFrontKey(Sent):
    """A caller's public key: x and y, 32 bytes each, in hex. Of one terminal, or of a merchant."""

    key_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", examples=["lantern-shop-1"])
    terminal_id: str | None = Field(default=None, pattern=r"^[ -~]{8}$", examples=["T0000001"])
    merchant_id: str | None = Field(default=None, pattern=r"^[ -~]{15}$")
    algorithm: Literal["ES256", "SM2"]
    public_key: str = Field(pattern=r"^[0-9a-f]{128}$")


class FrontKeyItem(BaseModel):
    """A caller's key: a terminal's, or a merchant's for all its terminals."""

    key_id: str
    terminal_id: str | None
    merchant_id: str | None
    algorithm: str
    status: str
    created_by: str
    created_at: datetime


class NewEndpoint(Sent):
    merchant_id: str = Field(min_length=1, max_length=15, pattern=r"^[ -~]+$")
    url: str = Field(min_length=8, max_length=500)


class EndpointItem(BaseModel):
    """`secret` stands in the answer to the creation only."""

    endpoint_id: str
    merchant_id: str
    url: str
    status: str
    secret: str | None = None

    def __repr__(self) -> str:
        return f"EndpointItem({self.endpoint_id})"


class DeliveryItem(BaseModel):
    """One message to one endpoint. `next_attempt_at` null: it is over, delivered or given up."""

    delivery_id: int
    message_id: str
    endpoint_id: str
    created_at: datetime
    attempts: int
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    last_status: int | None
    last_error: str | None


class KeyAsked(Sent):
    key_id: str = Field(max_length=64)


class JtiAsked(Sent):
    key_id: str = Field(max_length=64)
    jti: str = Field(min_length=8, max_length=64)


class OrderAsked(Sent):
    order_id: _OrderId
    pay_url: _Url


class OrderWanted(Sent):
    """An order as the front hands it over; see model.NewOrder."""

    terminal_id: str = Field(pattern=r"^[ -~]{8}$")
    merchant_id: str = Field(pattern=r"^[ -~]{15}$")
    amount: int = Field(ge=1, le=999_999_999_999)
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    reference: str = Field(max_length=64)
    business_date: str = Field(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$")
    idempotency_key: str = Field(pattern=r"^[!-~]{8,128}$")
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    lifetime_s: int = Field(ge=30, le=86_400)
    pay_url: _Url


# --- people --------------------------------------------------------------------------------------


@keys.post("", status_code=201)
def create_key(
    node: TheNode, caller: Operator, body: NewFrontKey, idempotency_key: OptionalKey = None
) -> FrontKeyItem:
    """Enrol the public key of a smart terminal or an online merchant's server."""
    require_role(node, "acquirer")
    public = bytes.fromhex(body.public_key)
    if body.algorithm == "ES256" and not _on_p256(public):
        raise refused(422, OnlineOutcome.KEY_INVALID.value)
    now = to_datetime(node.clock.now_ms())

    def attempt(connection: store.Connection) -> FrontKeyItem:
        merchant = _merchant_of(connection, body)
        key = FrontKey(body.key_id, body.terminal_id, merchant, body.algorithm, public)
        if not store.insert_key(connection, key, caller.name, now):
            raise refused(409, OnlineOutcome.KEY_TAKEN.value)
        return FrontKeyItem(
            key_id=body.key_id,
            terminal_id=body.terminal_id,
            merchant_id=body.merchant_id,
            algorithm=body.algorithm,
            status="active",
            created_by=caller.name,
            created_at=now,
        )

    content = (body.model_dump(),)
    return answer_once(node, idempotency_key, "front-key", caller, content, attempt, FrontKeyItem)


def _merchant_of(connection: store.Connection, body: NewFrontKey) -> str:
    """Whose key it is to be; refuses one of nobody's, or of two."""
    if (body.terminal_id is None) is (body.merchant_id is None):
        raise Problem(422, "terminal-or-merchant", "Give either terminal_id or merchant_id.")
    if body.terminal_id is not None:
        terminal = store.terminal_of(connection, body.terminal_id)
        if terminal is None:
            raise refused(422, OnlineOutcome.TERMINAL_UNKNOWN.value)
        return terminal[0]
    merchant_id = body.merchant_id or ""
    if not merchant_exists(connection, merchant_id):
        raise refused(422, OnlineOutcome.MERCHANT_UNKNOWN.value)
    return merchant_id


@keys.get("", dependencies=[Depends(reader)])
def list_keys(node: TheNode, limit: Limit = 50, cursor: Cursor = None) -> Page[FrontKeyItem]:
    """Keys in the order of their ids, revoked ones too."""
    names = (
        *("key_id", "terminal_id", "merchant_id", "algorithm", "status", "created_by"),
        "created_at",
    )
    with transaction(node.engine) as connection:
        rows = store.keys(connection, after=text_of_cursor(cursor), limit=limit + 1)
    items = [FrontKeyItem(**dict(zip(names, row, strict=True))) for row in rows[:limit]]
    return Page(items=items, next=cursor_of(items[-1].key_id) if len(rows) > limit else None)


@keys.post("/{key_id}/revoke")
def revoke_key(
    node: TheNode,
    caller: Operator,
    key_id: KeyId,
    body: Nothing,
    idempotency_key: OptionalKey = None,
) -> Nothing:
    """Take a key out of use, at once."""

    def attempt(connection: store.Connection) -> Nothing:
        if not store.revoke_key(connection, key_id, caller.name):
            raise refused(404, OnlineOutcome.KEY_UNKNOWN.value)
        return Nothing()

    content = (key_id,)
    return answer_once(
        node, idempotency_key, "front-key-revocation", caller, content, attempt, Nothing
    )


@endpoints.post("", status_code=201)
def create_endpoint(
    node: TheNode, caller: Operator, body: NewEndpoint, idempotency_key: OptionalKey = None
) -> EndpointItem:
    """Have a merchant told of outcomes from now on; the secret is shown this once."""
    require_role(node, "acquirer")
    try:
        webhooks.check_url(body.url, private_allowed=node.settings.webhooks_to_private)
    except UrlRefused as refusal:
        raise Problem(422, "url-refused", str(refusal)) from None
    now = to_datetime(node.clock.now_ms())

    def attempt(connection: store.Connection) -> EndpointItem:
        if not merchant_exists(connection, body.merchant_id):
            raise refused(422, OnlineOutcome.MERCHANT_UNKNOWN.value)
        endpoint_id = "".join(secrets.choice(_ALPHABET) for _ in range(16))
        store.insert_endpoint(connection, endpoint_id, body.merchant_id, body.url, caller.name, now)
        return EndpointItem(
            endpoint_id=endpoint_id, merchant_id=body.merchant_id, url=body.url, status="active"
        )

    content = (body.model_dump(),)
    made = answer_once(
        node, idempotency_key, "webhook-endpoint", caller, content, attempt, EndpointItem
    )
    # Not kept with the answer: it follows from the endpoint's id.
    secret = webhooks.secret_of(node.keystore.secret("message"), made.endpoint_id)
    return made.model_copy(update={"secret": webhooks.shown_secret(secret)})


@endpoints.get("", dependencies=[Depends(reader)])
def list_endpoints(node: TheNode, limit: Limit = 50, cursor: Cursor = None) -> Page[EndpointItem]:
    """Endpoints in the order of their ids, ended ones too; without secrets."""
    names = ("endpoint_id", "merchant_id", "url", "status")
    with transaction(node.engine) as connection:
        rows = store.endpoints(connection, after=text_of_cursor(cursor), limit=limit + 1)
    items = [EndpointItem(**dict(zip(names, row, strict=True))) for row in rows[:limit]]
    return Page(items=items, next=cursor_of(items[-1].endpoint_id) if len(rows) > limit else None)


@endpoints.post("/{endpoint_id}/end")
def end_endpoint(
    node: TheNode,
    caller: Operator,
    endpoint_id: Annotated[str, Path(max_length=16)],
    body: Nothing,
    idempotency_key: OptionalKey = None,
) -> Nothing:
    """Send nothing there any more."""

    def attempt(connection: store.Connection) -> Nothing:
        if not store.end_endpoint(connection, endpoint_id, caller.name):
            raise refused(404, OnlineOutcome.ENDPOINT_UNKNOWN.value)
        return Nothing()

    content = (endpoint_id,)
    return answer_once(
        node, idempotency_key, "webhook-endpoint-end", caller, content, attempt, Nothing
    )


@deliveries.get("", dependencies=[Depends(reader)])
def list_deliveries(
    node: TheNode,
    endpoint_id: Annotated[str | None, Query(max_length=16)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[DeliveryItem]:
    """The delivery log, the newest first."""
    with transaction(node.engine) as connection:
        rows = store.deliveries(
            connection,
            endpoint_id=endpoint_id,
            before=number_of_cursor(cursor),
            limit=limit + 1,
        )
    items = [_delivery(row) for row in rows[:limit]]
    more = len(rows) > limit
    return Page(items=items, next=cursor_of(items[-1].delivery_id) if more else None)


@deliveries.post("/{delivery_id}/replay")
def replay_delivery(
    node: TheNode,
    caller: Operator,
    delivery_id: Annotated[int, Path(ge=1, lt=1 << 62)],
    body: Nothing,
    idempotency_key: OptionalKey = None,
) -> Nothing:
    """Deliver a message once more; its id stays, so that the merchant knows it."""

    def attempt(connection: store.Connection) -> Nothing:
        if not store.replay(connection, delivery_id, node.clock.now_ms()):
            raise Problem(404, "delivery-unknown")
        return Nothing()

    content = (delivery_id,)
    return answer_once(node, idempotency_key, "webhook-replay", caller, content, attempt, Nothing)


# --- the front -----------------------------------------------------------------------------------


@front.post("/key", response_class=Response)
def front_key(node: TheNode, body: KeyAsked) -> Response:
    """A caller's key; 404 if there is none, or it is revoked."""
    with transaction(node.engine) as connection:
        key = store.active_key(connection, body.key_id)
    if key is None:
        raise refused(404, OnlineOutcome.KEY_UNKNOWN.value)
    return _json(key)


@front.post("/jtis", response_class=Response)
def front_jti(node: TheNode, body: JtiAsked) -> Response:
    """Take a signature's jti for a front: `new` is false if any front has had it already."""
    forget_ms = node.clock.now_ms() + JTI_KEPT_MS
    with transaction(node.engine) as connection:
        new = store.take_jti(connection, body.key_id, body.jti, forget_ms)
    return _json({"new": new})


@front.post("/orders", response_class=Response)
def front_order(node: TheNode, body: OrderWanted) -> Response:
    """Make an order, once for each idempotency key."""
    fields = body.model_dump() | {"fingerprint": bytes.fromhex(body.fingerprint)}
    made = ordering.make_order(
        node.engine,
        node.settings.member_id,
        node.keystore.secret("message"),
        NewOrder(**fields),
        node.clock.now_ms(),
    )
    return _order(made)


@front.post("/orders/read", response_class=Response)
def front_order_read(node: TheNode, body: OrderAsked) -> Response:
    """An order as it is now."""
    found = ordering.read_order(
        node.engine,
        node.settings.member_id,
        node.keystore.secret("message"),
        body.order_id,
        body.pay_url,
        node.clock.now_ms(),
    )
    return _order(found)


@front.post("/orders/claim", response_class=Response)
def front_order_claim(node: TheNode, body: OrderAsked) -> Response:
    """Take an order for one attempt to pay it."""
    member_id = node.settings.member_id
    return _order(ordering.claim_order(node.engine, member_id, body.order_id, node.clock.now_ms()))


def _order(found: Order | OnlineOutcome) -> Response:
    if isinstance(found, OnlineOutcome):
        raise refused(_STATUS_OF.get(found, 422), found.value)
    return _json(found)


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _delivery(row: tuple[Any, ...]) -> DeliveryItem:
    number, message_id, endpoint_id, created, attempts, again, delivered, status, error = row
    return DeliveryItem(
        delivery_id=number,
        message_id=message_id,
        endpoint_id=endpoint_id,
        created_at=moment(created),
        attempts=attempts,
        next_attempt_at=moment(again) if again is not None else None,
        delivered_at=moment(delivered) if delivered is not None else None,
        last_status=status,
        last_error=error,
    )


def _on_p256(public: bytes) -> bool:
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + public)
    except ValueError:
        return False
    return True
