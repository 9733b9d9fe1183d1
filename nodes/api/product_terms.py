"""`/v1/products/{product_id}/terms`: later terms of a product, proposed by one person and
approved or rejected by another. For issuers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from nodes import clock
from nodes.api.auth import Principal, operator, reader
from nodes.api.controls import ProductName, faulty, struct_of, terms_body
from nodes.api.dependencies import (
    Cursor,
    IdempotencyKey,
    Limit,
    OptionalKey,
    TheNode,
    moment,
    require_role,
)
from nodes.api.issuing_schemas import NewTerms, TermsItem
from nodes.api.node import ApiNode
from nodes.api.once import under
from nodes.api.problems import Problem
from nodes.api.reads import cursor_of, number_of_cursor, snapshot
from nodes.api.schemas import Nothing, Page
from nodes.authorization import queries
from nodes.authorization.controls import Terms
from nodes.authorization.operations.changing_terms import (
    TermsOutcome,
    TermsResult,
    approve_terms,
    propose_terms,
    reject_terms,
)

router = APIRouter(prefix="/v1/products/{product_id}/terms", tags=["controls"])
Operator = Annotated[Principal, Depends(operator)]
Version = Annotated[int, Path(ge=2, lt=1 << 31)]

_STATUS_OF = {
    TermsOutcome.KEY_REUSED: 409,
    TermsOutcome.PRODUCT_UNKNOWN: 404,
    TermsOutcome.TERMS_UNKNOWN: 404,
    TermsOutcome.TERMS_DECIDED: 409,
    TermsOutcome.MAKER_IS_CHECKER: 403,
}


@router.get("", dependencies=[Depends(reader)])
def list_terms(
    node: TheNode, product_id: ProductName, limit: Limit = 50, cursor: Cursor = None
) -> Page[TermsItem]:
    """The terms that were proposed after the product's first ones, the newest version first."""
    before = number_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        if queries.product(connection, product_id, node.clock.now_ms()) is None:
            raise Problem(404, "product-unknown")
        rows = queries.find_terms(connection, product_id, limit=limit + 1, before=before)
    items = [_item(row) for row in rows[:limit]]
    return Page(items=items, next=cursor_of(items[-1].version) if len(rows) > limit else None)


@router.post("", status_code=201)
def propose(
    node: TheNode,
    caller: Operator,
    product_id: ProductName,
    body: NewTerms,
    idempotency_key: IdempotencyKey,
) -> TermsItem:
    """Propose other terms, once for each Idempotency-Key; nothing changes before somebody else
    approves them. The purses' names and the time zone stay as they are."""
    require_role(node, "issuer")
    result = propose_terms(
        node.engine,
        node.settings.member_id,
        product_id,
        struct_of(Terms, body.terms.model_dump(), "terms-invalid"),
        effective_from_ms=clock.to_ms(body.effective_from) if body.effective_from else 0,
        reason=body.reason,
        made_by=caller.name,
        idempotency_key=idempotency_key,
        now=clock.to_datetime(node.clock.now_ms()),
    )
    return _shown(node, product_id, result)


@router.post("/{version}/approve")
def approve(
    node: TheNode,
    caller: Operator,
    product_id: ProductName,
    version: Version,
    body: Nothing,
    idempotency_key: OptionalKey = None,
) -> TermsItem:
    """Put proposed terms into force from their moment on, or a second from now. 403 for whoever
    made them; a repeat changes nothing."""
    require_role(node, "issuer")
    now = clock.to_datetime(node.clock.now_ms())
    done = approve_terms(
        node.engine,
        product_id,
        version,
        checked_by=caller.name,
        now=now,
        under=under(node, idempotency_key),
    )
    return _shown(node, product_id, done)


@router.post("/{version}/reject")
def reject(
    node: TheNode,
    caller: Operator,
    product_id: ProductName,
    version: Version,
    body: Nothing,
    idempotency_key: OptionalKey = None,
) -> TermsItem:
    """Reject proposed terms. 403 for whoever made them; a repeat changes nothing."""
    require_role(node, "issuer")
    now = clock.to_datetime(node.clock.now_ms())
    done = reject_terms(
        node.engine,
        product_id,
        version,
        checked_by=caller.name,
        now=now,
        under=under(node, idempotency_key),
    )
    return _shown(node, product_id, done)


def _shown(node: ApiNode, product_id: str, result: TermsResult) -> TermsItem:
    kind = result.outcome.value.replace("_", "-")
    if result.faults:
        raise faulty(kind, [(fault.at, fault.message) for fault in result.faults])
    if result.outcome is not TermsOutcome.DONE or result.version is None:
        raise Problem(_STATUS_OF.get(result.outcome, 422), kind)
    with snapshot(node.engine) as connection:
        rows = queries.find_terms(connection, product_id, limit=1, before=result.version + 1)
    return _item(rows[0])


def _item(row: queries.Row) -> TermsItem:
    members = dict(row) | {"terms": terms_body(row["terms"])}
    members["effective_from"] = moment(members.pop("effective_from_ms"))
    return TermsItem(**members)
