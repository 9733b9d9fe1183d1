"""Members: the network's directory, as the node knows it and as the chain holds it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from console.chain import ChainAway
from console.institutions import Json
from console.session import Chosen
from console.templating import render
from nodes.chain.directory import Member

router = APIRouter(prefix="/i/{member_id}")


@router.get("/members")
async def members(request: Request, institution: Chosen) -> Response:
    """All members of the network."""
    known = await institution.members()
    chain: dict[str, Member] | None
    try:
        chain = {row.member_id: row for row in await request.app.state.console.chain.members()}
    except ChainAway:
        chain = None
    context: dict[str, Any] = {
        "active": "members",
        "members": [{"row": row, "agreement": _agreement(row, chain)} for row in known],
        "registry": request.app.state.console.settings.member_registry,
    }
    return render(request, "members.html", context)


def _agreement(row: Json, chain: dict[str, Member] | None) -> str:
    """Whether the node's directory says what the chain says: "equal", "different", "unknown"."""
    if chain is None:
        return "unknown"
    member = chain.get(row["member_id"])
    if member is None:
        return "different"
    same = (
        set(row["roles"]) == set(member.roles)
        and list(row["bins"]) == list(member.bins)
        and row["operator"].lower() == member.operator.lower()
        and row["active"] == member.active
    )
    return "equal" if same else "different"
