"""Transactions as a file: exactly those that the filters in the address leave, all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from console import exported
from console.institutions import BadQuestion, Institution, Json
from console.session import Chosen
from console.templating import zone_of
from console.views.transactions import CURRENCY, Filters
from nodes.clock import to_datetime

router = APIRouter(prefix="/i/{member_id}")

#: Transactions asked of the node at once.
_PAGE = 200
#: Longest filter that is read, in characters.
_LONGEST = 80


@router.get("/transactions.csv")
async def transactions(request: Request, institution: Chosen) -> Response:
    """The list as CSV, the newest first, page after page as the node gives them: however long it
    is, the console holds one page. If the node goes away meanwhile the download fails."""
    typed = request.query_params
    texts = {each.name: typed.get(each.name, "").strip()[:_LONGEST] for each in fields(Filters)}
    filters = Filters(**texts)
    query, wrong = filters.for_node(zone_of(request), CURRENCY)
    if wrong:
        raise BadQuestion(" ".join(wrong.values()))
    query["limit"] = _PAGE
    first = await institution.transactions(query)
    today = to_datetime(request.app.state.console.clock.now_ms()).astimezone(zone_of(request))
    name = f"{institution.member_id}-transactions-{today:%Y-%m-%d}.csv"
    return StreamingResponse(
        _lines(institution, query, first),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


async def _lines(institution: Institution, query: Json, page: Json) -> AsyncIterator[str]:
    yield exported.heading()
    while True:
        yield exported.rows(page["items"])
        if page["next"] is None:
            return
        page = await institution.transactions({**query, "cursor": page["next"]})
