"""The overview of one institution: figures, chart, live transactions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from console import presentation, wording
from console.institutions import Institution
from console.live import FeedState, Heartbeat
from console.session import Chosen, SignedIn, cookie_name
from console.templating import is_for, render, zone_of

router = APIRouter(prefix="/i/{member_id}")

#: How far back the chart can reach, in minutes, and what the choice is called.
SPANS = {15: "15 min", 60: "1 h", 240: "4 h", 1440: "24 h"}
#: How many transactions the live list holds.
LIVE_ROWS = 12
#: A live stream may outlive its session by this many seconds (and one heartbeat).
SESSION_CHECK_S = 5.0
#: Columns of the chart: longer spans are added up to about so many bars.
_BARS = 60


@router.get("/overview")
async def overview(
    request: Request,
    institution: Chosen,
    minutes: Annotated[int, Query(ge=1, le=1440)] = 60,
) -> Response:
    """The page; or, polled by it, its figures alone."""
    answer = await institution.overview(minutes)
    context = {"active": "overview", "spans": SPANS, "minutes": minutes, **figures(answer)}
    context["chart"] = chart(answer, minutes, request)
    page = await institution.transactions({"limit": LIVE_ROWS})
    context["items"] = page["items"]
    context["live_rows"] = LIVE_ROWS
    if is_for(request, "figures"):
        return render(request, "overview_update.html", context)
    return render(request, "overview.html", context)


def figures(answer: dict[str, Any]) -> dict[str, Any]:
    """The numbers above and beside the chart, from the node's overview."""
    totals = answer["totals"]
    decided = totals["approved"] + totals["declined"]
    log = answer["log"]
    declines = sorted(answer["declines"].items(), key=lambda entry: -entry[1])
    return {
        "totals": totals,
        "approval_rate": totals["approved"] / decided if decided else None,
        "log": log,
        "coverage": log["anchored_size"] / log["size"] if log["size"] else None,
        "declines": declines,
        "declined_in_span": sum(count for _, count in declines),
        "accounts": answer["accounts"],
        "open_work": answer["open_work"],
    }


def chart(answer: dict[str, Any], minutes: int, request: Request) -> dict[str, Any]:
    """The chart's series: one bar a minute, or several minutes added up in a long span."""
    tz = zone_of(request)
    volume = answer["volume"]
    width = max(1, -(-minutes // _BARS))
    groups = [volume[start : start + width] for start in range(0, len(volume), width)]
    labels = []
    for group in groups:
        moment = presentation.moment(group[0]["minute"])
        labels.append(f"{moment.astimezone(tz):%H:%M}" if moment else "")
    currency = answer["totals"].get("currency", "CNY")
    scale = 10 ** presentation.exponent(currency)
    return {
        "labels": labels,
        "approved": [sum(row["approved"] for row in group) for group in groups],
        "declined": [sum(row["declined"] for row in group) for group in groups],
        "amount": [sum(row["amount"] for row in group) / scale for group in groups],
        "currency": currency,
        "bar": f"{width} min",
        "names": wording.CHART,
    }


@router.get("/live")
async def live(request: Request, institution: Chosen, user: SignedIn) -> Response:
    """Server-sent events: rows of new transactions, and whether the node answers."""
    return StreamingResponse(
        _events(request, institution),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


async def _events(request: Request, institution: Institution) -> AsyncIterator[str]:
    template = request.app.state.console.templates.env.get_template("live_row.html")
    checked = time.monotonic()
    yield "retry: 1000\n\n"
    async for entry in institution.feed.watch():
        if time.monotonic() - checked > SESSION_CHECK_S:
            if not await _still_allowed(request, institution):
                yield _event("signed-out", "")
                return
            checked = time.monotonic()
        if isinstance(entry, Heartbeat):
            yield ": alive\n\n"
        elif isinstance(entry, FeedState):
            yield _event("feed", entry.value)
        else:
            row = template.render(item=entry, institution=institution, tz=zone_of(request))
            yield _event(None, row)


async def _still_allowed(request: Request, institution: Institution) -> bool:
    access = request.app.state.console.access
    cookie = request.cookies.get(cookie_name(request))
    user = await run_in_threadpool(access.user_of, cookie, active=False)
    return user is not None and institution.member_id in user.members


def _event(name: str | None, data: str) -> str:
    head = f"event: {name}\n" if name else ""
    body = "\n".join(f"data: {line}" for line in (data.splitlines() or [""]))
    return f"{head}{body}\n\n"
