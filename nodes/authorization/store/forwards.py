"""The acquirer's queue of what has happened already, and its offline records and alarms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import msgspec
import psycopg

from nodes.crypto.offline_record import OfflineRecord
from nodes.db.writes import Statement, Writes, append_rows, array

Connection = psycopg.Connection[Any]
#: A place in a terminal's chain: terminal, epoch, seq.
Place = tuple[str, int, int]


class QueuedForward(msgspec.Struct, frozen=True):
    """An advice or completion that its issuer must answer; `request` is its Pending."""

    txid: bytes
    group_txid: bytes
    issuer: str
    terminal_id: str
    batch: str
    idempotency_key: bytes
    business_date: date
    request: bytes
    pan_sealed: bytes | None
    next_attempt_ms: int
    #: The transaction whose reversal goes to the issuer first.
    behind_txid: bytes | None = None

    def __repr__(self) -> str:
        return f"QueuedForward({self.txid.hex()})"


class KnownRecord(msgspec.Struct, frozen=True):
    """An offline record that was taken in: its hash, and the request that it came with."""

    record_hash: bytes
    idempotency_key: bytes
    business_date: date


class OfflineRow(msgspec.Struct, frozen=True):
    """An offline record as it is appended."""

    side: str
    acquirer: str
    record: OfflineRecord
    received_ms: int
    txid: bytes
    idempotency_key: bytes
    business_date: date


class Alarm(msgspec.Struct, frozen=True):
    """What people must look at: `kind` as in offline_alarms."""

    kind: str
    side: str
    terminal_id: str
    detail: str
    at_ms: int
    epoch: int | None = None
    seq: int | None = None
    card_key_id: bytes | None = None
    atc: int | None = None
    txid: bytes | None = None


_FIELDS = (
    "txid, group_txid, issuer, terminal_id, batch, idempotency_key, business_date, request,"
    " pan_sealed, next_attempt_ms, behind_txid"
)
_QUEUE = Statement(
    "queue forwards",
    f"INSERT INTO forward_queue ({_FIELDS}) SELECT * FROM unnest($1::bytea[], $2::bytea[],"
    " $3::text[], $4::text[], $5::text[], $6::bytea[], $7::date[], $8::bytea[], $9::bytea[],"
    " $10::bigint[], $11::bytea[])",
)


def queue_forwards(writes: Writes, rows: Sequence[QueuedForward]) -> None:
    """Take advices into the queue; UniqueViolation if a txid is there."""
    if rows:
        kinds = ("bytea", "bytea", "text", "text", "text", "bytea", "date", "bytea", "bytea")
        columns = list(zip(*map(msgspec.structs.astuple, rows), strict=True))
        parts = [
            array(kind, column)
            for kind, column in zip((*kinds, "bigint", "bytea"), columns, strict=True)
        ]
        writes.call(_QUEUE, *parts)


def undone_groups(connection: Connection, txids: Iterable[bytes]) -> set[bytes]:
    """Those of these transactions, or originals of others, of which something still waits."""
    wanted = list(set(txids))
    if not wanted:
        return set()
    rows = connection.execute(
        "SELECT DISTINCT group_txid FROM forward_queue WHERE group_txid = ANY(%b)"
        " AND done_ms IS NULL UNION SELECT txid FROM forward_queue WHERE txid = ANY(%b)"
        " AND done_ms IS NULL",
        (wanted, wanted),
    ).fetchall()
    return {row[0] for row in rows}


def take_due_forwards(
    connection: Connection, now_ms: int, first_pause_ms: int, longest_pause_ms: int, limit: int
) -> list[QueuedForward]:
    """The first of each group that is due, in order, put off at once so that no second worker
    takes it."""
    rows = connection.execute(
        "WITH taken AS (UPDATE forward_queue SET attempts = attempts + 1,"
        " next_attempt_ms = %s::bigint"
        " + least(%s::bigint << least(attempts, 10), %s::bigint)"
        " WHERE txid IN (SELECT txid FROM forward_queue AS q WHERE done_ms IS NULL"
        "  AND next_attempt_ms <= %s AND NOT EXISTS (SELECT FROM forward_queue AS e"
        "   WHERE e.group_txid = q.group_txid AND e.done_ms IS NULL AND e.place < q.place)"
        "  AND NOT EXISTS (SELECT FROM reversal_queue AS r WHERE r.done_ms IS NULL"
        "   AND r.original_txid = q.behind_txid)"
        "  ORDER BY place LIMIT %s FOR UPDATE SKIP LOCKED)"
        f" RETURNING place, {_FIELDS}) SELECT {_FIELDS} FROM taken ORDER BY place",
        (now_ms, first_pause_ms, longest_pause_ms, now_ms, limit),
    ).fetchall()
    return [QueuedForward(*row) for row in rows]


def finish_forwards(connection: Connection, done: Mapping[bytes, str], done_ms: int) -> None:
    """The issuers have answered these, with these outcomes; their card numbers go."""
    for txid in sorted(done):
        connection.execute(
            "UPDATE forward_queue SET done_ms = %s, outcome = %s, pan_sealed = NULL"
            " WHERE txid = %s AND done_ms IS NULL",
            (done_ms, done[txid], txid),
        )


def known_records(
    connection: Connection, acquirer: str, places: Iterable[Place]
) -> dict[Place, KnownRecord]:
    """What was taken in at these places of terminals' chains."""
    found: dict[Place, KnownRecord] = {}
    for terminal_id, epoch, seq in sorted(set(places)):
        row = connection.execute(
            "SELECT record_hash, idempotency_key, business_date FROM offline_records"
            " WHERE side = 'acquirer' AND acquirer = %s AND terminal_id = %s AND epoch = %s"
            " AND seq = %s",
            (acquirer, terminal_id, epoch, seq),
        ).fetchone()
        if row is not None:
            found[terminal_id, epoch, seq] = KnownRecord(*row)
    return found


_RECORDS = {
    "side": "text",
    "acquirer": "text",
    "terminal_id": "text",
    "epoch": "bigint",
    "seq": "bigint",
    "previous": "bytea",
    "record_hash": "bytea",
    "card_key_id": "bytea",
    "atc": "bigint",
    "amount": "bigint",
    "currency": "text",
    "made_ms": "bigint",
    "received_ms": "bigint",
    "txid": "bytea",
    "idempotency_key": "bytea",
    "business_date": "date",
}


def append_records(into: Connection | Writes, rows: Sequence[OfflineRow]) -> None:
    """Append offline records; UniqueViolation if a place or a card's counter is taken."""
    append_rows(
        into,
        "offline_records",
        _RECORDS,
        [
            (
                row.side,
                row.acquirer,
                row.record.terminal_id,
                row.record.epoch,
                row.record.seq,
                row.record.previous,
                row.record.hash,
                row.record.card_key_id,
                row.record.atc,
                row.record.amount,
                row.record.currency,
                row.record.at_ms,
                row.received_ms,
                row.txid,
                row.idempotency_key,
                row.business_date,
            )
            for row in rows
        ],
    )


_CLONES = {
    "card_key_id": "bytea",
    "atc": "bigint",
    "record_hash": "bytea",
    "acquirer": "text",
    "terminal_id": "text",
    "epoch": "bigint",
    "seq": "bigint",
    "amount": "bigint",
    "currency": "text",
    "made_ms": "bigint",
    "received_ms": "bigint",
    "txid": "bytea",
}


def append_clone(writes: Writes, row: OfflineRow) -> None:
    """Append the record of a copied card; UniqueViolation if it is there already."""
    record = row.record
    append_rows(
        writes,
        "offline_clones",
        _CLONES,
        [
            (
                record.card_key_id,
                record.atc,
                record.hash,
                row.acquirer,
                record.terminal_id,
                record.epoch,
                record.seq,
                record.amount,
                record.currency,
                record.at_ms,
                row.received_ms,
                row.txid,
            )
        ],
    )


_ALARMS = {
    "kind": "text",
    "side": "text",
    "terminal_id": "text",
    "epoch": "bigint",
    "seq": "bigint",
    "card_key_id": "bytea",
    "atc": "bigint",
    "txid": "bytea",
    "detail": "text",
    "at_ms": "bigint",
}


def append_alarms(into: Connection | Writes, alarms: Sequence[Alarm]) -> None:
    """Append alarms."""
    rows = [tuple(getattr(alarm, name) for name in _ALARMS) for alarm in alarms]
    append_rows(into, "offline_alarms", _ALARMS, rows)


_HOTLIST_CARD = Statement(
    "hotlist copied card",
    "SELECT append_hotlist_clone(card_key_id, $2::bigint) FROM card_offline_keys"
    " WHERE card_token = $1::bytea",
)


def hotlist_card(writes: Writes, card_token: bytes, at_ms: int) -> None:
    """Put a copied card's keys on this issuer's hotlist, as far as it has any."""
    writes.call(_HOTLIST_CARD, card_token, at_ms.to_bytes(8, "big"))
