"""Accounts: the list, and one account with what is on it, what holds it, and its history."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from console import presentation, wording
from console.institutions import Institution, Json, NodeAway, NodeRefusal, NotDone, NotKnown
from console.session import Chosen, Forbidden, SignedIn
from console.templating import is_for, render

router = APIRouter(prefix="/i/{member_id}")

AccountId = Annotated[int, Path(ge=1, lt=1 << 62)]
Cursor = Annotated[str, Query(max_length=400)]
_TOKEN = re.compile(r"[0-9a-f]{32}\Z")
_NUMBER = re.compile(r"[0-9]{1,18}\Z")
_OWNER = re.compile(r"[ -~]{1,64}\Z")
PAGE_SIZE = 25
#: PIN tries of a card that has had none wrong.
PIN_TRIES = 3
#: Holds whose merchant is looked up; an account seldom has more.
_NAMED_HOLDS = 20


@router.get("/accounts")
async def accounts(
    request: Request,
    institution: Chosen,
    q: Annotated[str, Query(max_length=80)] = "",
    kind: Annotated[str, Query(max_length=20)] = "",
    cursor: Cursor = "",
) -> Response:
    """The ledger's accounts; a card token or an account number leads straight to its account."""
    q = q.strip()
    filters = {name: value for name, value in (("q", q), ("kind", kind)) if value}
    wrong, owner = "", None
    if q:
        account_id = await _found(institution, q)
        if account_id is not None:
            return _to(request, institution, account_id)
        if _OWNER.match(q):
            owner = q
        else:
            wrong = "Search by account number, card token (32 hex digits) or owner."
    page: Json = {"items": [], "next": None}
    if not wrong:
        page = await institution.accounts(
            {"kind": kind or None, "owner": owner, "cursor": cursor or None, "limit": PAGE_SIZE}
        )
    context = {
        "active": "accounts",
        "filters": filters,
        "kinds": wording.ACCOUNT_KINDS,
        "wrong": wrong,
        "items": page["items"],
        "next_cursor": page["next"],
        "cursor": cursor,
    }
    status = 422 if wrong else 200
    if is_for(request, "results"):
        address = f"{request.url.path}{presentation.query({**filters, 'cursor': cursor})}"
        headers = {"HX-Push-Url": address}
        return render(
            request, "accounts.html", context, block="results", status=status, headers=headers
        )
    return render(request, "accounts.html", context, status=status)


async def _found(institution: Institution, text: str) -> int | None:
    """The account of a card token or of an account number, if there is one."""
    try:
        if _TOKEN.match(text.lower()):
            return int((await institution.card(text.lower()))["account_id"])
        if _NUMBER.match(text):
            return int((await institution.account(int(text)))["account_id"])
    except NotKnown:
        pass
    return None


def _to(request: Request, institution: Institution, account_id: int) -> Response:
    address = f"/i/{institution.member_id}/accounts/{account_id}"
    if request.headers.get("HX-Request") == "true":
        return Response(headers={"HX-Redirect": address})
    return RedirectResponse(address, 303)


@router.get("/accounts/{account_id}")
async def account(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    account_id: AccountId,
    cursor: Cursor = "",
) -> Response:
    """One account; of a card account everything that its next decision would look at."""
    found = await institution.account(account_id)
    state = found["card_account"]
    if state is not None and state["account_id"] != account_id:
        # A further purse: it is shown with the account that it belongs to.
        return _to(request, institution, state["account_id"])
    context: dict[str, Any] = {"active": "accounts", "account": found, "state": state}
    if state is not None:
        page = await institution.versions(account_id, cursor or None, PAGE_SIZE)
        context |= {
            "items": history(page["items"]),
            "next_cursor": page["next"],
            "cursor": cursor,
        }
        if is_for(request, "results"):
            return render(request, "account.html", context, block="results")
        context["held_by"], context["product"], disputes = await asyncio.gather(
            _transactions_of(institution, state["holds"][:_NAMED_HOLDS]),
            _product(institution, state["product_id"]),
            institution.disputes({"account_id": account_id}),
        )
        # What is to be decided first, then what ended, the newest of each first.
        context["disputes"] = sorted(disputes["items"], key=lambda one: one["state"] != "open")
        context["pin_tries"] = PIN_TRIES
        context["acts"] = institution.lets_act(user.username)
        context["owed_disputed"] = [one for one in state["disputed"] if not one["paid"]]
    return render(request, "account.html", context)


@router.post("/accounts/{account_id}/status")
async def change_status(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    account_id: AccountId,
    status: Annotated[str, Form(max_length=10)] = "",
    reason: Annotated[str, Form(max_length=200)] = "",
    confirm: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    """Freeze an account or open it again; the account's number confirms it."""
    if not institution.lets_act(user.username):
        raise Forbidden
    refusal = ""
    if status not in ("frozen", "open"):
        refusal = "An account is frozen or opened here."
    elif not reason.strip():
        refusal = "A reason is needed: it stands in the audit log."
    elif confirm.strip() != str(account_id):
        refusal = f"Type the account's number, {account_id}, to confirm."
    else:
        document = {"status": status, "reason": reason.strip()}
        try:
            path = f"/v1/accounts/{account_id}/status"
            await institution.act(user.username, path, document)
        except NotDone as error:
            refusal = wording.not_done(error.kind, error.detail)
    address = f"/i/{institution.member_id}/accounts/{account_id}"
    if not refusal:
        return RedirectResponse(address, 303)
    context = {"active": "accounts", "refusal": refusal, "back": address}
    return render(request, "not_done.html", context, status=409)


def history(versions: list[Json]) -> list[Json]:
    """Versions, the newest first, each with `change`: what people changed, where no transaction
    did. The version before the page's last isn't at hand: there it is only "changed"."""
    shown = []
    for number, version in enumerate(versions):
        before = versions[number + 1] if number + 1 < len(versions) else None
        change = ""
        if version["transaction"] is None:
            changed = before is not None and before["status"] != version["status"]
            change = "account_status" if changed else "card_status"
        shown.append(version | {"change": change})
    return shown


async def _transactions_of(institution: Institution, holds: list[Json]) -> dict[str, Json]:
    """The authorizations behind holds, by transaction id, as far as they can be read."""

    async def one(txid: str) -> Json | None:
        try:
            return await institution.transaction(txid, "issuer")
        except (NotKnown, NodeAway, NodeRefusal):
            return None

    found = await asyncio.gather(*(one(hold["txid"]) for hold in holds))
    return {item["txid"]: item for item in found if item is not None}


async def _product(institution: Institution, product_id: str) -> Json | None:
    products = await institution.products()
    return next((item for item in products if item["product_id"] == product_id), None)
