"""Day close: the board of pairs by business dates, and one close."""

from __future__ import annotations

import asyncio
import secrets
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from console.chain import ChainAway
from console.close_board import STAGES, board, group_of
from console.institutions import Institution, Json, NodeAway, NodeRefusal
from console.session import Chosen, SignedIn, names_of
from console.templating import is_for, render

router = APIRouter(prefix="/i/{member_id}/closes")

CloseId = Annotated[int, Path(ge=1, lt=1 << 62)]
SPANS = {7: "7 days", 14: "14 days", 30: "30 days"}
SCOPES = ("own", "all")
_PAGE = 500
#: Closes that are read for a board: 30 days of some dozen pairs with their revisions.
_MOST = 1500


@router.get("")
async def closes(
    request: Request,
    institution: Chosen,
    days: Annotated[int, Query(ge=1, le=30)] = 14,
    until: Annotated[str, Query(max_length=10)] = "",
    scope: Annotated[str, Query(max_length=8)] = "own",
) -> Response:
    """The board; or, polled by it, what is on it now."""
    days = days if days in SPANS else 14
    scope = scope if scope in SCOPES else "own"
    last, wrong = _date(until)
    mine: list[Institution] = request.state.page["institutions"]
    asked = mine if scope == "all" else [institution]
    told = await asyncio.gather(*(_closes(item, alone=scope == "own") for item in asked))
    known = {
        item.member_id: found for item, found in zip(asked, told, strict=True) if found is not None
    }
    context: dict[str, Any] = {
        "active": "closes",
        "board": board({member: found[0] for member, found in known.items()}, last, days),
        "away": [item.name for item in asked if item.member_id not in known],
        "cut": any(found[1] for found in known.values()),
        "filters": {"days": days, "until": until if not wrong else "", "scope": scope},
        "wrong": wrong,
        "spans": SPANS,
        "several": len(mine) > 1,
        "names": await names_of(request, institution),
    }
    status = 422 if wrong else 200
    if is_for(request, "figures"):
        return render(request, "closes_board.html", context, status=status)
    return render(request, "closes.html", context, status=status)


def _date(text: str) -> tuple[date | None, str]:
    if not text:
        return None, ""
    try:
        return date.fromisoformat(text), ""
    except ValueError:
        return None, "A day, such as 2026-11-22."


async def _closes(institution: Institution, *, alone: bool) -> tuple[list[Json], bool] | None:
    """The newest closes that an institution's node tells of, and whether there are more; None if
    it is away (one that is asked alone is then an error)."""
    found: list[Json] = []
    cursor = None
    try:
        while len(found) < _MOST:
            page = await institution.closes({"limit": _PAGE, "cursor": cursor})
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                break
    except (NodeAway, NodeRefusal):
        if alone:
            raise
        return None
    return found, cursor is not None


@router.get("/{close_id}")
async def close(
    request: Request, institution: Chosen, user: SignedIn, close_id: CloseId
) -> Response:
    """One close with its numbers, stages and breaks, and what the chain says of it."""
    found = await institution.close_of_day(close_id)
    party = found["party"]
    other = found["issuer"] if party == "acquirer" else found["acquirer"]
    revisions = await institution.closes(
        {"business_date": found["business_date"], "counterparty": other, "limit": 50}
    )
    in_panel = is_for(request, "close-panel")
    context: dict[str, Any] = {
        "active": "closes",
        "in_panel": in_panel,
        "item": found,
        "acts": institution.lets_act(user.username),
        "key": secrets.token_hex(16),
        "group": group_of(found["stage"]),
        "stages": sorted(found["stages"], key=lambda entry: STAGES.index(entry["stage"])),
        "revisions": [row for row in revisions["items"] if row["currency"] == found["currency"]],
        "names": await names_of(request, institution),
        **await _on_chain(request, found),
    }
    if in_panel:
        return render(request, "close.html", context, block="content")
    return render(request, "close.html", context)


async def _on_chain(request: Request, found: Json) -> Json:
    """What the CloseRegistry holds of this revision, read by the console itself."""
    console = request.app.state.console
    if console.settings.close_registry is None:
        return {"chain": None, "chain_word": "unset"}
    try:
        held = await console.chain.close_round(
            found["acquirer"],
            found["issuer"],
            found["currency"],
            date.fromisoformat(found["business_date"]),
            found["revision"],
        )
    except ChainAway:
        return {"chain": None, "chain_word": "away"}
    side, other = (
        (held.acquirer, held.issuer)
        if found["party"] == "acquirer"
        else (held.issuer, held.acquirer)
    )
    return {"chain": held, "chain_word": "read", "chain_own": side, "chain_other": other}
