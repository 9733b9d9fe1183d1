"""`/v1/products` and `/v1/rules`: what cards may do, and what limits spending. For issuers."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Path, Query

from nodes import clock
from nodes.api.account_views import reason_item
from nodes.api.auth import Principal, operator, reader
from nodes.api.dependencies import Cursor, Limit, OptionalKey, TheNode, moment, require_role
from nodes.api.issuing_schemas import (
    BacktestItem,
    ConditionsBody,
    LimitBody,
    NewBacktest,
    NewProduct,
    NewRule,
    ProductItem,
    RuleBody,
    RuleItem,
    TermsBody,
    WouldDecline,
)
from nodes.api.once import under
from nodes.api.problems import Problem
from nodes.api.reads import cursor_of, snapshot, text_of_cursor
from nodes.api.schemas import Nothing, Page
from nodes.authorization import queries
from nodes.authorization.controls import Rule, Terms
from nodes.authorization.operations.control_checks import faults_of_rule
from nodes.authorization.operations.controlling import (
    ControlOutcome,
    ControlResult,
    Scope,
    backtest_rule,
    create_product,
    create_rule,
    end_rule,
)

products = APIRouter(prefix="/v1/products", tags=["controls"])
rules = APIRouter(prefix="/v1/rules", tags=["controls"])

S = TypeVar("S", bound=msgspec.Struct)
Operator = Annotated[Principal, Depends(operator)]
ProductName = Annotated[str, Path(max_length=40, pattern=r"^[a-z0-9-]+$")]
_Name = Annotated[str | None, Query(max_length=40, pattern=r"^[a-z0-9-]+$")]
_STATUS_OF = {
    ControlOutcome.KEY_REUSED: 409,
    ControlOutcome.PRODUCT_TAKEN: 409,
    ControlOutcome.RULE_UNKNOWN: 404,
    ControlOutcome.RULE_ENDED: 409,
}


@products.get("", dependencies=[Depends(reader)])
def list_products(node: TheNode, limit: Limit = 50, cursor: Cursor = None) -> Page[ProductItem]:
    """Products in the order of their ids."""
    after = text_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        rows = queries.find_products(connection, node.clock.now_ms(), limit=limit + 1, after=after)
    items = [_product(row) for row in rows[:limit]]
    return Page(items=items, next=cursor_of(items[-1].product_id) if len(rows) > limit else None)


@products.post("", status_code=201, dependencies=[Depends(operator)])
def add_product(
    node: TheNode, body: NewProduct, idempotency_key: OptionalKey = None
) -> ProductItem:
    """Make a product: cards are issued of it, and their accounts have its purses."""
    require_role(node, "issuer")
    terms = struct_of(Terms, body.terms.model_dump(), "terms-invalid")
    now = clock.to_datetime(node.clock.now_ms())
    _require_done(
        create_product(
            node.engine,
            product_id=body.product_id,
            name=body.name,
            terms=terms,
            now=now,
            under=under(node, idempotency_key),
        )
    )
    return get_product(node, body.product_id)


@products.get("/{product_id}", dependencies=[Depends(reader)])
def get_product(node: TheNode, product_id: ProductName) -> ProductItem:
    """One product with the terms in force."""
    with snapshot(node.engine) as connection:
        row = queries.product(connection, product_id, node.clock.now_ms())
    if row is None:
        raise Problem(404, "product-unknown")
    return _product(row)


def _product(row: queries.Row) -> ProductItem:
    return ProductItem(**dict(row) | {"terms": terms_body(row["terms"])})


def terms_body(terms: Terms) -> TermsBody:
    """Terms as JSON has them."""
    return TermsBody.model_validate_json(msgspec.json.encode(terms))


@rules.get("", dependencies=[Depends(reader)])
def list_rules(
    node: TheNode,
    scope: Scope | None = None,
    subject: _Name = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[RuleItem]:
    """Rules in the order of their ids, ended ones too."""
    after = text_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        rows = queries.find_rules(
            connection,
            limit=limit + 1,
            after=after,
            scope=scope.value if scope is not None else None,
            subject=subject,
        )
    items = [_rule(row) for row in rows[:limit]]
    return Page(items=items, next=cursor_of(items[-1].rule_id) if len(rows) > limit else None)


@rules.post("", status_code=201)
def add_rule(
    node: TheNode, caller: Operator, body: NewRule, idempotency_key: OptionalKey = None
) -> RuleItem:
    """Make a rule. The answer says from when it is in force: of an account or a card at once, of a
    product a second later, when every process of the node has it."""
    require_role(node, "issuer")
    rule = msgspec.structs.replace(
        _rule_of(body),
        shadow=body.shadow,
        effective_from_ms=clock.to_ms(body.effective_from) if body.effective_from else 0,
        effective_to_ms=clock.to_ms(body.effective_to) if body.effective_to else None,
    )
    done = create_rule(
        node.engine,
        Scope(body.scope),
        body.subject,
        rule,
        created_by=caller.name,
        now=clock.to_datetime(node.clock.now_ms()),
        under=under(node, idempotency_key),
    )
    return _stored(node, _require_done(done).rule_id)


@rules.post("/{rule_id}/end")
def stop_rule(
    node: TheNode,
    caller: Operator,
    rule_id: Annotated[str, Path(max_length=40)],
    body: Nothing,
    idempotency_key: OptionalKey = None,
) -> RuleItem:
    """End a rule; the answer says from when. 409 if it has been ended before."""
    require_role(node, "issuer")
    now = clock.to_datetime(node.clock.now_ms())
    key = under(node, idempotency_key)
    done = end_rule(node.engine, rule_id, ended_by=caller.name, now=now, under=key)
    return _stored(node, _require_done(done).rule_id)


@rules.post("/backtest", dependencies=[Depends(operator)])
def try_rule(node: TheNode, body: NewBacktest) -> BacktestItem:
    """What a rule would have declined of the approved payments of the last days. Nothing is
    changed; at most `maximum` payments are looked at, the oldest first."""
    require_role(node, "issuer")
    rule = _rule_of(body)
    faults = faults_of_rule(rule)
    if faults:
        raise faulty("rule-invalid", [(fault.at, fault.message) for fault in faults])
    _require_subject(body)
    tried = backtest_rule(
        lambda: snapshot(node.engine),
        Scope(body.scope),
        body.subject,
        rule,
        now=clock.to_datetime(node.clock.now_ms()),
        days=body.days,
        maximum=body.maximum,
    )
    result = tried.result
    return BacktestItem(
        examined=result.examined,
        concerned=result.concerned,
        declined_count=result.declined_count,
        declined_amount=result.declined_amount,
        declined=[
            WouldDecline(
                txid=one.past.txid.hex(),
                at=moment(one.past.at_ms),
                account_id=one.past.stream,
                amount=one.past.amount,
                reason=reason_item(one.reason),
            )
            for one in result.declined
        ],
        complete=tried.complete,
        until=moment(tried.until_ms) if tried.until_ms is not None else None,
    )


def _require_subject(body: RuleBody) -> None:
    """Problem 422 for a subject that can't be one of its scope."""
    subject = body.subject
    shaped = {
        "product": True,
        "account": subject.isascii() and subject.isdigit() and len(subject) <= 18,
        "card": len(subject) == 32 and set(subject) <= set("0123456789abcdef"),
    }
    if not shaped[body.scope]:
        raise Problem(422, "subject-unknown", "There is nothing of this scope and name.")


def _rule_of(body: RuleBody) -> Rule:
    members = body.model_dump(include={"name", "when", "unless", "limit"})
    return struct_of(Rule, members | {"rule_id": "rule"}, "rule-invalid")


def struct_of(of: type[S], members: dict[str, Any], kind: str) -> S:
    """A struct of checked members; what Pydantic let through is refused with its place."""
    try:
        return msgspec.convert(members, of)
    except msgspec.ValidationError:
        raise Problem(422, kind, "A member has a value that it can't have.") from None


def _stored(node: TheNode, rule_id: str) -> RuleItem:
    with snapshot(node.engine) as connection:
        row = queries.spend_rule(connection, rule_id)
    if row is None:
        raise Problem(404, "rule-unknown")
    return _rule(row)


def _rule(row: queries.Row) -> RuleItem:
    rule: Rule = row["rule"]
    when = ConditionsBody.model_validate_json(msgspec.json.encode(rule.when))
    ends_ms = rule.effective_to_ms
    return RuleItem(
        rule_id=rule.rule_id,
        scope=row["scope"],
        subject=row["subject"],
        name=rule.name,
        when=when,
        unless=rule.unless,
        limit=limit_body(rule),
        shadow=rule.shadow,
        effective_from=moment(rule.effective_from_ms),
        effective_to=moment(ends_ms) if ends_ms is not None else None,
        created_by=row["created_by"],
        created_at=row["created_at"],
        ended_by=row["ended_by"],
    )


def limit_body(rule: Rule) -> LimitBody | None:
    """A rule's limit as JSON has it."""
    if rule.limit is None:
        return None
    return LimitBody.model_validate_json(msgspec.json.encode(rule.limit))


def _require_done(result: ControlResult) -> Rule:
    if result.outcome is ControlOutcome.DONE:
        return result.rule or Rule("", "")
    kind = result.outcome.value.replace("_", "-")
    if result.faults:
        raise faulty(kind, [(fault.at, fault.message) for fault in result.faults])
    raise Problem(_STATUS_OF.get(result.outcome, 422), kind)


def faulty(kind: str, faults: list[tuple[str, str]]) -> Problem:
    """422 that names each value that is wrong."""
    errors = [{"at": at, "message": message} for at, message in faults]
    return Problem(422, kind, "A value is missing or wrong.", errors=errors)
