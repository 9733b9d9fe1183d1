"""All SQL of closes, breaks and cases that writes. Callers own the transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from nodes.clearing.model import (
    ITEM_SIZE,
    Break,
    CaseState,
    CaseStep,
    Close,
    CloseStage,
    DayItems,
    DayKey,
    Resolution,
)
from nodes.clearing.rules.closing import Correction

Connection = psycopg.Connection[Any]


def lock(connection: Connection, name: str, *, wait: bool = False) -> bool:
    """Take a lock of this database by name until the transaction ends; False if it is taken."""
    function = "pg_advisory_xact_lock" if wait else "pg_try_advisory_xact_lock"
    row = connection.execute(
        f"SELECT {function}(hashtextextended(%s, 0))", (f"countersign/{name}",)
    ).fetchone()
    return wait or bool(row and row[0])


def note_days(connection: Connection, days: Sequence[tuple[DayKey, int]]) -> None:
    """Days that have rows, with the newest transaction (xact) that wrote one."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO close_days AS d (acquirer, issuer, currency, business_date, last_xact)"
            " VALUES (%s, %s, %s, %s, %s::text::xid8)"
            " ON CONFLICT (acquirer, issuer, currency, business_date) DO UPDATE"
            " SET last_xact = excluded.last_xact WHERE d.last_xact < excluded.last_xact",
            [(*_key(key), str(xact)) for key, xact in days],
        )


def note_opened(connection: Connection, key: DayKey, revision: int) -> None:
    """A revision was opened on the chain, by whichever of the two."""
    connection.execute(
        "INSERT INTO close_days AS d (acquirer, issuer, currency, business_date, last_xact,"
        " opened_revision) VALUES (%s, %s, %s, %s, '0'::xid8, %s)"
        " ON CONFLICT (acquirer, issuer, currency, business_date) DO UPDATE"
        " SET opened_revision = excluded.opened_revision"
        " WHERE d.opened_revision < excluded.opened_revision",
        (*_key(key), revision),
    )


def move_scan(
    connection: Connection, *, next_xact: int | None = None, next_block: int | None = None
) -> None:
    """How far rows and the chain's events were looked through; never moves back."""
    connection.execute(
        "UPDATE close_scan SET"
        " next_xact = greatest(next_xact, coalesce(%s::text::xid8, next_xact)),"
        " next_block = greatest(next_block, coalesce(%s, next_block))",
        (None if next_xact is None else str(next_xact), next_block),
    )


def insert_close(connection: Connection, close: Close, at: datetime) -> int:
    """A new revision, PREPARED; its number in the database."""
    row = connection.execute(
        "INSERT INTO closes (acquirer, issuer, currency, business_date, revision, party, horizon,"
        " item_count, debits, credits, close_root, totals_hash, blind, after_pair_seq,"
        " last_pair_seq, closed_at) VALUES (%s, %s, %s, %s, %s, %s, %s::text::xid8, %s, %s, %s, %s,"
        " %s, %s, %s, %s, %s) RETURNING close_id",
        (
            *_key(close.key),
            close.revision,
            close.party,
            str(close.horizon),
            close.totals.count,
            close.totals.debits,
            close.totals.credits,
            close.close_root,
            close.totals_hash,
            close.blind,
            close.after_pair_seq,
            close.last_pair_seq,
            at,
        ),
    ).fetchone()
    assert row is not None
    enter_stage(connection, row[0], CloseStage.PREPARED, at)
    return int(row[0])


#: Of one field: 14.4 MB.
_PART = 200_000 * ITEM_SIZE


def keep_items(connection: Connection, close_id: int, items: DayItems) -> None:
    """Keep a close's items until they are compared."""
    blob = items.blob
    for part, start in enumerate(range(0, len(blob), _PART)):
        connection.execute(
            "INSERT INTO close_items (close_id, part, items) VALUES (%s, %s, %b)",
            (close_id, part, blob[start : start + _PART]),
        )


def forget_items(connection: Connection) -> int:
    """Drop the items of closes that are compared or confirmed; how many parts."""
    done = connection.execute(
        "DELETE FROM close_items AS i WHERE EXISTS (SELECT FROM close_stages AS s"
        " WHERE s.close_id = i.close_id AND s.stage IN ('CONFIRMED', 'EXPIRED', 'SUPERSEDED'))"
        " OR EXISTS (SELECT FROM comparisons AS m WHERE m.close_id = i.close_id)"
        " OR EXISTS (SELECT FROM breaks AS b WHERE b.close_id = i.close_id)"
    )
    return done.rowcount


def insert_duplicates(
    connection: Connection, close_id: int, duplicates: Mapping[bytes, bytes]
) -> None:
    """Repeated messages of a close: the later one's txid by the first's."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO close_duplicates (close_id, txid, first_txid) VALUES (%s, %s, %s)",
            [(close_id, later, first) for later, first in duplicates.items()],
        )


def enter_stage(
    connection: Connection,
    close_id: int,
    stage: CloseStage,
    at: datetime,
    other: tuple[bytes, bytes] | None = None,
) -> bool:
    """A close's next stage; False if it has it already. `other`: what the other side revealed."""
    done = connection.execute(
        "INSERT INTO close_stages (close_id, stage, at, other_root, other_totals)"
        " SELECT %s, %s::text, %s, %s, %s WHERE NOT EXISTS (SELECT FROM close_stages"
        " WHERE close_id = %s AND stage = %s::text)",
        (close_id, stage.value, at, *(other or (None, None)), close_id, stage.value),
    )
    return done.rowcount > 0


def insert_comparison(
    connection: Connection,
    close_id: int,
    *,
    breaks: int,
    rounds: int,
    sent: int,
    received: int,
    milliseconds: int,
    at: datetime,
) -> None:
    """A close has been compared."""
    connection.execute(
        "INSERT INTO comparisons (close_id, breaks, rounds, bytes_sent, bytes_received,"
        " milliseconds, compared_at) VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (close_id, breaks, rounds, sent, received, milliseconds, at),
    )


def insert_break(
    connection: Connection,
    ref: bytes,
    close_id: int,
    found: Break,
    *,
    late_until: datetime | None,
    due_at: datetime,
    opened_at: datetime,
) -> None:
    """A break, without its case's events; a second call changes nothing."""
    connection.execute(
        "INSERT INTO breaks (break_ref, close_id, kind, txid, fields, pair_seq, lacking,"
        " other_date, first_txid, late_until, due_at, opened_at, detail)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (break_ref) DO NOTHING",
        (
            ref,
            close_id,
            found.kind.value,
            found.txid,
            list(found.fields),
            found.pair_seq,
            found.lacking,
            found.other_date,
            found.first_txid,
            late_until,
            due_at,
            opened_at,
            json.dumps(found.detail) if found.detail else None,
        ),
    )


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event as it is to be appended."""

    break_ref: bytes
    number: int
    step: CaseStep
    state: CaseState
    member: str
    actor: str
    at: datetime
    resolution: Resolution | None = None
    note: str = ""
    entry_txid: bytes | None = None
    request_key: bytes | None = None
    fingerprint: bytes | None = None


def append_event(connection: Connection, event: NewEvent) -> None:
    """The next event of a case. psycopg.errors.UniqueViolation or SerializationFailure if another
    came first."""
    connection.execute(
        "INSERT INTO case_events (break_ref, number, step, state, member, actor, resolution, note,"
        " entry_txid, request_key, fingerprint, at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            event.break_ref,
            event.number,
            event.step.value,
            event.state.value,
            event.member,
            event.actor,
            event.resolution.value if event.resolution else None,
            event.note,
            event.entry_txid,
            event.request_key,
            event.fingerprint,
            event.at,
        ),
    )


def append_desk_row(
    connection: Connection,
    ref: bytes,
    holder: str | None,
    actor: str,
    request_key: bytes,
    fingerprint: bytes,
    at: datetime,
) -> None:
    """A case is taken on by `holder`; None: laid down."""
    connection.execute(
        "INSERT INTO case_desk (break_ref, number, holder, actor, request_key, fingerprint, at)"
        " SELECT %(ref)s, count(*) + 1, %(holder)s, %(actor)s, %(key)s, %(said)s, %(at)s"
        " FROM case_desk WHERE break_ref = %(ref)s",
        {
            "ref": ref,
            "holder": holder,
            "actor": actor,
            "key": request_key,
            "said": fingerprint,
            "at": at,
        },
    )


def insert_correction(
    connection: Connection,
    ref: bytes,
    close_id: int,
    correction: Correction,
    entry_txid: bytes,
    at: datetime,
) -> None:
    """What a correcting entry makes of this institution's close."""
    removed, added = correction.removed, correction.added
    connection.execute(
        "INSERT INTO close_corrections (break_ref, close_id, removed_txid, removed_c,"
        " removed_effect, added_txid, added_c, added_effect, added_salt, entry_txid, made_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            ref,
            close_id,
            *(removed or (None, None, None)),
            *((*added.item, added.salt_fin) if added else (None, None, None, None)),
            entry_txid,
            at,
        ),
    )


def move_case_cursor(connection: Connection, acquirer: str, event_id: int) -> None:
    """The last event taken of an acquirer's cases; never moves back."""
    connection.execute(
        "INSERT INTO case_cursors AS c (acquirer, last_event_id) VALUES (%s, %s)"
        " ON CONFLICT (acquirer) DO UPDATE SET last_event_id = excluded.last_event_id"
        " WHERE c.last_event_id < excluded.last_event_id",
        (acquirer, event_id),
    )


# --- what the operator's key signs -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sending:
    """A signed transaction that is on its way to the chain."""

    purpose: str
    subject: str
    nonce: int
    tx_hash: bytes
    raw: bytes


def keep_sending(connection: Connection, sending: Sending, at: datetime) -> None:
    """Remember a signed transaction before it is broadcast; it replaces one that failed."""
    connection.execute(
        "INSERT INTO chain_outbox AS o (purpose, subject, state, nonce, tx_hash, raw_tx,"
        " submitted_at) VALUES (%s, %s, 'SUBMITTED', %s, %s, %s, %s)"
        " ON CONFLICT (purpose, subject) DO UPDATE SET state = 'SUBMITTED',"
        " nonce = excluded.nonce, tx_hash = excluded.tx_hash, raw_tx = excluded.raw_tx,"
        " submitted_at = excluded.submitted_at, broadcasts = 0, outcome = NULL"
        " WHERE o.state = 'FAILED'",
        (sending.purpose, sending.subject, sending.nonce, sending.tx_hash, sending.raw, at),
    )


def count_broadcast(connection: Connection, sending: Sending) -> None:
    """One more broadcast."""
    connection.execute(
        "UPDATE chain_outbox SET broadcasts = broadcasts + 1 WHERE purpose = %s AND subject = %s",
        (sending.purpose, sending.subject),
    )


def end_sending(
    connection: Connection, sending: Sending, state: str, outcome: str | None = None
) -> None:
    """DONE: it stands in a final block. FAILED: the chain has refused it, `outcome` says why."""
    connection.execute(
        "UPDATE chain_outbox SET state = %s, outcome = %s WHERE purpose = %s AND subject = %s"
        " AND tx_hash = %s",
        (state, outcome, sending.purpose, sending.subject, sending.tx_hash),
    )


def _key(key: DayKey) -> tuple[object, ...]:
    return key.acquirer, key.issuer, key.currency, key.business_date
