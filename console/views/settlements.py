"""Settlement: statements of confirmed closes, who has signed them, and what may be done."""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from console import presentation, record_wording, wording
from console.chain import ChainAway
from console.institutions import BadQuestion, Institution, Json, NotDone
from console.session import Chosen, Forbidden, SignedIn, names_of
from console.statements import WAY, reached, signatures
from console.templating import is_for, render, zone_of
from nodes.chain.directory import Member

router = APIRouter(prefix="/i/{member_id}/settlements")

Number = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
PAGE_SIZE = 25
_TXID = re.compile(r"[0-9a-f]{64}\Z")
_SIGNATURE = re.compile(r"[0-9a-f]{130}\Z")


@router.get("")
async def settlements(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    state: Annotated[str, Query(max_length=16)] = "",
    counterparty: Annotated[str, Query(max_length=31)] = "",
    business_date: Annotated[str, Query(max_length=10)] = "",
    close_id: Annotated[str, Query(max_length=18)] = "",
    cursor: Annotated[str, Query(max_length=400)] = "",
) -> Response:
    """The statements, the newest first; the filters stand in the address."""
    chosen = {
        "state": state if state in record_wording.SETTLEMENT_STATES else "",
        "counterparty": counterparty.strip(),
        "business_date": business_date,
        "close_id": close_id if close_id.isascii() and close_id.isdigit() else "",
    }
    filters = {name: value for name, value in chosen.items() if value}
    page: Json = {"items": [], "next": None}
    wrong = ""
    try:
        page = await institution.settlements(
            {**filters, "cursor": cursor or None, "limit": PAGE_SIZE}
        )
    except BadQuestion as error:
        wrong = error.detail or "These filters can't be used."
    members = await names_of(request, institution)
    context: dict[str, Any] = {
        "active": "settlements",
        "filters": filters,
        "wrong": wrong,
        "items": page["items"],
        "next_cursor": page["next"],
        "cursor": cursor,
        "names": members,
        "others": {key: name for key, name in members.items() if key != institution.member_id},
    }
    status = 422 if wrong else 200
    if is_for(request, "results"):
        address = f"{request.url.path}{presentation.query({**filters, 'cursor': cursor})}"
        headers = {"HX-Push-Url": address}
        return render(
            request, "settlements.html", context, block="results", status=status, headers=headers
        )
    return render(request, "settlements.html", context, status=status)


@router.post("")
async def propose(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    close_id: Annotated[int, Form(ge=1, lt=1 << 62)],
    key: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Order a statement of a confirmed close."""
    _may_act(institution, user.username)
    try:
        await institution.act(
            user.username, "/v1/settlements", {"close_id": close_id}, key or secrets.token_hex(16)
        )
    except NotDone as error:
        context = {
            "active": "settlements",
            "refusal": wording.not_done(error.kind, error.detail),
            "back": f"/i/{institution.member_id}/closes/{close_id}",
        }
        return render(request, "not_done.html", context, status=409)
    return RedirectResponse(f"/i/{institution.member_id}/settlements?close_id={close_id}", 303)


@router.get("/{number}")
async def settlement(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    number: Number,
    verdict: Annotated[str, Query(max_length=10)] = "",
    reason: Annotated[str, Query(max_length=500)] = "",
    deadline: Annotated[str, Query(max_length=32)] = "",
) -> Response:
    """One statement; with a verdict, its reason and a deadline also what arbiters have to sign."""
    to_sign: Json | None = None
    wrong: dict[str, str] = {}
    typed = {"verdict": verdict, "reason": reason.strip(), "deadline": deadline}
    if verdict:
        moment = presentation.typed_moment(deadline, zone_of(request)) if deadline else None
        if verdict not in record_wording.VERDICTS:
            wrong["verdict"] = "Upheld or annulled."
        if not typed["reason"]:
            wrong["reason"] = "A reason: both institutions read it."
        if moment is None:
            wrong["deadline"] = "A day and a time, such as 2026-11-22 14:30."
        if not wrong:
            to_sign = await institution.to_sign(
                number, {"verdict": verdict, "reason": typed["reason"], "deadline": moment}
            )
    move = ("resolve", typed) if verdict else ("", {})
    return await _one(request, institution, user.username, number, wrong, move, to_sign)


@router.post("/{number}/{move}")
async def move(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    number: Number,
    move: Annotated[str, Path(pattern="^(countersign|dispute|resolve)$")],
    txid: Annotated[str, Form(max_length=80)] = "",
    reason: Annotated[str, Form(max_length=500)] = "",
    verdict: Annotated[str, Form(max_length=10)] = "",
    deadline: Annotated[str, Form(max_length=40)] = "",
    signed: Annotated[str, Form(max_length=4000)] = "",
    confirm: Annotated[str, Form(max_length=64)] = "",
    key: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Countersign, dispute, or bring the arbiters' decision."""
    _may_act(institution, user.username)
    typed = {
        "txid": txid.strip().lower(), "reason": reason.strip(), "verdict": verdict,
        "deadline": deadline, "signed": signed, "confirm": confirm.strip(),
    }  # fmt: skip
    wrong: dict[str, str] = {}
    document: Json = {}
    if move == "dispute":
        document = {"txid": typed["txid"], "reason": typed["reason"]}
        if not _TXID.match(typed["txid"]):
            wrong["txid"] = "A transaction id has 64 hexadecimal digits."
        if not typed["reason"]:
            wrong["reason"] = "A reason: the arbiters read it."
    if move == "resolve":
        entries = signed.lower().replace("0x", "").split()
        document = {
            "verdict": verdict,
            "reason": typed["reason"],
            "deadline": deadline,
            "signatures": entries,
        }
        if not entries or not all(_SIGNATURE.match(entry) for entry in entries):
            wrong["signed"] = "Each arbiter's signature, 130 hexadecimal digits, one a line."
    if typed["confirm"].lower() != number[:8]:
        wrong["confirm"] = f"Type {number[:8]} to confirm."
    if wrong:
        return await _one(
            request, institution, user.username, number, wrong, (move, typed), status=422
        )
    try:
        path = f"/v1/settlements/{number}/{move}"
        await institution.act(user.username, path, document, key or secrets.token_hex(16))
    except NotDone as error:
        wrong["form"] = wording.not_done(error.kind, error.detail)
        return await _one(
            request, institution, user.username, number, wrong, (move, typed), status=409
        )
    return RedirectResponse(f"/i/{institution.member_id}/settlements/{number}", 303)


def _may_act(institution: Institution, username: str) -> None:
    if not institution.lets_act(username):
        raise Forbidden


async def _chain_state(request: Request, number: str) -> str:
    """The contract's state of a statement, read by the console: NONE if it holds none,
    AWAY if the chain doesn't answer, "" if the console isn't configured with the contract."""
    console = request.app.state.console
    if console.settings.settlement_registry is None:
        return ""
    try:
        held = await console.chain.settlement(bytes.fromhex(number))
    except ChainAway:
        return "AWAY"
    return held.state.name if held else "NONE"


async def _members(request: Request) -> dict[str, Member] | None:
    """The members as the chain has them, with their keys of all times; None without it."""
    try:
        return {row.member_id: row for row in await request.app.state.console.chain.members()}
    except ChainAway:
        return None


async def _one(
    request: Request,
    institution: Institution,
    username: str,
    number: str,
    wrong: dict[str, str] | None = None,
    typed: tuple[str, dict[str, str]] = ("", {}),
    to_sign: Json | None = None,
    *,
    status: int = 0,
) -> Response:
    item = await institution.settlement(number)
    context: dict[str, Any] = {
        "active": "settlements",
        "item": item,
        "signed": signatures(item, await _members(request)),
        "chain_state": await _chain_state(request, number),
        "way": WAY,
        "reached": reached(item),
        "acts": institution.lets_act(username),
        "names": await names_of(request, institution),
        "confirmation": number[:8],
        "wrong": wrong or {},
        "typed_move": typed[0],
        "typed": typed[1],
        "to_sign": to_sign,
        "key": secrets.token_hex(16),
    }
    if is_for(request, "figures"):
        return render(request, "settlement.html", context, block="content")
    return render(request, "settlement.html", context, status=status or (422 if wrong else 200))
