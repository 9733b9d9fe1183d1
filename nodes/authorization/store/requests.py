"""Requests by idempotency key, and the exact answers that were given to them (both sides).

A row is appended once and never changed. One with neither request nor answer is a bar: the
reversal of that request came first, and the request, should it come, is declined.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import msgspec
import psycopg

from nodes.db.writes import Writes, append_rows

Connection = psycopg.Connection[Any]


class StoredRequest(msgspec.Struct, frozen=True):
    """A row of authorization_requests; at the acquirer with the answer that came later."""

    key: bytes
    business_date: date
    fingerprint: bytes
    txid: bytes | None
    issuer: str | None
    request: bytes | None
    answer: bytes | None
    deadline_ms: int = 0

    @property
    def is_bar(self) -> bool:
        """Its reversal came before it."""
        return self.request is None and self.answer is None


_COLUMNS = {
    "idempotency_key": "bytea",
    "business_date": "date",
    "fingerprint": "bytea",
    "txid": "bytea",
    "issuer": "text",
    "request": "bytea",
    "answer": "bytea",
    "deadline_ms": "bigint",
}
_TYPES = _COLUMNS | {"side": "text"}


#: By day, and by keys rather than a join: the partition is found once, and the plan stays a good
#: one although it was made when the tables were empty.
_STORED = "SELECT {} FROM authorization_requests AS r WHERE r.idempotency_key = ANY(%b)"
_FIND = {
    "issuer": _STORED.format(", ".join(f"r.{name}" for name in _COLUMNS))
    + " AND r.side = 'issuer' AND r.business_date = %s",
    "acquirer": _STORED.format(
        ", ".join(
            "coalesce(r.answer, (SELECT a.answer FROM authorization_answers AS a"
            " WHERE a.idempotency_key = r.idempotency_key AND a.business_date = r.business_date))"
            if name == "answer"
            else f"r.{name}"
            for name in _COLUMNS
        )
    )
    + " AND r.side = 'acquirer' AND r.business_date = %s",
}


def stored_requests(
    connection: Connection, keys: Sequence[tuple[bytes, date]], side: str
) -> dict[bytes, StoredRequest]:
    """What is stored under (idempotency key, business date); answers as they stand now."""
    by_day: dict[date, list[bytes]] = {}
    for key, day in keys:
        by_day.setdefault(day, []).append(key)
    found: dict[bytes, StoredRequest] = {}
    for day, wanted in by_day.items():
        rows = connection.execute(_FIND[side], (wanted, day), prepare=True).fetchall()
        found.update({row[0]: StoredRequest(*row) for row in rows})
    return found


def insert_requests(into: Connection | Writes, side: str, rows: Sequence[StoredRequest]) -> None:
    """Append requests; UniqueViolation if a key is taken (another batch was first)."""
    append_rows(
        into,
        "authorization_requests",
        _TYPES,
        [
            (
                row.key,
                row.business_date,
                row.fingerprint,
                row.txid,
                row.issuer,
                row.request,
                row.answer,
                row.deadline_ms,
                side,
            )
            for row in rows
        ],
    )


def make_days(connection: Connection, first: date, last: date) -> int:
    """Make the partitions of these business dates that aren't there; how many were made."""
    row = connection.execute("SELECT make_request_days(%s, %s)", (first, last)).fetchone()
    return row[0] if row is not None else 0
