"""`/v1/refusals`: what terminals were told without any transaction of that."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from nodes.acquiring.online import store
from nodes.api.auth import reader
from nodes.api.dependencies import Cursor, Limit, TheNode, moment
from nodes.api.reads import cursor_of, number_of_cursor
from nodes.api.schemas import Page
from nodes.db.engine import transaction

router = APIRouter(prefix="/v1/refusals", tags=["acquiring"])


class RefusalItem(BaseModel):
    """The acquirer's own refusal, or a request that no issuer answered. Amount: as asked, in minor
    units; `outcome` in the words of docs/iso8583.md."""

    refusal_id: int
    merchant_id: str
    terminal_id: str
    kind: str
    outcome: str
    amount: int
    currency: str
    rrn: str
    pan_masked: str
    batch: str
    stan: str
    refused_at: datetime


@router.get("", dependencies=[Depends(reader)])
def list_refusals(
    node: TheNode,
    merchant_id: Annotated[str | None, Query(max_length=15, pattern=r"^[ -~]+$")] = None,
    terminal_id: Annotated[str | None, Query(max_length=8, pattern=r"^[ -~]+$")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[RefusalItem]:
    """Refused at the acquirer, the newest first: nothing of these stands in any ledger."""
    with transaction(node.engine) as connection:
        rows = store.refusals(
            connection,
            merchant_id=merchant_id,
            terminal_id=terminal_id,
            before=number_of_cursor(cursor),
            limit=limit + 1,
        )
    names = [*RefusalItem.model_fields][:-1]
    items = [
        RefusalItem(**dict(zip(names, row[:-1], strict=True)), refused_at=moment(row[-1]))
        for row in rows[:limit]
    ]
    return Page(items=items, next=cursor_of(items[-1].refusal_id) if len(rows) > limit else None)
