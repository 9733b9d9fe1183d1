"""Logs: the logs and anchors of all members side by side, as the chain has them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from console import presentation
from console.chain import MemberLog
from console.institutions import Institution, Json, NodeAway, NodeRefusal
from console.logs import Told
from console.session import Chosen
from console.templating import is_for, render, zone_of
from nodes.api.client import NodeClient, NodeRefused, NodeUnreachable

router = APIRouter(prefix="/i/{member_id}")

#: How many anchors the chart can reach back, and what the choice is called.
REACHES = {50: "50 anchors", 500: "500 anchors", 0: "All"}
ROLES = ("issuer", "acquirer", "merchant")
#: Members' nodes are asked one checkpoint each; one that is slow is away.
_TIMEOUT_S = 3.0


@router.get("/logs")
async def logs(
    request: Request,
    institution: Chosen,
    last: Annotated[int, Query(ge=0, le=500)] = 0,
    role: Annotated[str, Query(max_length=16)] = "",
) -> Response:
    """The page; or, polled by it, the logs as they are now."""
    console = request.app.state.console
    last = last if last in REACHES else 0
    role = role if role in ROLES else ""
    mine = {item.member_id: item for item in request.state.page["institutions"]}
    told, books = await asyncio.gather(
        _told(request, mine), asyncio.gather(*(_books(item) for item in mine.values()))
    )
    own = dict(zip(mine, books, strict=True))
    found: list[MemberLog] = await console.chain.logs(told, last or None)
    shown = [log for log in found if not role or role in log.member.roles]
    rows = [
        {
            "log": log,
            "told": told.get(log.member.member_id, Told(None)),
            "own": own.get(log.member.member_id),
        }
        for log in shown
    ]
    context: dict[str, Any] = {
        "active": "logs",
        "rows": rows,
        "troubles": sum(log.agreement.is_trouble for log in shown),
        "chart": chart(shown, request),
        "filters": {"role": role, "last": last},
        "roles": ROLES,
        "reaches": REACHES,
        "now_s": console.clock.now_ms() // 1000,
        "registry": console.settings.anchor_registry,
    }
    if is_for(request, "figures"):
        return render(request, "logs_figures.html", context)
    return render(request, "logs.html", context)


async def _told(request: Request, mine: dict[str, Institution]) -> dict[str, Told]:
    """Every member's newest checkpoint: by the console's own way to a node, or by the address that
    the chain's directory has."""
    members = [
        member for member in await request.app.state.console.chain.members() if member.active
    ]

    async def one(member_id: str, api_url: str) -> Told:
        try:
            if member_id in mine:
                return Told(await _checkpoint(mine[member_id].client))
            async with NodeClient(api_url, timeout_s=_TIMEOUT_S, connect_timeout_s=1) as client:
                return Told(await _checkpoint(client))
        except (NodeUnreachable, NodeRefused, ValueError):  # ValueError: no address of a node
            return Told(None)

    answers = await asyncio.gather(*(one(row.member_id, row.api_url) for row in members))
    return {row.member_id: answer for row, answer in zip(members, answers, strict=True)}


async def _checkpoint(client: NodeClient) -> str:
    """The newest anchored checkpoint; "" if there is none."""
    try:
        return await asyncio.wait_for(client.get_text("/checkpoint"), _TIMEOUT_S)
    except NodeRefused as error:
        if error.status == 404:
            return ""
        raise
    except TimeoutError:
        raise NodeUnreachable(client.name, sent=True, why="no answer in time") from None


async def _books(institution: Institution) -> Json | None:
    """What the institution's own node says of the state of its log; None if it is away."""
    try:
        found: Json = (await institution.overview(1))["log"]
    except (NodeAway, NodeRefusal):
        return None
    return found


def chart(found: list[MemberLog], request: Request) -> Json:
    """Each log's size over time, for the chart: moments in milliseconds, and as they are shown."""
    tz = zone_of(request)
    return {
        "series": [
            {
                "id": log.member.member_id,
                "name": log.member.name,
                "points": [
                    [seconds * 1000, size, presentation.block_time(seconds, tz)]
                    for seconds, size in log.growth
                ],
            }
            for log in found
            if log.growth
        ],
        "offset_ms": presentation.offset_ms(
            max((log.growth[-1][0] for log in found if log.growth), default=0), tz
        ),
        "nothing": "Nothing is anchored yet",
        "entries": "entries",
    }
