"""Receiving a request's body: bounded in bytes and in seconds, and JSON where JSON is due.

uvicorn has no time-out for a body that trickles in; here it has one (and nodes/api/server.py has
one for the head).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.types import Message, Receive

from nodes.api.problems import Problem

#: Largest body of the batch endpoints and of everything else, in bytes.
MAX_BATCH_BODY = 1 << 20
MAX_BODY = 64 << 10
#: Seconds in which a body must have arrived.
RECEIVE_TIMEOUT_S = 10.0

Headers = Iterable[tuple[bytes, bytes]]


class ClientGone(Exception):
    """The client closed the connection while sending: there is nobody to answer."""


async def read_body(
    receive: Receive, content_length: bytes | None, limit: int, timeout_s: float
) -> bytes:
    """The whole body. Problem 400, 408 or 413; ClientGone."""
    if content_length is not None:
        if not content_length.isdigit() or len(content_length) > 12:
            raise Problem(400, "content-length-malformed", headers={"Connection": "close"})
        if int(content_length) > limit:
            raise _too_large(limit)
        if content_length == b"0":
            return b""
    try:
        async with asyncio.timeout(timeout_s):
            message = await receive()
            body: bytes = _part(message)
            if not message.get("more_body", False):
                if len(body) > limit:
                    raise _too_large(limit)
                return body
            parts, size = [body], len(body)
            while size <= limit:
                message = await receive()
                parts.append(_part(message))
                size += len(parts[-1])
                if not message.get("more_body", False):
                    break
            if size > limit:
                raise _too_large(limit)
            return b"".join(parts)
    except TimeoutError:
        raise Problem(
            408,
            "body-too-slow",
            f"A request must have arrived within {timeout_s:g} s.",
            headers={"Connection": "close"},
        ) from None


def _part(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientGone
    part: bytes = message.get("body", b"")
    return part


def _too_large(limit: int) -> Problem:
    return Problem(
        413,
        "body-too-large",
        f"A body here has at most {limit} bytes.",
        headers={"Connection": "close"},
        limit=limit,
    )


def require_json(content_type: bytes | None, content_encoding: bytes | None) -> None:
    """Problem 415 unless the body is plain application/json (in UTF-8)."""
    if content_encoding not in (None, b"", b"identity"):
        raise Problem(415, "encoding-unsupported", "Bodies are sent without a content encoding.")
    media, _, parameters = (content_type or b"").partition(b";")
    if media.strip().lower() != b"application/json" or parameters.strip().lower() not in (
        b"",
        b"charset=utf-8",
        b'charset="utf-8"',
    ):
        raise Problem(
            415,
            "media-type-unsupported",
            "The body must be application/json.",
            headers={"Accept": "application/json"},
        )
