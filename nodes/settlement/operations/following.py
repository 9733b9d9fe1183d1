"""What the chain says of settlements: its events, read block by block, become steps of statements.

Only blocks that are final are read, each event is applied once, and how far was read moves in the
same transaction. A proposal of the other institution becomes a statement here, with a note whether
these books lead to the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from nodes.chain.settlement_events import (
    SettlementConfirmed,
    SettlementDisputed,
    SettlementEvent,
    SettlementExpired,
    SettlementFinal,
    SettlementProposed,
    SettlementResolved,
    SettlementSuperseded,
)
from nodes.chain.settlements import Verdict
from nodes.clearing.model import DayKey
from nodes.clearing.operations.posting import chain_key
from nodes.clearing.store import lock
from nodes.clock import to_datetime
from nodes.db.engine import transaction
from nodes.settlement import queries, store
from nodes.settlement.model import Settlement, StatementState
from nodes.settlement.operations.context import SettlementContext
from nodes.settlement.operations.signing import LOCK, BooksChanged, own_statement_hash, terms_of

log = structlog.get_logger(__name__)

#: Blocks that are read at a time.
_BLOCKS = 2_000
_STATES = {
    SettlementConfirmed: StatementState.CONFIRMED,
    SettlementDisputed: StatementState.DISPUTED,
    SettlementResolved: StatementState.RESOLVED,
    SettlementFinal: StatementState.FINAL,
    SettlementExpired: StatementState.EXPIRED,
    SettlementSuperseded: StatementState.SUPERSEDED,
}


def follow(context: SettlementContext) -> int:
    """Take over what is new on the chain; how many steps."""
    with transaction(context.engine) as connection:
        first = queries.scan(connection)
    last = context.client.block_number() - context.client.finality_depth + 1
    taken = 0
    while first <= last:
        end = min(first + _BLOCKS - 1, last)
        events = list(context.registry.events_since(first, end))
        with transaction(context.engine) as connection:
            if not lock(connection, LOCK) or queries.scan(connection) != first:
                return taken
            taken += _apply(context, connection, events)
            store.move_scan(connection, end + 1)
        first = end + 1
    return taken


def _apply(
    context: SettlementContext,
    connection: queries.Connection,
    events: Sequence[SettlementEvent],
) -> int:
    if not events:
        return 0
    ours = {chain_key(day).close_id: day for day in queries.days(connection)}
    taken = 0
    for event in events:
        day = ours.get(getattr(event, "close_id", b""))
        if day is None:
            continue  # of others, or of the arbiters
        if isinstance(event, SettlementProposed):
            taken += _proposed(context, connection, event, day)
        else:
            taken += _stepped(context, connection, event, day)
    return taken


def _proposed(
    context: SettlementContext,
    connection: queries.Connection,
    event: SettlementProposed,
    day: DayKey,
) -> int:
    known = queries.settlement(connection, event.settlement_id)
    if known is None:
        known = _of_other(context, connection, event, day)
        if known is None:
            return 0
        store.insert_settlement(connection, known, context.now())
    detail = {
        "block_number": event.at.block_number,
        "tx_hash": event.at.tx_hash,
        "by_member": event.proposer,
    }
    return _step(context, connection, known, StatementState.PROPOSED, detail)


def _of_other(
    context: SettlementContext,
    connection: queries.Connection,
    event: SettlementProposed,
    day: DayKey,
) -> Settlement | None:
    """A statement that isn't of these books: the other's, or our own from before a restore."""
    close = queries.close_of(connection, day, event.close_revision)
    if close is None:
        log.error("statement_without_close", close=str(day), revision=event.close_revision)
        return None
    try:
        agrees = own_statement_hash(connection, close) == event.statement_hash
    except BooksChanged as error:
        log.error("books_changed", why=str(error))
        agrees = False
    found = Settlement(
        settlement_id=event.settlement_id,
        close=close,
        proposer=event.proposer,
        statement_hash=event.statement_hash,
        supersedes=event.supersedes if any(event.supersedes) else None,
        nonce=event.nonce,
        deadline=to_datetime(event.deadline * 1000),
        agrees=agrees,
        state=StatementState.PROPOSED,
        steps=0,
        since=context.now(),
    )
    if not agrees or context.registry.settlement_id(terms_of(found)) != event.settlement_id:
        log.error("statement_differs", close=str(day), proposer=event.proposer)
    return found


def _stepped(
    context: SettlementContext,
    connection: queries.Connection,
    event: SettlementEvent,
    day: DayKey,
) -> int:
    known = queries.settlement(connection, getattr(event, "settlement_id", b""))
    state = _STATES.get(type(event))
    if known is None or state is None:
        return 0
    detail: dict[str, Any] = {"block_number": event.at.block_number, "tx_hash": event.at.tx_hash}
    if isinstance(event, SettlementConfirmed):
        detail["disputable_until"] = to_datetime(event.disputable_until * 1000)
        store.put_in_force(connection, day, known.settlement_id)
    elif isinstance(event, SettlementDisputed):
        detail |= {
            "by_member": event.by,
            "txid": event.txid,
            "leaf_member": event.leaf_member,
            "reason_hash": event.reason_hash,
        }
    elif isinstance(event, SettlementResolved):
        detail |= {"verdict": Verdict(event.verdict).name, "reason_hash": event.reason_hash}
    elif isinstance(event, SettlementSuperseded):
        detail["superseded_by"] = event.by
    return _step(context, connection, known, state, detail)


def _step(
    context: SettlementContext,
    connection: queries.Connection,
    settlement: Settlement,
    state: StatementState,
    detail: dict[str, Any],
) -> int:
    if queries.has_been(connection, settlement.settlement_id, state):
        return 0  # read before: the scan's place was lost
    store.append_step(
        connection, settlement.settlement_id, settlement.steps + 1, state, context.now(), detail
    )
    log.info("statement_step", close=str(settlement.close.key), state=state.value)
    return 1
