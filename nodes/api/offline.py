"""Offline payments and terminals' batches: cards' keys and reserves, chains, alarms, the hotlist
that members take from each other, and batch closes."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from nodes.api.auth import Principal, member, operator, reader
from nodes.api.client import HotlistEntries, HotlistEntry
from nodes.api.dependencies import (
    Cursor,
    IdempotencyKey,
    Limit,
    OptionalKey,
    TheNode,
    moment,
    refused,
    require_currency,
    require_role,
)
from nodes.api.once import under
from nodes.api.problems import Problem
from nodes.api.reads import bytes_of_hex, cursor_of, number_of_cursor, snapshot, text_of_cursor
from nodes.api.schemas import Currency, Hex32, Page, Sent
from nodes.authorization import offline_queries as queries
from nodes.authorization.operations.offline import (
    KeyOutcome,
    ReserveOutcome,
    register_offline_key,
    reserve_offline,
)
from nodes.authorization.store import hotlist
from nodes.clock import to_datetime
from nodes.crypto.offline_record import key_id_of
from nodes.db.engine import transaction

cards = APIRouter(prefix="/v1/cards", tags=["cards"])
router = APIRouter(prefix="/v1/offline", tags=["offline"])
batches = APIRouter(prefix="/v1/batch-closes", tags=["acquiring"])

Operator = Annotated[Principal, Depends(operator)]
Token = Annotated[str, Path(max_length=128, description="16 bytes in lower-case hex.")]
TerminalId = Annotated[str | None, Query(min_length=1, max_length=8, pattern=r"^[!-~]+$")]
_STATUS_OF_KEY = {
    KeyOutcome.KEY_REUSED: 409,
    KeyOutcome.CARD_UNKNOWN: 404,
    KeyOutcome.KEY_TAKEN: 409,
}
_STATUS_OF_RESERVE = {
    ReserveOutcome.CARD_UNKNOWN: 404,
    ReserveOutcome.CURRENCY_NOT_PERMITTED: 422,
    ReserveOutcome.AMOUNT_INVALID: 422,
}


class NewOfflineKey(Sent):
    """A card's public key, P-256, uncompressed (65 bytes)."""

    public_key: str = Field(pattern=r"^04[0-9a-f]{128}$", examples=["04" + "ab" * 64])


class OfflineKeyItem(BaseModel):
    card_key_id: str


class NewOfflineReserve(Sent):
    """`amount` in minor units: positive is set aside, negative given back."""

    amount: int = Field(ge=-(10**12), le=10**12, examples=[50_000])
    currency: Currency


class OfflineReserveItem(BaseModel):
    txid: Hex32
    reserved: int
    available: int


class ChainItem(BaseModel):
    """`lacking`: records below the last that never came; `broken`: not behind the one before."""

    terminal_id: str
    epoch: int
    records: int
    last_seq: int
    lacking: int
    broken: int
    amount: int
    currency: str


class GapItem(BaseModel):
    first: int
    last: int


class OfflineAlarmItem(BaseModel):
    alarm_id: int
    kind: str
    side: str
    terminal_id: str
    epoch: int | None
    seq: int | None
    card_key_id: str | None
    atc: int | None
    txid: str | None
    detail: str
    at: datetime


class TotalsItem(BaseModel):
    currency: str
    debits: int
    debit_amount: int
    credits: int
    credit_amount: int


class BatchCloseItem(BaseModel):
    close_id: int
    terminal_id: str
    batch: str
    business_date: date
    stan: str
    outcome: Literal["equal", "differs", "adjusted"]
    reported: list[TotalsItem]
    booked: list[TotalsItem]
    transactions: int
    at: datetime


class FindingItem(BaseModel):
    stan: str
    business_date: date
    kind: str
    amount: int
    booked: int
    currency: str
    finding: str
    action: str
    adjusted: int
    txid: str | None
    at: datetime


@cards.post("/{card_token}/offline-key", status_code=201)
def register_key(
    node: TheNode,
    caller: Operator,
    card_token: Token,
    body: NewOfflineKey,
    idempotency_key: OptionalKey = None,
) -> OfflineKeyItem:
    """Let a card sign offline payments with a key. The same again changes nothing."""
    require_role(node, "issuer")
    public_key = bytes.fromhex(body.public_key)
    done = register_offline_key(
        node.engine,
        node.settings.member_id,
        card_token=bytes_of_hex(card_token, 16, "card-unknown"),
        public_key=public_key,
        actor=caller.name,
        now=to_datetime(node.clock.now_ms()),
        under=under(node, idempotency_key),
    )
    if done is not KeyOutcome.DONE:
        raise refused(_STATUS_OF_KEY.get(done, 422), done.value)
    return OfflineKeyItem(card_key_id=key_id_of(public_key).hex())


@cards.post("/{card_token}/offline-reserve", status_code=201)
def reserve(
    node: TheNode,
    caller: Operator,
    card_token: Token,
    body: NewOfflineReserve,
    idempotency_key: IdempotencyKey,
) -> OfflineReserveItem:
    """Set money aside for a card's offline payments, or give it back, once an Idempotency-Key."""
    require_role(node, "issuer")
    require_currency(body.currency)
    made = reserve_offline(
        node.engine,
        node.settings.member_id,
        card_token=bytes_of_hex(card_token, 16, "card-unknown"),
        amount=body.amount,
        currency=body.currency,
        idempotency_key=idempotency_key,
        now=to_datetime(node.clock.now_ms()),
        time_zone=node.settings.business_time_zone,
    )
    if made.txid is None or made.reserved is None or made.available is None:
        status = _STATUS_OF_RESERVE.get(made.outcome, 409)
        raise refused(status, made.outcome.value, made.reason)
    return OfflineReserveItem(
        txid=made.txid.hex(), reserved=made.reserved, available=made.available
    )


@router.get("/chains", dependencies=[Depends(reader)])
def list_chains(
    node: TheNode, terminal_id: TerminalId = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[ChainItem]:
    """Terminals' chains of offline records, and what is lacking in them."""
    after = text_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        rows = queries.chains(connection, limit=limit + 1, after=after, terminal_id=terminal_id)
    items = [ChainItem.model_validate(row) for row in rows[:limit]]
    more = len(rows) > limit
    return Page(items=items, next=cursor_of(rows[limit - 1]["place"]) if more else None)


@router.get("/chains/{terminal_id}/{epoch}/gaps", dependencies=[Depends(reader)])
def list_gaps(
    node: TheNode,
    terminal_id: Annotated[str, Path(max_length=8)],
    epoch: Annotated[int, Path(ge=0, lt=1 << 32)],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[GapItem]:
    """The missing records of one chain, by their numbers."""
    after = number_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        rows = queries.gaps(connection, terminal_id, epoch, limit=limit + 1, after=after)
    items = [GapItem.model_validate(row) for row in rows[:limit]]
    return Page(items=items, next=cursor_of(items[-1].last) if len(rows) > limit else None)


@router.get("/alarms", dependencies=[Depends(reader)])
def list_alarms(
    node: TheNode,
    kind: Literal["clone", "invalid", "fork", "cap", "refused", "cryptogram"] | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[OfflineAlarmItem]:
    """What people must look at, the newest first."""
    before = number_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        rows = queries.alarms(connection, limit=limit + 1, before=before, kind=kind)
    items = [
        OfflineAlarmItem.model_validate(dict(row) | {"at": moment(row["at_ms"])})
        for row in rows[:limit]
    ]
    more = len(rows) > limit
    return Page(items=items, next=cursor_of(items[-1].alarm_id) if more else None)


@router.get(
    "/hotlist",
    response_class=Response,
    responses={200: {"description": "This issuer's entries behind `after`, in order (JSON)."}},
)
def get_hotlist(
    node: TheNode,
    caller: Annotated[Principal, Depends(member)],
    after: Annotated[int, Query(ge=0, lt=1 << 62)] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 200,
) -> Response:
    """Cards of this issuer that may not pay offline, by their keys' names. For acquirers."""
    require_role(node, "issuer")
    peer = node.directory.member(caller.member_id or "")
    if peer is None or "acquirer" not in peer.roles:
        raise Problem(403, "caller-not-permitted", "This is for acquirers of the network.")
    with transaction(node.engine) as connection:
        rows = hotlist.entries_of(connection, node.settings.member_id, after, limit)
    entries = [HotlistEntry(v, bytes(k), listed, why, at) for v, k, listed, why, at in rows]
    return Response(msgspec.json.encode(HotlistEntries(entries)), media_type="application/json")


@batches.get("", dependencies=[Depends(reader)])
def list_batch_closes(
    node: TheNode, terminal_id: TerminalId = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[BatchCloseItem]:
    """Batch closes of terminals, the newest first."""
    before = number_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        rows = queries.batch_closes(
            connection, limit=limit + 1, before=before, terminal_id=terminal_id
        )
    items = [
        BatchCloseItem.model_validate(dict(row) | {"at": moment(row["at_ms"])})
        for row in rows[:limit]
    ]
    more = len(rows) > limit
    return Page(items=items, next=cursor_of(items[-1].close_id) if more else None)


@batches.get("/{close_id}/findings", dependencies=[Depends(reader)])
def list_findings(
    node: TheNode,
    close_id: Annotated[int, Path(ge=1, lt=1 << 62)],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[FindingItem]:
    """What the upload that a difference led to came to, item by item."""
    after = number_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        rows = queries.findings(connection, close_id, limit=limit + 1, after=after)
    items = [
        FindingItem.model_validate(dict(row) | {"at": moment(row["at_ms"])}) for row in rows[:limit]
    ]
    more = len(rows) > limit
    return Page(items=items, next=cursor_of(rows[limit - 1]["finding_id"]) if more else None)
