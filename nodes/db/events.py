"""Writes an event of a member's own business, a leaf of its log (nodes/anchoring/events.py)."""

from __future__ import annotations

from typing import Any

import psycopg


def record_event(
    connection: psycopg.Connection[Any],
    kind: str,
    action: str,
    *,
    subject: str = "",
    actor: str = "",
    detail: str = "",
    card_token: bytes | None = None,
) -> int:
    """Write one event; its number. What the database's own triggers don't see comes this way."""
    row = connection.execute(
        "SELECT record_event(%s, %s, %s, %s, %s, %s)",
        (kind, action, subject, actor, detail, card_token),
    ).fetchone()
    return int(row[0]) if row else 0
