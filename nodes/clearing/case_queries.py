"""SQL that reads breaks and their cases; psycopg connections within a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from nodes import clock
from nodes.clearing.model import BreakKind, Case, CaseState, CaseStep, DayKey, Resolution
from nodes.clearing.rules.cases import missing_at

Connection = psycopg.Connection[Any]
Row = dict[str, Any]

_BREAK = (
    "b.break_ref, b.close_id, b.kind, b.txid, b.fields, b.pair_seq, b.lacking, b.other_date,"
    " b.first_txid, b.late_until, b.due_at, b.opened_at"
)


_HOLDER = (
    "(SELECT d.holder FROM case_desk AS d WHERE d.break_ref = b.break_ref"
    " ORDER BY d.number DESC LIMIT 1)"
)


@dataclass(frozen=True, slots=True)
class CaseFile:
    """A break with its case and its history; `found` is the break's row."""

    found: Row
    case: Case
    events: list[Row]
    #: Who has taken it on in this institution, and when; None: nobody.
    holder: str | None = None
    taken_at: datetime | None = None


def case_files(
    connection: Connection,
    *,
    refs: Sequence[bytes] | None = None,
    close_id: int | None = None,
    detail: bool = False,
) -> list[CaseFile]:
    """Breaks with their histories, in the order of opening."""
    columns = _BREAK + (", b.detail" if detail else "")
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            f"SELECT {columns} FROM breaks AS b"
            " WHERE (%(refs)s::bytea[] IS NULL OR b.break_ref = ANY(%(refs)s))"
            " AND (%(close)s::bigint IS NULL OR b.close_id = %(close)s)"
            " ORDER BY b.break_id",
            {"refs": None if refs is None else list(refs), "close": close_id},
        ).fetchall()
        events = cursor.execute(
            "SELECT * FROM case_events WHERE break_ref = ANY(%s) ORDER BY break_ref, number",
            ([row["break_ref"] for row in rows],),
        ).fetchall()
        desks = {
            row["break_ref"]: (row["holder"], row["at"] if row["holder"] else None)
            for row in cursor.execute(
                "SELECT DISTINCT ON (break_ref) break_ref, holder, at FROM case_desk"
                " WHERE break_ref = ANY(%s) ORDER BY break_ref, number DESC",
                ([row["break_ref"] for row in rows],),
            )
        }
    by_ref: dict[bytes, list[Row]] = {}
    for event in events:
        by_ref.setdefault(event["break_ref"], []).append(event)
    return [
        CaseFile(row, case_of(row, events), events, *desks.get(row["break_ref"], (None, None)))
        for row in rows
        for events in (by_ref.get(row["break_ref"], []),)
    ]


def case_of(found: Row, events: Sequence[Row]) -> Case:
    """The case that a history amounts to."""
    kind, lacking = BreakKind(found["kind"]), found["lacking"]
    if any(event["step"] == CaseStep.OVERDUE for event in events):
        kind = missing_at(lacking)
    proposal: Row | None = None
    for event in events:
        if event["step"] == CaseStep.PROPOSED:
            proposal = event
        elif event["step"] == CaseStep.REFUSED:
            proposal = None
    late = found["late_until"]
    return Case(
        break_ref=found["break_ref"],
        kind=kind,
        state=CaseState(events[-1]["state"]) if events else CaseState.OPEN,
        number=len(events),
        lacking=lacking,
        due_ms=clock.to_ms(late) if late is not None else None,
        both_hold=(kind is BreakKind.DUPLICATE and lacking is None)
        or (kind is BreakKind.TOTALS_MISMATCH and found["txid"] is None),
        proposed_by=proposal["member"] if proposal else None,
        proposer=proposal["actor"] if proposal else None,
        resolution=Resolution(proposal["resolution"]) if proposal else None,
    )


def find_breaks(
    connection: Connection,
    *,
    limit: int,
    before: int | None = None,
    state: str | None = None,
    kind: str | None = None,
    holder: str | None = None,
    taken: bool | None = None,
) -> list[tuple[int, bytes]]:
    """Numbers and references of breaks, the newest first."""
    rows = connection.execute(
        "SELECT b.break_id, b.break_ref FROM breaks AS b JOIN LATERAL (SELECT state"
        " FROM case_events AS e WHERE e.break_ref = b.break_ref ORDER BY number DESC LIMIT 1)"
        " AS e ON true WHERE (%(before)s::bigint IS NULL OR b.break_id < %(before)s)"
        " AND (%(state)s::text IS NULL OR e.state = %(state)s)"
        " AND (%(kind)s::text IS NULL OR b.kind = %(kind)s)"
        f" AND (%(holder)s::text IS NULL OR {_HOLDER} = %(holder)s)"
        f" AND (%(taken)s::boolean IS NULL OR ({_HOLDER} IS NOT NULL) = %(taken)s)"
        " ORDER BY b.break_id DESC LIMIT %(limit)s",
        {
            "before": before,
            "state": state,
            "kind": kind,
            "holder": holder,
            "taken": taken,
            "limit": limit,
        },
    ).fetchall()
    return [(row[0], row[1]) for row in rows]


def cases_in(connection: Connection, *states: CaseState) -> list[bytes]:
    """References of breaks whose cases are in one of these states."""
    rows = connection.execute(
        "SELECT b.break_ref FROM breaks AS b JOIN LATERAL (SELECT state FROM case_events AS e"
        " WHERE e.break_ref = b.break_ref ORDER BY number DESC LIMIT 1) AS e ON true"
        " WHERE e.state = ANY(%s) ORDER BY b.break_id",
        ([state.value for state in states],),
    ).fetchall()
    return [row[0] for row in rows]


def unsettled_breaks(connection: Connection, close_id: int) -> int:
    """How many breaks of a close aren't corrected yet."""
    row = connection.execute(
        "SELECT count(*) FROM breaks AS b WHERE b.close_id = %s AND NOT EXISTS (SELECT"
        " FROM case_events AS e WHERE e.break_ref = b.break_ref AND e.state IN"
        " ('corrected', 'closed'))",
        (close_id,),
    ).fetchone()
    return int(row[0]) if row else 0


def has_breaks(connection: Connection, close_id: int) -> bool:
    """Whether any break of a close is known."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM breaks WHERE close_id = %s)", (close_id,)
    ).fetchone()
    return bool(row and row[0])


def event_by_request(connection: Connection, request_key: bytes) -> Row | None:
    """The event that was appended under an idempotency key."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT * FROM case_events WHERE request_key = %s", (request_key,)
        ).fetchone()


def desk_row_by_request(connection: Connection, request_key: bytes) -> Row | None:
    """What was written on a case's desk under an idempotency key."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT * FROM case_desk WHERE request_key = %s", (request_key,)
        ).fetchone()


def events_after(
    connection: Connection, issuer: str, after: int, limit: int
) -> list[tuple[Row, DayKey, int, Row | None]]:
    """Case events of a pair's issuer behind an event id: event, day, revision, and the break's row
    with the event that opens it."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "SELECT e.*, c.acquirer, c.issuer, c.currency, c.business_date, c.revision,"
            " b.close_id, b.kind, b.txid, b.fields, b.pair_seq, b.lacking, b.other_date,"
            " b.first_txid, b.late_until, b.due_at, b.opened_at, b.detail FROM case_events AS e"
            " JOIN breaks AS b USING (break_ref) JOIN closes AS c USING (close_id)"
            " WHERE c.issuer = %s AND c.party = 'acquirer' AND e.event_id > %s"
            " ORDER BY e.event_id LIMIT %s",
            (issuer, after, limit),
        ).fetchall()
    found = []
    for row in rows:
        key = DayKey(row["acquirer"], row["issuer"], row["currency"], row["business_date"])
        found.append((row, key, row["revision"], row if row["number"] == 1 else None))
    return found


def case_cursor(connection: Connection, acquirer: str) -> int:
    """The last event taken of an acquirer's cases; 0 before the first."""
    row = connection.execute(
        "SELECT last_event_id FROM case_cursors WHERE acquirer = %s", (acquirer,)
    ).fetchone()
    return int(row[0]) if row else 0


def acquirers_with_closes(connection: Connection) -> list[str]:
    """Acquirers that this issuer has closes with."""
    rows = connection.execute(
        "SELECT DISTINCT acquirer FROM closes WHERE party = 'issuer' ORDER BY 1"
    ).fetchall()
    return [row[0] for row in rows]


def correction_entry(connection: Connection, ref: bytes) -> bytes | None:
    """The txid of a break's correcting entry in these books."""
    row = connection.execute(
        "SELECT entry_txid FROM close_corrections WHERE break_ref = %s", (ref,)
    ).fetchone()
    return row[0] if row else None


def cases_of_day(connection: Connection, key: DayKey) -> list[CaseFile]:
    """The cases of all revisions of a close."""
    rows = connection.execute(
        "SELECT b.break_ref FROM breaks AS b JOIN closes AS c USING (close_id)"
        " WHERE (c.acquirer, c.issuer, c.currency, c.business_date) = (%s, %s, %s, %s)",
        (key.acquirer, key.issuer, key.currency, key.business_date),
    ).fetchall()
    return case_files(connection, refs=[row[0] for row in rows]) if rows else []
