"""Reads of the merchant's feed, on both of its ends. Nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence

from nodes.anchoring.model import FeedItem
from nodes.anchoring.queries import EXPRESSIONS, AnyConnection
from nodes.anchoring.store import driver

_FEED_COLUMNS = tuple(
    name
    for name in FeedItem.__struct_fields__
    if name not in ("log_index", "card_token_leaf", "business_date")
)


def feed(connection: AnyConnection, merchant_member: str, after: int, limit: int) -> list[FeedItem]:
    """The acquirer's sealed transactions of a member's merchants, after a log index, in log order.

    Nothing of the card goes out: instead of its token the field leaf hash that stands in C.
    """
    records = driver(connection).execute(
        f"SELECT l.log_index, substr(l.shared_leaves, 225, 32),"
        f" {EXPRESSIONS['business_date'].format(t='t.')},"
        f" {', '.join('t.' + name for name in _FEED_COLUMNS)}"
        " FROM log_leaves AS l JOIN transactions AS t USING (transaction_id)"
        " JOIN merchants AS m ON m.merchant_id = t.merchant_id"
        " WHERE l.log_index > %s AND m.member_id = %s AND t.side = 'acquirer'"
        " ORDER BY l.log_index LIMIT %s",
        (after, merchant_member, limit),
    )
    return [
        FeedItem(
            log_index=record[0],
            card_token_leaf=record[1],
            business_date=record[2],
            **dict(zip(_FEED_COLUMNS, record[3:], strict=True)),
        )
        for record in records
    ]


def feed_cursor(connection: AnyConnection, acquirer: str) -> int:
    """The last log index that the merchant took from an acquirer's feed; -1 before the first."""
    row = (
        driver(connection)
        .execute("SELECT last_log_index FROM feed_cursors WHERE acquirer = %s", (acquirer,))
        .fetchone()
    )
    return int(row[0]) if row else -1


def commitments(connection: AnyConnection, side: str, txids: Sequence[bytes]) -> dict[bytes, bytes]:
    """C of those transactions that are recorded, by txid."""
    records = driver(connection).execute(
        "SELECT txid, commitment FROM transactions WHERE side = %s AND txid = ANY(%s::bytea[])",
        (side, list(txids)),
    )
    return {bytes(txid): bytes(commitment) for txid, commitment in records}


def effects(
    connection: AnyConnection, side: str, txids: Sequence[bytes]
) -> dict[bytes, tuple[str, str, int]]:
    """Kind, outcome and amount of recorded transactions, by txid."""
    records = driver(connection).execute(
        "SELECT txid, kind, outcome, amount FROM transactions"
        " WHERE side = %s AND txid = ANY(%s::bytea[])",
        (side, list(txids)),
    )
    return {bytes(txid): (kind, outcome, amount) for txid, kind, outcome, amount in records}


def undone_amounts(
    connection: AnyConnection, side: str, txids: Sequence[bytes]
) -> dict[bytes, int]:
    """What approved reversals and voids have undone of transactions, minor units, by txid."""
    records = driver(connection).execute(
        "SELECT original_txid, sum(amount)::bigint FROM transactions WHERE side = %s"
        " AND kind IN ('reversal', 'void') AND outcome = 'approved'"
        " AND original_txid = ANY(%s::bytea[]) GROUP BY original_txid",
        (side, list(txids)),
    )
    return {bytes(txid): amount for txid, amount in records}
