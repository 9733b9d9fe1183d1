"""`/v1/merchants`: an acquirer's. `/v1/feed`: what merchants get."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from nodes.acquiring import queries
from nodes.acquiring.model import AcquiringOutcome, Merchant
from nodes.acquiring.operations import add_merchant
from nodes.acquiring.store import Connection
from nodes.anchoring.feed_queries import feed
from nodes.api.auth import Principal, member, operator, reader
from nodes.api.client import FeedPage
from nodes.api.dependencies import Cursor, Limit, OptionalKey, TheNode, refused, require_role
from nodes.api.once import answer_once
from nodes.api.problems import Problem
from nodes.api.reads import cursor_of, snapshot, text_of_cursor
from nodes.api.schemas import MerchantItem, NewMerchant, Page
from nodes.clock import to_datetime

merchants = APIRouter(prefix="/v1/merchants", tags=["acquiring"])
feeds = APIRouter(prefix="/v1/feed", tags=["acquiring"])

_STATUS_OF = {AcquiringOutcome.TAKEN: 409}


@merchants.get("", dependencies=[Depends(reader)])
def list_merchants(node: TheNode, limit: Limit = 50, cursor: Cursor = None) -> Page[MerchantItem]:
    """Merchants in the order of their ids."""
    after = text_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        rows = queries.find_merchants(connection, limit=limit + 1, after=after)
    items = [MerchantItem(**row) for row in rows[:limit]]
    return Page(items=items, next=cursor_of(items[-1].merchant_id) if len(rows) > limit else None)


@merchants.post("", status_code=201)
def create_merchant(
    node: TheNode,
    caller: Annotated[Principal, Depends(operator)],
    body: NewMerchant,
    idempotency_key: OptionalKey = None,
) -> MerchantItem:
    """Register a merchant with its account."""
    require_role(node, "acquirer")
    members = body.model_dump()
    now = to_datetime(node.clock.now_ms())

    def attempt(connection: Connection) -> MerchantItem:
        outcome = add_merchant(connection, Merchant(**members), now=now)
        if outcome is not AcquiringOutcome.DONE:
            raise refused(_STATUS_OF.get(outcome, 422), outcome.value)
        return MerchantItem(**members, status="active")

    return answer_once(node, idempotency_key, "merchant", caller, (members,), attempt, MerchantItem)


@feeds.get(
    "",
    response_class=Response,
    responses={
        200: {
            "description": "Sealed transactions of the calling merchant, in log order.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/FeedPage"}}},
        }
    },
)
def get_feed(
    node: TheNode,
    caller: Annotated[Principal, Depends(member)],
    after: Annotated[int, Query(ge=-1, lt=1 << 62)] = -1,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 200,
) -> Response:
    """The calling merchant's transactions behind log index `after`; nothing of card or holder.

    Bytes are base64, as on the batch endpoints.
    """
    require_role(node, "acquirer")
    merchant = node.directory.member(caller.member_id or "")
    if merchant is None or "merchant" not in merchant.roles:
        raise Problem(403, "caller-not-permitted", "This is for merchants of the network.")
    with snapshot(node.engine) as connection:
        items = feed(connection, merchant.member_id, after, limit)
    return Response(msgspec.json.encode(FeedPage(items)), media_type="application/json")
