"""SQL of the hotlist: an issuer's own entries, an acquirer's copy of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


def page(connection: Connection, after: int, limit: int) -> list[tuple[int, bytes, bool]]:
    """Entries behind a list number, in order: (list number, card key id, listed)."""
    return connection.execute(
        "SELECT list_number, card_key_id, listed FROM hotlist_entries WHERE list_number > %s"
        " ORDER BY list_number LIMIT %s",
        (after, limit),
    ).fetchall()


def newest(connection: Connection) -> int:
    """The number of the last entry of this acquirer's list; 0 if it is empty."""
    row = connection.execute("SELECT coalesce(max(list_number), 0) FROM hotlist_entries").fetchone()
    return int(row[0]) if row else 0


def as_of_ms(connection: Connection) -> int:
    """Since when no issuer's entries may be lacking; 0 if none was ever asked."""
    row = connection.execute("SELECT coalesce(min(checked_ms), 0) FROM hotlist_copies").fetchone()
    return int(row[0]) if row else 0


def entries_of(
    connection: Connection, issuer: str, after: int, limit: int
) -> list[tuple[int, bytes, bool, str, int]]:
    """An issuer's entries behind a version: (version, key id, listed, reason, moment)."""
    return connection.execute(
        "SELECT version, card_key_id, listed, reason, at_ms FROM hotlist_entries"
        " WHERE issuer = %s AND version > %s ORDER BY version LIMIT %s",
        (issuer, after, limit),
    ).fetchall()


def last_version(connection: Connection, issuer: str) -> int:
    """The last version of an issuer's entries that is had here."""
    row = connection.execute(
        "SELECT coalesce(max(version), 0) FROM hotlist_entries WHERE issuer = %s", (issuer,)
    ).fetchone()
    return int(row[0]) if row else 0


def copy_entries(
    connection: Connection, issuer: str, entries: Sequence[tuple[int, bytes, bool, str, int]]
) -> None:
    """Take another member's entries over, in order."""
    for version, key_id, listed, reason, at_ms in entries:
        connection.execute(
            "SELECT append_hotlist(%s, %s, %s, %s, %s, %s)",
            (issuer, version, key_id, listed, reason, at_ms),
        )


def checked(connection: Connection, issuer: str, at_ms: int) -> None:
    """All of an issuer's entries up to this moment are had."""
    connection.execute(
        "INSERT INTO hotlist_copies VALUES (%s, %s) ON CONFLICT (issuer) DO UPDATE"
        " SET checked_ms = excluded.checked_ms",
        (issuer, at_ms),
    )
