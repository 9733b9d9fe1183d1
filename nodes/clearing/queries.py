"""All SQL of closes, breaks and cases that reads; psycopg connections within a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from nodes import clock
from nodes.authorization.model import ACQUIRERS_KINDS
from nodes.clearing.model import (
    ITEM_SIZE,
    BreakKind,
    Case,
    CaseState,
    CaseStep,
    Close,
    CloseStage,
    DayItems,
    DayKey,
    Item,
    Party,
    Resolution,
    Totals,
)
from nodes.clearing.rules.cases import missing_at
from nodes.clearing.rules.closing import Correction, SaltedItem, corrected
from nodes.clearing.store import Sending

Connection = psycopg.Connection[Any]
Row = dict[str, Any]

#: Gaps of a close that are named: whoever loses more has lost a log, not transactions.
MAX_GAPS = 100_000
KINDS = sorted(kind.value for kind in ACQUIRERS_KINDS)
#: rules.closing.effect, in SQL. The original is looked up for what undoes one.
_EFFECT = """CASE WHEN t.outcome <> 'approved' THEN 0
    WHEN t.kind IN ('purchase', 'capture', 'advice') THEN t.amount
    WHEN t.kind IN ('refund', 'top_up') THEN -t.amount
    WHEN t.kind IN ('reversal', 'void') THEN coalesce((SELECT
        CASE WHEN o.outcome <> 'approved' THEN 0
        WHEN o.kind IN ('purchase', 'capture', 'advice') THEN -t.amount
        WHEN o.kind IN ('refund', 'top_up') THEN t.amount ELSE 0 END
        FROM transactions AS o WHERE o.txid = t.original_txid AND o.side = t.side), 0)
    ELSE 0 END"""
_OF_DAY = (
    "t.side = %(side)s AND t.acquirer = %(acquirer)s AND t.issuer = %(issuer)s"
    " AND t.currency = %(currency)s AND t.business_date = %(day)s AND t.pair_seq > 0"
    " AND t.kind = ANY(%(kinds)s) AND t.xact < %(horizon)s::text::xid8"
)


def horizon(connection: Connection) -> int:
    """Every transaction below it has ended: what it wrote is seen, or never will be."""
    row = connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").fetchone()
    return int(row[0]) if row else 0


# --- a day's items -----------------------------------------------------------------------------


def _day(key: DayKey, party: Party, below: int) -> dict[str, Any]:
    return {
        "side": party,
        "acquirer": key.acquirer,
        "issuer": key.issuer,
        "currency": key.currency,
        "day": key.business_date,
        "kinds": KINDS,
        "horizon": str(below),
    }


def _packed(connection: Connection, key: DayKey, party: Party, below: int, *, salts: bool) -> bytes:
    """A day's items in order, 72 bytes each, or 104 with salt_fin.

    Sorted as one value each, which PostgreSQL does twice as fast as by two columns. One field holds
    1 GiB: ten million transactions of a pair, currency and date.
    """
    parts = "txid || commitment || int8send(effect)" + (" || salt_fin" if salts else "")
    with connection.cursor(binary=True) as cursor:
        cursor.execute("SET LOCAL work_mem = '256MB'")
        row = cursor.execute(
            f"SELECT string_agg(item, ''::bytea) FROM (SELECT {parts} AS item"
            f" FROM (SELECT t.txid, t.commitment, t.salt_fin, ({_EFFECT})::bigint AS effect"
            f" FROM transactions AS t WHERE {_OF_DAY}) AS found ORDER BY item) AS sorted",
            _day(key, party, below),
        ).fetchone()
        cursor.execute("RESET work_mem")
    return bytes(row[0]) if row and row[0] is not None else b""


def kept_items(connection: Connection, close: Close) -> DayItems:
    """The items of a close as they were kept when it was made; read anew where they are gone."""
    with connection.cursor(binary=True) as cursor:
        parts = cursor.execute(
            "SELECT items FROM close_items WHERE close_id = %s ORDER BY part", (close.close_id,)
        ).fetchall()
    blob = b"".join(part for (part,) in parts)
    if len(blob) == close.totals.count * ITEM_SIZE:
        return DayItems(blob)
    return day_items(connection, close)


def day_items(connection: Connection, close: Close) -> DayItems:
    """The items of a close as its rows have them now, corrections of earlier revisions applied."""
    items = DayItems(_packed(connection, close.key, close.party, close.horizon, salts=False))
    corrections = corrections_before(connection, close.key, close.revision)
    if not corrections:
        return items
    salted = corrected((SaltedItem(item, b"") for item in items), corrections)
    return DayItems.of(entry.item for entry in salted)


def salted_items(
    connection: Connection, key: DayKey, party: Party, below: int, revision: int
) -> tuple[DayItems, list[bytes]]:
    """The same of a close that is being made, with salt_fin of each item."""
    packed = _packed(connection, key, party, below, salts=True)
    starts = range(0, len(packed), ITEM_SIZE + 32)
    items = DayItems(b"".join([packed[at : at + ITEM_SIZE] for at in starts]))
    salts = [packed[at + ITEM_SIZE : at + ITEM_SIZE + 32] for at in starts]
    corrections = corrections_before(connection, key, revision)
    if not corrections:
        return items, salts
    entries = corrected(map(SaltedItem, items, salts), corrections)
    return DayItems.of(entry.item for entry in entries), [entry.salt_fin for entry in entries]


def corrections_before(connection: Connection, key: DayKey, revision: int) -> list[Correction]:
    """What correcting entries made of this close before a revision."""
    rows = connection.execute(
        "SELECT removed_txid, removed_c, removed_effect, added_txid, added_c, added_effect,"
        " added_salt FROM close_corrections JOIN closes USING (close_id)"
        " WHERE (acquirer, issuer, currency, business_date) = (%s, %s, %s, %s) AND revision < %s"
        " ORDER BY revision, break_ref",
        (*_key(key), revision),
    ).fetchall()
    return [
        Correction(
            Item(*row[:3]) if row[0] is not None else None,
            SaltedItem(Item(*row[3:6]), row[6]) if row[3] is not None else None,
        )
        for row in rows
    ]


def newest_pair_seq(connection: Connection, key: DayKey, party: Party, below: int) -> int:
    """The largest pair number of a day's rows; 0 without any."""
    row = connection.execute(
        f"SELECT max(t.pair_seq) FROM transactions AS t WHERE {_OF_DAY}", _day(key, party, below)
    ).fetchone()
    return int(row[0] or 0) if row else 0


def checked_pair_seq(connection: Connection, key: DayKey) -> int:
    """Up to where closes of the pair have looked for gaps; 0 before the first."""
    row = connection.execute(
        "SELECT max(last_pair_seq) FROM closes WHERE (acquirer, issuer) = (%s, %s)",
        (key.acquirer, key.issuer),
    ).fetchone()
    return int(row[0] or 0) if row else 0


def gaps(connection: Connection, close: Close) -> list[int]:
    """Pair numbers that the close's range lacks, at most MAX_GAPS."""
    pair = (close.key.acquirer, close.key.issuer, close.party)
    after, last = close.after_pair_seq, close.last_pair_seq
    if after == last:
        return []
    row = connection.execute(
        "SELECT count(*) FROM transactions WHERE (acquirer, issuer, side) = (%s, %s, %s)"
        " AND pair_seq > %s AND pair_seq <= %s",
        (*pair, after, last),
    ).fetchone()
    if row and row[0] == last - after:
        return []
    found = connection.execute(
        "SELECT before + 1, pair_seq - 1 FROM (SELECT pair_seq, lag(pair_seq, 1, %s::bigint)"
        " OVER (ORDER BY pair_seq) AS before FROM transactions"
        " WHERE (acquirer, issuer, side) = (%s, %s, %s) AND pair_seq > %s AND pair_seq <= %s)"
        " AS steps WHERE pair_seq > before + 1 ORDER BY 1 LIMIT %s",
        (after, *pair, after, last, MAX_GAPS),
    ).fetchall()
    numbers: list[int] = []
    for first, end in found:
        numbers += range(first, min(end, first + MAX_GAPS - len(numbers) - 1) + 1)
        if len(numbers) >= MAX_GAPS:
            break
    return numbers


def numbered(
    connection: Connection, key: DayKey, party: Party, numbers: Sequence[int]
) -> dict[int, bytes]:
    """The txids under these numbers of the pair."""
    rows = connection.execute(
        "SELECT pair_seq, txid FROM transactions WHERE (acquirer, issuer, side) = (%s, %s, %s)"
        " AND pair_seq = ANY(%s) AND pair_seq > 0",
        (key.acquirer, key.issuer, party, list(numbers)),
    ).fetchall()
    return dict(rows)


def find_duplicates(
    connection: Connection, key: DayKey, party: Party, below: int
) -> dict[bytes, bytes]:
    """Approved transactions of one terminal's message that came after another: by the first's txid.

    As invariant 5 tells messages apart (docs/invariants.md).
    """
    message = "t.terminal_id, t.batch, t.stan, t.kind = 'reversal'"
    approved = f"{_OF_DAY} AND t.outcome = 'approved' AND t.terminal_id <> ''"
    rows = connection.execute(
        "SELECT array_agg(t.txid ORDER BY t.pair_seq) FROM transactions AS t"
        f" WHERE {approved} AND ({message}) IN (SELECT {message} FROM transactions AS t"
        f" WHERE {approved} GROUP BY {message} HAVING count(*) > 1) GROUP BY {message}",
        _day(key, party, below),
    ).fetchall()
    return {later: txids[0] for (txids,) in rows for later in txids[1:]}


def duplicates(connection: Connection, close: Close) -> dict[bytes, bytes]:
    """The same, as it was found when the close was made."""
    rows = connection.execute(
        "SELECT txid, first_txid FROM close_duplicates WHERE close_id = %s", (close.close_id,)
    ).fetchall()
    return dict(rows)


def unsigned(connection: Connection, close: Close) -> list[bytes]:
    """Transactions of a close that the acquirer recorded without the issuer's valid signature."""
    rows = connection.execute(
        "SELECT t.txid FROM unsigned_answers AS u JOIN transactions AS t USING (txid)"
        f" WHERE {_OF_DAY} ORDER BY t.txid",
        _day(close.key, close.party, close.horizon),
    ).fetchall()
    return [row[0] for row in rows]


def rows_of(connection: Connection, key: DayKey, party: Party, txids: Sequence[bytes]) -> list[Row]:
    """This pair's transactions by txid, with what C commits to and their effect."""
    with connection.cursor(row_factory=dict_row, binary=True) as cursor:
        return cursor.execute(
            "SELECT t.txid, t.commitment, t.amount, t.currency, t.kind, t.outcome,"
            " t.transmitted_ms, t.merchant_id, t.original_txid, t.salt_fin, t.salt_pii,"
            " t.card_token,"
            f" t.card_token_leaf, ({_EFFECT})::bigint AS effect, t.business_date, t.pair_seq"
            " FROM transactions AS t WHERE t.txid = ANY(%(txids)s) AND t.side = %(side)s"
            " AND t.acquirer = %(acquirer)s AND t.issuer = %(issuer)s AND t.pair_seq > 0",
            {
                "txids": list(txids),
                "side": party,
                "acquirer": key.acquirer,
                "issuer": key.issuer,
            },
        ).fetchall()


# --- which days are to be closed ---------------------------------------------------------------


def scan(connection: Connection) -> tuple[int, int]:
    """How far rows (xact) and the chain's events (block) were looked through."""
    row = connection.execute("SELECT next_xact::text, next_block FROM close_scan").fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def days_since(
    connection: Connection, member_id: str, first: int, below: int
) -> list[tuple[DayKey, int]]:
    """Days of this member with rows that were written from `first` up to `below` (xact)."""
    rows = connection.execute(
        "SELECT acquirer, issuer, currency, business_date, max(xact::text::numeric)::text"
        " FROM transactions WHERE xact >= %s::text::xid8 AND xact < %s::text::xid8"
        " AND pair_seq > 0 AND acquirer <> issuer AND kind = ANY(%s)"
        " AND ((side = 'acquirer' AND acquirer = %s) OR (side = 'issuer' AND issuer = %s))"
        " GROUP BY 1, 2, 3, 4",
        (str(first), str(below), KINDS, member_id, member_id),
    ).fetchall()
    return [(DayKey(*row[:4]), int(row[4])) for row in rows]


@dataclass(frozen=True, slots=True)
class Due:
    """A day that has something to close: its last close, and the newest row's xact."""

    key: DayKey
    last_xact: int
    opened_revision: int
    close: Close | None
    stage: CloseStage | None


def due_days(connection: Connection, until: date) -> list[Due]:
    """Days up to a date without a close, or whose last close is judged and may need another."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "SELECT d.last_xact::text AS day_xact, d.opened_revision, d.acquirer AS a,"
            f" d.issuer AS i, d.currency AS cur, d.business_date AS day, {_CLOSE}, s.stage"
            " FROM close_days AS d"
            " LEFT JOIN LATERAL (SELECT * FROM closes AS x WHERE (x.acquirer, x.issuer, x.currency,"
            " x.business_date) = (d.acquirer, d.issuer, d.currency, d.business_date)"
            " ORDER BY revision DESC LIMIT 1) AS c ON true"
            f" LEFT JOIN LATERAL ({_STAGE}) AS s ON true"
            " WHERE d.business_date <= %s AND (c.close_id IS NULL"
            " OR s.stage IN ('BROKEN', 'EXPIRED') OR (s.stage = 'CONFIRMED'"
            " AND (d.last_xact >= c.horizon OR d.opened_revision > c.revision)))"
            " ORDER BY d.business_date, d.acquirer, d.issuer, d.currency",
            (until,),
        ).fetchall()
    return [
        Due(
            DayKey(row["a"], row["i"], row["cur"], row["day"]),
            int(row["day_xact"]),
            row["opened_revision"],
            _close(row) if row["close_id"] is not None else None,
            CloseStage(row["stage"]) if row["stage"] else None,
        )
        for row in rows
    ]


# --- closes ------------------------------------------------------------------------------------

_CLOSE = (
    "c.close_id, c.acquirer, c.issuer, c.currency, c.business_date, c.revision, c.party,"
    " c.horizon::text AS horizon, c.item_count, c.debits, c.credits, c.close_root, c.totals_hash,"
    " c.blind, c.after_pair_seq, c.last_pair_seq, c.closed_at"
)
_STAGE = (
    "SELECT stage, at AS stage_at FROM close_stages WHERE close_id = c.close_id"
    " ORDER BY close_stage_rank(stage) DESC LIMIT 1"
)


def _close(row: Mapping[str, Any]) -> Close:
    return Close(
        key=DayKey(row["acquirer"], row["issuer"], row["currency"], row["business_date"]),
        revision=row["revision"],
        party=row["party"],
        horizon=int(row["horizon"]),
        totals=Totals(row["item_count"], row["debits"], row["credits"]),
        close_root=row["close_root"],
        totals_hash=row["totals_hash"],
        blind=row["blind"],
        after_pair_seq=row["after_pair_seq"],
        last_pair_seq=row["last_pair_seq"],
        closed_ms=clock.to_ms(row["closed_at"]),
        close_id=row["close_id"],
    )


@dataclass(frozen=True, slots=True)
class Staged:
    """A close with its stage."""

    close: Close
    stage: CloseStage
    since: datetime


def _staged(connection: Connection, where: str, parameters: Sequence[Any]) -> list[Staged]:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            f"SELECT {_CLOSE}, s.stage, s.stage_at FROM closes AS c"
            f" JOIN LATERAL ({_STAGE}) AS s ON true WHERE {where}",
            parameters,
        ).fetchall()
    return [Staged(_close(row), CloseStage(row["stage"]), row["stage_at"]) for row in rows]


def close_by_id(connection: Connection, close_id: int) -> Staged | None:
    """One close."""
    found = _staged(connection, "c.close_id = %s", (close_id,))
    return found[0] if found else None


def close_of(connection: Connection, key: DayKey, revision: int) -> Staged | None:
    """One revision of a day's close."""
    found = _staged(
        connection,
        "(c.acquirer, c.issuer, c.currency, c.business_date, c.revision) = (%s, %s, %s, %s, %s)",
        (*_key(key), revision),
    )
    return found[0] if found else None


def closes_in(connection: Connection, *stages: CloseStage) -> list[Staged]:
    """Closes that are at one of these stages, in the order in which they were made."""
    names = [stage.value for stage in stages]
    return _staged(connection, "s.stage = ANY(%s) ORDER BY c.close_id", (names,))


def uncompared(connection: Connection) -> list[Staged]:
    """The acquirer's judged closes that weren't compared yet."""
    return _staged(
        connection,
        "c.party = 'acquirer' AND s.stage IN ('BROKEN', 'CONFIRMED')"
        " AND NOT EXISTS (SELECT FROM comparisons AS m WHERE m.close_id = c.close_id)"
        " ORDER BY c.close_id",
        (),
    )


def newest_closes(connection: Connection) -> list[Staged]:
    """The newest revision of each close."""
    return _staged(
        connection,
        "NOT EXISTS (SELECT FROM closes AS n WHERE (n.acquirer, n.issuer, n.currency,"
        " n.business_date, n.revision) = (c.acquirer, c.issuer, c.currency, c.business_date,"
        " c.revision + 1)) ORDER BY c.business_date, c.close_id",
        (),
    )


def cases_of_day(connection: Connection, key: DayKey) -> list[CaseFile]:
    """The cases of all revisions of a close."""
    rows = connection.execute(
        "SELECT b.break_ref FROM breaks AS b JOIN closes AS c USING (close_id)"
        " WHERE (c.acquirer, c.issuer, c.currency, c.business_date) = (%s, %s, %s, %s)",
        _key(key),
    ).fetchall()
    return case_files(connection, refs=[row[0] for row in rows]) if rows else []


def revealed_root(connection: Connection, close_id: int) -> bytes | None:
    """The root that the other side has revealed on the chain, once the close is judged."""
    row = connection.execute(
        "SELECT other_root FROM close_stages WHERE close_id = %s AND other_root IS NOT NULL",
        (close_id,),
    ).fetchone()
    return row[0] if row else None


def is_compared(connection: Connection, close_id: int) -> bool:
    """Whether a close was compared already."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM comparisons WHERE close_id = %s)", (close_id,)
    ).fetchone()
    return bool(row and row[0])


def earlier_revisions(connection: Connection, close: Close) -> list[Staged]:
    """The revisions before a close."""
    return _staged(
        connection,
        "(c.acquirer, c.issuer, c.currency, c.business_date) = (%s, %s, %s, %s)"
        " AND c.revision < %s ORDER BY c.revision",
        (*_key(close.key), close.revision),
    )


def find_closes(
    connection: Connection,
    *,
    limit: int,
    before: int | None = None,
    day: date | None = None,
    counterparty: str | None = None,
    stage: str | None = None,
) -> list[Row]:
    """Closes with stage and number of breaks, the newest first; without blinds."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT c.close_id, c.acquirer, c.issuer, c.currency, c.business_date, c.revision,"
            " c.party, c.item_count, c.debits, c.credits, c.close_root, c.totals_hash, c.closed_at,"
            " s.stage, s.stage_at, j.other_root,"
            " (SELECT x.state FROM settlements AS p"
            " JOIN settlement_steps AS x USING (settlement_id)"
            " WHERE p.close_id = c.close_id ORDER BY p.number DESC, x.step DESC LIMIT 1)"
            " AS settlement_state,"
            " (SELECT count(*) FROM breaks AS b WHERE b.close_id = c.close_id) AS breaks,"
            " (SELECT count(*) FROM breaks AS b WHERE b.close_id = c.close_id AND NOT EXISTS"
            " (SELECT FROM case_events AS e WHERE e.break_ref = b.break_ref"
            " AND e.step = 'closed')) AS open_breaks, m.compared_at, m.rounds, m.bytes_sent,"
            " m.bytes_received FROM closes AS c"
            f" JOIN LATERAL ({_STAGE}) AS s ON true"
            " LEFT JOIN close_stages AS j ON j.close_id = c.close_id AND j.other_root IS NOT NULL"
            " LEFT JOIN comparisons AS m ON m.close_id = c.close_id"
            " WHERE (%(before)s::bigint IS NULL OR c.close_id < %(before)s)"
            " AND (%(day)s::date IS NULL OR c.business_date = %(day)s)"
            " AND (%(other)s::text IS NULL OR %(other)s IN (c.acquirer, c.issuer))"
            " AND (%(stage)s::text IS NULL OR s.stage = %(stage)s)"
            " ORDER BY c.close_id DESC LIMIT %(limit)s",
            {"before": before, "day": day, "other": counterparty, "stage": stage, "limit": limit},
        ).fetchall()


def stages_of(connection: Connection, close_id: int) -> list[Row]:
    """A close's stages in order."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT stage, at FROM close_stages WHERE close_id = %s"
            " ORDER BY close_stage_rank(stage)",
            (close_id,),
        ).fetchall()


# --- breaks and cases --------------------------------------------------------------------------

_BREAK = (
    "b.break_ref, b.close_id, b.kind, b.txid, b.fields, b.pair_seq, b.lacking, b.other_date,"
    " b.first_txid, b.late_until, b.due_at, b.opened_at"
)


@dataclass(frozen=True, slots=True)
class CaseFile:
    """A break with its case and its history; `found` is the break's row."""

    found: Row
    case: Case
    events: list[Row]


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
    by_ref: dict[bytes, list[Row]] = {}
    for event in events:
        by_ref.setdefault(event["break_ref"], []).append(event)
    return [
        CaseFile(
            row, case_of(row, by_ref.get(row["break_ref"], [])), by_ref.get(row["break_ref"], [])
        )
        for row in rows
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
        both_hold=kind is BreakKind.DUPLICATE and lacking is None,
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
) -> list[tuple[int, bytes]]:
    """Numbers and references of breaks, the newest first."""
    rows = connection.execute(
        "SELECT b.break_id, b.break_ref FROM breaks AS b JOIN LATERAL (SELECT state"
        " FROM case_events AS e WHERE e.break_ref = b.break_ref ORDER BY number DESC LIMIT 1)"
        " AS e ON true WHERE (%(before)s::bigint IS NULL OR b.break_id < %(before)s)"
        " AND (%(state)s::text IS NULL OR e.state = %(state)s)"
        " AND (%(kind)s::text IS NULL OR b.kind = %(kind)s)"
        " ORDER BY b.break_id DESC LIMIT %(limit)s",
        {"before": before, "state": state, "kind": kind, "limit": limit},
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


# --- what is on its way to the chain -----------------------------------------------------------


def sendings(connection: Connection) -> list[Sending]:
    """Signed transactions that wait for the chain, by nonce."""
    rows = connection.execute(
        "SELECT purpose, subject, nonce, tx_hash, raw_tx FROM chain_outbox"
        " WHERE state = 'SUBMITTED' ORDER BY nonce"
    ).fetchall()
    return [Sending(*row) for row in rows]


def sending_state(connection: Connection, purpose: str, subject: str) -> str | None:
    """SUBMITTED, DONE or FAILED; None if there is no such sending."""
    row = connection.execute(
        "SELECT state FROM chain_outbox WHERE (purpose, subject) = (%s, %s)", (purpose, subject)
    ).fetchone()
    return row[0] if row else None


def anchor_nonces(connection: Connection) -> list[int]:
    """Nonces that anchors on their way have taken: the key is the same."""
    rows = connection.execute(
        "SELECT nonce FROM anchor_submissions WHERE state = 'SUBMITTED'"
    ).fetchall()
    return [row[0] for row in rows]


def _key(key: DayKey) -> tuple[object, ...]:
    return key.acquirer, key.issuer, key.currency, key.business_date
