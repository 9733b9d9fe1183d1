"""SQL that writes disputes. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from nodes.authorization.rules.disputes import Ended
from nodes.authorization.store.accounts import Connection
from nodes.db.writes import Statement, Writes, array, bigint, text


class Dispute(msgspec.Struct, frozen=True):
    """What a holder disputes of a payment, as people opened it; amounts in minor units."""

    dispute_id: int
    txid: bytes
    account_id: int
    amount: int
    currency: str
    reason: str
    opened_by: str
    opened_at: datetime
    closed_by: str | None = None
    closed_at: datetime | None = None
    closing_reason: str | None = None
    ended_as: str | None = None


def insert_dispute(
    connection: Connection,
    *,
    txid: bytes,
    account_id: int,
    amount: int,
    currency: str,
    reason: str,
    opened_by: str,
    opened_at: datetime,
) -> int:
    """Write down that a payment is disputed; the dispute's number."""
    [[number]] = connection.execute(
        "INSERT INTO disputes (txid, account_id, amount, currency, reason, opened_by, opened_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING dispute_id",
        (txid, account_id, amount, currency, reason, opened_by, opened_at),
    ).fetchall()
    return int(number)


def find_dispute(connection: Connection, dispute_id: int) -> Dispute | None:
    """One dispute, its row locked: it is closed once."""
    row = connection.execute(
        "SELECT dispute_id, txid, account_id, amount, currency, reason, opened_by, opened_at,"
        " closed_by, closed_at, closing_reason, ended_as FROM disputes WHERE dispute_id = %s"
        " FOR UPDATE",
        (dispute_id,),
    ).fetchone()
    return None if row is None else Dispute(*row)


def close_dispute_of(
    connection: Connection,
    txid: bytes,
    *,
    ended_as: Ended,
    closed_by: str,
    closed_at: datetime,
    reason: str,
) -> None:
    """Write down that a payment is disputed no longer; nothing where no dispute is open."""
    connection.execute(
        "UPDATE disputes SET closed_by = %s, closed_at = %s, closing_reason = %s, ended_as = %s"
        " WHERE txid = %s AND closed_at IS NULL",
        (closed_by, closed_at, reason, ended_as, txid),
    )


_REVERSED = Statement(
    "end reversed disputes",
    "UPDATE disputes SET closed_by = $2::text, closed_at = to_timestamp($3::bigint / 1000.0),"
    f" closing_reason = $4::text, ended_as = '{Ended.REVERSED}'"
    " WHERE txid = ANY($1::bytea[]) AND closed_at IS NULL",
)


def end_reversed(writes: Writes, txids: Sequence[bytes], acquirer: str, at_ms: int) -> None:
    """Write down, with the reversal, that nothing of these payments is left to dispute."""
    why = text("reversed by the terminal")
    writes.call(_REVERSED, array("bytea", txids), text(acquirer), bigint(at_ms), why)
