"""Proof inspector: what a proof bundle says, drawn from leaf to root to block, and judged."""

from __future__ import annotations

import re
from collections.abc import Set
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from console.chain import ChainAway, ChainView
from console.institutions import Institution, Json, NotKnown, NotYet
from console.proof import steps_of
from console.proof_path import draw
from console.session import Chosen, names_of
from console.templating import is_for, render
from nodes.anchoring.bundle import HEADER, MAX_BYTES
from nodes.anchoring.verifier import Reason, Verdict, verify
from nodes.chain.anchors import Anchor

router = APIRouter(prefix="/i/{member_id}")

_TXID = re.compile(r"[0-9a-f]{64}\Z")
#: The newest transactions that are offered as examples.
_OFFERED = 6
#: Where on the drawing a refusal belongs: the link that doesn't hold.
BROKEN_LINK = {
    Reason.LEAF_MALFORMED: "leaf",
    Reason.COMMITMENT_MISMATCH: "commitment",
    Reason.NOTE_MALFORMED: "checkpoint",
    Reason.LEAF_MISMATCH: "checkpoint",
    Reason.WRONG_CHAIN: "anchor",
    Reason.UNTRUSTED_REGISTRY: "anchor",
    Reason.NOT_SEALED: "block",
    Reason.BLOCK_MISMATCH: "block",
    Reason.TRANSACTION_NOT_IN_BLOCK: "block",
    Reason.RECEIPT_NOT_IN_BLOCK: "block",
    Reason.EVENT_NOT_IN_RECEIPT: "block",
    Reason.SEAL_INVALID: "block",
    Reason.SEALER_UNKNOWN: "block",
    Reason.SEALS_TOO_FEW: "block",
    Reason.NOT_ANCHORED: "anchor",
    Reason.SIZE_MISMATCH: "anchor",
    Reason.ROOT_MISMATCH: "anchor",
    Reason.ANCHOR_MISMATCH: "block",
    Reason.KEY_NOT_VALID_AT_BLOCK: "signature",
    Reason.SIGNATURE_INVALID: "signature",
    Reason.META_MISMATCH: "anchor",
    Reason.NOT_INCLUDED: "root",
}


@router.get("/proofs")
async def inspector(
    request: Request,
    institution: Chosen,
    txid: Annotated[str, Query(max_length=80)] = "",
    side: Annotated[str, Query(max_length=16)] = "",
) -> Response:
    """The empty inspector; with `txid` the proof of one of the institution's transactions."""
    txid = txid.strip().lower()
    if not txid:
        return await _page(request, institution, {})
    context: Json = {"txid": txid}
    if not _TXID.match(txid):
        context["wrong"] = "A transaction id has 64 hexadecimal digits."
        return await _page(request, institution, context, 422)
    try:
        raw = await institution.proof(txid, side or None)
    except NotKnown:
        context["wrong"] = f"{institution.name} has no such transaction."
        return await _page(request, institution, context, 404)
    except NotYet:
        context["wrong"] = "There is no proof yet: its batch isn't final on the chain."
        return await _page(request, institution, context, 409)
    return await _page(request, institution, context | await judged(request, raw))


@router.post("/proofs")
async def inspect(
    request: Request, institution: Chosen, bundle: Annotated[str, Form()] = ""
) -> Response:
    """Draw and judge a bundle that was pasted or read from a file."""
    raw = canonical(bundle)
    if not raw.strip():
        wrong = {"wrong": f"Paste a proof: a text that begins with {HEADER}."}
        return await _page(request, institution, wrong, 422)
    if len(raw) > MAX_BYTES:
        wrong = {"wrong": f"No proof is larger than {MAX_BYTES:,} bytes."}
        return await _page(request, institution, wrong, 422)
    return await _page(request, institution, await judged(request, raw))


def canonical(pasted: str) -> bytes:
    """The bytes of a bundle as a form brings them: forms write line ends as CRLF, and people paste
    blank lines before and behind. What else was changed stays changed."""
    text = pasted.replace("\r\n", "\n").strip("\n \t")
    return (text + "\n").encode() if text else b""


async def judged(request: Request, raw: bytes) -> Json:
    """The drawing, and the verdict by the console's own look at the chain."""
    found: Json = {"drawing": draw(raw), "verdict": None, "steps": [], "anchor": None, "link": ""}
    console = request.app.state.console
    try:
        verdict, anchor = await console.chain.ask(_question(raw, console.settings.sealers))
    except ChainAway:
        return found
    reason = verdict.reason
    found |= {
        "verdict": verdict,
        "reason": reason,
        "detail": _detail(verdict),
        "steps": steps_of(verdict, anchor),
        "anchor": anchor,
        "link": BROKEN_LINK.get(reason, "file") if reason else "",
    }
    return found


def _question(raw: bytes, validators: Set[bytes] | None) -> Any:
    def ask(view: ChainView) -> tuple[Verdict, Anchor | None]:
        return verify(raw, view, validators), view.seen

    return ask


def _detail(verdict: Verdict) -> str:
    """What the verifier adds to the reason's meaning, if anything."""
    detail = str(verdict.details.get("detail", "")) if verdict.reason else ""
    return "" if verdict.reason and detail == verdict.reason.meaning else detail


async def _page(
    request: Request, institution: Institution, context: Json, status: int = 200
) -> Response:
    everything: dict[str, Any] = {
        "active": "proofs",
        "txid": "",
        "wrong": "",
        "drawing": None,
        **context,
        "names": await names_of(request, institution),
    }
    if is_for(request, "results"):
        return render(request, "proofs.html", everything, block="results", status=status)
    everything["examples"] = await _anchored(institution)
    return render(request, "proofs.html", everything, status=status)


async def _anchored(institution: Institution) -> list[Json]:
    """Some transactions of the newest anchored batch."""
    batches = (await institution.batches(None, 20))["items"]
    newest = next((batch for batch in batches if batch["state"] == "ANCHORED"), None)
    if newest is None:
        return []
    page = await institution.batch_transactions(newest["seq"], None, _OFFERED)
    items: list[Json] = page["items"]
    return items
