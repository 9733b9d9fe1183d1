"""Transactions: the list with its filters, one transaction to its proof, and the Verify button."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import tzinfo
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from console import presentation, wording
from console.chain import ChainAway
from console.institutions import Institution, Json, NodeAway, NodeRefusal, NotKnown, NotYet
from console.proof import check_proof
from console.session import Chosen, SignedIn
from console.templating import is_for, render, zone_of
from nodes.clock import to_datetime

router = APIRouter(prefix="/i/{member_id}")

_TXID = re.compile(r"[0-9a-f]{64}\Z")
#: What the search box recognizes, in this order: a name of a filter and the form of its values.
_SEARCH = (
    ("txid", _TXID),
    ("card_token", re.compile(r"[0-9a-f]{32}\Z")),
    ("rrn", re.compile(r"[0-9]{12}\Z")),
    ("terminal_id", re.compile(r"[0-9A-Za-z]{8}\Z")),
    ("merchant_id", re.compile(r"[0-9A-Za-z]{15}\Z")),
)
PAGE_SIZE = 25
#: In which amounts are typed.
CURRENCY = "CNY"
#: A payment's story: how many transactions are shown, and over how many others one is found.
_STORY_STEPS = 30
_STORY_REACH = 3


@dataclass(frozen=True)
class Filters:
    """The list's filters as they stand in the address: texts, as people typed them."""

    q: str = ""
    kind: str = ""
    outcome: str = ""
    side: str = ""
    merchant_id: str = ""
    terminal_id: str = ""
    rrn: str = ""
    card_token: str = ""
    start: str = ""
    end: str = ""
    min_amount: str = ""
    max_amount: str = ""

    def chosen(self) -> dict[str, str]:
        """Those that are set, for links."""
        return {name: value for name, value in vars(self).items() if value}

    def for_node(self, tz: tzinfo, currency: str) -> tuple[Json, dict[str, str]]:
        """As the node API takes them, and what is wrong with those that it can't take."""
        wrong: dict[str, str] = {}
        query: Json = {}
        for name in ("kind", "outcome", "side", "merchant_id", "terminal_id", "rrn", "card_token"):
            if getattr(self, name):
                query[name] = getattr(self, name)
        if self.q:
            text = self.q.strip()
            for name, form in _SEARCH:
                if form.match(text.lower() if name in ("txid", "card_token") else text):
                    query[name] = text.lower() if name in ("txid", "card_token") else text
                    break
            else:
                wrong["q"] = (
                    "Search by transaction id (64 hex digits), card token (32), RRN (12 digits), "
                    "terminal (8 characters) or merchant (15)."
                )
        for name, target in (("start", "from"), ("end", "to")):
            if text := getattr(self, name):
                value = presentation.typed_moment(text, tz)
                if value is None:
                    wrong[name] = "A day, or a day and a time: 2026-11-22 or 2026-11-22T14:30."
                else:
                    query[target] = value
        for name in ("min_amount", "max_amount"):
            if text := getattr(self, name):
                minor = presentation.minor_units(text, currency)
                if minor is None:
                    wrong[name] = f"An amount in {currency}, such as 12.50."
                else:
                    query[name] = minor
        return query, wrong


def _text(limit: int) -> Any:
    return Query(max_length=limit)


@router.get("/transactions")
async def transactions(
    request: Request,
    institution: Chosen,
    q: Annotated[str, _text(80)] = "",
    kind: Annotated[str, _text(32)] = "",
    outcome: Annotated[str, _text(40)] = "",
    side: Annotated[str, _text(16)] = "",
    merchant_id: Annotated[str, _text(32)] = "",
    terminal_id: Annotated[str, _text(32)] = "",
    rrn: Annotated[str, _text(32)] = "",
    card_token: Annotated[str, _text(64)] = "",
    start: Annotated[str, _text(32)] = "",
    end: Annotated[str, _text(32)] = "",
    min_amount: Annotated[str, _text(20)] = "",
    max_amount: Annotated[str, _text(20)] = "",
    cursor: Annotated[str, _text(400)] = "",
) -> Response:
    """The list; the address holds its filters, so that it can be kept and sent to a colleague."""
    filters = Filters(
        q.strip(), kind, outcome, side, merchant_id.strip(), terminal_id.strip(), rrn.strip(),
        card_token.strip(), start, end, min_amount.strip(), max_amount.strip(),
    )  # fmt: skip
    query, wrong = filters.for_node(zone_of(request), CURRENCY)
    page: Json = {"items": [], "next": None}
    if not wrong:
        page = await institution.transactions(
            {**query, "limit": PAGE_SIZE, "cursor": cursor or None}
        )
    context = {
        "active": "transactions",
        "filters": filters,
        "wrong": wrong,
        "items": page["items"],
        "next_cursor": page["next"],
        "cursor": cursor,
        "kinds": wording.KINDS,
        "outcomes": wording.OUTCOMES,
        "sides": [side for side in ("issuer", "acquirer", "merchant") if side in institution.roles],
    }
    status = 422 if wrong else 200
    address = f"{request.url.path}{presentation.query({**filters.chosen(), 'cursor': cursor})}"
    if is_for(request, "results"):
        headers = {"HX-Push-Url": address}
        return render(
            request, "transactions.html", context, block="results", status=status, headers=headers
        )
    return render(request, "transactions.html", context, status=status)


@router.get("/transactions/{txid}")
async def transaction(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    txid: str,
    side: Annotated[str, _text(16)] = "",
) -> Response:
    """One transaction: what it was, what it moved, and its way to the chain."""
    record = await _record(institution, txid, side)
    batch = None
    if record.get("batch_seq") is not None:
        batch = await institution.batch(record["batch_seq"])
    context = {
        "active": "transactions",
        "record": record,
        "decision": record["decision"],
        "steps": await story(institution, record),
        "sealed_in": batch,
        "way": way(record),
        "may_dispute": _is_paid(record) and institution.lets_act(user.username),
        "others": _other_parties(request, institution, record),
        "prints": bool(record["side"] == "acquirer" and record["terminal_id"])
        and institution.lets_print(user.username),
        "names": {item.member_id: item.name for item in request.state.page["institutions"]},
    }
    return render(request, "transaction.html", context)


def _is_paid(record: Json) -> bool:
    """Whether it took money from a card of this institution."""
    paid = record["outcome"] == "approved" and record["kind"] in ("purchase", "capture", "advice")
    return paid and record["side"] == "issuer"


@router.post("/transactions/{txid}/verify")
async def verify(
    request: Request, institution: Chosen, txid: str, side: Annotated[str, _text(16)] = ""
) -> Response:
    """Fetch the proof and judge it against the chain: the result as a fragment of the page."""
    console = request.app.state.console
    record = await _record(institution, txid, side)
    context: dict[str, Any] = {"record": record, "report": None, "obstacle": None}
    try:
        bundle = await institution.proof(txid, record["side"])
        now = to_datetime(console.clock.now_ms())
        question = check_proof(bundle, record, now, console.settings.sealers)
        context["report"] = await console.chain.ask(question)
    except NotYet:
        context["obstacle"] = "not_yet"
    except ChainAway:
        context["obstacle"] = "chain_away"
    return render(request, "verdict.html", context)


@router.get("/transactions/{txid}/proof")
async def proof(
    request: Request, institution: Chosen, txid: str, side: Annotated[str, _text(16)] = ""
) -> Response:
    """The proof bundle as a file, for the `countersign verify` command or an auditor."""
    record = await _record(institution, txid, side)
    bundle = await institution.proof(txid, record["side"])
    name = f"{institution.member_id}-{txid[:16]}.tlog-proof"
    return Response(
        bundle,
        media_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.get("/transactions/{txid}/beside/{other_id}")
async def beside(request: Request, institution: Chosen, txid: str, other_id: str) -> Response:
    """The same transaction in another party's books, if this person may see them: a fragment."""
    record = await _record(institution, txid, "")
    others = _other_parties(request, institution, record)
    other = next((item for item in others if item.member_id == other_id), None)
    if other is None:
        raise NotKnown
    context: dict[str, Any] = {"record": record, "other": other, "theirs": None, "trouble": ""}
    try:
        context["theirs"] = await other.transaction(txid)
    except NotKnown:
        context["trouble"] = "missing"
    except (NodeAway, NodeRefusal):
        context["trouble"] = "away"
    return render(request, "beside.html", context)


async def _record(institution: Institution, txid: str, side: str) -> Json:
    if not _TXID.match(txid):
        raise NotKnown
    return await institution.transaction(txid, side or None)


async def story(institution: Institution, record: Json) -> list[Json]:
    """The payment's transactions in these books, in the order of time: what a transaction names,
    what names it, and so on. Empty if it stands alone."""
    found: dict[str, Json] = {record["txid"]: record}
    gone: set[str] = set()
    for _ in range(_STORY_REACH):
        wanted = [
            txid
            for item in found.values()
            for txid in (item["original_txid"], *item["related"])
            if txid and txid not in found and txid not in gone
        ]
        wanted = list(dict.fromkeys(wanted))[: _STORY_STEPS - len(found)]
        if not wanted:
            break
        for txid, item in zip(
            wanted,
            await asyncio.gather(*(_step(institution, txid, record["side"]) for txid in wanted)),
            strict=True,
        ):
            if item is None:
                gone.add(txid)
            else:
                found[txid] = item
    steps = sorted(found.values(), key=lambda item: item["decided_at"])
    return steps if len(steps) > 1 else []


async def _step(institution: Institution, txid: str, side: str) -> Json | None:
    try:
        return await institution.transaction(txid, side)
    except NotKnown:
        return None


def _other_parties(request: Request, institution: Institution, record: Json) -> list[Institution]:
    """Acquirer and issuer, as far as they are others, among those that this person may see."""
    parties = {record["acquirer"], record["issuer"]} - {institution.member_id}
    mine: list[Institution] = request.state.page["institutions"]
    return [item for item in mine if item.member_id in parties]


def way(record: Json) -> list[dict[str, Any]]:
    """The four stations on the way to the chain, with when each was reached."""
    order = list(wording.ANCHOR_STATES)
    reached = order.index(record["anchor_state"])
    told = {entry["event"]: entry["at"] for entry in record["timeline"]}
    moments = [told.get(event) for event in ("recorded", "sealed", "submitted", "anchored")]
    return [
        {
            "code": code,
            "title": wording.ANCHOR_STATES[code][0],
            "text": wording.ANCHOR_STATES[code][1],
            "reached": number <= reached,
            "current": number == reached,
            "at": moments[number],
        }
        for number, code in enumerate(order)
    ]
