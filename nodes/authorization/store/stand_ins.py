"""SQL of approvals in an issuer's place. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from nodes.authorization.rules.stand_in import Used
from nodes.authorization.store.accounts import Connection

#: First half of the advisory locks' keys, so that they meet no others.
_QUEUES = 0x0A12


class StoodIn(msgspec.Struct, frozen=True):
    """A row of stand_ins; amount in minor units."""

    txid: bytes
    asked_txid: bytes
    issuer: str
    card_lookup: bytes
    amount: int
    currency: str
    at_ms: int


def queue_up(connection: Connection, lookups: Iterable[bytes]) -> None:
    """Wait for one's turn at cards, until the transaction ends: no two count the same ceiling."""
    connection.execute(
        "SELECT pg_advisory_xact_lock(%s::integer, number) FROM unnest(%b::integer[]) AS number",
        (
            _QUEUES,
            sorted({int.from_bytes(one[:4], "big", signed=True) for one in lookups}),
        ),
    )


def used_since(
    connection: Connection, lookups: Sequence[bytes], since_ms: int
) -> dict[bytes, Used]:
    """What was approved for these cards after a moment."""
    rows = connection.execute(
        "SELECT card_lookup, sum(amount)::bigint, count(*) FROM stand_ins"
        " WHERE card_lookup = ANY(%b) AND at_ms > %s GROUP BY 1",
        (list(lookups), since_ms),
    ).fetchall()
    return {lookup: Used(amount, count) for lookup, amount, count in rows}


def append_stood_in(connection: Connection, rows: Iterable[StoodIn]) -> None:
    """Append them; UniqueViolation if a txid is there."""
    for row in sorted(rows, key=lambda one: one.txid):
        connection.execute(
            "INSERT INTO stand_ins (txid, asked_txid, issuer, card_lookup, amount, currency, at_ms)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            msgspec.structs.astuple(row),
        )
