"""A cardholder disputes what he has paid: opened and dropped here, given back by adjustments."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec
from sqlalchemy import Engine

from nodes import clock
from nodes.authorization import rules
from nodes.authorization.model import Outcome
from nodes.authorization.operations.booking import (
    Once,
    earlier,
    keep,
    own_key,
    read_scene,
    reason_of,
    settled,
    settled_once,
)
from nodes.authorization.state import Reason
from nodes.authorization.store import accounts, disputes
from nodes.authorization.store.accounts import Connection, NewVersion


class DisputeOutcome(StrEnum):
    """How opening or closing a dispute ends, in order of precedence."""

    KEY_REUSED = "key_reused"
    DISPUTE_UNKNOWN = "dispute_unknown"
    PAYMENT_UNKNOWN = "payment_unknown"
    ALREADY_REVERSED = "already_reversed"
    UNDER_DISPUTE = "under_dispute"
    DISPUTE_CLOSED = "dispute_closed"
    OVER_ORIGINAL_AMOUNT = "over_original_amount"
    DONE = "done"


class DisputeResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome; the dispute's number where it is done, else what was compared."""

    outcome: DisputeOutcome
    dispute_id: int | None = None
    reason: Reason | None = None


_REFUSALS = {
    Outcome.ALREADY_REVERSED: DisputeOutcome.ALREADY_REVERSED,
    Outcome.UNDER_DISPUTE: DisputeOutcome.UNDER_DISPUTE,
    Outcome.OVER_ORIGINAL_AMOUNT: DisputeOutcome.OVER_ORIGINAL_AMOUNT,
}


def open_dispute(
    engine: Engine,
    member_id: str,
    *,
    txid: bytes,
    amount: int | None,
    reason: str,
    opened_by: str,
    idempotency_key: str,
    now: datetime,
) -> DisputeResult:
    """Note that a payment's holder disputes it, once an idempotency key; no money moves.

    `amount` in minor units; None: all that is left of the payment. From the commit on, refunds and
    voids of it are refused.
    """
    key = own_key("dispute", idempotency_key, txid, amount, reason, opened_by)

    def attempt(connection: Connection) -> DisputeResult:
        reused = DisputeResult(DisputeOutcome.KEY_REUSED)
        known = earlier(connection, key, DisputeResult, reused)
        if known is not None:
            return known
        result = _open(connection, txid, amount, reason, opened_by, now)
        if result.outcome is DisputeOutcome.DONE:
            keep(connection, key, member_id, None, result)
        return result

    return settled(engine, attempt)


def _open(
    connection: Connection,
    txid: bytes,
    amount: int | None,
    reason: str,
    opened_by: str,
    now: datetime,
) -> DisputeResult:
    found = accounts.originals(connection, [txid]).get(txid)
    account_id = None if found is None else found.original.account_id
    if account_id is None:
        return DisputeResult(DisputeOutcome.PAYMENT_UNKNOWN)
    at_ms = clock.to_ms(now)
    scene = read_scene(connection, [account_id], at_ms)
    before = scene.holders[account_id].account
    # Again, after the account: what became of it up to that version. A later change is a later
    # version, and this one's insert fails.
    original = accounts.originals(connection, [txid])[txid].original
    facts = msgspec.structs.replace(scene.facts(account_id), original=original)
    decision = rules.decide_dispute(amount, facts)
    after = decision.account
    if decision.outcome is not Outcome.APPROVED or after is None:
        outcome = _REFUSALS.get(decision.outcome, DisputeOutcome.PAYMENT_UNKNOWN)
        return DisputeResult(outcome, reason=reason_of(decision))
    accounts.append_versions(connection, [NewVersion(before, after, None, at_ms, decision.detail)])
    number = disputes.insert_dispute(
        connection,
        txid=txid,
        account_id=account_id,
        amount=decision.amount,
        currency=before.currency,
        reason=reason,
        opened_by=opened_by,
        opened_at=now,
    )
    return DisputeResult(DisputeOutcome.DONE, number)


def close_dispute(
    engine: Engine,
    dispute_id: int,
    *,
    closed_by: str,
    reason: str,
    now: datetime,
    under: Once | None = None,
) -> DisputeOutcome:
    """The dispute is over and gives nothing back (more): merchants can refund the payment again."""

    def attempt(connection: Connection) -> DisputeOutcome:
        found = disputes.find_dispute(connection, dispute_id)
        if found is None:
            return DisputeOutcome.DISPUTE_UNKNOWN
        if found.closed_at is not None:
            return DisputeOutcome.DISPUTE_CLOSED
        at_ms = clock.to_ms(now)
        scene = read_scene(connection, [found.account_id], at_ms)
        before = scene.holders[found.account_id].account
        decision = rules.decide_dropped(found.txid, scene.facts(found.account_id))
        if decision.outcome is Outcome.APPROVED and decision.account is not None:
            version = NewVersion(before, decision.account, None, at_ms, decision.detail)
            accounts.append_versions(connection, [version])
        disputes.close_dispute_of(
            connection,
            found.txid,
            ended_as=rules.Ended.DROPPED,
            closed_by=closed_by,
            closed_at=now,
            reason=reason,
        )
        return DisputeOutcome.DONE

    return settled_once(
        engine,
        under,
        "dispute-close",
        (dispute_id, closed_by, reason),
        DisputeOutcome,
        DisputeOutcome.KEY_REUSED,
        attempt,
        lambda outcome: outcome is DisputeOutcome.DONE,
    )
