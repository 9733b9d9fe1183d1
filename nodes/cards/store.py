"""SQL that writes cards. Callers own the transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

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
    product_id: str,
    issued_at: datetime,
    entry: str | None = None,
) -> bool:
    """Add a card; False if its number is taken."""
    done = connection.execute(
        "INSERT INTO cards (card_token, account_id, pan_lookup, pan_sealed, pan_masked, expiry,"
        " service_code, status, pin_lookup, product_id, issued_at, entry)"
        " VALUES (%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s)"
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
            product_id,
            issued_at,
            entry,
        ),
    )
    return done.rowcount == 1


class Issued(NamedTuple):
    """A card as it was issued; repr doesn't show it."""

    account_id: int
    pan_sealed: bytes
    currency: str
    expiry: str
    service_code: str
    product_id: str
    pin_lookup: bytes | None
    entry: str | None

    def __repr__(self) -> str:
        return "Issued()"


def find_issued(connection: Connection, card_token: bytes) -> Issued | None:
    """A card by its token; whoever else issues this one waits for the end of the transaction."""
    number = int.from_bytes(card_token[:4], "big", signed=True)
    connection.execute("SELECT pg_advisory_xact_lock(%s::integer, %s::integer)", (0x0A13, number))
    row = connection.execute(
        "SELECT c.account_id, c.pan_sealed, a.currency, c.expiry, c.service_code, c.product_id,"
        " c.pin_lookup, c.entry FROM cards AS c JOIN accounts AS a USING (account_id)"
        " WHERE c.card_token = %s",
        (card_token,),
    ).fetchone()
    return None if row is None else Issued(*row)


def has_product(connection: Connection, product_id: str) -> bool:
    """Whether cards of this product can be issued."""
    row = connection.execute("SELECT FROM products WHERE product_id = %s", (product_id,)).fetchone()
    return row is not None


def write_status(connection: Connection, card_token: bytes, status: str) -> None:
    """Set what lists and filters show; the card's standing in its account decides."""
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
