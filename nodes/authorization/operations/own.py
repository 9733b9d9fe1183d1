"""Put value on a card, and move it from card to card: the issuer's own transactions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec
from sqlalchemy import Engine

from nodes import clock
from nodes.authorization import rules
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations.booking import (
    Own,
    OwnKey,
    append_own,
    earlier,
    keep,
    own_key,
    read_scene,
    reason_of,
    settled,
)
from nodes.authorization.state import Reason
from nodes.authorization.store import accounts
from nodes.authorization.store.accounts import Connection


class LoadOutcome(StrEnum):
    """How a load ends, in order of precedence."""

    KEY_REUSED = "key_reused"
    CARD_UNKNOWN = "card_unknown"
    CURRENCY_NOT_PERMITTED = "currency_not_permitted"
    AMOUNT_INVALID = "amount_invalid"
    CARD_ENDED = "card_ended"
    ACCOUNT_CLOSED = "account_closed"
    PURSE_UNKNOWN = "purse_unknown"
    NOT_RELOADABLE = "not_reloadable"
    RULE_DECLINED = "rule_declined"
    OVER_MAX_BALANCE = "over_max_balance"
    DONE = "done"


class LoadResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A load's outcome; txid and the balance after it (minor units) where it is done."""

    outcome: LoadOutcome
    txid: bytes | None = None
    balance: int | None = None
    reason: Reason | None = None


class TransferOutcome(StrEnum):
    """How a transfer from card to card ends, in order of precedence."""

    KEY_REUSED = "key_reused"
    CARD_UNKNOWN = "card_unknown"
    CURRENCY_NOT_PERMITTED = "currency_not_permitted"
    AMOUNT_INVALID = "amount_invalid"
    CARD_NOT_ACTIVE = "card_not_active"
    CARD_EXPIRED = "card_expired"
    ACCOUNT_FROZEN = "account_frozen"
    TRANSFER_NOT_PERMITTED = "transfer_not_permitted"
    RULE_DECLINED = "rule_declined"
    OVER_MAX_BALANCE = "over_max_balance"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    DONE = "done"


class TransferResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A transfer's outcome; txid and both balances after it (minor units) where it is done."""

    outcome: TransferOutcome
    txid: bytes | None = None
    balance: int | None = None
    to_balance: int | None = None
    reason: Reason | None = None


def load_card(
    engine: Engine,
    member_id: str,
    *,
    card_token: bytes,
    amount: int,
    currency: str,
    reference: str,
    idempotency_key: str,
    now: datetime,
    time_zone: str = "Asia/Shanghai",
    purse: str | None = None,
) -> LoadResult:
    """Credit a card from the issuer's funding account, once an idempotency key.

    `amount` in minor units; `purse` by name, or the main one. A repeat gets the stored result,
    another content KEY_REUSED.
    """
    content = (card_token, amount, currency, reference, purse)
    key = own_key("load", idempotency_key, *content)

    def attempt(connection: Connection) -> LoadResult:
        known = earlier(connection, key, LoadResult, LoadResult(LoadOutcome.KEY_REUSED))
        if known is not None:
            return known
        card = accounts.cards_by_token(connection, [card_token]).get(card_token)
        if card is None:
            return LoadResult(LoadOutcome.CARD_UNKNOWN)
        at_ms = clock.to_ms(now)
        scene = read_scene(connection, [card.account_id], at_ms)
        before = scene.holders[card.account_id].account
        if before.currency != currency:
            return LoadResult(LoadOutcome.CURRENCY_NOT_PERMITTED)
        decision = rules.decide_load(amount, scene.facts(card.account_id, card), purse)
        if decision.outcome is not Outcome.APPROVED or decision.account is None:
            reason = reason_of(decision)
            return LoadResult(_load_refusal(decision.outcome, reason), reason=reason)
        own = Own(
            member_id,
            Kind.LOAD,
            currency,
            decision,
            before,
            at_ms,
            time_zone,
            reference,
            card=card,
        )
        txid = append_own(connection, own)
        result = LoadResult(LoadOutcome.DONE, txid, decision.account.balance)
        keep(connection, key, member_id, txid, result)
        return result

    return settled(engine, attempt)


def _load_refusal(outcome: Outcome, reason: Reason) -> LoadOutcome:
    """The rules' words in those of a load."""
    match outcome:
        case Outcome.AMOUNT_INVALID:
            return LoadOutcome.AMOUNT_INVALID
        case Outcome.CARD_UNKNOWN:
            return LoadOutcome.CARD_UNKNOWN
        case Outcome.ACCOUNT_FROZEN:
            return LoadOutcome.ACCOUNT_CLOSED
        case Outcome.CARD_NOT_PERMITTED if "purse" in reason.values:
            return LoadOutcome.PURSE_UNKNOWN
        case Outcome.CARD_NOT_PERMITTED:
            return LoadOutcome.NOT_RELOADABLE
        case Outcome.AMOUNT_LIMIT if reason.rule_id is None:
            return LoadOutcome.OVER_MAX_BALANCE
        case Outcome.RULE_DECLINED | Outcome.AMOUNT_LIMIT | Outcome.COUNT_LIMIT:
            return LoadOutcome.RULE_DECLINED
    return LoadOutcome.CARD_ENDED


def transfer_between_cards(
    engine: Engine,
    member_id: str,
    *,
    from_token: bytes,
    to_token: bytes,
    amount: int,
    currency: str,
    reference: str,
    idempotency_key: str,
    now: datetime,
    time_zone: str = "Asia/Shanghai",
) -> TransferResult:
    """Move an amount (minor units) from one card to another of this issuer, once a key.

    Both accounts get their next version in one commit, or neither does.
    """
    key = own_key("transfer", idempotency_key, from_token, to_token, amount, currency, reference)

    def attempt(connection: Connection) -> TransferResult:
        reused = TransferResult(TransferOutcome.KEY_REUSED)
        known = earlier(connection, key, TransferResult, reused)
        if known is not None:
            return known
        made = _transfer(
            connection,
            member_id,
            from_token,
            to_token,
            amount,
            currency,
            reference,
            clock.to_ms(now),
            time_zone,
        )
        return _kept(connection, key, member_id, made)

    return settled(engine, attempt)


def _kept(
    connection: Connection, key: OwnKey, member_id: str, result: TransferResult
) -> TransferResult:
    if result.outcome is TransferOutcome.DONE:
        keep(connection, key, member_id, result.txid, result)
    return result


def _transfer(
    connection: Connection,
    member_id: str,
    from_token: bytes,
    to_token: bytes,
    amount: int,
    currency: str,
    reference: str,
    at_ms: int,
    time_zone: str,
) -> TransferResult:
    cards = accounts.cards_by_token(connection, [from_token, to_token])
    card, to_card = cards.get(from_token), cards.get(to_token)
    if card is None or to_card is None:
        return TransferResult(TransferOutcome.CARD_UNKNOWN)
    scene = read_scene(connection, [card.account_id, to_card.account_id], at_ms)
    before = scene.holders[card.account_id].account
    to_before = scene.holders[to_card.account_id].account
    if before.currency != currency:
        return TransferResult(TransferOutcome.CURRENCY_NOT_PERMITTED)
    facts = msgspec.structs.replace(
        scene.facts(card.account_id, card),
        to_card=to_card,
        to_account=to_before,
        to_terms=scene.terms_of(to_card.account_id),
    )
    decision = rules.decide_transfer(amount, facts)
    after, other = decision.account, decision.to_account
    if decision.outcome is not Outcome.APPROVED or after is None or other is None:
        reason = reason_of(decision)
        return TransferResult(_transfer_refusal(decision.outcome, reason), reason=reason)
    own = Own(
        member_id,
        Kind.TRANSFER,
        currency,
        decision,
        before,
        at_ms,
        time_zone,
        reference,
        card=card,
        to_before=to_before,
    )
    txid = append_own(connection, own)
    return TransferResult(TransferOutcome.DONE, txid, after.balance, other.balance)


_TRANSFER_REFUSALS = {
    Outcome.AMOUNT_INVALID: TransferOutcome.AMOUNT_INVALID,
    Outcome.CARD_UNKNOWN: TransferOutcome.CARD_UNKNOWN,
    Outcome.CARD_EXPIRED: TransferOutcome.CARD_EXPIRED,
    Outcome.CURRENCY_NOT_PERMITTED: TransferOutcome.CURRENCY_NOT_PERMITTED,
    Outcome.ACCOUNT_FROZEN: TransferOutcome.ACCOUNT_FROZEN,
    Outcome.CARD_NOT_PERMITTED: TransferOutcome.TRANSFER_NOT_PERMITTED,
    Outcome.INSUFFICIENT_FUNDS: TransferOutcome.INSUFFICIENT_FUNDS,
    Outcome.RULE_DECLINED: TransferOutcome.RULE_DECLINED,
    Outcome.COUNT_LIMIT: TransferOutcome.RULE_DECLINED,
}


def _transfer_refusal(outcome: Outcome, reason: Reason) -> TransferOutcome:
    if outcome is Outcome.AMOUNT_LIMIT:
        over = reason.rule_id is None
        return TransferOutcome.OVER_MAX_BALANCE if over else TransferOutcome.RULE_DECLINED
    return _TRANSFER_REFUSALS.get(outcome, TransferOutcome.CARD_NOT_ACTIVE)
