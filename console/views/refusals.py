"""What the acquirer's terminals were told without any transaction of that."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from console import presentation
from console.session import Chosen, SignedIn
from console.templating import is_for, render
from console.views.terminals import PAGE_SIZE, acquirers_only

router = APIRouter(prefix="/i/{member_id}/refusals")


@router.get("")
async def refusals(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    terminal_id: Annotated[str, Query(max_length=8)] = "",
    merchant_id: Annotated[str, Query(max_length=15)] = "",
    cursor: Annotated[str, Query(max_length=400)] = "",
) -> Response:
    """The newest first; filters stand in the address."""
    acquirers_only(institution)
    chosen = {"terminal_id": terminal_id.strip(), "merchant_id": merchant_id.strip()}
    filters = {name: value for name, value in chosen.items() if value}
    page = await institution.refusals({**filters, "cursor": cursor or None, "limit": PAGE_SIZE})
    context = {
        "active": "refusals",
        "filters": filters,
        "items": page["items"],
        "next_cursor": page["next"],
        "cursor": cursor,
    }
    if is_for(request, "results"):
        address = f"{request.url.path}{presentation.query({**filters, 'cursor': cursor})}"
        headers = {"HX-Push-Url": address}
        return render(request, "refusals.html", context, block="results", headers=headers)
    return render(request, "refusals.html", context)
