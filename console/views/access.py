"""Who has access: one's own sessions, and for administrators everybody's, locks and the trail."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from console.institutions import NotKnown
from console.session import Administrator, SignedIn, client_address
from console.settings import Role
from console.templating import render

router = APIRouter()


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


@router.get("/access")
def access(request: Request, user: SignedIn) -> Response:
    """Own sessions; for an administrator also accounts, all sessions and the trail."""
    everything = user.may(Role.ADMIN)
    desk = request.app.state.console.access
    context = {
        "active": "access",
        "sessions": desk.sessions(None if everything else user.username),
        "accounts": desk.accounts() if everything else [],
        "trail": desk.trail() if everything else [],
        "iso": _iso,
    }
    return render(request, "access.html", context)


@router.post("/access/sessions/{session_id}/end")
async def end_session(request: Request, session_id: str, user: SignedIn) -> Response:
    """End one's own session, or as an administrator anybody's."""
    owner = None if user.may(Role.ADMIN) else user.username
    desk = request.app.state.console.access
    ended = await run_in_threadpool(desk.end_session, session_id, owner, client_address(request))
    if not ended:
        raise NotKnown
    return RedirectResponse("/access", 303)


@router.post("/access/unlock")
async def unlock(
    request: Request, user: Administrator, username: Annotated[str, Form(max_length=64)]
) -> Response:
    """Let a locked person try again."""
    desk = request.app.state.console.access
    await run_in_threadpool(desk.unlock, username, user.username, client_address(request))
    return RedirectResponse("/access", 303)
