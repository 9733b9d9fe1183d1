"""Adjustments: corrections by hand, proposed by one person and checked by another."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from console import presentation, wording
from console.institutions import Institution, Json, NotDone, NotKnown
from console.session import Chosen, Forbidden, SignedIn
from console.templating import is_for, render

router = APIRouter(prefix="/i/{member_id}/adjustments")

AdjustmentId = Annotated[int, Path(ge=1, lt=1 << 62)]
PAGE_SIZE = 25
#: A payment's txid in hex, or nothing.
_DISPUTED = "^([0-9a-f]{64})?$"


@router.get("")
async def adjustments(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    state: Annotated[str, Query(max_length=16)] = "",
    account_id: Annotated[str, Query(max_length=18)] = "",
    cursor: Annotated[str, Query(max_length=400)] = "",
) -> Response:
    """The queue, the newest first; with `state=proposed` what waits for a checker."""
    _issuers_only(institution)
    chosen = {
        "state": state if state in wording.ADJUSTMENT_STATES else "",
        "account_id": account_id if account_id.isascii() and account_id.isdigit() else "",
    }
    filters = {name: value for name, value in chosen.items() if value}
    page = await institution.adjustments(
        {**filters, "cursor": cursor or None, "limit": PAGE_SIZE},
    )
    context = {
        "active": "adjustments",
        "filters": filters,
        "states": wording.ADJUSTMENT_STATES,
        "items": page["items"],
        "next_cursor": page["next"],
        "cursor": cursor,
        "acts": institution.lets_act(user.username),
    }
    if is_for(request, "results"):
        address = f"{request.url.path}{presentation.query({**filters, 'cursor': cursor})}"
        headers = {"HX-Push-Url": address}
        return render(request, "adjustments.html", context, block="results", headers=headers)
    return render(request, "adjustments.html", context)


@router.get("/new")
async def form(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    account: Annotated[str, Query(max_length=18)] = "",
    disputed: Annotated[str, Query(pattern=_DISPUTED)] = "",
    amount: Annotated[str, Query(max_length=20)] = "",
    paid: bool = False,
) -> Response:
    """The form of a proposal; `disputed`: of who bears this payment, which is owed or `paid`."""
    _may_act(institution, user.username)
    typed = {"account": account, "direction": "credit", "amount": amount, "reason": ""}
    return _form(request, {**typed, "disputed": disputed, "paid": "true" if paid else ""})


@router.post("/new")
async def propose(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    account: Annotated[str, Form(max_length=18)] = "",
    direction: Annotated[str, Form(max_length=8)] = "credit",
    amount: Annotated[str, Form(max_length=20)] = "",
    reason: Annotated[str, Form(max_length=80)] = "",
    disputed: Annotated[str, Form(pattern=_DISPUTED)] = "",
    paid: Annotated[str, Form(max_length=4)] = "",
    key: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Propose it; nothing is posted before somebody else approves."""
    _may_act(institution, user.username)
    typed = {"account": account.strip(), "direction": direction, "amount": amount.strip()}
    typed |= {"reason": reason.strip(), "disputed": disputed, "paid": paid}
    wrong: dict[str, str] = {}
    currency = await _currency(institution, typed["account"])
    if currency is None:
        wrong["account"] = "The number of a card account."
    minor = presentation.minor_units(typed["amount"], currency or "CNY")
    if not minor:
        wrong["amount"] = f"An amount in {currency or 'CNY'} above 0, such as 12.50."
    if not typed["reason"]:
        wrong["reason"] = "What it corrects: the checker reads it."
    if wrong:
        return _form(request, typed, wrong, key)
    document = {
        "account_id": int(typed["account"]),
        "amount": (minor or 0) * (-1 if direction == "debit" else 1),
        "currency": currency,
        "reason": typed["reason"],
    }
    if disputed:
        document["disputed"] = disputed
    try:
        made = await institution.act(user.username, "/v1/adjustments", document, key)
    except NotDone as error:
        return _form(request, typed, {"form": _why(error)}, key)
    return _to(institution, made["adjustment_id"])


@router.get("/{adjustment_id}")
async def adjustment(
    request: Request, institution: Chosen, user: SignedIn, adjustment_id: AdjustmentId
) -> Response:
    """One adjustment, with the account that it would change."""
    return await _one(request, institution, user.username, adjustment_id)


@router.post("/{adjustment_id}/{verdict}")
async def check(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    adjustment_id: AdjustmentId,
    verdict: Annotated[str, Path(pattern="^(approve|reject)$")],
) -> Response:
    """Approve or reject what somebody else proposed."""
    _may_act(institution, user.username)
    path = f"/v1/adjustments/{adjustment_id}/{verdict}"
    # One key a person and adjustment: a second click gets the first one's answer.
    key = f"console-{verdict}-{adjustment_id}-{user.username.encode().hex()}"[:128]
    try:
        await institution.act(user.username, path, {}, key)
    except NotDone as error:
        return await _one(request, institution, user.username, adjustment_id, _why(error))
    return _to(institution, adjustment_id)


def _issuers_only(institution: Institution) -> None:
    if "issuer" not in institution.roles:
        raise NotKnown


def _may_act(institution: Institution, username: str) -> None:
    _issuers_only(institution)
    if not institution.lets_act(username):
        raise Forbidden


def _why(error: NotDone) -> str:
    return wording.not_done(error.kind, error.detail)


def _to(institution: Institution, adjustment_id: int) -> Response:
    return RedirectResponse(f"/i/{institution.member_id}/adjustments/{adjustment_id}", 303)


async def _currency(institution: Institution, account: str) -> str | None:
    """The currency of a card account by its number; None if it isn't one's."""
    if not (account.isascii() and account.isdigit()) or int(account) == 0:
        return None
    try:
        found = await institution.account(int(account))
    except NotKnown:
        return None
    return str(found["currency"]) if found["card_account"] is not None else None


def _form(
    request: Request,
    typed: dict[str, str],
    wrong: dict[str, str] | None = None,
    key: str = "",
) -> Response:
    context: dict[str, Any] = {
        "active": "adjustments",
        "form": typed,
        "wrong": wrong or {},
        "key": key or secrets.token_hex(16),
    }
    return render(request, "adjustment_form.html", context, status=422 if wrong else 200)


async def _one(
    request: Request,
    institution: Institution,
    username: str,
    adjustment_id: int,
    refusal: str = "",
) -> Response:
    _issuers_only(institution)
    item: Json = await institution.adjustment(adjustment_id)
    context = {
        "active": "adjustments",
        "item": item,
        "account": await institution.account(item["account_id"]),
        "mine": maker(item["made_by"]) == username,
        "acts": institution.lets_act(username),
        "refusal": refusal,
    }
    return render(request, "adjustment.html", context, status=409 if refusal else 200)


def maker(principal: str) -> str:
    """Whose key it was: nodes write "key:" before a key's name."""
    return principal.removeprefix("key:")
