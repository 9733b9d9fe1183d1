"""Reads beside the authorization path: what is still open, and a reversal's progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from nodes.authorization.tables import authorization_requests, reversal_queue


@dataclass(frozen=True, slots=True)
class OpenWork:
    """What an acquirer still has to bring to an end."""

    pending_requests: int
    pending_reversals: int


def open_work(connection: Connection) -> OpenWork:
    """Requests without an answer, and reversals that their issuer hasn't acknowledged."""
    requests = (
        select(func.count())
        .select_from(authorization_requests)
        .where(authorization_requests.c.state == "pending")
    )
    reversals = (
        select(func.count()).select_from(reversal_queue).where(reversal_queue.c.done_ms.is_(None))
    )
    return OpenWork(
        connection.execute(requests).scalar_one(), connection.execute(reversals).scalar_one()
    )


def queued_reversal(connection: Connection, original_txid: bytes) -> Mapping[str, Any] | None:
    """The store-and-forward entry that reverses a transaction; None if there is none."""
    query = select(*reversal_queue.c).where(reversal_queue.c.original_txid == original_txid)
    row = connection.execute(query).mappings().first()
    return None if row is None else dict(row)
