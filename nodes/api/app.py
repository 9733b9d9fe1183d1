"""The node's ASGI application: the batch endpoints bare, everything else through FastAPI.

`Front` stands before both. It receives bodies (bounded in size and time), refuses JSON that two
parsers could read differently, signs the answers to signed requests, sets the security headers and
sees to it that whatever fails is answered by a problem document.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from nodes.anchoring.block_reader import BlockReader
from nodes.api import (
    accounts,
    acquiring,
    adjustments,
    authorities,
    batches,
    cards,
    claims,
    clearing_client,
    closes,
    comparing,
    controls,
    disputes,
    events,
    hot,
    members,
    offline,
    online,
    openapi,
    operations,
    overview,
    product_terms,
    promises,
    receipts,
    refusals,
    settlements,
    simulations,
    strict_json,
    terminals,
    tiles,
    transactions,
)
from nodes.api import log as log_routes
from nodes.api.auth import Gatekeeper, head_of
from nodes.api.bodies import (
    MAX_BATCH_BODY,
    MAX_BODY,
    RECEIVE_TIMEOUT_S,
    ClientGone,
    read_body,
    require_json,
)
from nodes.api.issuer_link import HttpIssuerLink
from nodes.api.metrics import NodeMetrics
from nodes.api.node import ApiNode
from nodes.api.problems import MEDIA_TYPE, Problem, problem_of
from nodes.api.stream import TransactionStream
from nodes.api.verify_page import verify_page
from nodes.chain.errors import ChainError
from nodes.crypto.http_signatures import MessageSigner, SignatureHead, SignatureRefused
from nodes.reconciliation.protocol import MEDIA_TYPE as COMPARISON

_STATIC = Path(__file__).with_name("static")
_SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]
_NO_CONTENT_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
#: Swagger UI draws its arrows from data: URLs; it needs neither inline script nor inline style.
_DOCS_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    b" connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
#: What receipts' holders ask from whatever page; problems, too, are theirs to read.
_RECEIPTS = "/v1/receipts/"
_ANY_PAGE = (b"access-control-allow-origin", b"*")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

log = structlog.get_logger(__name__)


class Front:
    """The ASGI application that `create_app` returns."""

    def __init__(self, node: ApiNode, *, receive_timeout_s: float = RECEIVE_TIMEOUT_S) -> None:
        settings = node.settings
        self.metrics = NodeMetrics()
        self.keeper = Gatekeeper(node)
        self.signer = MessageSigner(settings.member_id, node.keystore.secret("message"))
        self.stream = TransactionStream(node.engine, self.metrics)
        self.api = build_api(node, self.keeper, self.metrics, self.stream)
        self._clock = node.clock
        self._receive_timeout_s = receive_timeout_s
        parts = (node, self.keeper, self.signer, self.metrics)
        self._hot: dict[str, Callable[[Scope, Receive, Send], Awaitable[None]]] = {
            hot.TERMINAL_REQUESTS: hot.terminal_requests(
                *parts, receive_timeout_s=receive_timeout_s
            ),
            hot.TERMINAL_SERVICES: hot.terminal_services(
                *parts, receive_timeout_s=receive_timeout_s
            ),
            hot.AUTHORIZATIONS: hot.authorizations(*parts, receive_timeout_s=receive_timeout_s),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            endpoint = self._hot.get(scope["path"])
            await (endpoint or self._ordinary)(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self.api(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def stop_streams(self) -> None:
        """End the open streams, so that a server can stop."""
        await self.stream.close()

    async def _ordinary(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        head = self._head(scope)
        answer = _Answer(send, scope["path"], head, self.signer, self._clock.now_ms)
        try:
            replay = await self._received(scope, receive)
            await self.api(scope, replay, answer.send)
        except ClientGone:
            return
        except Exception as error:
            # FastAPI has answered defects already and passes them on; others are answered here.
            if not answer.started:
                await answer.problem(problem_of(error))
            elif not answer.complete:
                raise
        route = getattr(scope.get("route"), "path", "unknown")
        self.metrics.answered(route, answer.status, time.perf_counter() - started)

    def _head(self, scope: Scope) -> SignatureHead | None:
        """The request's signature, by which the answer will be bound to it; checked elsewhere."""
        found = {name: value for name, value in scope["headers"] if name.startswith(b"signature")}
        try:
            return head_of(
                *(
                    None if value is None else value.decode("latin-1")
                    for value in (found.get(b"signature-input"), found.get(b"signature"))
                )
            )
        except SignatureRefused:
            return None

    async def _received(self, scope: Scope, receive: Receive) -> Receive:
        """Receive the body; what then replays it, with a JSON body checked."""
        headers = dict(scope["headers"])
        length = headers.get(b"content-length")
        if scope["method"] not in _WITH_BODY:
            if length not in (None, b"0") or b"transfer-encoding" in headers:
                raise Problem(400, "body-unexpected", headers={"Connection": "close"})
            return receive
        if scope["path"] == clearing_client.COMPARISONS:
            body = await read_body(receive, length, MAX_BATCH_BODY, self._receive_timeout_s)
            if headers.get(b"content-type") != COMPARISON.encode():
                raise Problem(415, "media-type-unsupported", f"The body must be {COMPARISON}.")
        else:
            body = await read_body(receive, length, MAX_BODY, self._receive_timeout_s)
            require_json(headers.get(b"content-type"), headers.get(b"content-encoding"))
            try:
                strict_json.loads(body)
            except strict_json.JsonRefused as refusal:
                raise hot.json_problem(refusal) from None
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        return replay


class _Answer:
    """Passes an answer on with security headers, signed if its request was."""

    def __init__(
        self,
        send: Send,
        path: str,
        request: SignatureHead | None,
        signer: MessageSigner,
        now_ms: Callable[[], int],
    ) -> None:
        self._send = send
        self._path = path
        self._request = request
        self._signer = signer
        self._now_ms = now_ms
        self._start: Message | None = None
        self._body = bytearray()
        self.status = 500
        self.started = False
        self.complete = False

    async def send(self, message: Message) -> None:
        """An ASGI `send`."""
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            headers = _secured(message.get("headers", []), self._path)
            message = dict(message) | {"headers": headers}
            if self._request is not None:
                self._start = message
                return
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
            if self._start is not None:
                self._body += message.get("body", b"")
                if self.complete:
                    await self._send_signed(self._start)
                return
        await self._send(message)

    async def problem(self, problem: Problem) -> None:
        """Send a problem document."""
        body = problem.document()
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body))]
        headers += [(k.lower().encode(), v.encode()) for k, v in (problem.headers or {}).items()]
        start = {"type": "http.response.start", "status": problem.status_code, "headers": headers}
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})

    async def _send_signed(self, start: Message) -> None:
        body = bytes(self._body)
        signed = self._signer.sign_answer(self.status, body, self._now_ms() // 1000, self._request)
        start["headers"] += [(k.lower().encode(), v.encode()) for k, v in signed.items()]
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def _secured(headers: Any, path: str) -> list[tuple[bytes, bytes]]:
    found = list(headers)
    names = {name for name, _ in found}
    if b"cache-control" not in names:
        found.append((b"cache-control", b"no-store"))
    if b"content-security-policy" not in names:
        found.append(_NO_CONTENT_POLICY)
    if path.startswith(_RECEIPTS):
        found.append(_ANY_PAGE)
    return found + _SECURITY_HEADERS


def create_app(node: ApiNode, *, receive_timeout_s: float = RECEIVE_TIMEOUT_S) -> Front:
    """The application of a node. `receive_timeout_s`: how long a body may take to arrive."""
    return Front(node, receive_timeout_s=receive_timeout_s)


def build_api(
    node: ApiNode, keeper: Gatekeeper, metrics: NodeMetrics, stream: TransactionStream
) -> FastAPI:
    """The FastAPI part."""

    @asynccontextmanager
    async def lifespan(_: FastAPI):  # type: ignore[no-untyped-def]
        yield
        await stream.close()
        link = getattr(node, "link", None)
        if isinstance(link, HttpIssuerLink):
            await link.close()

    api = FastAPI(
        title="Countersign node API",
        version="1",
        openapi_url=None,  # see _serve_docs
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        responses=openapi.problem_responses(),
        dependencies=[Depends(openapi.refuse_unknown_parameters)],
    )
    api.state.node = node
    api.state.gatekeeper = keeper
    api.state.metrics = metrics
    api.state.stream = stream
    api.state.chain_id = _ChainId(node)
    api.state.blocks = BlockReader(node.chain)
    api.state.responders = comparing.Responders(node)
    for router in (
        transactions.router,
        batches.router,
        log_routes.router,
        tiles.router,
        promises.router,
        claims.router,
        receipts.router,
        events.router,
        cards.router,
        adjustments.router,
        disputes.router,
        closes.closes,
        closes.breaks,
        settlements.router,
        settlements.orders,
        comparing.router,
        controls.products,
        product_terms.router,
        controls.rules,
        simulations.router,
        acquiring.merchants,
        terminals.router,
        authorities.router,
        refusals.router,
        acquiring.feeds,
        online.keys,
        online.front,
        online.endpoints,
        online.deliveries,
        accounts.router,
        overview.router,
        members.router,
        offline.cards,
        offline.router,
        offline.batches,
        operations.router,
    ):
        api.include_router(router)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _problem)
    api.add_exception_handler(SignatureRefused, _refused_signature)
    api.add_exception_handler(Exception, _problem)
    api.openapi = lambda: openapi.schema_of(api)  # type: ignore[method-assign]
    _serve_docs(api)
    _serve_verifier(api)
    return api


def _serve_docs(api: FastAPI) -> None:
    # In a thread: the first one takes a second, which no payment shall wait for.
    @api.get("/openapi.json", include_in_schema=False)
    def schema() -> JSONResponse:
        return JSONResponse(openapi.schema_of(api))

    @api.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        headers = {"Content-Security-Policy": _DOCS_POLICY[1].decode()}
        return FileResponse(_STATIC / "docs" / "index.html", headers=headers)

    api.mount("/docs/page", StaticFiles(directory=_STATIC / "docs"))
    api.mount("/docs/vendor", StaticFiles(directory=_STATIC / "vendor"))


def _serve_verifier(api: FastAPI) -> None:
    """The verifier's page, twice: /r is what receipts point to, the promise after its #."""

    async def page() -> Response:
        text, policy = verify_page()
        headers = {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'"}
        return Response(text, media_type="text/html; charset=utf-8", headers=headers)

    for path in ("/verify", "/r"):
        api.get(path, include_in_schema=False)(page)


async def _problem(_: Request, error: Exception) -> Response:
    problem = problem_of(error)
    return Response(
        problem.document(), problem.status_code, dict(problem.headers or {}), MEDIA_TYPE
    )


async def _refused_signature(request: Request, error: Exception) -> Response:
    if isinstance(error, SignatureRefused):
        request.app.state.metrics.signature_refused(error.fault.value)
    return await _problem(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    """422 with the places and reasons, without the values."""
    assert isinstance(error, RequestValidationError)
    errors = []
    for found in error.errors():
        # The last part of an unknown key's place is the key, which the caller chose.
        place = found["loc"][:-1] if found["type"] == "extra_forbidden" else found["loc"]
        errors.append({"at": ".".join(map(str, place)), "message": found["msg"]})
    problem = Problem(422, "schema", "A value is missing or wrong.", errors=errors[:20])
    return await _problem(request, problem)


class _ChainId:
    """The chain's id, asked once; None while the chain is away."""

    def __init__(self, node: ApiNode) -> None:
        self._node = node
        self._known: int | None = None
        self._lock = threading.Lock()

    def __call__(self) -> int | None:
        if self._known is None and self._lock.acquire(blocking=False):
            try:
                self._known = self._node.chain.chain_id()
            except ChainError:
                return None
            finally:
                self._lock.release()
        return self._known


__all__ = ["Front", "create_app"]
