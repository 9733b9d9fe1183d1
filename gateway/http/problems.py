"""Refusals of the HTTP API: problem documents (RFC 9457) that name what is wrong, not its value."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:countersign:problem:"


class ApiProblem(Exception):
    """A refusal with its status and its stable name; `at` says where in the request."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        at: str | None = None,
        retry_after_s: int | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(kind)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.at = at
        self.retry_after_s = retry_after_s
        self.close = close

    def response(self) -> web.Response:
        """The answer."""
        document: dict[str, Any] = {
            "type": TYPE_PREFIX + self.kind,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.at is not None:
            document["at"] = self.at
        answer = web.Response(
            body=msgspec.json.encode(document), status=self.status, content_type=MEDIA_TYPE
        )
        if self.retry_after_s is not None:
            answer.headers["Retry-After"] = str(self.retry_after_s)
        if self.close:
            answer.force_close()
        return answer
