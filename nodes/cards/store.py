"""SQL that writes cards. Callers own the transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


def insert_card(
    connection: Connection,
    *,
    card_token: bytes,
    account_id: int,
    pan_lookup: bytes,
    pan_sealed: bytes,
    pan_masked: str,
    expiry: str,
    service_code: str,
    status: str,
    pin_lookup: bytes | None,
    issued_at: datetime,
) -> bool:
    """Add a card; False if its number is taken."""
    done = connection.execute(
        "INSERT INTO cards (card_token, account_id, pan_lookup, pan_sealed, pan_masked, expiry,"
        " service_code, status, pin_lookup, issued_at) VALUES (%s,%s,%s,%s,%s,%s,%s,%s,%s,%s)"
        " ON CONFLICT (pan_lookup) DO NOTHING",
        (
            card_token,
            account_id,
            pan_lookup,
            pan_sealed,
            pan_masked,
            expiry,
            service_code,
            status,
            pin_lookup,
            issued_at,
        ),
    )
    return done.rowcount == 1


def lock_status(connection: Connection, card_token: bytes) -> str | None:
    """The card's status, its row locked; None if there is no such card."""
    row = connection.execute(
        "SELECT status FROM cards WHERE card_token = %s FOR UPDATE", (card_token,)
    ).fetchone()
    return row[0] if row else None


def write_status(connection: Connection, card_token: bytes, status: str) -> None:
    """Set the status of a locked card."""
    connection.execute(
        "UPDATE cards SET status = %s, version = version + 1 WHERE card_token = %s",
        (status, card_token),
    )


def record_event(
    connection: Connection,
    card_token: bytes,
    event: str,
    actor: str,
    reason: str,
    occurred_at: datetime,
) -> None:
    """Append to the card's history."""
    connection.execute(
        "INSERT INTO card_events (card_token, event, actor, reason, occurred_at)"
        " VALUES (%s, %s, %s, %s, %s)",
        (card_token, event, actor, reason, occurred_at),
    )
