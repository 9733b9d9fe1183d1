"""Signing in and out, the start page, and the choices that a browser keeps."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from console.access import MAX_FAILURES, Refusal
from console.session import SignedIn, client_address, cookie_name
from console.templating import ZONE_COOKIE, render

router = APIRouter()


def _local_path(path: str) -> str:
    """`path` if it leads to a page of this console, else the start page (no open redirect)."""
    harmless = path.startswith("/") and not path.startswith(("//", "/\\")) and "\\" not in path
    return path if harmless and path.isprintable() else "/"


@router.get("/")
async def start(request: Request, user: SignedIn) -> Response:
    """To the overview of the first institution."""
    if not user.members:
        return render(request, "no_institution.html")
    return RedirectResponse(f"/i/{user.members[0]}/overview", 303)


@router.get("/sign-in")
async def form(request: Request, next: str = "/") -> Response:
    """The sign-in form."""
    return render(request, "sign_in.html", {"next": _local_path(next), "refusal": None, "name": ""})


@router.post("/sign-in")
async def sign_in(
    request: Request,
    username: Annotated[str, Form(max_length=64)] = "",
    password: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    """Check the password and open a session."""
    console = request.app.state.console
    outcome = await run_in_threadpool(
        console.access.sign_in,
        username,
        password,
        client_address(request),
        request.headers.get("user-agent", ""),
    )
    if isinstance(outcome, Refusal):
        context = {
            "next": _local_path(next),
            "refusal": outcome.value,
            "name": username,
            "failures": MAX_FAILURES,
            "minutes": console.settings.lock_minutes,
        }
        status = 429 if outcome is Refusal.LOCKED else 401
        return render(request, "sign_in.html", context, status=status)
    response = RedirectResponse(_local_path(next), 303)
    response.set_cookie(
        cookie_name(request),
        outcome,
        max_age=int(console.settings.session_hours * 3600),
        httponly=True,
        secure=console.settings.secure,
        samesite="strict",
        path="/",
    )
    return response


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """End this session."""
    console = request.app.state.console
    cookie = request.cookies.get(cookie_name(request))
    await run_in_threadpool(console.access.sign_out, cookie, client_address(request))
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(
        cookie_name(request),
        path="/",
        secure=console.settings.secure,
        httponly=True,
        samesite="strict",
    )
    return response


@router.post("/time-zone")
async def time_zone(
    request: Request,
    user: SignedIn,
    zone: Annotated[str, Form()] = "business",
    back: Annotated[str, Form()] = "/",
) -> Response:
    """Show moments in UTC, or in the institutions' business time."""
    response = RedirectResponse(_local_path(back), 303)
    if zone == "utc":
        response.set_cookie(
            ZONE_COOKIE,
            "utc",
            max_age=31_536_000,
            httponly=True,
            samesite="strict",
            secure=request.app.state.console.settings.secure,
        )
    else:
        response.delete_cookie(ZONE_COOKIE)
    return response
