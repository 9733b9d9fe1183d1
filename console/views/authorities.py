"""Who certifies the acquirer's terminals: list, trust another one, trust one no longer."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Form, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from console import wording
from console.access import User
from console.institutions import Institution, NotDone
from console.session import Chosen, SignedIn
from console.templating import render
from console.views.terminals import PAGE_SIZE, acquirers_only, base64_of, may_act

router = APIRouter(prefix="/i/{member_id}/authorities")

Fingerprint = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
#: So much of a fingerprint is typed to confirm.
TYPED = 8


@router.get("")
async def authorities(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    cursor: Annotated[str, Query(max_length=400)] = "",
) -> Response:
    """All that were ever trusted."""
    return await _page(request, institution, user, cursor=cursor)


@router.post("")
async def trust(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    certificate: Annotated[str, Form(max_length=9_000)] = "",
    key: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Take certificates of terminals that the owner of this one has signed."""
    may_act(institution, user.username)
    document = {"certificate": base64_of(certificate)}
    if not document["certificate"]:
        wrong = {"certificate": "Its certificate, as a PEM file has it."}
        return await _page(request, institution, user, certificate, wrong)
    try:
        path = "/v1/terminal-authorities"
        found = await institution.act(user.username, path, document, key or None)
    except NotDone as error:
        flaw = error.places.get("body.certificate", "")
        wrong = {"certificate": f"{flaw[:1].upper()}{flaw[1:]}." if flaw else ""}
        wrong["form"] = wording.not_done(error.kind, error.detail)
        return await _page(request, institution, user, certificate, wrong)
    if found["status"] != "active":
        wrong = {"certificate": "It was trusted once and ended: that is for good."}
        return await _page(request, institution, user, certificate, wrong)
    return RedirectResponse(f"/i/{institution.member_id}/authorities", 303)


@router.post("/{fingerprint}/end")
async def end(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    fingerprint: Fingerprint,
    confirm: Annotated[str, Form(max_length=64)] = "",
    key: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Take no more of its certificates; its fingerprint's first digits are typed to confirm."""
    may_act(institution, user.username)
    if confirm.strip().lower() != fingerprint[:TYPED]:
        wrong = {fingerprint: f"Type {fingerprint[:TYPED]} to confirm."}
        return await _page(request, institution, user, "", wrong)
    path = f"/v1/terminal-authorities/{fingerprint}/end"
    try:
        await institution.act(user.username, path, {}, key or None)
    except NotDone as error:
        wrong = {"form": wording.not_done(error.kind, error.detail)}
        return await _page(request, institution, user, "", wrong)
    return RedirectResponse(f"/i/{institution.member_id}/authorities", 303)


async def _page(
    request: Request,
    institution: Institution,
    user: User,
    certificate: str = "",
    wrong: dict[str, str] | None = None,
    *,
    cursor: str = "",
) -> Response:
    acquirers_only(institution)
    found = await institution.authorities({"cursor": cursor or None, "limit": PAGE_SIZE})
    context = {
        "active": "authorities",
        "items": found["items"],
        "next_cursor": found["next"],
        "cursor": cursor,
        "acts": institution.lets_act(user.username),
        "certificate": certificate,
        "wrong": wrong or {},
        "key": secrets.token_hex(16),
        "typed": TYPED,
    }
    return render(request, "authorities.html", context, status=422 if wrong else 200)
