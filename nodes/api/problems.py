"""Problem documents (RFC 9457): everything that isn't 2xx is one.

`type` is a stable name below `urn:countersign:problem:`; docs/node-api.md lists them all. Neither
document nor log ever quotes what was sent: it may hold a card number.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import psycopg
import sqlalchemy.exc
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from nodes.authorization.batching import LedgerUnavailable, Overloaded
from nodes.authorization.operations.booking import AccountBusy
from nodes.authorization.service import NotThisRole
from nodes.crypto.http_signatures import SignatureRefused

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:countersign:problem:"

log = structlog.get_logger(__name__)


class Problem(HTTPException):
    """A refusal with its status, its name (`kind`) and whatever helps the caller.

    `extra` becomes members of the document; it must not quote input.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(status, detail or "", dict(headers) if headers else None)
        self.kind = kind
        self.extra = extra

    def document(self) -> bytes:
        """The JSON to send."""
        return document(self.status_code, self.kind, self.detail, self.extra)


def document(
    status: int, kind: str, detail: str = "", extra: Mapping[str, Any] | None = None
) -> bytes:
    """A problem document's JSON."""
    members: dict[str, Any] = {
        "type": TYPE_PREFIX + kind,
        "title": HTTPStatus(status).phrase,
        "status": status,
    }
    if detail:
        members["detail"] = detail
    return msgspec.json.encode(members | dict(extra or {}))


def unauthenticated(kind: str, detail: str) -> Problem:
    """401 with the challenge that RFC 9110 asks for."""
    return Problem(401, kind, detail, headers={"WWW-Authenticate": "Bearer"})


def unavailable(kind: str, detail: str, *, retry_after_s: int = 1) -> Problem:
    """503 with Retry-After."""
    return Problem(503, kind, detail, headers={"Retry-After": str(retry_after_s)})


def outcome_unknown() -> Problem:
    """504: whether a commit took place isn't known. Not 503, which says that nothing was done."""
    return Problem(
        504,
        "outcome-unknown",
        "The database failed midway: send the identical batch again.",
        headers={"Retry-After": "1"},
    )


def problem_of(error: Exception) -> Problem:
    """The problem that an exception stands for; 500, and a line in the log, if it is a defect."""
    match error:
        case Problem():
            return error
        case SignatureRefused():
            return unauthenticated(error.fault.value.replace("_", "-"), "The signature is refused.")
        case HTTPException():
            return _of_http(error)
        case ClientDisconnect():
            # Nobody reads this; that a caller hangs up amid its request is no defect here.
            return Problem(400, "request-incomplete", "The connection ended amid the request.")
        case Overloaded():
            return unavailable("overloaded", "More requests wait than can be answered in time.")
        case AccountBusy():
            return unavailable("account-busy", "Others changed the account each time; try again.")
        case NotThisRole():
            return Problem(404, "role-missing", "This node doesn't have the role for this.")
        case _ if is_timeout_of_query(error):
            return unavailable(
                "query-too-slow", "The query took too long: narrow it.", retry_after_s=5
            )
        case LedgerUnavailable():
            return outcome_unknown()
        case _ if is_ledger_away(error):
            return unavailable("ledger-unavailable", "The node's database is not available.")
    log_defect(error)
    return Problem(500, "internal", "The node failed; the failure is in its log.")


def _of_http(error: HTTPException) -> Problem:
    kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-").replace("'", "")
    return Problem(error.status_code, kind, headers=error.headers)


def is_ledger_away(error: BaseException) -> bool:
    """Whether an exception says that PostgreSQL, or a connection to it, can't be had."""
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return error.connection_invalidated or is_ledger_away(_driver_error(error))
    return isinstance(
        error,
        psycopg.OperationalError | sqlalchemy.exc.TimeoutError | TimeoutError,
    )


def is_timeout_of_query(error: BaseException) -> bool:
    """Whether PostgreSQL stopped a statement at statement_timeout."""
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return is_timeout_of_query(_driver_error(error))
    return isinstance(error, psycopg.errors.QueryCanceled)


def _driver_error(error: sqlalchemy.exc.DBAPIError) -> BaseException:
    return error.orig if error.orig is not None else Exception()


def log_defect(error: BaseException) -> None:
    """Log an unexpected exception by its type and where it arose, never by its text."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    log.error("request failed", error=type(error).__name__, where=frames[-6:])
