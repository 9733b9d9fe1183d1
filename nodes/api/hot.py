"""The two batch endpoints of the authorization path, as bare ASGI.

A call costs: read the body, check one signature, decode once, await the authorizer, encode once,
sign once. FastAPI's request machinery alone would cost more than all of it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from nodes.api import strict_json
from nodes.api.auth import Gatekeeper, Principal, head_of
from nodes.api.bodies import (
    MAX_BATCH_BODY,
    RECEIVE_TIMEOUT_S,
    ClientGone,
    read_body,
    require_json,
)
from nodes.api.metrics import NodeMetrics
from nodes.api.node import ApiNode
from nodes.api.problems import (
    MEDIA_TYPE,
    Problem,
    is_ledger_away,
    outcome_unknown,
    problem_of,
    unauthenticated,
    unavailable,
)
from nodes.authorization.model import (
    AuthorizationAnswers,
    AuthorizationBatch,
    AuthorizationRequest,
    TerminalAnswers,
    TerminalBatch,
    TerminalRequest,
)
from nodes.authorization.services import ServiceAnswers, ServiceBatch, ServiceRequest
from nodes.crypto.http_signatures import MessageSigner, SignatureHead, SignatureRefused

#: Requests in one call.
MAX_REQUESTS = 256

TERMINAL_REQUESTS = "/v1/terminal-requests"
AUTHORIZATIONS = "/v1/authorizations"
TERMINAL_SERVICES = "/v1/terminal-services"

Item = TypeVar("Item", bound=TerminalRequest | AuthorizationRequest | ServiceRequest)
_FIELDS = (
    b"content-digest",
    b"content-encoding",
    b"content-length",
    b"content-type",
    b"host",
    b"signature",
    b"signature-input",
)


class BatchEndpoint(Generic[Item]):
    """POST of a signed batch, answered by a signed batch (or a signed problem document).

    `permit` raises Problem if this caller may not send these requests; `decide` answers them.
    """

    def __init__(
        self,
        route: str,
        node: ApiNode,
        keeper: Gatekeeper,
        signer: MessageSigner,
        metrics: NodeMetrics,
        *,
        batch: type[Any],
        item: type[Item],
        permit: Callable[[Principal, Sequence[Item]], None],
        decide: Callable[[Sequence[Item]], Awaitable[msgspec.Struct]],
        receive_timeout_s: float = RECEIVE_TIMEOUT_S,
    ) -> None:
        self.route = route
        self._node = node
        self._keeper = keeper
        self._signer = signer
        self._metrics = metrics
        self._item = item
        self._known = frozenset(item.__struct_fields__)
        self._texts = tuple(f.name for f in msgspec.structs.fields(item) if f.type in _TEXT_TYPES)
        self._numbers = tuple(f.name for f in msgspec.structs.fields(item) if f.type is int)
        self._permit = permit
        self._decide = decide
        self._receive_timeout_s = receive_timeout_s
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(batch)
        self._encoder = msgspec.json.Encoder()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        head: SignatureHead | None = None
        signer = self._signer
        extra: dict[str, str] = {}
        try:
            fields = _fields(scope["headers"])
            head = head_of(fields.get("signature-input"), fields.get("signature"))
            body = await self._received(scope, fields, receive)
            principal = self._caller(scope, fields, head, body)
            if head is not None:
                signer = self._keeper.answerer(head) or signer
            requests = self._decoded(body)
            self._permit(principal, requests)
            answer = await self._decide(requests)
            status, media, out = 200, "application/json", self._encoder.encode(answer)
            self._metrics.decided(self.route, [a.outcome for a in answer.answers])  # type: ignore[attr-defined]
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a problem
            problem = outcome_unknown() if is_ledger_away(error) else problem_of(error)
            status, media, out = problem.status_code, MEDIA_TYPE, problem.document()
            extra = dict(problem.headers or {})
        signed = signer.sign_answer(status, out, self._node.clock.now_ms() // 1000, head)
        await self._send(send, status, media, out, extra | signed)
        self._metrics.answered(self.route, status, time.perf_counter() - started)

    async def _received(self, scope: Scope, fields: dict[str, str], receive: Receive) -> bytes:
        if scope["method"] != "POST":
            raise Problem(405, "method-not-allowed", headers={"Allow": "POST"})
        require_json(
            fields.get("content-type", "").encode(), fields.get("content-encoding", "").encode()
        )
        length = fields.get("content-length")
        return await read_body(
            receive,
            None if length is None else length.encode(),
            MAX_BATCH_BODY,
            self._receive_timeout_s,
        )

    def _caller(
        self, scope: Scope, fields: dict[str, str], head: SignatureHead | None, body: bytes
    ) -> Principal:
        client = scope.get("client")
        query = scope["query_string"].decode("latin-1")
        try:
            if head is None:
                raise unauthenticated("signature-missing", "This endpoint takes signed calls only.")
            return self._keeper.signed_by(
                head,
                method="POST",
                host=fields.get("host"),
                target=f"{self.route}?{query}" if query else self.route,
                digest=fields.get("content-digest"),
                body=body,
            )
        except SignatureRefused as refusal:
            self._metrics.signature_refused(refusal.fault.value)
            self._keeper.note_failure(client[0] if client else "")
            raise

    def _decoded(self, body: bytes) -> list[Item]:
        """The requests. What our own client encodes is recognised by encoding it again; any
        other spelling is parsed a second time, strictly."""
        if strict_json.would_overflow(body):
            raise json_problem(strict_json.JsonRefused("json-too-deep"))
        try:
            batch = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            self._check_strictly(body)
            raise Problem(422, "schema", "A field is missing or wrong.", at=_place(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._check_strictly(body)
            raise Problem(400, "json-malformed", "The body is not JSON.") from None
        requests: list[Item] = batch.requests
        if not 0 < len(requests) <= MAX_REQUESTS:
            raise Problem(422, "batch-size", f"A batch has 1 to {MAX_REQUESTS} requests.")
        ours = self._encoder.encode(batch) == body
        if not ours:
            document = self._check_strictly(body)
            if document.keys() != {"requests"} or any(
                entry.keys() - self._known for entry in document["requests"]
            ):
                raise Problem(422, "field-unknown", "A field is not of the schema.")
        self._check_numbers(requests)
        # In our own spelling a text of printable ASCII is what it looks like: nothing is escaped.
        if not ours or not body.isascii() or b"\\" in body or b"\x7f" in body:
            self._check_texts(requests)
        return requests

    def _check_strictly(self, body: bytes) -> Any:
        try:
            return strict_json.loads(body)
        except strict_json.JsonRefused as refusal:
            raise json_problem(refusal) from None

    # What no database column or record could take, whatever it means.

    def _check_numbers(self, requests: Sequence[Item]) -> None:
        for name in self._numbers:
            values = [getattr(request, name) for request in requests]
            if min(values) >= -_INT64 and max(values) < _INT64:
                continue
            index = next(i for i, value in enumerate(values) if not -_INT64 <= value < _INT64)
            at = f"$.requests[{index}].{name}"
            raise Problem(422, "number-out-of-range", index=index, at=at)

    def _check_texts(self, requests: Sequence[Item]) -> None:
        for index, request in enumerate(requests):
            text = "".join([getattr(request, name) or "" for name in self._texts])
            if not text.isprintable() and not strict_json.is_safe_text(text):
                raise Problem(422, "text-refused", index=index, at=f"$.requests[{index}]")

    async def _send(
        self, send: Send, status: int, media: str, body: bytes, extra: dict[str, str]
    ) -> None:
        headers = [
            (b"content-type", media.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        headers += [(k.lower().encode(), v.encode()) for k, v in extra.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


_INT64 = 1 << 63
_TEXT_TYPES = (str, str | None)


def terminal_requests(
    node: ApiNode,
    keeper: Gatekeeper,
    signer: MessageSigner,
    metrics: NodeMetrics,
    *,
    receive_timeout_s: float = RECEIVE_TIMEOUT_S,
) -> BatchEndpoint[TerminalRequest]:
    """`POST /v1/terminal-requests`: from the node's own gateways."""

    async def decide(requests: Sequence[TerminalRequest]) -> TerminalAnswers:
        return TerminalAnswers(await node.authorizer.accept(requests))

    return BatchEndpoint(
        TERMINAL_REQUESTS,
        node,
        keeper,
        signer,
        metrics,
        batch=TerminalBatch,
        item=TerminalRequest,
        permit=_permit_gateways(node),
        decide=decide,
        receive_timeout_s=receive_timeout_s,
    )


def _permit_gateways(node: ApiNode) -> Callable[[Principal, Sequence[object]], None]:
    """Only the node's own gateways may send these."""

    def permit(principal: Principal, requests: Sequence[object]) -> None:
        if not principal.gateway:
            raise Problem(403, "caller-not-permitted", "This is for the node's gateways.")
        # Just started, and the chain not read yet: without it every BIN would seem unknown.
        if node.directory.member(node.settings.member_id) is None:
            raise unavailable("directory-unavailable", "The members aren't known yet.")

    return permit


def terminal_services(
    node: ApiNode,
    keeper: Gatekeeper,
    signer: MessageSigner,
    metrics: NodeMetrics,
    *,
    receive_timeout_s: float = RECEIVE_TIMEOUT_S,
) -> BatchEndpoint[ServiceRequest]:
    """`POST /v1/terminal-services`: batch closes, uploads and downloads, from own gateways."""

    async def decide(requests: Sequence[ServiceRequest]) -> ServiceAnswers:
        return ServiceAnswers(await node.authorizer.serve(requests))

    return BatchEndpoint(
        TERMINAL_SERVICES,
        node,
        keeper,
        signer,
        metrics,
        batch=ServiceBatch,
        item=ServiceRequest,
        permit=_permit_gateways(node),
        decide=decide,
        receive_timeout_s=receive_timeout_s,
    )


def authorizations(
    node: ApiNode,
    keeper: Gatekeeper,
    signer: MessageSigner,
    metrics: NodeMetrics,
    *,
    receive_timeout_s: float = RECEIVE_TIMEOUT_S,
) -> BatchEndpoint[AuthorizationRequest]:
    """`POST /v1/authorizations`: from acquirers, each for its own transactions only."""

    def permit(principal: Principal, requests: Sequence[AuthorizationRequest]) -> None:
        member = principal.member_id and node.directory.member(principal.member_id)
        if not member or "acquirer" not in member.roles:
            raise Problem(403, "caller-not-permitted", "This is for acquirers of the network.")
        for index, request in enumerate(requests):
            if request.acquirer != principal.member_id:
                raise Problem(403, "acquirer-not-caller", index=index)

    async def decide(requests: Sequence[AuthorizationRequest]) -> AuthorizationAnswers:
        return AuthorizationAnswers(await node.authorizer.authorize(requests))

    return BatchEndpoint(
        AUTHORIZATIONS,
        node,
        keeper,
        signer,
        metrics,
        batch=AuthorizationBatch,
        item=AuthorizationRequest,
        permit=permit,
        decide=decide,
        receive_timeout_s=receive_timeout_s,
    )


def json_problem(refusal: strict_json.JsonRefused) -> Problem:
    """The problem of a refused document: 400 if it isn't JSON, else 422."""
    if refusal.malformed:
        return Problem(400, refusal.kind, "The body is not JSON.")
    return Problem(422, refusal.kind, "The JSON is refused (docs/node-api.md, JSON).")


def _fields(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        if name in _FIELDS:
            key = name.decode()
            if key in found:
                raise Problem(400, "field-repeated", "A header field is there twice.")
            found[key] = value.decode("latin-1")
    return found


def _place(error: msgspec.ValidationError) -> str:
    """Where in the document, e.g. $.requests[0].amount; never the value."""
    _, marker, place = str(error).rpartition(" - at `")
    return place.rstrip("`") if marker else "$"
