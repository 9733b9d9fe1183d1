"""`/v1/terminal-authorities`: who certifies this acquirer's terminals."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from nodes.acquiring.fleet import queries
from nodes.acquiring.fleet.model import FleetOutcome
from nodes.acquiring.fleet.operations import end_authority, trust_authority
from nodes.acquiring.fleet.store import Connection
from nodes.api.auth import Principal, operator, reader
from nodes.api.dependencies import Cursor, Limit, OptionalKey, TheNode, moment, require_role
from nodes.api.fleet_schemas import AuthorityItem, NewAuthority
from nodes.api.once import answer_once
from nodes.api.problems import Problem
from nodes.api.reads import cursor_of, snapshot, text_of_cursor
from nodes.api.schemas import Nothing, Page

router = APIRouter(prefix="/v1/terminal-authorities", tags=["terminals"])

Operator = Annotated[Principal, Depends(operator)]
Fingerprint = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


@router.post("", status_code=201)
def trust(
    node: TheNode, caller: Operator, body: NewAuthority, idempotency_key: OptionalKey = None
) -> AuthorityItem:
    """Take certificates of terminals that this one has signed; once more changes nothing."""
    require_role(node, "acquirer")
    now_ms = node.clock.now_ms()

    def attempt(connection: Connection) -> AuthorityItem:
        found, why = trust_authority(connection, body.certificate, caller.name, now_ms)
        if found is None:
            errors = [{"at": "body.certificate", "message": why or ""}]
            kind = FleetOutcome.CERTIFICATE_INVALID.value.replace("_", "-")
            raise Problem(422, kind, errors=errors)
        return _item(found)

    content = (body.certificate,)
    return answer_once(
        node, idempotency_key, "terminal-authority", caller, content, attempt, AuthorityItem
    )


@router.get("", dependencies=[Depends(reader)])
def list_authorities(
    node: TheNode, limit: Limit = 50, cursor: Cursor = None
) -> Page[AuthorityItem]:
    """Those who certify terminals, or did, in the order of their fingerprints."""
    after = text_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        rows = queries.authorities(connection, limit=limit + 1, after=after)
    items = [_item(row) for row in rows[:limit]]
    return Page(items=items, next=cursor_of(items[-1].fingerprint) if len(rows) > limit else None)


def _item(row: queries.Row) -> AuthorityItem:
    return AuthorityItem(
        fingerprint=row["fingerprint"],
        subject=row["subject"],
        status=row["status"],
        not_after=moment(row["not_after_ms"]),
        created_by=row["created_by"],
        created_at=moment(row["created_ms"]),
    )


@router.post("/{fingerprint}/end")
def end(
    node: TheNode,
    caller: Operator,
    fingerprint: Fingerprint,
    body: Nothing,
    idempotency_key: OptionalKey = None,
) -> Nothing:
    """Take no more of its certificates. Terminals that have one stay until they are changed."""

    def attempt(connection: Connection) -> Nothing:
        if end_authority(connection, fingerprint, caller.name) is not FleetOutcome.DONE:
            raise Problem(404, "authority-unknown")
        return Nothing()

    content = (fingerprint,)
    return answer_once(
        node, idempotency_key, "terminal-authority-end", caller, content, attempt, Nothing
    )
