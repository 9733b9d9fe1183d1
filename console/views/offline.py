"""Offline payments: what people must look at, and what is lacking in terminals' chains."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from console import presentation
from console.institutions import NotKnown
from console.session import Chosen
from console.templating import is_for, render

router = APIRouter(prefix="/i/{member_id}/offline")

#: Kind of an alarm -> words, and what has happened.
ALARMS = {
    "clone": (
        "Copied card",
        "Its counter has paid two payments. Posted as owed; the card is listed.",
    ),
    "cryptogram": (
        "Chip's word in doubt",
        "Posted, but the chip's cryptogram doesn't bear it out.",
    ),
    "invalid": ("Not the card's", "The card hasn't signed this record. Refused."),
    "fork": ("Two records in one place", "The terminal's chain has another record there. Refused."),
    "cap": ("Over the cap", "Posted, but larger than one offline payment may be."),
    "refused": ("Refused later", "The terminal was told yes; its issuer refused it afterwards."),
}
PAGE_SIZE = 25
_CHAINS = 50


@router.get("")
async def offline(
    request: Request,
    institution: Chosen,
    kind: Annotated[str, Query(max_length=16)] = "",
    cursor: Annotated[str, Query(max_length=400)] = "",
) -> Response:
    """Alarms, the newest first; an acquirer's terminals' chains below them."""
    if not {"issuer", "acquirer"} & {*institution.roles}:
        raise NotKnown
    filters = {"kind": kind} if kind in ALARMS else {}
    page = await institution.offline_alarms(
        {**filters, "cursor": cursor or None, "limit": PAGE_SIZE}
    )
    context: dict[str, Any] = {
        "active": "offline",
        "alarms": ALARMS,
        "filters": filters,
        "items": page["items"],
        "next_cursor": page["next"],
        "cursor": cursor,
        "chains": [],
    }
    if is_for(request, "results"):
        address = f"{request.url.path}{presentation.query({**filters, 'cursor': cursor})}"
        headers = {"HX-Push-Url": address}
        return render(request, "offline.html", context, block="results", headers=headers)
    if "acquirer" in institution.roles:
        context["chains"] = (await institution.offline_chains({"limit": _CHAINS}))["items"]
    return render(request, "offline.html", context)
