"""Statements go their way: follow the chain, carry out orders, sign, send. Each can be repeated.

What is to be sent follows from the rows, so a crash at any point costs a look: PREPARED is
proposed, a proposal with our stored signature is confirmed, an overdue one is marked expired, a
confirmed one is made final when the time for disputes is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog

from nodes.chain.settlements import Verdict
from nodes.chain.typed_data import signer_of
from nodes.clearing.operations.sending import Attempt, send, settle_sendings
from nodes.clearing.store import lock
from nodes.clock import to_datetime
from nodes.db.engine import transaction
from nodes.settlement import queries, rules, store
from nodes.settlement.model import (
    Order,
    OrderAction,
    OrderOutcome,
    Settlement,
    StatementState,
)
from nodes.settlement.operations.context import SettlementContext
from nodes.settlement.operations.following import follow
from nodes.settlement.operations.ordering import check_action
from nodes.settlement.operations.signing import (
    LOCK,
    BooksChanged,
    countersign,
    propose,
    terms_of,
)

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: The other party has so long to make its own proposal final or expired, before we do.
_PATIENCE_S = 60
#: The chain's clock and ours may differ by so much.
_MARGIN_S = 2
#: What the contract says of a proposal that can't come about any more.
_LAPSED = frozenset(
    {
        "WrongNonce",
        "WrongPredecessor",
        "CloseNotConfirmed",
        "TotalsMismatch",
        "DeadlinePassed",
        "DeadlineTooFar",
        "SignerNotParty",
    }
)


def settle(context: SettlementContext) -> int:
    """Everything that can be done now; how many things were."""
    done = settle_sendings(context)
    done += follow(context)
    done += _carry_out_orders(context)
    if context.automatic:
        done += _sign_by_itself(context)
    return done + _send_what_is_signed(context) + _end_what_is_due(context)


# --- signing -----------------------------------------------------------------------------------


def _sign_by_itself(context: SettlementContext) -> int:
    done = 0
    with transaction(context.engine) as connection:
        closes = queries.proposable(connection)
        proposed = queries.settlements_in(connection, StatementState.PROPOSED)
    for close_id in closes:
        done += _guarded(lambda close_id: propose(context, close_id)[0], close_id)
    for one in proposed:
        if rules.may_countersign(one, context.member_id, context.now()) is OrderOutcome.DONE:
            done += _guarded(lambda number: countersign(context, number), one.settlement_id)
    return done


def _guarded(step: Callable[[T], OrderOutcome], subject: T) -> int:
    """1 if it was done; books that were changed are said, and hold nothing else up."""
    try:
        return int(step(subject) is OrderOutcome.DONE)
    except BooksChanged as error:
        log.error("books_changed", why=str(error))
        return 0


# --- sending -----------------------------------------------------------------------------------


def _send_what_is_signed(context: SettlementContext) -> int:
    done = 0
    with transaction(context.engine) as connection:
        prepared = queries.settlements_in(connection, StatementState.PREPARED)
        proposed = queries.settlements_in(connection, StatementState.PROPOSED)
    for one in prepared:
        done += _propose(context, one)
    for one in proposed:
        if one.proposer != context.member_id and context.member_id in one.signed:
            done += int(_confirm(context, one).sent)
    return done


def _propose(context: SettlementContext, settlement: Settlement) -> int:
    signature = _own_signature(context, settlement)
    attempt = send(
        context,
        "settlement-propose",
        settlement.settlement_id.hex(),
        lambda nonce: context.registry.build_propose_tx(
            sender=context.signer.address,
            nonce=nonce,
            terms=terms_of(settlement),
            signature=signature,
        ),
    )
    if attempt.refusal not in _LAPSED:
        return int(attempt.sent)
    if context.registry.record(settlement.settlement_id) is not None:
        return 0  # it is there, and following has not come to it yet
    with transaction(context.engine) as connection:
        if not lock(connection, LOCK):
            return 0
        now = queries.settlement(connection, settlement.settlement_id)
        if now is None or now.state is not StatementState.PREPARED:
            return 0
        store.append_step(
            connection, now.settlement_id, now.steps + 1, StatementState.LAPSED, context.now()
        )
    log.info("statement_lapsed", close=str(settlement.close.key), why=attempt.refusal)
    return 1


def _confirm(context: SettlementContext, settlement: Settlement) -> Attempt:
    signature = _own_signature(context, settlement)
    return send(
        context,
        "settlement-confirm",
        settlement.settlement_id.hex(),
        lambda nonce: context.registry.build_confirm_tx(
            sender=context.signer.address,
            nonce=nonce,
            settlement_id=settlement.settlement_id,
            signature=signature,
        ),
    )


def _own_signature(context: SettlementContext, settlement: Settlement) -> bytes:
    with transaction(context.engine) as connection:
        kept = queries.signature(connection, settlement.settlement_id, context.member_id)
    if kept is None:
        raise RuntimeError("a statement on its way without our signature")
    return kept


def _end_what_is_due(context: SettlementContext) -> int:
    with transaction(context.engine) as connection:
        proposed = queries.settlements_in(connection, StatementState.PROPOSED)
        confirmed = queries.settlements_in(connection, StatementState.CONFIRMED)
    done = 0
    for one in proposed:
        if _is_ours_to_end(context, one, one.deadline.timestamp()):
            done += int(_short(context, "settlement-expire", one).sent)
    for one in confirmed:
        until = one.disputable_until
        if until is not None and _is_ours_to_end(context, one, until.timestamp()):
            done += int(_short(context, "settlement-finalize", one).sent)
    return done


def _is_ours_to_end(context: SettlementContext, settlement: Settlement, due_s: float) -> bool:
    patience = _MARGIN_S if settlement.proposer == context.member_id else _PATIENCE_S
    return context.now().timestamp() > due_s + patience


def _short(context: SettlementContext, purpose: str, settlement: Settlement) -> Attempt:
    registry = context.registry
    if purpose == "settlement-expire":
        build, passing = registry.build_expire_tx, "NotOverdue"
    else:
        build, passing = registry.build_finalize_tx, "StillDisputable"
    return send(
        context,
        purpose,
        settlement.settlement_id.hex(),
        lambda nonce: build(
            sender=context.signer.address, nonce=nonce, settlement_id=settlement.settlement_id
        ),
        passing=passing,
    )


# --- orders ------------------------------------------------------------------------------------


def _carry_out_orders(context: SettlementContext) -> int:
    with transaction(context.engine) as connection:
        waiting = queries.waiting_orders(connection)
    return sum(_carry_out(context, order) for order in waiting)


def _carry_out(context: SettlementContext, order: Order) -> int:
    action = order.new.action
    if action is OrderAction.PROPOSE:
        return _order_proposal(context, order)
    settlement_id = order.new.settlement_id
    assert settlement_id is not None
    if action is OrderAction.COUNTERSIGN:
        try:
            outcome = countersign(context, settlement_id)
        except BooksChanged:
            outcome = OrderOutcome.BOOKS_DIFFER
        if outcome is OrderOutcome.ORDER_WAITING:
            return 0
        return _end(context, order, None if outcome is OrderOutcome.DONE else outcome.value)
    return _order_on_chain(context, order, settlement_id)


def _order_proposal(context: SettlementContext, order: Order) -> int:
    assert order.new.close_id is not None
    try:
        outcome, made = propose(context, order.new.close_id)
    except BooksChanged:
        outcome, made = OrderOutcome.BOOKS_DIFFER, None
    if outcome is OrderOutcome.ORDER_WAITING:
        return 0  # another statement of the pair is on its way
    refusal = None if outcome is OrderOutcome.DONE else outcome.value
    return _end(context, order, refusal, made)


def _order_on_chain(context: SettlementContext, order: Order, settlement_id: bytes) -> int:
    """A dispute or a resolution: done when the chain says so."""
    with transaction(context.engine) as connection:
        settlement = queries.settlement(connection, settlement_id)
    assert settlement is not None
    disputes = order.new.action is OrderAction.DISPUTE
    reached = StatementState.DISPUTED if disputes else StatementState.RESOLVED
    if settlement.state is reached:
        return _end(context, order, None)
    outcome = check_action(settlement, order.new, context.member_id, context.now())
    if outcome is not OrderOutcome.DONE:
        return _end(context, order, outcome.value)
    attempt = (_dispute if disputes else _resolve)(context, order, settlement)
    if attempt is None:
        return _end(context, order, OrderOutcome.EVIDENCE_NOT_ANCHORED.value)
    if attempt.refusal is not None:
        return _end(context, order, attempt.refusal)
    return int(attempt.sent)


def _dispute(context: SettlementContext, order: Order, settlement: Settlement) -> Attempt | None:
    evidence = context.evidence(order.new.txid or b"")
    if evidence is None:
        return None
    reason = rules.dispute_reason_hash(settlement.settlement_id, order.new.reason or "")
    return send(
        context,
        "settlement-dispute",
        settlement.settlement_id.hex(),
        lambda nonce: context.registry.build_dispute_tx(
            sender=context.signer.address,
            nonce=nonce,
            settlement_id=settlement.settlement_id,
            evidence=evidence,
            reason_hash=reason,
        ),
    )


def _resolve(context: SettlementContext, order: Order, settlement: Settlement) -> Attempt:
    new = order.new
    verdict = new.verdict or ""
    reason = rules.resolution_reason_hash(settlement.settlement_id, verdict, new.reason or "")
    digest = context.registry.resolution_digest(
        settlement.settlement_id, Verdict[verdict], reason, new.deadline_s or 0
    )
    # The contract takes them by ascending address.
    signatures = sorted(new.signatures, key=lambda s: int(signer_of(digest, s) or "0x0", 16))
    return send(
        context,
        "settlement-resolve",
        settlement.settlement_id.hex(),
        lambda nonce: context.registry.build_resolve_tx(
            sender=context.signer.address,
            nonce=nonce,
            settlement_id=settlement.settlement_id,
            verdict=Verdict[verdict],
            reason_hash=reason,
            deadline=new.deadline_s or 0,
            signatures=signatures,
        ),
    )


def _end(
    context: SettlementContext, order: Order, refusal: str | None, made: bytes | None = None
) -> int:
    at = to_datetime(context.clock.now_ms())
    with transaction(context.engine) as connection:
        store.end_order(connection, order.order_id, at, refusal=refusal, settlement_id=made)
    log.info("order_ended", action=order.new.action.value, refusal=refusal)
    return 1
