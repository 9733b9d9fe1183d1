"""Closes go to the chain: commitment, reveal, and what the chain makes of the two (CloseRegistry).

PREPARED -> COMMITTED -> REVEALED -> CONFIRMED | BROKEN -> SUPERSEDED; EXPIRED if the other side
stayed silent. Transactions go out by sending.py: stored with their nonce before they are sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Engine

from nodes.chain.client import ChainClient
from nodes.chain.closes import (
    CloseKey,
    CloseOpened,
    CloseRegistry,
    CloseRound,
    CloseSide,
    CloseState,
)
from nodes.chain.signer import Signer
from nodes.clearing import queries, store
from nodes.clearing.model import CloseStage, DayKey
from nodes.clearing.operations.sending import send, settle_sendings
from nodes.clearing.queries import Staged
from nodes.clock import Clock, to_datetime
from nodes.db.engine import transaction

log = structlog.get_logger(__name__)

#: What could not be sent, though it was time, is tried again after so long.
_AGAIN_MS = 10_000
#: Blocks that are looked through at a time.
_BLOCKS = 2_000
_JUDGED = (CloseState.CONFIRMED, CloseState.BROKEN, CloseState.SUPERSEDED)


class CloseFenced(Exception):
    """The chain has another commitment of this member than the database: it was restored."""


@dataclass(frozen=True)
class PostingContext:
    """What posting works with; one for each node."""

    engine: Engine
    member_id: str
    client: ChainClient
    registry: CloseRegistry
    signer: Signer
    clock: Clock


@dataclass(slots=True)
class Watch:
    """What the last look at closes under way saw, where nothing came of it: the newest block and
    the closes with their stages. Until `again_ms` nothing else can come of another look."""

    seen: tuple[bytes, tuple[tuple[int, CloseStage], ...]] | None = None
    again_ms: int = 0


def chain_key(key: DayKey) -> CloseKey:
    """A day as the chain's client names it."""
    return CloseKey(key.acquirer, key.issuer, key.currency, key.business_date)


def watch_closes(context: PostingContext) -> int:
    """Note which closes of this member were opened on the chain; how many."""
    with transaction(context.engine) as connection:
        _, first = queries.scan(connection)
    depth = context.client.finality_depth
    last = context.client.block_number() - depth + 1
    noted = 0
    while first <= last:
        end = min(first + _BLOCKS - 1, last)
        opened = [
            event
            for event in context.registry.events_since(first, end)
            if isinstance(event, CloseOpened)
            and context.member_id in (event.key.acquirer, event.key.issuer)
        ]
        with transaction(context.engine) as connection:
            for event in opened:
                key = event.key
                day = DayKey(key.acquirer, key.issuer, key.currency, key.business_date)
                store.note_opened(connection, day, event.revision)
            store.move_scan(connection, next_block=end + 1)
        noted += len(opened)
        first = end + 1
    return noted


def post_closes(context: PostingContext, watch: Watch | None = None) -> int:
    """Bring closes a step further, each that can be; how many steps were taken.

    With a `watch`, which the same caller passes again, closes are looked at on the chain only when
    it or they have changed.
    """
    taken = settle_sendings(context)
    with transaction(context.engine) as connection:
        under_way = queries.closes_in(
            connection, CloseStage.PREPARED, CloseStage.COMMITTED, CloseStage.REVEALED
        )
    if not under_way:
        return taken
    stages = tuple((staged.close.close_id, staged.stage) for staged in under_way)
    seen, now_ms = (context.client.block().hash, stages), context.clock.now_ms()
    if watch is not None and not taken and watch.seen == seen and now_ms < watch.again_ms:
        return 0
    taken += sum(_further(context, staged) for staged in under_way)
    if watch is not None:
        watch.seen, watch.again_ms = (None if taken else seen), now_ms + _AGAIN_MS
    return taken


def _further(context: PostingContext, staged: Staged) -> int:
    close, stage = staged.close, staged.stage
    seen = context.registry.round(chain_key(close.key), close.revision)
    mine, other = seen.acquirer, seen.issuer
    if close.party == "issuer":
        mine, other = other, mine
    commitment = context.registry.commitment(
        context.member_id,
        chain_key(close.key),
        close.revision,
        close.close_root,
        close.totals_hash,
        close.blind,
    )
    if mine.commitment is not None and mine.commitment != commitment:
        raise CloseFenced(f"{close.key} revision {close.revision}: another commitment is posted")
    if seen.state is CloseState.EXPIRED and mine.close_root is None:
        return _enter(context, staged, CloseStage.EXPIRED)
    if stage is CloseStage.PREPARED:
        if mine.commitment is not None and _stands(context, staged, "close-commit"):
            return _enter(context, staged, CloseStage.COMMITTED)
        if mine.commitment is None and seen.state in (CloseState.NONE, CloseState.COMMITTING):
            subject = _subject(staged)
            attempt = send(
                context, "close-commit", subject, lambda n: _commit(context, staged, commitment, n)
            )
            return int(attempt.sent)
        return 0
    if stage is CloseStage.COMMITTED:
        if mine.close_root is not None and _stands(context, staged, "close-reveal"):
            return _enter(context, staged, CloseStage.REVEALED)
        if mine.close_root is None and seen.state is CloseState.REVEALING:
            subject = _subject(staged)
            attempt = send(context, "close-reveal", subject, lambda n: _reveal(context, staged, n))
            return int(attempt.sent)
        return 0
    return _judge(context, staged, seen, other)


def _judge(context: PostingContext, staged: Staged, seen: CloseRound, other: CloseSide) -> int:
    if seen.state is CloseState.EXPIRED:
        return _enter(context, staged, CloseStage.EXPIRED)
    if seen.state not in _JUDGED or other.close_root is None or other.totals_hash is None:
        return 0
    theirs = (other.close_root, other.totals_hash)
    alike = theirs == (staged.close.close_root, staged.close.totals_hash)
    return _enter(context, staged, CloseStage.CONFIRMED if alike else CloseStage.BROKEN, theirs)


def _enter(
    context: PostingContext,
    staged: Staged,
    stage: CloseStage,
    other: tuple[bytes, bytes] | None = None,
) -> int:
    at = to_datetime(context.clock.now_ms())
    with transaction(context.engine) as connection:
        if not store.lock(connection, "close-stages"):
            return 0
        entered = store.enter_stage(connection, staged.close.close_id, stage, at, other)
        if entered and stage is CloseStage.CONFIRMED:
            for earlier in queries.earlier_revisions(connection, staged.close):
                if earlier.stage is not CloseStage.SUPERSEDED:
                    store.enter_stage(connection, earlier.close.close_id, CloseStage.SUPERSEDED, at)
    if entered:
        close = staged.close
        log.info("close_stage", close=str(close.key), revision=close.revision, stage=stage.value)
    return int(entered)


def _stands(context: PostingContext, staged: Staged, purpose: str) -> bool:
    """Whether our own transaction is in a final block; True if it isn't known (a restored node)."""
    with transaction(context.engine) as connection:
        state = queries.sending_state(connection, purpose, _subject(staged))
    return state != "SUBMITTED"


def _subject(staged: Staged) -> str:
    return str(staged.close.close_id)


def _commit(
    context: PostingContext, staged: Staged, commitment: bytes, nonce: int
) -> dict[str, Any]:
    return context.registry.build_commit_tx(
        sender=context.signer.address,
        nonce=nonce,
        key=chain_key(staged.close.key),
        revision=staged.close.revision,
        commitment=commitment,
    )


def _reveal(context: PostingContext, staged: Staged, nonce: int) -> dict[str, Any]:
    close = staged.close
    return context.registry.build_reveal_tx(
        sender=context.signer.address,
        nonce=nonce,
        key=chain_key(close.key),
        revision=close.revision,
        close_root=close.close_root,
        totals_hash=close.totals_hash,
        blind=close.blind,
    )
