"""The client of the node API: for gateways, consoles and other nodes.

Every call either returns what the node said, raises NodeRefused with the node's problem document,
or raises NodeUnreachable, which says whether the request may have arrived. Nothing here is logged;
no exception carries a body that was sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec
from yarl import URL

from nodes.anchoring.model import FeedItem
from nodes.api.calls import Broken, Caller, NotSent
from nodes.api.strict_json import would_overflow
from nodes.authorization.model import (
    AuthorizationAnswer,
    AuthorizationAnswers,
    AuthorizationBatch,
    AuthorizationRequest,
    TerminalAnswer,
    TerminalAnswers,
    TerminalBatch,
    TerminalRequest,
)
from nodes.crypto.http_signatures import MessageSigner, SignatureRefused, verify_answer

#: Largest answer that is read, in bytes.
MAX_ANSWER = 16 << 20
#: A node's stream says something at least every 10 s (docs/node-api.md): silence is a dead link.
_STREAM_SILENCE_S = 45.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.05, 0.5
_LABEL_PREFIX = "sig1="
#: Refusals that pass by themselves: the identical batch may be sent again.
_PASSING = frozenset({429, 502, 503, 504})

Answer = TypeVar("Answer")


class FeedPage(msgspec.Struct, frozen=True):
    """What `GET /v1/feed` answers."""

    items: list[FeedItem]


class HotlistEntry(msgspec.Struct, frozen=True):
    """A card key that may not (or, taken off, may again) pay offline."""

    version: int
    card_key_id: bytes
    listed: bool
    reason: str
    at_ms: int


class HotlistEntries(msgspec.Struct, frozen=True):
    """What `GET /v1/offline/hotlist` answers."""

    items: list[HotlistEntry]


class NodeUnreachable(Exception):
    """No usable answer. `sent`: False if the request certainly never reached the node."""

    def __init__(self, node: str, *, sent: bool, why: str) -> None:
        super().__init__(f"{node}: {why}")
        self.sent = sent


class NodeRefused(Exception):
    """The node answered with a problem document (RFC 9457)."""

    def __init__(
        self, node: str, status: int, problem: Mapping[str, Any], retry_after_s: float | None
    ) -> None:
        super().__init__(f"{node}: {status} {problem.get('type', '')}")
        self.status = status
        self.problem = dict(problem)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class NodePeer:
    """Whose answers count: the member's id and its Ed25519 message key (32 bytes)."""

    member_id: str
    message_key: bytes


class NodeClient:
    """One node, over kept-alive connections. Belongs to the event loop that it is used in.

    `api_key` is sent as a bearer token. `signer` signs each request instead; with `peer` (or its
    bare key) an answer counts only if the node signed it as the answer to that request.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        signer: MessageSigner | None = None,
        peer: NodePeer | bytes | None = None,
        timeout_s: float = 10.0,
        connect_timeout_s: float = 2.0,
        connections: int = 32,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
            raise ValueError("a node's address is an http or https URL without credentials")
        self.base_url = base_url.rstrip("/")
        self.name = parts.netloc
        self._api_key = api_key
        self._signer = signer
        self._peer_id = peer.member_id if isinstance(peer, NodePeer) else None
        self._peer_key = peer.message_key if isinstance(peer, NodePeer) else peer
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._caller: Caller | None = None
        self._caller_loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        caller, self._caller = self._caller, None
        if caller is not None and self._caller_loop is asyncio.get_running_loop():
            caller.close()
        session, self._session = self._session, None
        if session is not None and self._loop is asyncio.get_running_loop():
            await session.close()

    # The two hot calls and the feed: signed.

    async def terminal_requests(
        self, requests: Sequence[TerminalRequest], *, retry_until_ms: int | None = None
    ) -> list[TerminalAnswer]:
        """Hand terminals' requests to their acquirer's node; answers in the same order.

        With `retry_until_ms` (Unix time) the identical batch is sent again, newly signed, while its
        fate is unknown: the node's idempotency makes that safe.
        """
        body = msgspec.json.encode(TerminalBatch(list(requests)))
        answers = await self._batch(
            "/v1/terminal-requests", body, _TERMINAL_ANSWERS, retry_until_ms
        )
        return self._as_many(answers.answers, len(requests))

    async def authorizations(
        self, requests: Sequence[AuthorizationRequest], *, retry_until_ms: int | None = None
    ) -> list[AuthorizationAnswer]:
        """Ask an issuer's node to decide; as `terminal_requests`."""
        body = msgspec.json.encode(AuthorizationBatch(list(requests)))
        answers = await self._batch(
            "/v1/authorizations", body, _AUTHORIZATION_ANSWERS, retry_until_ms
        )
        found = self._as_many(answers.answers, len(requests))
        if any(
            answer.txid != request.txid for answer, request in zip(found, requests, strict=True)
        ):
            raise NodeUnreachable(self.name, sent=True, why="answers to other transactions")
        return found

    async def feed(self, after: int, limit: int = 200) -> list[FeedItem]:
        """The merchant's sealed transactions behind log index `after` (-1: from the start)."""
        _, raw = await self._call("GET", "/v1/feed", params={"after": after, "limit": limit})
        return self._decoded(_FEED_PAGE, raw).items

    async def hotlist(self, after: int, limit: int = 200) -> list[HotlistEntry]:
        """An issuer's hotlist behind a version (0: from the start)."""
        params = {"after": after, "limit": limit}
        _, raw = await self._call("GET", "/v1/offline/hotlist", params=params)
        return self._decoded(_HOTLIST, raw).items

    # Everything else.

    async def get_json(self, path: str, **params: Any) -> Any:
        """GET, decoded JSON. Parameters that are None are left out."""
        _, raw = await self._call("GET", path, params=params)
        return self._decoded(_ANY, raw)

    async def get_text(self, path: str, **params: Any) -> str:
        """GET, as text (a bundle, a checkpoint)."""
        _, raw = await self._call("GET", path, params=params)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise NodeUnreachable(self.name, sent=True, why="the answer is no text") from None

    async def get_bytes(self, path: str, **params: Any) -> bytes:
        """GET, as it came (a printed receipt)."""
        _, raw = await self._call("GET", path, params=params)
        return raw

    async def post_json(
        self, path: str, document: Any, *, idempotency_key: str | None = None
    ) -> Any:
        """POST a JSON document; the answer, decoded."""
        extra = {"Idempotency-Key": idempotency_key} if idempotency_key is not None else {}
        body = msgspec.json.encode(document)
        _, raw = await self._call("POST", path, body=body, headers=extra)
        return self._decoded(_ANY, raw)

    # Cards and their accounts, at an issuer's node (docs/node-api.md).

    async def account(self, account_id: int) -> Any:
        """One account; `card_account` has holds, windows and cards of a cardholder's."""
        return await self.get_json(f"/v1/accounts/{account_id}")

    async def account_versions(
        self, account_id: int, *, limit: int = 50, cursor: str | None = None
    ) -> Any:
        """A page of a card account's history, the newest first."""
        path = f"/v1/accounts/{account_id}/versions"
        return await self.get_json(path, limit=limit, cursor=cursor)

    async def transaction(self, txid: str, *, side: str | None = None) -> Any:
        """One transaction with transfers, decision, timeline and related ones."""
        return await self.get_json(f"/v1/transactions/{quote(txid, safe='')}", side=side)

    async def products(self, *, limit: int = 50, cursor: str | None = None) -> Any:
        """A page of products with their terms."""
        return await self.get_json("/v1/products", limit=limit, cursor=cursor)

    async def rules(
        self,
        *,
        scope: str | None = None,
        subject: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Any:
        """A page of rules."""
        return await self.get_json(
            "/v1/rules", scope=scope, subject=subject, limit=limit, cursor=cursor
        )

    async def simulate(self, question: Mapping[str, Any]) -> Any:
        """What would be answered to a payment (NewSimulation), and why; nothing is posted."""
        return await self.post_json("/v1/simulations", question)

    async def stream(
        self, path: str, *, last_event_id: str | None = None
    ) -> AsyncIterator[tuple[str, str]]:
        """Server-sent events as (event, data), until the node ends the stream.

        The node's `ready` and `heartbeat` events are passed on too.
        """
        headers = self._headers()
        headers["Accept"] = "text/event-stream"
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._connect_timeout_s, sock_read=_STREAM_SILENCE_S
        )
        url = URL(self.base_url + path, encoded=True)
        try:
            async with self._opened().get(
                url, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    after = response.headers.get("Retry-After", "")
                    raise self._refusal(response.status, after, await self._read(response))
                async for event in _events(response.content):
                    yield event
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            why = f"stream broken: {type(error).__name__}"
            raise NodeUnreachable(self.name, sent=True, why=why) from None

    # How a call is made.

    async def _batch(
        self,
        path: str,
        body: bytes,
        decoder: msgspec.json.Decoder[Answer],
        retry_until_ms: int | None,
    ) -> Answer:
        sent, pause = False, _FIRST_PAUSE_S
        while True:
            left = None if retry_until_ms is None else retry_until_ms / 1000 - time.time()
            if left is not None and left <= 0:
                raise NodeUnreachable(self.name, sent=sent, why="no answer in time")
            try:
                return self._decoded(decoder, await self._post(path, body, left))
            except NodeUnreachable as error:
                sent = sent or error.sent
                if left is None:
                    raise
            except NodeRefused as error:
                if left is None or error.status not in _PASSING:
                    raise
                pause = max(pause, min(error.retry_after_s or 0.0, _LAST_PAUSE_S))
            await asyncio.sleep(min(pause, max(left, 0)))
            pause = min(pause * 2, _LAST_PAUSE_S)

    async def _post(self, path: str, body: bytes, timeout_s: float | None) -> bytes:
        """A hot call: without the session, whose machinery costs more than the call."""
        loop = asyncio.get_running_loop()
        if self._caller is None or self._caller_loop is not loop:
            self._caller, self._caller_loop = Caller(self.base_url), loop
        fields = self._headers() | {"Content-Type": "application/json"}
        if self._signer is not None:
            uri = self.base_url + path
            fields.update(self._signer.sign_request("POST", uri, body, int(time.time())))
        limit = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        try:
            async with asyncio.timeout(limit):
                answer = await self._caller.post(path, fields, body)
        except NotSent:
            raise NodeUnreachable(self.name, sent=False, why="no connection") from None
        except (Broken, TimeoutError) as error:
            why = f"no answer: {type(error).__name__}"
            raise NodeUnreachable(self.name, sent=True, why=why) from None
        if self._peer_key is not None and self._signer is not None:
            signature = fields["Signature"].removeprefix(_LABEL_PREFIX)
            self._check(answer.status, answer.headers, answer.body, signature)
        if answer.status != 200:
            raise self._refusal(answer.status, answer.headers.get("retry-after", ""), answer.body)
        return answer.body

    async def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> tuple[int, bytes]:
        uri = self.base_url + path + _query(params)
        fields = self._headers()
        fields.update(headers or {})
        if body:
            fields.setdefault("Content-Type", "application/json")
        if self._signer is not None:
            fields.update(self._signer.sign_request(method, uri, body, int(time.time())))
        limit = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        timeout = aiohttp.ClientTimeout(total=limit, sock_connect=self._connect_timeout_s)
        try:
            async with self._opened().request(
                method,
                URL(uri, encoded=True),
                data=body or None,
                headers=fields,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                raw = await self._read(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise NodeUnreachable(self.name, sent=False, why="no connection") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = f"no answer: {type(error).__name__}"
            raise NodeUnreachable(self.name, sent=True, why=why) from None
        if self._peer_key is not None and self._signer is not None:
            signature = fields["Signature"].removeprefix(_LABEL_PREFIX)
            self._check(response.status, response.headers, raw, signature)
        if not 200 <= response.status < 300:
            raise self._refusal(response.status, response.headers.get("Retry-After", ""), raw)
        return response.status, raw

    def _check(self, status: int, headers: Mapping[str, str], raw: bytes, signature: str) -> None:
        assert self._peer_key is not None
        try:
            verify_answer(
                headers,
                status=status,
                body=raw,
                request_signature=signature,
                key_id=self._peer_id,
                public_key=self._peer_key,
                now_s=time.time(),
            )
        except SignatureRefused as refusal:
            # Whoever answered, it wasn't the node for certain: its decision is unknown.
            why = f"answer not the node's: {refusal.fault.value}"
            raise NodeUnreachable(self.name, sent=True, why=why) from None

    def _refusal(self, status: int, after: str, raw: bytes) -> NodeRefused:
        try:
            problem = None if would_overflow(raw) else msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            problem = None
        return NodeRefused(
            self.name,
            status,
            problem if isinstance(problem, dict) else {},
            float(after) if after.isascii() and after.isdigit() else None,
        )

    def _decoded(self, decoder: msgspec.json.Decoder[Answer], raw: bytes) -> Answer:
        try:
            if would_overflow(raw):
                raise msgspec.DecodeError
            return decoder.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise NodeUnreachable(self.name, sent=True, why="the answer can't be read") from None

    def _as_many(self, answers: list[Answer], count: int) -> list[Answer]:
        if len(answers) != count:
            raise NodeUnreachable(self.name, sent=True, why="not one answer a request")
        return answers

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > MAX_ANSWER:
                response.close()
                raise NodeUnreachable(self.name, sent=True, why="the answer is too large")
            chunks.append(chunk)
        return b"".join(chunks)

    def _headers(self) -> dict[str, str]:
        return {} if self._api_key is None else {"Authorization": f"Bearer {self._api_key}"}

    def _opened(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=30),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "countersign"},
            )
        return self._session

    def __repr__(self) -> str:
        return f"NodeClient({self.base_url!r})"


_TERMINAL_ANSWERS = msgspec.json.Decoder(TerminalAnswers)
_AUTHORIZATION_ANSWERS = msgspec.json.Decoder(AuthorizationAnswers)
_FEED_PAGE = msgspec.json.Decoder(FeedPage)
_HOTLIST = msgspec.json.Decoder(HotlistEntries)
_ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Any)


def _query(params: Mapping[str, Any] | None) -> str:
    present = {key: value for key, value in (params or {}).items() if value is not None}
    return f"?{urlencode(present, quote_via=quote)}" if present else ""


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, str]]:
    """The events of a stream (HTML standard, 9.2.6), without their ids; comments are skipped."""
    event, data = "message", list[str]()
    async for raw in content:
        line = raw.decode("utf-8").rstrip("\r\n")
        if not line:
            if data:
                yield event, "\n".join(data)
            event, data = "message", []
        elif line.startswith("event:"):
            event = line[6:].removeprefix(" ")
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
