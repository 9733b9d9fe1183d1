"""This institution's signature: under a statement that it proposes, or under the other's.

Both are made of its own books alone, and stored before anything is sent.
"""

from __future__ import annotations

import structlog

from nodes.chain.settlements import ZERO_WORD, SettlementTerms, sign_settlement
from nodes.clearing.model import Close, CloseStage
from nodes.clearing.operations.closing import salt_of
from nodes.clearing.operations.posting import chain_key
from nodes.clearing.queries import close_by_id
from nodes.clearing.store import lock
from nodes.db.engine import transaction
from nodes.settlement import queries, rules, store
from nodes.settlement.model import OrderOutcome, Settlement, StatementState
from nodes.settlement.operations.context import SettlementContext
from nodes.settlement.rules import Statement, statement_hash

log = structlog.get_logger(__name__)

LOCK = "settlements"


class BooksChanged(Exception):
    """The rows of a confirmed close no longer lead to the totals that were posted for it."""


def statement_of(close: Close) -> Statement:
    """What a close comes to."""
    return Statement(close.key, close.revision, close.totals)


def own_statement_hash(connection: queries.Connection, close: Close) -> bytes:
    """The hash of a close's statement, of these books' rows. BooksChanged if they were changed."""
    salt = salt_of(connection, close)
    if salt is None:
        raise BooksChanged(f"{close.key} revision {close.revision}: the rows have other totals")
    return statement_hash(statement_of(close), salt)


def terms_of(settlement: Settlement) -> SettlementTerms:
    """A statement as the contract takes it."""
    return SettlementTerms(
        close=chain_key(settlement.close.key),
        close_revision=settlement.close.revision,
        totals_hash=settlement.close.totals_hash,
        statement_hash=settlement.statement_hash,
        supersedes=settlement.supersedes or ZERO_WORD,
        nonce=settlement.nonce,
        deadline=int(settlement.deadline.timestamp()),
    )


def propose(context: SettlementContext, close_id: int) -> tuple[OrderOutcome, bytes | None]:
    """Make and sign a statement of a confirmed close; its id. Sending it is the next step.

    ALREADY_SETTLED also while another statement of the pair is on its way: its number isn't known.
    """
    with transaction(context.engine) as connection:
        staged = close_by_id(connection, close_id)
    if staged is None:
        return OrderOutcome.CLOSE_UNKNOWN, None
    close, key = staged.close, chain_key(staged.close.key)
    # Asked before the transaction: nothing waits for the chain with a lock in its hand.
    waiting, current = context.registry.pending(key), context.registry.current(key)
    nonce = context.registry.next_nonce(key.acquirer, key.issuer)
    with transaction(context.engine) as connection:
        if not lock(connection, LOCK):
            return OrderOutcome.ORDER_WAITING, None
        if queries.pair_is_busy(connection, close.key):
            return OrderOutcome.ORDER_WAITING, None
        others = queries.settlements_of(connection, close_id)
        confirmed = staged.stage is CloseStage.CONFIRMED
        outcome = rules.may_propose(confirmed, others)
        if outcome is not OrderOutcome.DONE:
            return outcome, None
        known = queries.settlement(connection, waiting) if waiting is not None else None
        if waiting is not None and (known is None or known.close.close_id == close_id):
            # The other's, and our books haven't followed the chain yet.
            return OrderOutcome.ALREADY_SETTLED, None
        settlement = _prepared(context, connection, close, current, nonce)
    log.info("statement_signed", close=str(close.key), revision=close.revision, part="proposal")
    return OrderOutcome.DONE, settlement.settlement_id


def _prepared(
    context: SettlementContext,
    connection: queries.Connection,
    close: Close,
    current: bytes | None,
    nonce: int,
) -> Settlement:
    now = context.now()
    drawn = Settlement(
        settlement_id=b"",
        close=close,
        proposer=context.member_id,
        statement_hash=own_statement_hash(connection, close),
        supersedes=current,
        nonce=nonce,
        deadline=context.deadline(),
        agrees=True,
        state=StatementState.PREPARED,
        steps=1,
        since=now,
    )
    number = context.registry.settlement_id(terms_of(drawn))
    made = Settlement(
        number,
        close,
        drawn.proposer,
        drawn.statement_hash,
        current,
        nonce,
        drawn.deadline,
        True,
        StatementState.PREPARED,
        1,
        now,
    )
    store.insert_settlement(connection, made, now)
    store.append_step(connection, number, 1, StatementState.PREPARED, now)
    signature = sign_settlement(context.signer, number)
    store.keep_signature(connection, number, context.member_id, signature, now)
    return made


def countersign(context: SettlementContext, settlement_id: bytes) -> OrderOutcome:
    """Sign the other's proposal if these books lead to it; sending the signature is the next
    step."""
    with transaction(context.engine) as connection:
        if not lock(connection, LOCK):
            return OrderOutcome.ORDER_WAITING
        settlement = queries.settlement(connection, settlement_id)
        if settlement is None:
            return OrderOutcome.SETTLEMENT_UNKNOWN
        now = context.now()
        outcome = rules.may_countersign(settlement, context.member_id, now)
        if outcome is not OrderOutcome.DONE:
            return outcome
        # Now, not only when the proposal was seen: what is signed is what the books say today.
        if own_statement_hash(connection, settlement.close) != settlement.statement_hash:
            return OrderOutcome.BOOKS_DIFFER
        if context.registry.settlement_id(terms_of(settlement)) != settlement_id:
            return OrderOutcome.BOOKS_DIFFER
        signature = sign_settlement(context.signer, settlement_id)
        store.keep_signature(connection, settlement_id, context.member_id, signature, now)
    log.info("statement_signed", close=str(settlement.close.key), part="countersignature")
    return OrderOutcome.DONE
