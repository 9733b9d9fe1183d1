"""Closing days: each institution by itself, of its own books, once a day and its grace are over."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog
from sqlalchemy import Engine

from nodes.clearing import case_queries, day_queries, queries, store
from nodes.clearing.model import Close, CloseStage, DayKey
from nodes.clearing.queries import Due
from nodes.clearing.rules.closing import (
    close_root,
    newest_closable,
    totals_hash,
    totals_of,
    totals_salt,
)
from nodes.clock import Clock, to_datetime
from nodes.db.engine import transaction

#: A day is closed when no row of it has come for so long.
_QUIET_MS = 8_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClosingTerms:
    """When a day is over, and when what is missing or broken is due."""

    time_zone: str
    grace_s: float = 1800
    #: How long after its transmission a transaction may still arrive.
    late_s: float = 3600
    #: How long a case may take.
    case_s: float = 48 * 3600


def close_days(engine: Engine, member_id: str, clock: Clock, terms: ClosingTerms) -> list[Close]:
    """Close every day that is due: the new ones, and judged ones that need another revision."""
    with transaction(engine) as connection:
        if not store.lock(connection, "close-days"):
            return []
        first, _ = queries.scan(connection)
        below = day_queries.horizon(connection)
        store.note_days(connection, queries.days_since(connection, member_id, first, below))
        store.move_scan(connection, next_xact=below)
        store.forget_items(connection)
        until = newest_closable(clock.now_ms(), terms.time_zone, terms.grace_s)
        due = queries.due_days(connection, until)
    made: list[Close] = []
    for day in due:
        with transaction(engine) as connection:
            if is_still_written(connection, day.key, member_id, clock.now_ms()):
                continue
            if store.lock(connection, "close-days") and needs_close(connection, day, member_id):
                revision = day.close.revision + 1 if day.close else 0
                made.append(make_close(connection, day.key, revision, member_id, clock))
    return made


def is_still_written(
    connection: store.Connection, key: DayKey, member_id: str, now_ms: int
) -> bool:
    """Whether rows of a day still come in, within seconds of each other: a close that is made now
    would hardly be the other's. Never longer than two days after the date."""
    party = key.party(member_id)
    ended = to_datetime(now_ms).date() - key.business_date > timedelta(days=2)
    return (
        party is not None
        and not ended
        and day_queries.is_written(connection, key, party, now_ms - _QUIET_MS)
    )


def needs_close(connection: store.Connection, day: Due, member_id: str) -> bool:
    """Whether a due day is to be closed (again) now.

    After a Broken one the acquirer, who keeps the cases, begins once they are all corrected; the
    issuer follows, when its own corrections are made.
    """
    newest = queries.close_of(connection, day.key, day.close.revision + 1 if day.close else 0)
    if newest is not None:
        return False  # another process was first
    if day.close is None or day.stage is CloseStage.EXPIRED:
        return True
    opened = day.opened_revision > day.close.revision
    if day.stage is CloseStage.CONFIRMED:
        return opened or day.last_xact >= day.close.horizon
    settled = case_queries.unsettled_breaks(connection, day.close.close_id) == 0
    if member_id == day.key.acquirer:
        return settled and case_queries.has_breaks(connection, day.close.close_id)
    return settled and opened


def salt_of(connection: store.Connection, close: Close) -> bytes | None:
    """The salt that a close's totals are hidden under, of its items; None if the rows no longer
    lead to the totals that were posted."""
    _, salts = day_queries.salted_items(
        connection, close.key, close.party, close.horizon, close.revision
    )
    salt = totals_salt(salts)
    return salt if totals_hash(salt, close.totals) == close.totals_hash else None


def make_close(
    connection: store.Connection, key: DayKey, revision: int, member_id: str, clock: Clock
) -> Close:
    """Make a close of what stands in the books now, in the caller's transaction."""
    party = key.party(member_id)
    if party is None:
        raise ValueError(f"{member_id} has no part in {key}")
    below = day_queries.horizon(connection)
    items, salts = day_queries.salted_items(connection, key, party, below, revision)
    totals = totals_of(items)
    checked = day_queries.checked_pair_seq(connection, key)
    newest = day_queries.newest_pair_seq(connection, key, party, below) if revision == 0 else 0
    close = Close(
        key=key,
        revision=revision,
        party=party,
        horizon=below,
        totals=totals,
        close_root=close_root(items),
        totals_hash=totals_hash(totals_salt(salts), totals),
        blind=secrets.token_bytes(32),
        after_pair_seq=checked,
        last_pair_seq=max(checked, newest),
        closed_ms=clock.now_ms(),
    )
    number = store.insert_close(connection, close, to_datetime(close.closed_ms))
    store.keep_items(connection, number, items)
    repeats = day_queries.find_duplicates(connection, key, party, below)
    store.insert_duplicates(connection, number, repeats)
    log.info("day_closed", close=str(key), revision=revision, items=totals.count)
    return replace(close, close_id=number)
