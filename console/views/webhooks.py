"""Whom the acquirer tells of outcomes, and what became of each message (docs/http-api.md)."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from console import presentation, wording
from console.access import User
from console.institutions import Institution, NotDone
from console.session import Chosen, SignedIn
from console.templating import is_for, render
from console.views.terminals import PAGE_SIZE, acquirers_only, may_act

router = APIRouter(prefix="/i/{member_id}/webhooks")

EndpointId = Annotated[str, Path(pattern=r"^[A-Z2-7]{16}$")]
Key = Annotated[str, Form(max_length=64)]


@router.get("")
async def webhooks(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    endpoint_id: Annotated[str, Query(max_length=16)] = "",
    cursor: Annotated[str, Query(max_length=400)] = "",
) -> Response:
    """Endpoints, and the newest messages; of one endpoint, if the address names it."""
    return await _page(request, institution, user, endpoint_id=endpoint_id.strip(), cursor=cursor)


@router.post("")
async def add(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    merchant_id: Annotated[str, Form(max_length=15)] = "",
    url: Annotated[str, Form(max_length=500)] = "",
    key: Key = "",
) -> Response:
    """Tell a merchant of outcomes from now on; the page that answers shows the secret, once."""
    may_act(institution, user.username)
    typed = {"merchant_id": merchant_id.strip(), "url": url.strip()}
    names = {"merchant_id": "The merchant's number.", "url": "Where to send: https://..."}
    wrong = {name: text for name, text in names.items() if not typed[name]}
    made = None
    if not wrong:
        try:
            made = await institution.act(user.username, "/v1/webhook-endpoints", typed, key or None)
        except NotDone as error:
            wrong = {at.removeprefix("body."): text for at, text in error.places.items()}
            wrong["form"] = wording.not_done(error.kind, error.detail)
    return await _page(request, institution, user, typed, wrong, made=made)


@router.post("/{endpoint_id}/end")
async def end(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    endpoint_id: EndpointId,
    confirm: Annotated[str, Form(max_length=16)] = "",
    key: Key = "",
) -> Response:
    """Send nothing there any more; the endpoint's id is typed to confirm."""
    may_act(institution, user.username)
    if confirm.strip() != endpoint_id:
        wrong = {endpoint_id: f"Type {endpoint_id} to confirm."}
        return await _page(request, institution, user, None, wrong)
    return await _done(request, institution, user, f"/v1/webhook-endpoints/{endpoint_id}/end", key)


@router.post("/deliveries/{delivery_id}/replay")
async def replay(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    delivery_id: Annotated[int, Path(ge=1, lt=1 << 62)],
    key: Key = "",
) -> Response:
    """Deliver a message once more, under its own id."""
    may_act(institution, user.username)
    return await _done(
        request, institution, user, f"/v1/webhook-deliveries/{delivery_id}/replay", key
    )


async def _done(
    request: Request, institution: Institution, user: User, path: str, key: str
) -> Response:
    try:
        await institution.act(user.username, path, {}, key or None)
    except NotDone as error:
        wrong = {"form": wording.not_done(error.kind, error.detail)}
        return await _page(request, institution, user, None, wrong)
    return RedirectResponse(f"/i/{institution.member_id}/webhooks", 303)


async def _page(
    request: Request,
    institution: Institution,
    user: User,
    typed: dict[str, str] | None = None,
    wrong: dict[str, str] | None = None,
    *,
    made: Any = None,
    endpoint_id: str = "",
    cursor: str = "",
) -> Response:
    acquirers_only(institution)
    filters = {"endpoint_id": endpoint_id} if endpoint_id else {}
    sent = await institution.deliveries({**filters, "cursor": cursor or None, "limit": PAGE_SIZE})
    context = {
        "active": "webhooks",
        "items": sent["items"],
        "next_cursor": sent["next"],
        "cursor": cursor,
        "filters": filters,
        "acts": institution.lets_act(user.username),
        "form": (typed if wrong else None) or {"merchant_id": "", "url": ""},
        "wrong": wrong or {},
        "made": made,
        "key": secrets.token_hex(16),
        "endpoints": [],
    }
    if is_for(request, "results"):
        address = f"{request.url.path}{presentation.query({**filters, 'cursor': cursor})}"
        headers = {"HX-Push-Url": address}
        return render(request, "webhooks.html", context, block="results", headers=headers)
    context["endpoints"] = await institution.endpoints()
    return render(request, "webhooks.html", context, status=422 if wrong else 200)
