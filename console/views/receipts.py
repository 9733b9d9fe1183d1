"""Receipts: what became of the promise on one, by its code or by what is printed on it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from console import presentation
from console.chain import ChainAway
from console.institutions import Institution, Json, NodeAway, NodeRefusal, NotKnown, NotYet
from console.receipts import Asked, Findings, Place, asked, of_promise, state_of
from console.session import Chosen
from console.templating import is_for, render, zone_of
from nodes.anchoring.chain_view import TrustedChain
from nodes.anchoring.receipt import Promise, PromiseMalformed, parse_promise, promise_is_signed
from nodes.anchoring.verifier import Verdict, verify
from nodes.api.client import NodeClient, NodeRefused, NodeUnreachable
from nodes.chain.challenges import Claim, OmissionRegistry

router = APIRouter(prefix="/i/{member_id}")

_FORMS = {
    "txid": (re.compile(r"[0-9a-f]{64}\Z"), "A transaction id has 64 hexadecimal digits."),
    "rrn": (re.compile(r"[0-9]{12}\Z"), "An RRN has twelve digits."),
    "terminal_id": (re.compile(r"[0-9A-Za-z]{8}\Z"), "A terminal's id has eight characters."),
}
_MOST = 12
_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Looked:
    """One receipt: its promise, what was found, and its state's name."""

    state: str
    promise: Promise | None = None
    found: Findings | None = None
    record: Json | None = None
    proof: str = ""


@router.get("/receipts")
async def receipts(
    request: Request,
    institution: Chosen,
    txid: Annotated[str, Query(max_length=80)] = "",
    rrn: Annotated[str, Query(max_length=20)] = "",
    terminal_id: Annotated[str, Query(max_length=16)] = "",
    day: Annotated[str, Query(max_length=10)] = "",
) -> Response:
    """The empty page; or the receipts of the transactions that fit what is printed on one."""
    filters = {
        "txid": txid.strip().lower(),
        "rrn": rrn.strip(),
        "terminal_id": terminal_id.strip(),
        "day": day,
    }
    filters = {name: value for name, value in filters.items() if value}
    query, wrong = _query(request, filters)
    looked: list[Looked] = []
    more = False
    if query and not wrong:
        page = await institution.transactions({**query, "limit": _MOST})
        more = page["next"] is not None
        looked = list(
            await asyncio.gather(*(_of_record(request, institution, row) for row in page["items"]))
        )
    context: dict[str, Any] = {"filters": filters, "wrong": wrong, "looked": looked, "more": more}
    return _page(request, context | {"searched": bool(filters)}, 422 if wrong else 200)


@router.post("/receipts")
async def receipt(
    request: Request,
    institution: Chosen,
    member: Annotated[str, Form(max_length=40)] = "",
    txid: Annotated[str, Form(max_length=64)] = "",
    commitment: Annotated[str, Form(max_length=64)] = "",
    deadline: Annotated[str, Form(max_length=20)] = "",
    signature: Annotated[str, Form(max_length=130)] = "",
    key: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """What became of a promise that the page's script has read. A POST: nothing of it stands in
    an address, and the salt isn't among it."""
    read = asked(
        {
            "member": member, "txid": txid, "commitment": commitment,
            "deadline": deadline, "signature": signature, "key": key,
        }
    )  # fmt: skip
    if read is None:
        wrong = {"code": "This is not a receipt's promise in canonical form (PROMISE_MALFORMED)."}
        return _page(request, {"wrong": wrong}, 422)
    raw, place = await _proof_for_holder(request, institution, read)
    record = None
    if read.promise.member_id == institution.member_id:
        with contextlib.suppress(NotKnown):  # that the books lack it, the promise's state tells
            record = await institution.transaction(txid)
    looked = await _judged(request, read.promise, raw, place, record)
    return _page(request, {"looked": [looked], "by_code": True, "searched": True})


def _query(request: Request, filters: dict[str, str]) -> tuple[Json, dict[str, str]]:
    """The filters as the node takes them, and what is wrong with them."""
    query: Json = {}
    wrong: dict[str, str] = {}
    for name, (form, text) in _FORMS.items():
        if name not in filters:
            continue
        if form.match(filters[name]):
            query[name] = filters[name]
        else:
            wrong[name] = text
    if "day" in filters:
        start = presentation.moment(
            presentation.typed_moment(f"{filters['day']}T00:00", zone_of(request))
        )
        if start is None:
            wrong["day"] = "A day, such as 2026-11-22."
        else:
            query["from"] = presentation.rfc3339(start)
            query["to"] = presentation.rfc3339(start + timedelta(days=1))
    return query, wrong


async def _of_record(request: Request, institution: Institution, record: Json) -> Looked:
    """The receipt of one of the institution's own transactions."""
    try:
        promise = parse_promise((await institution.promise(record["txid"]))["promise"])
    except NotKnown:
        return Looked("none", record=record)
    except (NodeAway, NodeRefusal, PromiseMalformed):
        return Looked("unknown", record=record)
    raw, place = None, Place.of(record["anchor_state"])
    try:
        raw, place = await institution.proof(record["txid"], record["side"]), Place.ANCHORED
    except NotYet:
        pass
    except NotKnown:
        place = Place.MISSING
    except (NodeAway, NodeRefusal):
        place = Place.AWAY
    return await _judged(request, promise, raw, place, record)


async def _proof_for_holder(
    request: Request, institution: Institution, read: Asked
) -> tuple[bytes | None, Place]:
    """The proof as the member's node gives it to whoever holds the receipt, and how far it is."""
    promise = read.promise
    path = f"/v1/receipts/{promise.txid.hex()}/proof"
    mine: list[Institution] = request.state.page["institutions"]
    known = next((item for item in mine if item.member_id == promise.member_id), None)
    try:
        if known is not None:
            return (await known.client.get_text(path, key=read.key)).encode(), Place.ANCHORED
        members = await request.app.state.console.chain.members()
        found = next((row for row in members if row.member_id == promise.member_id), None)
        if found is None:
            return None, Place.AWAY
        async with NodeClient(found.api_url, timeout_s=_TIMEOUT_S, connect_timeout_s=1) as client:
            return (await client.get_text(path, key=read.key)).encode(), Place.ANCHORED
    except NodeRefused as error:
        if error.status == 409:
            return None, Place.of(error.problem.get("state"))
        return None, Place.MISSING if error.status == 404 else Place.AWAY
    except (NodeUnreachable, ChainAway, ValueError):  # ValueError: no address of a node
        return None, Place.AWAY


async def _judged(
    request: Request,
    promise: Promise,
    raw: bytes | None,
    place: Place,
    record: Json | None = None,
) -> Looked:
    """The promise beside the chain."""
    console = request.app.state.console

    def ask(view: TrustedChain, omissions: OmissionRegistry | None) -> Findings:
        signed: bool | None = None
        claim: Claim | None = None
        if omissions is not None:
            signed = promise_is_signed(promise, view)
            claim = omissions.claim(promise.member_id, promise.txid, promise.commitment)
        verdict: Verdict | None = None
        anchored_s = None
        if raw is not None:
            verdict = verify(raw, view, console.settings.sealers)
            if verdict.anchor and of_promise(verdict, promise):
                anchored_s = verdict.anchor.timestamp
        return Findings(place, signed, verdict, anchored_s, claim)

    try:
        found = await console.chain.ask_of_receipts(ask)
    except ChainAway:
        found = Findings(place, None)
    state = state_of(promise, found, console.clock.now_ms() / 1000)
    return Looked(state, promise, found, record, raw.decode("utf-8", "replace") if raw else "")


def _page(request: Request, context: Json, status: int = 200) -> Response:
    console = request.app.state.console
    everything: dict[str, Any] = {
        "active": "receipts",
        "filters": {},
        "wrong": {},
        "looked": [],
        "more": False,
        "searched": False,
        "by_code": False,
        **context,
        "now_s": console.clock.now_ms() // 1000,
        "omissions": console.settings.omission_registry,
        "names": {item.member_id: item.name for item in request.state.page["institutions"]},
    }
    block = "results" if is_for(request, "results") else None
    return render(request, "receipts.html", everything, block=block, status=status)
