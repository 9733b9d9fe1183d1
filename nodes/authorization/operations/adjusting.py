"""Corrections by hand: one person proposes, another approves or rejects."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec
from sqlalchemy import Engine

from nodes import clock, money
from nodes.authorization import rules
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations.booking import (
    Once,
    Own,
    append_own,
    earlier,
    keep,
    own_key,
    read_scene,
    reason_of,
    settled,
    settled_once,
)
from nodes.authorization.state import Account, Reason
from nodes.authorization.store import accounts, disputes, products
from nodes.authorization.store.accounts import Connection
from nodes.authorization.store.products import Adjustment


class AdjustmentOutcome(StrEnum):
    """How proposing or checking an adjustment ends, in order of precedence."""

    KEY_REUSED = "key_reused"
    ADJUSTMENT_UNKNOWN = "adjustment_unknown"
    ACCOUNT_UNKNOWN = "account_unknown"
    CURRENCY_NOT_PERMITTED = "currency_not_permitted"
    AMOUNT_INVALID = "amount_invalid"
    ADJUSTMENT_DECIDED = "adjustment_decided"
    MAKER_IS_CHECKER = "maker_is_checker"
    OVER_DISPUTED = "over_disputed"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    DONE = "done"


class AdjustmentResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome; the adjustment's number, and what its posting made of the account."""

    outcome: AdjustmentOutcome
    adjustment_id: int | None = None
    txid: bytes | None = None
    balance: int | None = None
    reason: Reason | None = None


def propose_adjustment(
    engine: Engine,
    member_id: str,
    *,
    account_id: int,
    amount: int,
    currency: str,
    reason: str,
    made_by: str,
    idempotency_key: str,
    now: datetime,
    disputed: bytes | None = None,
) -> AdjustmentResult:
    """Propose to correct a card account, once an idempotency key; nothing is posted yet.

    `amount` in minor units, positive to the cardholder. `disputed`: the payment (txid) whose
    dispute it decides: the issuer bears so much of it (positive) or, of a debt, the holder
    (negative).
    """
    content: tuple[object, ...] = (account_id, amount, currency, reason, made_by)
    if disputed is not None:
        content = (*content, disputed)
    key = own_key("adjustment", idempotency_key, *content)

    def attempt(connection: Connection) -> AdjustmentResult:
        reused = AdjustmentResult(AdjustmentOutcome.KEY_REUSED)
        known = earlier(connection, key, AdjustmentResult, reused)
        if known is not None:
            return known
        scene = read_scene(connection, [account_id], clock.to_ms(now), asking=True)
        holder = scene.holders.get(account_id)
        if holder is None or not holder.account.cards:
            return AdjustmentResult(AdjustmentOutcome.ACCOUNT_UNKNOWN)
        if holder.account.currency != currency:
            return AdjustmentResult(AdjustmentOutcome.CURRENCY_NOT_PERMITTED)
        if not 0 < abs(amount) <= money.MAX_TRANSACTION_AMOUNT:
            return AdjustmentResult(AdjustmentOutcome.AMOUNT_INVALID)
        if disputed is not None:
            refusal = _over_disputed(holder.account, disputed, amount)
            if refusal is not None:
                return refusal
        number = products.insert_adjustment(
            connection,
            account_id=account_id,
            amount=amount,
            currency=currency,
            reason=reason,
            made_by=made_by,
            made_at=now,
            disputed=disputed,
        )
        result = AdjustmentResult(AdjustmentOutcome.DONE, number)
        keep(connection, key, member_id, None, result)
        return result

    return settled(engine, attempt)


def _over_disputed(account: Account, txid: bytes, amount: int) -> AdjustmentResult | None:
    found = next((one for one in account.disputed if one.txid == txid), None)
    # What the holder has paid isn't taken from him again: that dispute is dropped instead.
    left = 0 if found is None or (found.paid and amount < 0) else found.amount
    if abs(amount) <= left:
        return None
    values: dict[str, int | str] = {"amount": abs(amount), "disputed": left}
    reason = Reason(AdjustmentOutcome.OVER_DISPUTED.value, values=values)
    return AdjustmentResult(AdjustmentOutcome.OVER_DISPUTED, reason=reason)


def approve_adjustment(
    engine: Engine,
    member_id: str,
    adjustment_id: int,
    *,
    checked_by: str,
    idempotency_key: str,
    now: datetime,
    time_zone: str = "Asia/Shanghai",
) -> AdjustmentResult:
    """Post a proposed adjustment; whoever made it can't. If funds lack it stays proposed."""
    key = own_key("adjustment-approval", idempotency_key, adjustment_id, checked_by)

    def attempt(connection: Connection) -> AdjustmentResult:
        reused = AdjustmentResult(AdjustmentOutcome.KEY_REUSED)
        known = earlier(connection, key, AdjustmentResult, reused)
        if known is not None:
            return known
        found = products.lock_adjustment(connection, adjustment_id)
        refusal = _refuse_check(found, checked_by)
        if found is None or refusal is not None:
            return AdjustmentResult(refusal or AdjustmentOutcome.ADJUSTMENT_UNKNOWN)
        result = _post(connection, member_id, found, checked_by, clock.to_ms(now), time_zone)
        if result.outcome is AdjustmentOutcome.DONE:
            products.check_adjustment(
                connection,
                adjustment_id,
                state="posted",
                checked_by=checked_by,
                checked_at=now,
                txid=result.txid,
            )
            keep(connection, key, member_id, result.txid, result)
        return result

    return settled(engine, attempt)


def reject_adjustment(
    engine: Engine,
    adjustment_id: int,
    *,
    checked_by: str,
    now: datetime,
    under: Once | None = None,
) -> AdjustmentOutcome:
    """Reject a proposed adjustment; whoever made it can't."""

    def attempt(connection: Connection) -> AdjustmentOutcome:
        found = products.lock_adjustment(connection, adjustment_id)
        if found is not None and (found.state, found.checked_by) == ("rejected", checked_by):
            return AdjustmentOutcome.DONE  # a repeat
        refusal = _refuse_check(found, checked_by)
        if refusal is not None:
            return refusal
        products.check_adjustment(
            connection,
            adjustment_id,
            state="rejected",
            checked_by=checked_by,
            checked_at=now,
            txid=None,
        )
        return AdjustmentOutcome.DONE

    return settled_once(
        engine,
        under,
        "adjustment-rejection",
        (adjustment_id, checked_by),
        AdjustmentOutcome,
        AdjustmentOutcome.KEY_REUSED,
        attempt,
        lambda outcome: outcome is AdjustmentOutcome.DONE,
    )


def _refuse_check(found: Adjustment | None, checked_by: str) -> AdjustmentOutcome | None:
    if found is None:
        return AdjustmentOutcome.ADJUSTMENT_UNKNOWN
    if found.state != "proposed":
        return AdjustmentOutcome.ADJUSTMENT_DECIDED
    if found.made_by == checked_by:
        return AdjustmentOutcome.MAKER_IS_CHECKER
    return None


def _post(
    connection: Connection,
    member_id: str,
    found: Adjustment,
    checked_by: str,
    at_ms: int,
    time_zone: str,
) -> AdjustmentResult:
    scene = read_scene(connection, [found.account_id], at_ms)
    before = scene.holders[found.account_id].account
    card = accounts.cards_of(connection, [found.account_id])[0]
    facts = scene.facts(found.account_id, card)
    if found.disputed is None:
        decision = rules.decide_adjustment(found.amount, facts)
    else:
        # After the account: a later change of the payment is a later version of it.
        known = accounts.originals(connection, [found.disputed]).get(found.disputed)
        original = None if known is None else known.original
        facts = msgspec.structs.replace(facts, original=original)
        decision = rules.decide_disputed(found.amount, facts)
    after = decision.account
    if decision.outcome in (Outcome.OVER_ORIGINAL_AMOUNT, Outcome.ORIGINAL_NOT_FOUND):
        return AdjustmentResult(
            AdjustmentOutcome.OVER_DISPUTED, found.adjustment_id, reason=reason_of(decision)
        )
    if decision.outcome is not Outcome.APPROVED or after is None:
        return AdjustmentResult(
            AdjustmentOutcome.INSUFFICIENT_FUNDS, found.adjustment_id, reason=reason_of(decision)
        )
    own = Own(
        member_id,
        Kind.ADJUSTMENT,
        found.currency,
        decision,
        before,
        at_ms,
        time_zone,
        found.reason,
        card=card,
        # What the issuer bears is given back of that payment.
        original_txid=found.disputed if decision.progress else None,
    )
    txid = append_own(connection, own)
    if found.disputed is not None and all(o.txid != found.disputed for o in after.disputed):
        disputes.close_dispute_of(
            connection,
            found.disputed,
            ended_as=rules.Ended.GIVEN_BACK,
            closed_by=checked_by,
            closed_at=clock.to_datetime(at_ms),
            reason=f"adjustment {found.adjustment_id}",
        )
    return AdjustmentResult(AdjustmentOutcome.DONE, found.adjustment_id, txid, after.balance)
