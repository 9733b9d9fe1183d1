"""What people see when something isn't there, isn't allowed, or doesn't answer."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from console.chain import ChainAway
from console.institutions import BadQuestion, NodeAway, NodeRefusal, NotKnown, NotYet
from console.session import Forbidden, SignInNeeded
from console.templating import render

_log = structlog.get_logger("console")


@dataclass(frozen=True)
class Notice:
    """One message in place of what was asked for."""

    status: int
    icon: str
    title: str
    text: str
    retry: bool = False


NOT_KNOWN = Notice(
    404,
    "zoom-question",
    "Nothing found here",
    "There is no such page or record, or it belongs to an institution that you may not see.",
)


def show(request: Request, notice: Notice) -> Response:
    """The notice as a page, or as a fragment where htmx asked for one."""
    wants_fragment = (
        request.headers.get("HX-Request") == "true"
        and request.headers.get("HX-History-Restore-Request") != "true"
    )
    return render(
        request,
        "notice.html",
        {"notice": notice, "address": str(request.url)},
        block="message" if wants_fragment else None,
        status=notice.status,
    )


def _needs_sign_in(request: Request, error: Exception) -> Response:
    if request.headers.get("HX-Request") == "true":
        return Response(status_code=401, headers={"HX-Redirect": "/sign-in"})
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    suffix = f"?next={quote(wanted)}" if request.method == "GET" and wanted != "/" else ""
    return RedirectResponse(f"/sign-in{suffix}", 303)


def _forbidden(request: Request, error: Exception) -> Response:
    text = "Your role doesn't include this. Ask an administrator if you need it."
    return show(request, Notice(403, "lock", "Not allowed", text))


def _not_known(request: Request, error: Exception) -> Response:
    return show(request, NOT_KNOWN)


def _node_away(request: Request, error: Exception) -> Response:
    assert isinstance(error, NodeAway)
    title = f"{error.institution.name}'s node is not answering"
    text = (
        "The console reads everything from the institution's own node. Nothing is lost: "
        "this page shows it again as soon as the node is back."
    )
    return show(request, Notice(503, "plug-connected-x", title, text, retry=True))


def _chain_away(request: Request, error: Exception) -> Response:
    text = (
        "The chain client that this console is configured with can't be reached, so nothing can be "
        "compared with the chain now. Payments go on: the chain is never on their path."
    )
    notice = Notice(503, "plug-connected-x", "The chain is not answering", text, retry=True)
    return show(request, notice)


def _not_yet(request: Request, error: Exception) -> Response:
    text = "The transaction's batch is not yet final on the chain. Try again in a few seconds."
    return show(request, Notice(409, "clock", "No proof yet", text, retry=True))


def _bad_question(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadQuestion)
    text = error.detail or "The node can't search by these values."
    notice = Notice(422, "filter", "These filters can't be used", text)
    return show(request, notice)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, NodeRefusal)
    _log.error("node_refused", member=error.institution.member_id, status=error.status)
    if error.status in (401, 403):
        title = f"{error.institution.name}'s node doesn't accept this console"
        text = "Its API key is unknown to the node or has too small a role (docs/console.md)."
    else:
        title = f"{error.institution.name}'s node failed to answer"
        text = f"It answered with status {error.status}. Its own log tells why."
    return show(request, Notice(502, "alert-triangle", title, text, retry=True))


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return show(request, NOT_KNOWN)
    title = "This can't be done"
    notice = Notice(error.status_code, "alert-triangle", title, str(error.detail))
    return show(request, notice)


def _unexpected(request: Request, error: Exception) -> Response:
    # By its type: a message may quote data that doesn't belong into a log.
    _log.error("unexpected", path=request.url.path, error=type(error).__name__)
    text = "The console failed. The failure is in its log."
    return show(request, Notice(500, "alert-triangle", "Something went wrong", text, retry=True))


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(SignInNeeded, _needs_sign_in)
    app.add_exception_handler(Forbidden, _forbidden)
    app.add_exception_handler(NotKnown, _not_known)
    app.add_exception_handler(NotYet, _not_yet)
    app.add_exception_handler(NodeAway, _node_away)
    app.add_exception_handler(ChainAway, _chain_away)
    app.add_exception_handler(BadQuestion, _bad_question)
    app.add_exception_handler(NodeRefusal, _refused)
    app.add_exception_handler(RequestValidationError, _not_known)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
