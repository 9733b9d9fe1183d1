"""A cardholder disputes a payment: opened from the payment's page, dropped from the account's."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from console import presentation, wording
from console.institutions import Institution, Json, NotDone, NotKnown
from console.session import Chosen, Forbidden, SignedIn
from console.templating import render

router = APIRouter(prefix="/i/{member_id}/disputes")

DisputeId = Annotated[int, Path(ge=1, lt=1 << 62)]
_TXID = "^[0-9a-f]{64}$"


@router.get("/new")
async def form(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    txid: Annotated[str, Query(pattern=_TXID)],
) -> Response:
    """The form; the amount stands at the whole payment."""
    _may_act(institution, user.username)
    payment = await institution.transaction(txid, "issuer")
    whole = presentation.amount(payment["amount"], payment["currency"]).replace(",", "")
    return _form(request, payment, {"amount": whole, "reason": ""})


@router.post("/new")
async def dispute(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    txid: Annotated[str, Form(pattern=_TXID)],
    amount: Annotated[str, Form(max_length=20)] = "",
    reason: Annotated[str, Form(max_length=200)] = "",
    key: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Open it: from now on no refund and no void of the payment is taken."""
    _may_act(institution, user.username)
    payment = await institution.transaction(txid, "issuer")
    typed = {"amount": amount.strip(), "reason": reason.strip()}
    minor = presentation.minor_units(typed["amount"], payment["currency"])
    wrong: dict[str, str] = {}
    if not minor:
        wrong["amount"] = f"An amount in {payment['currency']} above 0, such as 12.50."
    if not typed["reason"]:
        wrong["reason"] = "What the cardholder says: whoever decides reads it."
    if wrong:
        return _form(request, payment, typed, wrong, key)
    document = {"txid": txid, "amount": minor, "reason": typed["reason"]}
    try:
        made = await institution.act(user.username, "/v1/disputes", document, key)
    except NotDone as error:
        refusal = {"form": wording.not_done(error.kind, error.detail)}
        return _form(request, payment, typed, refusal, key)
    return _to_account(institution, made)


@router.post("/{dispute_id}/close")
async def drop(
    institution: Chosen,
    user: SignedIn,
    dispute_id: DisputeId,
    reason: Annotated[str, Form(min_length=1, max_length=200)],
) -> Response:
    """Nothing (more) is given back for it, and refunds are taken again."""
    _may_act(institution, user.username)
    found = await institution.dispute(dispute_id)
    key = f"console-drop-{dispute_id}-{user.username.encode().hex()}"[:128]
    try:
        await institution.act(
            user.username, f"/v1/disputes/{dispute_id}/close", {"reason": reason}, key
        )
    except NotDone as error:
        if error.kind not in ("dispute-closed", "key-reused"):
            raise
        # Somebody was first: the account's page shows how it is.
    return _to_account(institution, found)


def _may_act(institution: Institution, username: str) -> None:
    if "issuer" not in institution.roles:
        raise NotKnown
    if not institution.lets_act(username):
        raise Forbidden


def _to_account(institution: Institution, made: Json) -> Response:
    home = f"/i/{institution.member_id}/accounts/{made['account_id']}"
    return RedirectResponse(f"{home}#disputes", 303)


def _form(
    request: Request,
    payment: Json,
    typed: dict[str, str],
    wrong: dict[str, str] | None = None,
    key: str = "",
) -> Response:
    context: dict[str, Any] = {
        "active": "transactions",
        "payment": payment,
        "form": typed,
        "wrong": wrong or {},
        "key": key or secrets.token_hex(16),
    }
    return render(request, "dispute_form.html", context, status=422 if wrong else 200)
