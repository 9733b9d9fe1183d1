"""`/v1/accounts`: the ledger's accounts with their current balances."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Connection

from nodes.anchoring import queries as anchoring
from nodes.api.auth import reader
from nodes.api.dependencies import Cursor, Limit, TheNode
from nodes.api.reads import cursor_of, number_of_cursor, snapshot
from nodes.api.schemas import AccountItem, Page
from nodes.ledger import queries as ledger

router = APIRouter(prefix="/v1/accounts", tags=["ledger"], dependencies=[Depends(reader)])


@router.get("")
def list_accounts(
    node: TheNode,
    kind: Literal["cardholder", "funding", "settlement", "merchant"] | None = None,
    owner: Annotated[str | None, Query(max_length=64, pattern=r"^[ -~]+$")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[AccountItem]:
    """Accounts in the order of their ids. A liability's balance is positive."""
    with snapshot(node.engine) as connection:
        rows = ledger.find_accounts(
            connection,
            limit=limit + 1,
            after=number_of_cursor(cursor) or 0,
            kind=kind,
            owner=owner,
        )
        items = _items(connection, rows[:limit])
    return Page(items=items, next=cursor_of(items[-1].account_id) if len(rows) > limit else None)


def _items(connection: Connection, rows: list[ledger.Row]) -> list[AccountItem]:
    # A cardholder's balance is kept with each transfer; the others' are rolled up at sealing.
    rolled_up = [row["account_id"] for row in rows if row["kind"] != "cardholder"]
    moved = ledger.unsealed_movements(connection, rolled_up, sealed_place(connection))
    return [AccountItem(**_members(row, moved.get(row["account_id"], 0))) for row in rows]


def _members(row: ledger.Row, moved: int) -> dict[str, Any]:
    balance = row["balance"] + moved
    available = balance - row["held"] + row["overdraft_limit"]
    return dict(row) | {"balance": balance, "available": available}


def sealed_place(connection: Connection) -> tuple[int, int]:
    """(xact, transaction_id) of the last sealed row."""
    position = anchoring.sealed_position(anchoring.last_batch(connection))
    return position.xact, position.transaction_id
