"""`/v1/accounts`: the ledger's accounts as they are now; card accounts with all their versions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from sqlalchemy import Connection

from nodes.anchoring import queries as anchoring
from nodes.api.account_views import card_account_item, version_item
from nodes.api.auth import Principal, operator, reader
from nodes.api.dependencies import Cursor, Limit, OptionalKey, TheNode, require_role
from nodes.api.issuing_schemas import (
    AccountDetail,
    AccountStatusChange,
    AccountStatusItem,
    VersionItem,
)
from nodes.api.once import under
from nodes.api.problems import Problem
from nodes.api.reads import cursor_of, number_of_cursor, snapshot
from nodes.api.schemas import AccountItem, Page
from nodes.authorization import queries as authorization
from nodes.authorization.operations.standing import (
    AccountOutcome,
    AccountStatus,
    set_account_status,
)
from nodes.authorization.state import Purse
from nodes.clock import to_datetime
from nodes.ledger import queries as ledger
from nodes.ledger.model import AccountKind

router = APIRouter(prefix="/v1/accounts", tags=["ledger"])

AccountId = Annotated[int, Path(ge=1, lt=1 << 62)]


@router.get("", dependencies=[Depends(reader)])
def list_accounts(
    node: TheNode,
    kind: AccountKind | None = None,
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


@router.get("/{account_id}", dependencies=[Depends(reader)])
def get_account(node: TheNode, account_id: AccountId) -> AccountDetail:
    """One account; of a card account also its purses, open holds, windows used and cards."""
    with snapshot(node.engine) as connection:
        rows = ledger.find_accounts(connection, limit=1, after=account_id - 1)
        if not rows or rows[0]["account_id"] != account_id:
            raise _unknown()
        [item] = _items(connection, rows)
        main = authorization.card_accounts_of(connection, [account_id]).get(account_id)
        known = authorization.snapshots(connection, [main]) if main is not None else {}
        now_ms = node.clock.now_ms()
        state = [card_account_item(connection, account, now_ms) for account in known.values()]
    return AccountDetail(**item.model_dump(), card_account=state[0] if state else None)


@router.get("/{account_id}/versions", dependencies=[Depends(reader)])
def list_versions(
    node: TheNode, account_id: AccountId, limit: Limit = 50, cursor: Cursor = None
) -> Page[VersionItem]:
    """A card account's history, the newest first: each decision and each change by people."""
    before = number_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        if not authorization.snapshots(connection, [account_id]):
            raise _unknown()
        found = authorization.versions_of(connection, account_id, limit=limit + 1, before=before)
    items = [version_item(version) for version in found[:limit]]
    return Page(items=items, next=cursor_of(items[-1].version) if len(found) > limit else None)


@router.post("/{account_id}/status")
def change_account_status(
    node: TheNode,
    caller: Annotated[Principal, Depends(operator)],
    account_id: AccountId,
    body: AccountStatusChange,
    idempotency_key: OptionalKey = None,
) -> AccountStatusItem:
    """Freeze, open or close a card account. A frozen one pays nothing but takes money; a closed one
    stays closed, and only one on which nothing is can be closed (409)."""
    require_role(node, "issuer")
    done = set_account_status(
        node.engine,
        account_id,
        AccountStatus(body.status),
        actor=caller.name,
        reason=body.reason,
        now=to_datetime(node.clock.now_ms()),
        under=under(node, idempotency_key),
    )
    if done is not AccountOutcome.DONE:
        status = 404 if done is AccountOutcome.ACCOUNT_UNKNOWN else 409
        raise Problem(status, done.value.replace("_", "-"))
    return AccountStatusItem(account_id=account_id, status=body.status)


def _unknown() -> Problem:
    return Problem(404, "account-unknown", "There is no such account in these books.")


def _items(connection: Connection, rows: list[ledger.Row]) -> list[AccountItem]:
    """Cardholders' purses stand in their accounts' versions; other balances are rolled up at
    sealing, and what isn't sealed yet is added."""
    purses = authorization.purses(
        connection, [row["account_id"] for row in rows if row["kind"] == "cardholder"]
    )
    rolled_up = [row["account_id"] for row in rows if row["account_id"] not in purses]
    moved = ledger.unsealed_movements(connection, rolled_up, sealed_place(connection))
    return [
        AccountItem(**_members(row, purses.get(row["account_id"]), moved.get(row["account_id"], 0)))
        for row in rows
    ]


def _members(row: ledger.Row, purse: Purse | None, moved: int) -> dict[str, Any]:
    if purse is None:
        balance = row["balance"] + moved
        return dict(row) | {"balance": balance, "held": 0, "available": balance}
    return dict(row) | {
        "balance": purse.balance,
        "held": purse.held,
        "available": purse.available,
    }


def sealed_place(connection: Connection) -> tuple[int, int]:
    """(xact, transaction_id) of the last sealed row."""
    position = anchoring.sealed_position(anchoring.last_batch(connection))
    return position.xact, position.transaction_id
