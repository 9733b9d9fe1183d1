"""`/v1/cards`: issue, look up, load, and change the status of cards. For issuers."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query

from nodes.api.auth import Principal, operator, reader
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
from nodes.api.issuing_schemas import NewTransfer, TransferMadeItem
from nodes.api.node import ApiNode
from nodes.api.once import under
from nodes.api.problems import unavailable
from nodes.api.reads import bytes_of_hex, cursor_of, number_of_cursor, snapshot
from nodes.api.schemas import (
    CardDetail,
    CardItem,
    CardStatusItem,
    CodeItem,
    IssuedCardItem,
    LoadItem,
    NewCard,
    NewLoad,
    NewScript,
    Nothing,
    Page,
    ScriptItem,
    StatusChange,
)
from nodes.authorization import queries as authorization
from nodes.authorization.operations.own import (
    LoadOutcome,
    TransferOutcome,
    load_card,
    transfer_between_cards,
)
from nodes.authorization.operations.standing import queue_card_script, set_card_status
from nodes.authorization.rules.chip import Script
from nodes.authorization.state import Account, CardStanding
from nodes.cards import queries
from nodes.cards.codes import issue_code
from nodes.cards.model import CardForm, CardOutcome, CardStatus, Making
from nodes.cards.operations import issue_card
from nodes.clock import to_datetime

router = APIRouter(prefix="/v1/cards", tags=["cards"])

Operator = Annotated[Principal, Depends(operator)]
Token = Annotated[str, Path(max_length=128, description="16 bytes in lower-case hex.")]
_STATUS_OF_CARD_OUTCOME = {
    CardOutcome.KEY_REUSED: 409,
    CardOutcome.CARD_UNKNOWN: 404,
    CardOutcome.PAN_TAKEN: 409,
    CardOutcome.TRANSITION_REFUSED: 409,
}
_STATUS_OF_LOAD_OUTCOME = {
    LoadOutcome.CARD_UNKNOWN: 404,
    LoadOutcome.KEY_REUSED: 409,
    LoadOutcome.CARD_ENDED: 409,
    LoadOutcome.ACCOUNT_CLOSED: 409,
    LoadOutcome.NOT_RELOADABLE: 409,
    LoadOutcome.OVER_MAX_BALANCE: 409,
    LoadOutcome.RULE_DECLINED: 409,
}
_STATUS_OF_TRANSFER_OUTCOME = {
    TransferOutcome.CARD_UNKNOWN: 404,
    TransferOutcome.CURRENCY_NOT_PERMITTED: 422,
    TransferOutcome.AMOUNT_INVALID: 422,
}


@router.post("", status_code=201)
def create_card(
    node: TheNode, caller: Operator, body: NewCard, idempotency_key: OptionalKey = None
) -> IssuedCardItem:
    """Issue an active card with an account of its own."""
    require_role(node, "issuer")
    require_currency(body.currency)
    made = issue_card(
        node.engine,
        node.make_vault(),
        node.make_hsm(),
        bins=_bins(node),
        currency=body.currency,
        expiry=body.expiry,
        service_code=body.service_code,
        pin=body.pin,
        actor=caller.name,
        now=to_datetime(node.clock.now_ms()),
        pan=body.pan,
        product_id=body.product_id,
        making=Making(
            CardForm(body.making.form),
            body.making.profile,
            body.making.derivation,
            body.making.psn,
        ),
        emv=node.make_emv_hsm(),
        idempotency_key=idempotency_key,
    )
    if isinstance(made, CardOutcome):
        raise refused(_STATUS_OF_CARD_OUTCOME.get(made, 422), made.value)
    return IssuedCardItem(
        card_token=made.card_token.hex(),
        pan_masked=made.pan_masked,
        expiry=made.expiry,
        pan=made.pan if body.pan is None else None,
        cvv2=made.cvv2,
        personalization=base64.b64encode(made.personalization).decode()
        if made.personalization is not None
        else None,
    )


@router.get("", dependencies=[Depends(reader)])
def list_cards(
    node: TheNode,
    status: Annotated[CardStatus | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[CardItem]:
    """Cards with their balances, the newest first."""
    before = number_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        rows = queries.find_cards(
            connection, limit=limit + 1, before=before, status=status.value if status else None
        )
        known = authorization.snapshots(connection, [row["account_id"] for row in rows])
    items = [CardItem(**_members(row, known[row["account_id"]])) for row in rows[:limit]]
    more = len(rows) > limit
    return Page(items=items, next=cursor_of(rows[limit - 1]["card_id"]) if more else None)


@router.get("/{card_token}", dependencies=[Depends(reader)])
def get_card(node: TheNode, card_token: Token) -> CardDetail:
    """One card with its balance and its history."""
    token = bytes_of_hex(card_token, 16, "card-unknown")
    with snapshot(node.engine) as connection:
        row = queries.card(connection, token)
        if row is None:
            raise refused(404, "card_unknown")
        events = queries.events_of(connection, token)
        account = authorization.snapshots(connection, [row["account_id"]])[row["account_id"]]
    return CardDetail(**_members(row, account), events=events)


@router.post(
    "/{card_token}/loads",
    status_code=201,
    responses={409: {"description": "Same key with other content, or the card has ended."}},
)
def load(
    node: TheNode,
    caller: Operator,
    card_token: Token,
    body: NewLoad,
    idempotency_key: IdempotencyKey,
) -> LoadItem:
    """Credit a card from the issuer's funding account, once for each Idempotency-Key."""
    require_role(node, "issuer")
    require_currency(body.currency)
    result = load_card(
        node.engine,
        node.settings.member_id,
        card_token=bytes_of_hex(card_token, 16, "card-unknown"),
        amount=body.amount,
        currency=body.currency,
        reference=body.reference,
        idempotency_key=idempotency_key,
        now=to_datetime(node.clock.now_ms()),
        time_zone=node.settings.business_time_zone,
        purse=body.purse,
    )
    if result.outcome is not LoadOutcome.DONE or result.txid is None or result.balance is None:
        status = _STATUS_OF_LOAD_OUTCOME.get(result.outcome, 422)
        raise refused(status, result.outcome.value, result.reason)
    return LoadItem(
        txid=result.txid.hex(),
        amount=body.amount,
        currency=body.currency,
        balance=result.balance,
    )


@router.post(
    "/{card_token}/transfers",
    status_code=201,
    responses={409: {"description": "Same key with other content, or the rules refuse it."}},
)
def transfer(
    node: TheNode,
    caller: Operator,
    card_token: Token,
    body: NewTransfer,
    idempotency_key: IdempotencyKey,
) -> TransferMadeItem:
    """Move an amount to another card of this issuer, once for each Idempotency-Key."""
    require_role(node, "issuer")
    require_currency(body.currency)
    result = transfer_between_cards(
        node.engine,
        node.settings.member_id,
        from_token=bytes_of_hex(card_token, 16, "card-unknown"),
        to_token=bytes.fromhex(body.to_card_token),
        amount=body.amount,
        currency=body.currency,
        reference=body.reference,
        idempotency_key=idempotency_key,
        now=to_datetime(node.clock.now_ms()),
        time_zone=node.settings.business_time_zone,
    )
    if result.txid is None or result.balance is None or result.to_balance is None:
        status = _STATUS_OF_TRANSFER_OUTCOME.get(result.outcome, 409)
        raise refused(status, result.outcome.value, result.reason)
    return TransferMadeItem(
        txid=result.txid.hex(),
        amount=body.amount,
        currency=body.currency,
        balance=result.balance,
        to_balance=result.to_balance,
    )


@router.post("/{card_token}/codes", status_code=201)
def create_code(
    node: TheNode,
    caller: Operator,
    card_token: Token,
    body: Nothing,
    idempotency_key: OptionalKey = None,
) -> CodeItem:
    """A single-use code for the holder's wallet, good for 60 seconds."""
    require_role(node, "issuer")
    made = issue_code(
        node.engine,
        node.make_vault(),
        card_token=bytes_of_hex(card_token, 16, "card-unknown"),
        bins=_bins(node),
        now_ms=node.clock.now_ms(),
        idempotency_key=idempotency_key,
    )
    if isinstance(made, CardOutcome):
        raise refused(_STATUS_OF_CARD_OUTCOME.get(made, 422), made.value)
    return CodeItem(payload=made.payload, expires_at=moment(made.expires_ms))


@router.post("/{card_token}/scripts", status_code=201)
def create_script(
    node: TheNode,
    caller: Operator,
    card_token: Token,
    body: NewScript,
    idempotency_key: OptionalKey = None,
) -> ScriptItem:
    """Queue an issuer script for a chip card; 409 if the card has no chip."""
    require_role(node, "issuer")
    queued = queue_card_script(
        node.engine,
        bytes_of_hex(card_token, 16, "card-unknown"),
        Script[body.script.upper()],
        actor=caller.name,
        reason=body.reason,
        now=to_datetime(node.clock.now_ms()),
        under=under(node, idempotency_key),
    )
    if isinstance(queued, CardOutcome):
        raise refused(_STATUS_OF_CARD_OUTCOME.get(queued, 409), queued.value)
    waiting = [(one.name or "").lower() for one in Script if one & queued.waiting]
    return ScriptItem(number=queued.number, waiting=waiting)


@router.post("/{card_token}/status")
def change_status(
    node: TheNode,
    caller: Operator,
    card_token: Token,
    body: StatusChange,
    idempotency_key: OptionalKey = None,
) -> CardStatusItem:
    """Change a card's status, with a reason; 409 if the one can't follow on the other."""
    require_role(node, "issuer")
    done = set_card_status(
        node.engine,
        bytes_of_hex(card_token, 16, "card-unknown"),
        CardStatus(body.status),
        actor=caller.name,
        reason=body.reason,
        now=to_datetime(node.clock.now_ms()),
        under=under(node, idempotency_key),
    )
    if done is not CardOutcome.DONE:
        raise refused(_STATUS_OF_CARD_OUTCOME.get(done, 422), done.value)
    return CardStatusItem(card_token=card_token, status=body.status)


def _members(row: queries.Row, account: Account) -> dict[str, Any]:
    """A card with what its account's last version says of it."""
    standing = account.cards.get(row["card_id"]) or CardStanding(row["status"])
    return dict(row) | {
        "card_token": row["card_token"].hex(),
        "status": standing.status,
        "pin_tries_left": standing.pin_tries_left,
        "uses": standing.uses,
        "account_status": account.status,
        "balance": account.balance,
        "held": account.held,
        "available": account.available,
    }


def _bins(node: ApiNode) -> tuple[str, ...]:
    member = node.directory.member(node.settings.member_id)
    if member is None or not member.bins:
        raise unavailable("directory-unavailable", "The node doesn't know its BIN ranges yet.")
    return member.bins
