"""Products and the versions of their terms: proposed by one person, checked by another."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from console import presentation, product_terms, wording
from console.institutions import Institution, Json, NotDone, NotKnown
from console.session import Chosen, Forbidden, SignedIn
from console.templating import is_for, render, zone_of

router = APIRouter(prefix="/i/{member_id}/products")

PAGE_SIZE = 25
VERSIONS = 10
ProductId = Annotated[str, Path(max_length=40, pattern=r"^[a-z0-9-]+$")]
Cursor = Annotated[str, Query(max_length=400)]
#: Fields of the form, at most so many characters each.
_TYPED = 400
_FIELDS = 64


@router.get("")
async def products(request: Request, institution: Chosen, cursor: Cursor = "") -> Response:
    """The products with the version of their terms that is in force."""
    _issuers_only(institution)
    page = await institution.products_page(cursor or None, PAGE_SIZE)
    context = {
        "active": "products",
        "items": page["items"],
        "next_cursor": page["next"],
        "cursor": cursor,
    }
    if is_for(request, "results"):
        headers = {"HX-Push-Url": f"{request.url.path}{presentation.query({'cursor': cursor})}"}
        return render(request, "products.html", context, block="results", headers=headers)
    return render(request, "products.html", context)


@router.get("/{product_id}")
async def product(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    product_id: ProductId,
    cursor: Cursor = "",
) -> Response:
    """One product: its terms in force, and its versions with what they change."""
    return await _one(request, institution, user.username, product_id, cursor)


@router.get("/{product_id}/propose")
async def form(
    request: Request, institution: Chosen, user: SignedIn, product_id: ProductId
) -> Response:
    """The form of other terms, filled with those in force."""
    _may_act(institution, user.username)
    item = await institution.product(product_id)
    return _form(request, item, product_terms.texts_of(item["terms"]), {}, "")


@router.post("/{product_id}/propose")
async def propose(
    request: Request, institution: Chosen, user: SignedIn, product_id: ProductId
) -> Response:
    """Propose them, once a form; nothing changes before somebody else approves."""
    _may_act(institution, user.username)
    item = await institution.product(product_id)
    sent = await request.form(max_fields=_FIELDS, max_files=0)
    typed = dict.fromkeys(product_terms.texts_of(item["terms"]), "")
    typed |= {name: str(sent[name]).strip()[:_TYPED] for name in typed if name in sent}
    key = str(sent.get("key", ""))[:64]
    terms, wrong = product_terms.for_node(item["terms"], typed)
    starts = presentation.typed_moment(typed["effective_from"], zone_of(request))
    if typed["effective_from"] and starts is None:
        wrong["effective_from"] = "A day and a time."
    if not typed["reason"]:
        wrong["reason"] = "Why: the checker reads it."
    if not wrong and terms == item["terms"]:
        wrong["form"] = "These are the terms in force: change something."
    if wrong:
        return _form(request, item, typed, wrong, key)
    document = {"terms": terms, "effective_from": starts, "reason": typed["reason"]}
    path = f"/v1/products/{product_id}/terms"
    try:
        await institution.act(user.username, path, document, key)
    except NotDone as error:
        wrong = product_terms.fields_of(error.places, item["terms"])
        return _form(request, item, typed, wrong or {"form": _why(error)}, key)
    return _to(institution, product_id)


@router.post("/{product_id}/terms/{version}/{verdict}")
async def check(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    product_id: ProductId,
    version: Annotated[int, Path(ge=2, lt=1 << 31)],
    verdict: Annotated[str, Path(pattern="^(approve|reject)$")],
) -> Response:
    """Approve or reject what somebody else proposed."""
    _may_act(institution, user.username)
    path = f"/v1/products/{product_id}/terms/{version}/{verdict}"
    try:
        # A repeat by the same person is told the same, so a form's key is as good as a second.
        await institution.act(user.username, path, {}, secrets.token_hex(16))
    except NotDone as error:
        return await _one(request, institution, user.username, product_id, "", _why(error))
    return _to(institution, product_id)


def _issuers_only(institution: Institution) -> None:
    if "issuer" not in institution.roles:
        raise NotKnown


def _may_act(institution: Institution, username: str) -> None:
    _issuers_only(institution)
    if not institution.lets_act(username):
        raise Forbidden


def _why(error: NotDone) -> str:
    return wording.not_done(error.kind, error.detail)


def _to(institution: Institution, product_id: str) -> Response:
    return RedirectResponse(f"/i/{institution.member_id}/products/{product_id}", 303)


def _form(
    request: Request, item: Json, typed: dict[str, str], wrong: dict[str, str], key: str
) -> Response:
    context: dict[str, Any] = {
        "active": "products",
        "item": item,
        "form": typed,
        "wrong": wrong,
        "amounts": product_terms.ENTRY_AMOUNTS,
        "counts": product_terms.ENTRY_COUNTS,
        "key": key or secrets.token_hex(16),
    }
    return render(request, "product_form.html", context, status=422 if wrong else 200)


async def _one(
    request: Request,
    institution: Institution,
    username: str,
    product_id: str,
    cursor: str,
    refusal: str = "",
) -> Response:
    _issuers_only(institution)
    item = await institution.product(product_id)
    page = await institution.product_terms(product_id, cursor or None, VERSIONS)
    now_ms = request.app.state.console.clock.now_ms()
    context = {
        "active": "products",
        "item": item,
        "rows": product_terms.rows(item["terms"]),
        "versions": [
            one
            | {
                "shown_state": state_of(one, item["version"], now_ms),
                "changes": product_terms.changes(item["terms"], one["terms"]),
                "mine": one["made_by"].removeprefix("key:") == username,
            }
            for one in page["items"]
        ],
        "next_cursor": page["next"],
        "cursor": cursor,
        "acts": institution.lets_act(username),
        "refusal": refusal,
    }
    return render(request, "product.html", context, status=409 if refusal else 200)


def state_of(version: Json, in_force: int, now_ms: int) -> str:
    """A version's state as people think of it: an approved one is to come, in force or over."""
    if version["state"] != "approved":
        return str(version["state"])
    if version["version"] == in_force:
        return "in_force"
    starts = presentation.moment(version["effective_from"])
    return "to_come" if starts is not None and starts.timestamp() * 1000 > now_ms else "over"
