"""Taking others' overdue promises to the chain, and writing down what comes of them.

Whoever holds a receipt has no account on a permissioned chain; any member's node sends the claim.
The contract judges: what it would refuse isn't kept. Transactions go out as those of closes do
(nodes/clearing/operations/sending.py): stored with their nonce, then broadcast, once each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import structlog
from sqlalchemy import Engine

from nodes.chain.challenges import Claim, ClaimState, OmissionRegistry
from nodes.chain.client import ChainClient
from nodes.chain.errors import ChainReverted
from nodes.chain.signer import Signer
from nodes.claims import store
from nodes.claims.model import NEVER, ClaimOrder, OrderState
from nodes.clearing.operations.sending import send, settle_sendings
from nodes.clearing.queries import sending_state
from nodes.clock import Clock, to_datetime
from nodes.db.engine import transaction

log = structlog.get_logger(__name__)

#: So many claims may be under way at once: a claim costs every member's chain a transaction.
MOST_OPEN = 1_000
#: So many are looked at in a round.
_A_ROUND = 100
#: The chain's clock and ours may differ by so much, in seconds.
_MARGIN_S = 2
#: What of the outbox (chain_outbox) are claims' transactions.
_CLAIM, _CONCLUDE = "omission-claim", "omission-conclude"
#: What it refuses before a time, which passes.
_NOT_DUE, _PENDING = "PromiseNotDue", "AnswerPending"
_EXISTS = "ClaimExists"
#: Anybody may ask the contract what it would say.
_NOBODY = "0x" + "0" * 40
_SEEN = {
    ClaimState.CLAIMED: OrderState.CLAIMED,
    ClaimState.ANSWERED: OrderState.ANSWERED,
    ClaimState.PROVEN: OrderState.PROVEN,
}


class Taken(StrEnum):
    """How bringing a claim ends, in order of precedence."""

    KNOWN = "known"
    FULL = "full"
    REFUSED = "refused"
    TAKEN = "taken"


@dataclass(frozen=True)
class RelayContext:
    """What relaying works with."""

    engine: Engine
    client: ChainClient
    omissions: OmissionRegistry
    signer: Signer
    clock: Clock


def take_order(
    engine: Engine, omissions: OmissionRegistry, order: ClaimOrder, clock: Clock
) -> tuple[Taken, ClaimOrder]:
    """Keep a claim for the worker, if the contract would take it now.

    KNOWN: it was brought before and wasn't refused. One that stands on the chain already is kept as
    well, and concluded in its time. REFUSED: the order's `reason` is the contract's. ChainError: it
    can't be asked.
    """
    with transaction(engine) as connection:
        known = store.order_of(connection, order.claim_id)
        if known is not None and known.state is not OrderState.REFUSED:
            return Taken.KNOWN, known
        if store.count_open(connection) >= MOST_OPEN:
            return Taken.FULL, order
    claim = omissions.claim_by_id(order.claim_id)
    if claim is None:
        refusal = _refusal(omissions, order, clock.now_ms() // 1000)
        if refusal is not None:
            return Taken.REFUSED, replace(order, state=OrderState.REFUSED, reason=refusal)
    kept = order
    if claim is not None:
        kept = replace(order, state=_SEEN[claim.state], answer_by=claim.answer_deadline)
    with transaction(engine) as connection:
        is_kept = store.keep_order(connection, kept, to_datetime(clock.now_ms()))
        found = store.order_of(connection, order.claim_id)
    assert found is not None
    # Not kept: another brought it meanwhile, and it may be on the chain by now.
    return Taken.TAKEN if is_kept else Taken.KNOWN, found


def relay_claims(context: RelayContext) -> int:
    """Bring open claims further: claimed, and concluded when nobody answered; how many steps."""
    with transaction(context.engine) as connection:
        orders = store.open_orders(connection, _A_ROUND)
    if not orders:
        return 0
    done = settle_sendings(context)
    now_s = context.clock.now_ms() // 1000 - _MARGIN_S
    for order in orders:
        claim = context.omissions.claim_by_id(order.claim_id)
        done += _send_claim(context, order) if claim is None else _follow(context, claim, now_s)
    return done


def _follow(context: RelayContext, claim: Claim, now_s: int) -> int:
    """Write down what the chain says; conclude what is over."""
    subject = claim.claim_id.hex()
    with transaction(context.engine) as connection:
        states = [sending_state(connection, purpose, subject) for purpose in (_CLAIM, _CONCLUDE)]
        if "SUBMITTED" in states:
            # Not final yet: the chain may still lose it. And an order that has ended is looked at
            # no more, so its transactions must have ended first.
            return 0
        store.move_order(
            connection, claim.claim_id, _SEEN[claim.state], answer_by=claim.answer_deadline
        )
    if claim.state is not ClaimState.CLAIMED or now_s <= claim.answer_deadline:
        return 0

    def conclude(nonce: int) -> dict[str, Any]:
        return context.omissions.build_conclude_tx(
            sender=context.signer.address, nonce=nonce, claim_id=claim.claim_id
        )

    sent = send(context, _CONCLUDE, subject, conclude, passing=_PENDING).sent
    if sent:
        log.warning("omission_concluded", member=claim.member_id, txid=claim.txid.hex())
    return int(sent)


def _send_claim(context: RelayContext, order: ClaimOrder) -> int:
    build = _building(context.omissions, order, context.signer.address)
    attempt = send(context, _CLAIM, order.claim_id.hex(), build, passing=_NOT_DUE)
    if attempt.refusal in NEVER:
        with transaction(context.engine) as connection:
            store.move_order(connection, order.claim_id, OrderState.REFUSED, reason=attempt.refusal)
    return int(attempt.sent)


def _refusal(omissions: OmissionRegistry, order: ClaimOrder, now_s: int) -> str | None:
    """What the contract would refuse the claim for; None if it would take it.

    A call is judged by the newest block's time, which on a quiet chain is long ago.
    """
    try:
        omissions.check_tx(_building(omissions, order, _NOBODY)(0))
    except ChainReverted as refused:
        due = refused.reason == _NOT_DUE and now_s > order.merge_deadline
        # Another was first, a moment ago: the claim stands, and is followed.
        return None if due or refused.reason == _EXISTS else refused.reason
    return None


def _building(
    omissions: OmissionRegistry, order: ClaimOrder, sender: str
) -> Callable[[int], dict[str, Any]]:
    def build(nonce: int) -> dict[str, Any]:
        return omissions.build_claim_tx(
            sender=sender,
            nonce=nonce,
            member_id=order.member_id,
            txid=order.txid,
            commitment=order.commitment,
            merge_deadline=order.merge_deadline,
            signature=order.signature,
        )

    return build
