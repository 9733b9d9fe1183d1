"""Breaks: the list of cases, and one case with both versions, its workflow and its history."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from console import presentation, record_wording, wording
from console.access import User
from console.break_cases import (
    AGES,
    DUE,
    TAKEN,
    WORKFLOW,
    CaseFilters,
    compared,
    confirmation,
    due_group,
    moves,
    resolutions,
)
from console.institutions import Institution, Json, NotDone
from console.session import Chosen, Forbidden, SignedIn, names_of
from console.templating import is_for, render

router = APIRouter(prefix="/i/{member_id}/breaks")

Ref = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Query(max_length=32)]
PAGE_SIZE = 25
#: Pages of the node that are looked through for what it can't filter itself.
_MOST_PAGES = 20
_CLOSES_READ = 500


@router.get("")
async def breaks(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    state: Text = "",
    kind: Text = "",
    owner: Text = "",
    age: Text = "",
    due: Text = "",
    taken: Text = "",
    cursor: Annotated[str, Query(max_length=400)] = "",
) -> Response:
    """The cases, the newest first; the filters stand in the address."""
    filters = CaseFilters(
        state if state in record_wording.CASE_STATES else "",
        kind if kind in record_wording.BREAK_KINDS else "",
        owner.strip(),
        age if age in AGES else "",
        due if due in DUE else "",
        taken if taken in TAKEN else "",
    )
    now_s = request.app.state.console.clock.now_ms() / 1000
    items, following = await _found(institution, user.username, filters, cursor, now_s)
    closes = await institution.closes({"limit": _CLOSES_READ}) if items else {"items": []}
    context: dict[str, Any] = {
        "active": "breaks",
        "filters": filters,
        "items": [item | {"due": due_group(item, now_s)} for item in items],
        "closes": {row["close_id"]: row for row in closes["items"]},
        "owners": await _owners(request, institution),
        "ages": AGES,
        "dues": DUE,
        "takens": TAKEN,
        "next_cursor": following,
        "cursor": cursor,
    }
    if is_for(request, "results"):
        address = f"{request.url.path}{presentation.query({**filters.chosen(), 'cursor': cursor})}"
        headers = {"HX-Push-Url": address}
        return render(request, "breaks.html", context, block="results", headers=headers)
    return render(request, "breaks.html", context)


async def _found(
    institution: Institution, username: str, filters: CaseFilters, cursor: str, now_s: float
) -> tuple[list[Json], str | None]:
    """At least a page of cases that fit, if there are so many; the node's cursor behind them."""
    found: list[Json] = []
    after: str | None = cursor or None
    for _ in range(_MOST_PAGES):
        page = await institution.breaks(
            filters.at_the_node(username) | {"limit": PAGE_SIZE, "cursor": after}
        )
        found += [item for item in page["items"] if filters.fits(item, now_s)]
        after = page["next"]
        if after is None or len(found) >= PAGE_SIZE:
            break
    return found, after


async def _owners(request: Request, institution: Institution) -> dict[str, str]:
    """The institutions whose move it may be, by id: their names in the network's directory."""
    rows = await institution.members()
    names = await names_of(request, institution)
    return {
        row["member_id"]: names[row["member_id"]]
        for row in rows
        if set(row["roles"]) & {"issuer", "acquirer"}
    }


@router.get("/{ref}")
async def case(request: Request, institution: Chosen, user: SignedIn, ref: Ref) -> Response:
    """One case."""
    return await _one(request, institution, user.username, ref)


Key = Annotated[str, Form(max_length=64)]


@router.post("/{ref}/take")
async def take(
    request: Request, institution: Chosen, user: SignedIn, ref: Ref, key: Key = ""
) -> Response:
    """Take the case on in one's own name."""
    return await _desk(request, institution, user, ref, "take", key)


@router.post("/{ref}/release")
async def release(
    request: Request, institution: Chosen, user: SignedIn, ref: Ref, key: Key = ""
) -> Response:
    """Lay it down again."""
    return await _desk(request, institution, user, ref, "release", key)


async def _desk(
    request: Request, institution: Institution, user: User, ref: str, step: str, key: str
) -> Response:
    _may_act(institution, user.username)
    try:
        path, person = f"/v1/breaks/{ref}/{step}", {"person": user.username}
        await institution.act(user.username, path, person, key or secrets.token_hex(16))
    except NotDone as error:
        holder = (await institution.broken(ref))["taken_by"]
        wrong = record_wording.NOT_DONE_OF_CASE.get(error.kind) or wording.not_done(
            error.kind, error.detail
        )
        if error.kind == "case-taken" and holder:
            wrong = f"{holder} has taken this case on before you."
        return await _one(request, institution, user.username, ref, {"take": wrong}, status=409)
    return _to(institution, ref)


@router.post("/{ref}/{move}")
async def move(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    ref: Ref,
    move: Annotated[str, Path(pattern="^(propose|countersign|refuse)$")],
    resolution: Annotated[str, Form(max_length=20)] = "",
    note: Annotated[str, Form(max_length=500)] = "",
    confirm: Annotated[str, Form(max_length=64)] = "",
    key: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Propose a correction, countersign the other institution's, or refuse it."""
    _may_act(institution, user.username)
    typed = {"resolution": resolution, "note": note.strip(), "confirm": confirm.strip()}
    item = await institution.broken(ref)
    wrong: dict[str, str] = {}
    if move == "propose" and resolution not in resolutions(item):
        wrong["resolution"] = "Choose whose version stands."
    if move != "countersign" and not typed["note"]:
        wrong["note"] = "A reason: the other institution reads it."
    if typed["confirm"].lower() != confirmation(ref):
        wrong["confirm"] = f"Type {confirmation(ref)} to confirm."
    if not wrong:
        document: Json = {}
        if move == "propose":
            document = {"resolution": resolution, "note": typed["note"]}
        elif move == "refuse":
            document = {"note": typed["note"]}
        try:
            path = f"/v1/breaks/{ref}/{move}"
            await institution.act(user.username, path, document, key or secrets.token_hex(16))
        except NotDone as error:
            wrong["form"] = record_wording.NOT_DONE_OF_CASE.get(error.kind) or wording.not_done(
                error.kind, error.detail
            )
            return await _one(
                request, institution, user.username, ref, wrong, (move, typed), status=409
            )
        return _to(institution, ref)
    return await _one(request, institution, user.username, ref, wrong, (move, typed), status=422)


def _may_act(institution: Institution, username: str) -> None:
    if not institution.lets_act(username):
        raise Forbidden


def _to(institution: Institution, ref: str) -> Response:
    return RedirectResponse(f"/i/{institution.member_id}/breaks/{ref}", 303)


async def _one(
    request: Request,
    institution: Institution,
    username: str,
    ref: str,
    wrong: dict[str, str] | None = None,
    typed: tuple[str, dict[str, str]] = ("", {}),
    *,
    status: int = 200,
) -> Response:
    item = await institution.broken(ref)
    close = await institution.close_of_day(item["close_id"])
    now_s = request.app.state.console.clock.now_ms() / 1000
    context: dict[str, Any] = {
        "active": "breaks",
        "item": item,
        "close": close,
        "due": due_group(item, now_s),
        "rows": compared(item),
        "resolutions": resolutions(item),
        "moves": moves(item, institution.member_id),
        "workflow": WORKFLOW,
        "reached": WORKFLOW.index(item["state"]),
        "confirmation": confirmation(ref),
        "acts": institution.lets_act(username),
        "names": await names_of(request, institution),
        "wrong": wrong or {},
        "typed_move": typed[0],
        "typed": typed[1],
        "key": secrets.token_hex(16),
    }
    return render(request, "case.html", context, status=status)
