"""The HTTP API's routes: who calls is proven, the body is read within bounds, the node decides.

Payments go through the same dispatcher to the same node as terminals' messages do. Each request has
a size, a time and a share: at most `MAX_BODY` bytes within `BODY_S` seconds, `PER_CALLER` at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import structlog
from aiohttp import web

from gateway.http import openapi, page, requests, signatures
from gateway.http.bodies import (
    FollowUpBody,
    OrderAnswer,
    OrderBody,
    OrderPaymentBody,
    PaymentAnswer,
    PaymentBody,
    PinKeyBody,
    ReversalBody,
)
from gateway.http.front_link import FrontLink
from gateway.http.problems import ApiProblem
from gateway.http.requests import Accepting
from gateway.iso8583.spec import Suite
from gateway.pos.dispatch import Decision, Dispatcher, Waiting
from gateway.pos.framing import Header
from gateway.pos.response_codes import Refusal
from gateway.pos.session import Address
from nodes.acquiring.online.model import FrontKey, Order, trace_number
from nodes.api import strict_json
from nodes.authorization.model import Kind, TerminalAnswer, TerminalRequest
from nodes.clock import Clock
from nodes.crypto.http_signatures import NonceMemory

log = structlog.get_logger("gateway.http")

MAX_BODY = 16 << 10
BODY_S = 5.0
#: Requests under way at once: of one caller, and of all.
PER_CALLER, IN_ALL = 32, 512
_JSON = "application/json"
_ORDER_ID_LENGTH = 16
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
#: Answers over HTTP have no frame: nothing of an address is ever used.
_NO_ADDRESS = Address(Header(bytes(5), Suite.SM, 0), "", {}, None, b"")

B = TypeVar("B")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FrontApi:
    """The handlers, with what they work with. One a process."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        link: FrontLink,
        accepting: Accepting,
        clock: Clock,
        public_url: str,
    ) -> None:
        self._dispatcher = dispatcher
        self._link = link
        self._accepting = accepting
        self._clock = clock
        self._public_url = public_url.rstrip("/")
        self._seen = NonceMemory(time.monotonic, per_key=signatures.JTIS_OF_A_KEY)
        self._under_way: Counter[str] = Counter()
        self._all = 0

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[self._guarded])
        app.router.add_post("/v1/pin-keys", self._pin_key)
        app.router.add_post("/v1/payments", self._payment)
        for path, kind in (
            ("/v1/refunds", Kind.REFUND),
            ("/v1/captures", Kind.CAPTURE),
            ("/v1/voids", Kind.VOID),
        ):
            app.router.add_post(path, self._follow_up(kind))
        app.router.add_post("/v1/reversals", self._reversal)
        app.router.add_post("/v1/orders", self._new_order)
        app.router.add_get("/v1/orders/{order_id}", self._order)
        app.router.add_post("/v1/orders/{order_id}/payments", self._order_payment)
        app.router.add_get("/o/{order_id}", self._order_page)
        app.router.add_get("/openapi.json", self._openapi)
        app.router.add_get("/health", self._health)
        return app

    def pay_url(self, order_id: str) -> str:
        """Where wallets pay an order; stands in its code."""
        return f"{self._public_url}/v1/orders/{order_id}/payments"

    # --- around every handler ----------------------------------------------------------------

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        try:
            if self._all >= IN_ALL:
                raise _overloaded()
            self._all += 1
            try:
                answer = await handler(request)
            finally:
                self._all -= 1
        except ApiProblem as problem:
            answer = problem.response()
        except web.HTTPException as error:
            kind = "not-found" if error.status == 404 else "request-refused"
            answer = ApiProblem(error.status, kind, error.reason).response()
        except Exception as error:  # noqa: BLE001 - the caller gets a problem, the log no data
            log.error("request_failed", error=type(error).__name__)
            answer = ApiProblem(500, "internal", "The front failed; its log says why.").response()
        for name, value in _HEADERS.items():
            answer.headers.setdefault(name, value)
        resource = request.match_info.route.resource
        log.info(
            "http_request",
            method=request.method if request.method in ("GET", "POST") else "?",
            route=resource.canonical if resource is not None else "unknown",
            status=answer.status,
            ms=round(1_000 * (time.perf_counter() - started), 1),
        )
        return answer

    async def _signed(self, request: web.Request) -> tuple[FrontKey, bytes, str | None]:
        """Who calls, what was sent, and under which idempotency key."""
        body = await _body(request)
        signed = signatures.parse(_single(request, signatures.HEADER))
        key = await self._link.key(signed.claims.kid)
        if key is None:
            raise signatures.refused("key-unknown", "The key isn't enrolled, or it is revoked.")
        idempotency_key = _single(request, "Idempotency-Key")
        signatures.check(
            signed,
            key,
            method=request.method,
            target=request.raw_path,
            idempotency_key=idempotency_key,
            body=body,
            now_s=self._clock.now_ms() / 1_000,
            seen=self._seen,
        )
        if not await self._link.is_new(signed.claims.kid, signed.claims.jti):
            raise signatures.replayed()
        return key, body, idempotency_key

    async def _posted(self, request: web.Request, of: type[B]) -> tuple[FrontKey, B, str]:
        caller, body, idempotency_key = await self._signed(request)
        return caller, _decoded(request, body, of), _required(idempotency_key)

    async def _decided(self, request: TerminalRequest, caller: str) -> PaymentAnswer:
        """The node's decision, by the same queue that terminals' messages wait in."""
        if self._under_way[caller] >= PER_CALLER:
            raise ApiProblem(
                429, "too-many-at-once", f"At most {PER_CALLER} at once.", retry_after_s=1
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Decision | Refusal | None] = loop.create_future()

        def done(_: Waiting, result: Decision | Refusal | None) -> None:
            if not future.done():
                future.set_result(result)

        now = loop.time()
        deadline = now + self._accepting.deadline_ms / 1_000
        self._under_way[caller] += 1
        try:
            if not self._dispatcher.submit(Waiting(request, _NO_ADDRESS, now, deadline, done)):
                raise _overloaded()
            result = await future
        finally:
            self._under_way[caller] -= 1
            if not self._under_way[caller]:
                del self._under_way[caller]
        if isinstance(result, TerminalAnswer):
            return requests.answer(request, result)
        if isinstance(result, Refusal):
            raise _overloaded()
        raise ApiProblem(
            504,
            "outcome-unknown",
            "No decision came in time: send the same request again, or reverse it.",
            retry_after_s=1,
        )

    # --- payments ----------------------------------------------------------------------------

    async def _pin_key(self, request: web.Request) -> web.Response:
        caller, body, _ = await self._posted(request, PinKeyBody)
        now_s = self._clock.now_ms() // 1_000
        return _json(self._accepting.pins.grant(body, caller, now_s), 201)

    async def _payment(self, request: web.Request) -> web.Response:
        caller, body, idempotency_key = await self._posted(request, PaymentBody)
        made = requests.payment(
            body, caller, idempotency_key, self._accepting, self._clock.now_ms()
        )
        return _json(await self._decided(made, caller.key_id))

    def _follow_up(self, kind: Kind) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            caller, body, idempotency_key = await self._posted(request, FollowUpBody)
            made = requests.follow_up(
                kind, body, caller, idempotency_key, self._accepting, self._clock.now_ms()
            )
            return _json(await self._decided(made, caller.key_id))

        return handler

    async def _reversal(self, request: web.Request) -> web.Response:
        caller, body, _ = await self._posted(request, ReversalBody)
        made = requests.reversal(body, caller, self._accepting, self._clock.now_ms())
        return _json(await self._decided(made, caller.key_id))

    # --- orders ------------------------------------------------------------------------------

    async def _new_order(self, request: web.Request) -> web.Response:
        caller, body, idempotency_key = await self._posted(request, OrderBody)
        wanted = {
            "terminal_id": requests.terminal_of(body.terminal_id, caller),
            "merchant_id": caller.merchant_id,
            "amount": body.amount,
            "currency": body.currency,
            "reference": body.reference,
            "business_date": body.local_time[:10],
            "idempotency_key": idempotency_key,
            "fingerprint": hashlib.sha256(msgspec.json.encode(body)).hexdigest(),
            "lifetime_s": body.lifetime_s,
            "pay_url": self.pay_url("{order_id}"),
        }
        return _json(self._shown(await self._link.make_order(wanted)), 201)

    async def _order(self, request: web.Request) -> web.Response:
        caller, _, _ = await self._signed(request)
        order = await self._found(request)
        own = order.terminal_id if caller.terminal_id is not None else order.merchant_id
        if own != (caller.terminal_id or caller.merchant_id):
            raise ApiProblem(404, "order-unknown", "There is no such order.")
        return _json(self._shown(order))

    async def _order_payment(self, request: web.Request) -> web.Response:
        """A wallet pays: the single-use code is its credential, so there is no signature."""
        body = _decoded(request, await _body(request), OrderPaymentBody)
        order_id = _order_id(request)
        # Read first: what can't be paid isn't claimed, and a bad code costs the order nothing.
        order = await self._link.order(order_id, self.pay_url(order_id))
        requests.order_payment(order, body.code, "0", self._accepting, self._clock.now_ms())
        claimed = await self._link.claim(order_id, self.pay_url(order_id))
        stan = trace_number(claimed.order_id, str(claimed.attempt))
        made = requests.order_payment(
            claimed, body.code, stan, self._accepting, self._clock.now_ms()
        )
        try:
            answer = await self._decided(made, f"order:{order_id}")
        finally:
            # What became of it is read off the node's stored answer, here or at the next look.
            await self._link.order(order_id, self.pay_url(order_id))
        return _json(answer)

    async def _order_page(self, request: web.Request) -> web.Response:
        order = await self._found(request)
        return web.Response(
            text=page.order_page(self._shown(order), order.merchant_name),
            content_type="text/html",
            headers={"Content-Security-Policy": page.POLICY},
        )

    async def _found(self, request: web.Request) -> Order:
        order_id = _order_id(request)
        return await self._link.order(order_id, self.pay_url(order_id))

    def _shown(self, order: Order) -> OrderAnswer:
        expires = datetime.fromtimestamp(order.expires_ms / 1_000, UTC)
        return OrderAnswer(
            order_id=order.order_id,
            state=order.state.value,
            amount=order.amount,
            currency=order.currency,
            reference=order.reference,
            expires_at=f"{expires:%Y-%m-%dT%H:%M:%SZ}",
            qr=order.qr,
            page=f"{self._public_url}/o/{order.order_id}",
            rrn=order.rrn,
            txid=order.txid.hex() if order.txid is not None else None,
        )

    async def _openapi(self, _: web.Request) -> web.Response:
        return _json(openapi.document(self._public_url))

    async def _health(self, _: web.Request) -> web.Response:
        return _json({"status": "ok", "waiting": self._dispatcher.waiting})


# --- reading -------------------------------------------------------------------------------------


async def _body(request: web.Request) -> bytes:
    if request.method == "GET":
        return b""
    length = request.content_length
    if length is not None and length > MAX_BODY:
        raise _too_large()
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise ApiProblem(
            408, "body-too-slow", f"A body arrives within {BODY_S:g} s.", close=True
        ) from None
    except web.HTTPRequestEntityTooLarge:
        raise _too_large() from None


def _decoded(request: web.Request, body: bytes, of: type[B]) -> B:
    """The body as what is expected; ApiProblem names the place and what is wrong there."""
    if request.content_type != _JSON or "Content-Encoding" in request.headers:
        raise ApiProblem(415, "media-type-unsupported", f"The body must be plain {_JSON}.")
    try:
        strict_json.loads(body)
        return msgspec.json.decode(body, type=of)
    except strict_json.JsonRefused as refusal:
        status = 400 if refusal.malformed else 422
        raise ApiProblem(status, refusal.kind, "The JSON is refused.") from None
    except msgspec.ValidationError as error:
        # msgspec's texts say what was expected and where, and never quote a value.
        what, _, where = str(error).partition(" - at `")
        raise ApiProblem(422, "schema", what, at=where.rstrip("`") or "$") from None


def _single(request: web.Request, name: str) -> str | None:
    values = request.headers.getall(name, [])
    if len(values) > 1:
        raise ApiProblem(400, "field-repeated", f"{name} is there twice.")
    return values[0] if values else None


def _required(idempotency_key: str | None) -> str:
    key = idempotency_key or ""
    if not (8 <= len(key) <= 128 and key.isascii() and key.isprintable() and " " not in key):
        raise ApiProblem(
            400, "idempotency-key-missing", "Send an Idempotency-Key of 8 to 128 characters."
        )
    return key


def _order_id(request: web.Request) -> str:
    order_id: str = request.match_info["order_id"]
    if len(order_id) != _ORDER_ID_LENGTH or not set(order_id) <= _ORDER_ID:
        raise ApiProblem(404, "order-unknown", "There is no such order.")
    return order_id


_ORDER_ID = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type=_JSON)


def _too_large() -> ApiProblem:
    return ApiProblem(413, "body-too-large", f"A body has at most {MAX_BODY} bytes.", close=True)


def _overloaded() -> ApiProblem:
    return ApiProblem(503, "overloaded", "Nothing was done; try again.", retry_after_s=1)
