"""`/v1/events`: what this member did besides transactions, and the proof of each in the log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from nodes.anchoring import event_queries, proof_queries
from nodes.anchoring.events import EventRow
from nodes.anchoring.model import AnchorState
from nodes.anchoring.queries import LogPlace, log_places
from nodes.api.auth import reader
from nodes.api.dependencies import (
    Cursor,
    Limit,
    TheBlocks,
    TheNode,
    hex_or_none,
    moment,
    note_keys_of,
)
from nodes.api.problems import Problem
from nodes.api.reads import cursor_of, number_of_cursor, snapshot
from nodes.api.schemas import Page

router = APIRouter(prefix="/v1/events", tags=["log"], dependencies=[Depends(reader)])

EventId = Annotated[int, Path(ge=1, lt=1 << 62)]
Kind = Literal["card", "merchant", "settlement", "key", "audit"]
CardToken = Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")]
Text = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")]


class EventItem(BaseModel):
    """One event. `card_token`: null where it is about no card, or its person was erased."""

    event_id: int
    kind: Kind
    action: str = Field(examples=["rule.ended"])
    subject: str
    actor: str
    detail: str
    occurred_at: datetime
    card_token: str | None
    log_index: int | None
    batch_seq: int | None
    anchor_state: AnchorState


@router.get("")
def list_events(
    node: TheNode,
    kind: Kind | None = None,
    action: Text = None,
    subject: Text = None,
    card_token: CardToken = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[EventItem]:
    """Events, the newest first."""
    with snapshot(node.engine) as connection:
        rows = event_queries.find_events(
            connection,
            limit=limit + 1,
            before=number_of_cursor(cursor),
            kind=kind,
            action=action,
            subject=subject,
            card_token=None if card_token is None else bytes.fromhex(card_token),
        )
        numbers = [_number(row) for row in rows[:limit]]
        places = log_places(connection, [-number for number in numbers])
    items = [
        EventItem(**_item(row, places[-number])) for row, number in zip(rows, numbers, strict=False)
    ]
    return Page(items=items, next=cursor_of(numbers[-1]) if len(rows) > limit else None)


@router.get(
    "/{event_id}/proof",
    response_class=Response,
    responses={
        200: {
            "description": "The proof bundle (C2SP tlog-proof@v1).",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        409: {"description": "The event is not anchored yet."},
    },
)
def get_event_proof(node: TheNode, event_id: EventId, blocks: TheBlocks) -> Response:
    """The proof that this event is in the anchored log, with its texts; the card token stays
    hidden."""
    with snapshot(node.engine) as connection:
        try:
            bundle = proof_queries.event_bundle(
                connection, node.settings.member_id, event_id, key_at=note_keys_of(node)
            )
        except proof_queries.UnknownEvent:
            raise Problem(404, "event-unknown", "There is no such event here.") from None
        except proof_queries.NotAnchoredYet as error:
            raise Problem(
                409,
                "not-anchored",
                "The event is not in a final anchor yet.",
                state=error.state.value,
            ) from None
    name = f'attachment; filename="event-{event_id}.proof"'
    return Response(
        blocks.sealed(bundle), media_type="text/plain", headers={"Content-Disposition": name}
    )


def _number(row: EventRow) -> int:
    return int(str(row["event_id"]))


def _item(row: EventRow, place: LogPlace) -> dict[str, Any]:
    token = row["card_token"]
    return {name: row[name] for name in ("kind", "action", "subject", "actor", "detail")} | {
        "event_id": _number(row),
        "occurred_at": moment(int(str(row["occurred_ms"]))),
        "card_token": hex_or_none(token if isinstance(token, bytes) else None),
        "log_index": place.log_index,
        "batch_seq": place.batch_seq,
        "anchor_state": place.state,
    }
