"""Anchors: what the chain itself holds of this institution's log, beside what its node says."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from console.chain import AnchorPage
from console.institutions import Institution, Json, NodeAway, NodeRefusal, NotKnown
from console.session import Chosen
from console.templating import is_for, render
from console.views.batches import plain_hex
from nodes.chain.anchors import Anchor

router = APIRouter(prefix="/i/{member_id}")


@router.get("/anchors")
async def anchors(
    request: Request,
    institution: Chosen,
    before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
) -> Response:
    """The institution's anchors, read from the contract, the newest first."""
    page: AnchorPage = await request.app.state.console.chain.anchors(institution.member_id, before)
    told = await asyncio.gather(*(_batch(institution, anchor.seq) for anchor in page.anchors))
    context: dict[str, Any] = {
        "active": "anchors",
        "head": page.head,
        "rows": [
            {"anchor": anchor, "batch": batch, "agreement": agreement(anchor, batch)}
            for anchor, batch in zip(page.anchors, told, strict=True)
        ],
        "older": page.older,
        "before": before,
        "registry": request.app.state.console.settings.anchor_registry,
    }
    if is_for(request, "results"):
        return render(request, "anchors.html", context, block="results")
    return render(request, "anchors.html", context)


async def _batch(institution: Institution, seq: int) -> Json | str:
    try:
        return await institution.batch(seq)
    except NotKnown:
        return "missing"
    except (NodeAway, NodeRefusal):
        return "away"


def agreement(anchor: Anchor, batch: Json | str) -> str:
    """One of "equal", "different", "missing" (no such batch there) and "away" (no answer)."""
    if isinstance(batch, str):
        return batch
    same = batch["size"] == anchor.size and plain_hex(batch["root"]) == anchor.root.hex()
    return "equal" if same else "different"
