"""The way to the acquirer's node over the node API, as the dispatcher wants it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TypeVar

import msgspec
import structlog

from gateway.pos.dispatch import NodeNotReached, NodeUndecided
from nodes.api.calls import Answer, Broken, Caller, NotSent
from nodes.api.strict_json import would_overflow
from nodes.authorization.model import (
    TerminalAnswer,
    TerminalAnswers,
    TerminalBatch,
    TerminalRequest,
)
from nodes.authorization.services import (
    ServiceAnswer,
    ServiceAnswers,
    ServiceBatch,
    ServiceRequest,
)
from nodes.crypto.http_signatures import MessageMac, SignatureRefused, verify_answer

_log = structlog.get_logger("gateway.node_link")

T = TypeVar("T")

_PATH = "/v1/terminal-requests"
_SERVICES_PATH = "/v1/terminal-services"
_FIXED_HEADERS = {"Content-Type": "application/json", "User-Agent": "countersign"}
_SIGNATURE_LABEL = "sig1="
#: Refusals after which it is open what the node did: it failed midway.
_UNDECIDED_STATUS = frozenset({500, 502, 504})
#: Refusals of which one request in the batch may be the reason.
_DIVISIBLE_STATUS = frozenset({400, 413, 422, 500})
_ENCODER = msgspec.json.Encoder()
_ANSWERS = msgspec.json.Decoder(TerminalAnswers)
_SERVICE_ANSWERS = msgspec.json.Decoder(ServiceAnswers)


class HttpNodeLink:
    """A NodeLink over HTTP with HMACs that both sides' keys give. An answer that doesn't come from
    the acquirer's node, by HMAC or (a refusal of the call) by signature, is no answer.

    `deadline_s`: the longest that one call may take; the dispatcher asks for less.
    """

    def __init__(
        self,
        node_url: str,
        *,
        key_id: str,
        message_seed: bytes,
        node_key: bytes,
        acquirer: str,
        deadline_s: float,
    ) -> None:
        self._caller = Caller(node_url)
        self._signer = MessageMac(key_id, message_seed, node_key)
        self._node_key = node_key
        self._acquirer = acquirer
        self._deadline_s = deadline_s

    async def terminal_requests(
        self, requests: Sequence[TerminalRequest], timeout_s: float
    ) -> list[TerminalAnswer]:
        """See NodeLink.terminal_requests."""
        body = _ENCODER.encode(TerminalBatch(list(requests)))
        answer = await self._asked(_PATH, body, len(requests), timeout_s)
        return _decoded(answer.body, _ANSWERS).answers

    async def terminal_services(
        self, requests: Sequence[ServiceRequest], timeout_s: float
    ) -> list[ServiceAnswer]:
        """See ServicesLink.terminal_services."""
        body = _ENCODER.encode(ServiceBatch(list(requests)))
        answer = await self._asked(_SERVICES_PATH, body, len(requests), timeout_s)
        return _decoded(answer.body, _SERVICE_ANSWERS).answers

    async def _asked(self, path: str, body: bytes, count: int, timeout_s: float) -> Answer:
        """A signed call, and the node's own answer to it. NodeNotReached, NodeUndecided."""
        uri = self._caller.base_url + path
        fields = self._signer.sign_request("POST", uri, body, int(time.time()))
        try:
            async with asyncio.timeout(min(timeout_s, self._deadline_s)):
                answer = await self._caller.post(path, _FIXED_HEADERS | fields, body)
        except TimeoutError:
            raise NodeUndecided() from None
        except NotSent as error:
            _log.warning("node_unreachable", why=str(error), sent=False)
            raise NodeNotReached() from None
        except Broken as error:
            _log.warning("node_unreachable", why=str(error), sent=True)
            raise NodeUndecided() from None
        self._check(answer, fields["Signature"].removeprefix(_SIGNATURE_LABEL))
        if answer.status != 200:
            # The status only: a problem document might quote what was sent.
            _log.warning("node_refused", status=answer.status, requests=count)
            failure = NodeUndecided if answer.status in _UNDECIDED_STATUS else NodeNotReached
            raise failure(divide=answer.status in _DIVISIBLE_STATUS)
        return answer

    async def close(self) -> None:
        """Close the connections."""
        self._caller.close()

    def _check(self, answer: Answer, signature: str) -> None:
        try:
            verify_answer(
                answer.headers,
                status=answer.status,
                body=answer.body,
                request_signature=signature,
                key_id=self._acquirer,
                public_key=self._node_key,
                now_s=time.time(),
                mac=self._signer.mac,
            )
        except SignatureRefused as refusal:
            # Whoever answered, it wasn't the node for certain: its decision is unknown.
            why = f"answer not the node's: {refusal.fault.value}"
            _log.warning("node_unreachable", why=why, sent=True)
            raise NodeUndecided() from None


def _decoded(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        if would_overflow(body):
            raise msgspec.DecodeError
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        _log.warning("node_unreachable", why="the answer can't be read", sent=True)
        raise NodeUndecided() from None
