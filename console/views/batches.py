"""Batches: the intervals of the institution's log, each with its transactions and its anchor."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from console.chain import ChainAway
from console.institutions import Json
from console.session import Chosen
from console.templating import is_for, render
from nodes.chain.anchors import Anchor

router = APIRouter(prefix="/i/{member_id}")

Sequence = Annotated[int, Path(ge=1, le=2**62)]
Cursor = Annotated[str, Query(max_length=400)]


@router.get("/batches")
async def batches(request: Request, institution: Chosen, cursor: Cursor = "") -> Response:
    """All batches, the newest first."""
    page = await institution.batches(cursor or None)
    context = {
        "active": "batches",
        "items": page["items"],
        "next_cursor": page["next"],
        "cursor": cursor,
    }
    if is_for(request, "results"):
        return render(request, "batches.html", context, block="results")
    return render(request, "batches.html", context)


@router.get("/batches/{seq}")
async def batch(
    request: Request, institution: Chosen, seq: Sequence, cursor: Cursor = ""
) -> Response:
    """One batch: its place in the log, its anchor, its transactions."""
    page = await institution.batch_transactions(seq, cursor or None)
    context: dict[str, Any] = {
        "active": "batches",
        "seq": seq,
        "items": page["items"],
        "next_cursor": page["next"],
        "cursor": cursor,
    }
    if is_for(request, "results"):
        return render(request, "batch.html", context, block="results")
    context["sealed"] = await institution.batch(seq)
    return render(request, "batch.html", context)


@router.get("/batches/{seq}/chain")
async def compare(request: Request, institution: Chosen, seq: Sequence) -> Response:
    """The anchor as the chain holds it beside what the node says: a fragment of the page."""
    sealed = await institution.batch(seq)
    context: dict[str, Any] = {"sealed": sealed, "anchor": None, "rows": [], "away": False}
    try:
        anchor = await request.app.state.console.chain.anchor(institution.member_id, seq)
    except ChainAway:
        context["away"] = True
    else:
        context["anchor"] = anchor
        context["rows"] = comparison(sealed, anchor) if anchor else []
    return render(request, "anchor_comparison.html", context)


def comparison(sealed: Json, anchor: Anchor) -> list[tuple[str, str, str, bool]]:
    """What the node says and what the chain says: (name, node's, chain's, equal)."""
    rows = (
        ("Log size", sealed["size"], anchor.size),
        ("Root", plain_hex(sealed["root"]), anchor.root.hex()),
        ("Previous root", plain_hex(sealed["prev_root"]), anchor.prev_root.hex()),
        ("Transaction", plain_hex(sealed.get("tx_hash")), anchor.tx_hash.hex()),
        ("Block", sealed.get("block_number"), anchor.block_number),
        ("Block hash", plain_hex(sealed.get("block_hash")), anchor.block_hash.hex()),
    )
    return [
        (name, _text(ours), _text(chains), _text(ours) == _text(chains))
        for name, ours, chains in rows
    ]


def plain_hex(value: Any) -> Any:
    """Hex without the 0x that some write before it."""
    return value.removeprefix("0x").lower() if isinstance(value, str) else value


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else str(value)
