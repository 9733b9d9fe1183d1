"""Issuers' signatures over their answers (nodes/crypto/answer_signature.py) in acquirers' books.

One row a commit holds the shares of all its transactions: a table of a row a transaction would cost
the authorization path as much as each of its other tables. `unsigned_answers` has those whose
issuer has not signed, or not this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import psycopg

from nodes.db.writes import Statement, Writes, array, bigint, text

Connection = psycopg.Connection[Any]

#: Ids of one commit lie within a few milliseconds of each other (nodes/ledger/store.py,
#: TransactionIds: 22 bits a millisecond, 64 ids in it); with room to spare.
_ID_SPAN = 64 << 22

_KEEP = Statement(
    "keep answer signatures",
    "INSERT INTO answer_signatures (first_id, transaction_ids, shares)"
    " VALUES ($1::bigint, $2::bigint[], $3::bytea[])",
)
_UNSIGNED = Statement(
    "note unsigned answers",
    "INSERT INTO unsigned_answers (txid, why) SELECT txid, $2::text"
    " FROM unnest($1::bytea[]) AS u (txid) ORDER BY txid ON CONFLICT DO NOTHING",
)


class SignedRow(msgspec.Struct, frozen=True):
    """A transaction of the acquirer's with what its issuer signed of it."""

    xact: int
    issuer: str
    txid: bytes
    commitment: bytes
    pair_seq: int
    share: bytes


def insert_shares(writes: Writes, shares: Sequence[tuple[int, bytes]]) -> None:
    """Keep the shares of transactions (by their ids) that the same commit records."""
    if shares:
        numbers = [number for number, _ in shares]
        writes.call(
            _KEEP,
            bigint(numbers[0]),
            array("bigint", numbers),
            array("bytea", [share for _, share in shares]),
        )


def insert_unsigned(writes: Writes, txids: Sequence[bytes], why: str) -> None:
    """Note transactions whose issuer has not signed; a second call changes nothing."""
    writes.call(_UNSIGNED, array("bytea", txids), text(why))


def note_unsigned(connection: Connection, txids: Sequence[bytes], why: str) -> None:
    """The same at once."""
    connection.execute(
        "INSERT INTO unsigned_answers (txid, why) SELECT txid, %s"
        " FROM unnest(%s::bytea[]) AS u (txid) ORDER BY txid ON CONFLICT DO NOTHING",
        (why, list(txids)),
    )


def unchecked(connection: Connection, limit: int) -> tuple[list[SignedRow], int | None]:
    """Transactions of at most about `limit` commits whose shares weren't looked at yet, and up to
    which xact they reach (None: there are none)."""
    rows = connection.execute(
        "WITH taken AS MATERIALIZED (SELECT xact, transaction_ids, shares FROM answer_signatures"
        " WHERE xact >= (SELECT next_xact FROM answer_checks)"
        " AND xact < pg_snapshot_xmin(pg_current_snapshot())"
        " ORDER BY xact FETCH FIRST %s ROWS WITH TIES)"
        " SELECT s.xact::text, t.issuer, t.txid, t.commitment, t.pair_seq, u.share"
        " FROM taken AS s CROSS JOIN LATERAL unnest(s.transaction_ids, s.shares)"
        " AS u (transaction_id, share) JOIN transactions AS t USING (transaction_id)",
        (limit,),
    ).fetchall()
    found = [SignedRow(int(row[0]), *row[1:]) for row in rows]
    return found, max((row.xact for row in found), default=None)


def checked(connection: Connection, xact: int) -> None:
    """All shares up to this xact were looked at."""
    connection.execute(
        "UPDATE answer_checks SET next_xact = greatest(next_xact, %s::text::xid8)",
        (str(xact + 1),),
    )


def shares_of_pair(
    connection: Connection, acquirer: str, issuer: str, page: int = 500
) -> Iterator[list[SignedRow]]:
    """All kept shares of a pair with their transactions, some commits at a time."""
    after = -1
    while True:
        rows = connection.execute(
            "WITH taken AS MATERIALIZED (SELECT * FROM answer_signatures WHERE first_id > %s"
            " ORDER BY first_id LIMIT %s) SELECT s.first_id, s.xact::text, t.issuer, t.txid,"
            " t.commitment, t.pair_seq, u.share FROM taken AS s LEFT JOIN LATERAL"
            " unnest(s.transaction_ids, s.shares) AS u (transaction_id, share) ON true"
            " LEFT JOIN transactions AS t ON t.transaction_id = u.transaction_id"
            " AND t.acquirer = %s AND t.issuer = %s",
            (after, page, acquirer, issuer),
        ).fetchall()
        if not rows:
            return
        after = max(row[0] for row in rows)
        yield [SignedRow(int(row[1]), *row[2:]) for row in rows if row[3] is not None]


def share_of(connection: Connection, txid: bytes) -> SignedRow | None:
    """A transaction of the acquirer's with its share; None where none is kept."""
    row = connection.execute(
        "SELECT s.xact::text, t.issuer, t.txid, t.commitment, t.pair_seq,"
        " s.shares[array_position(s.transaction_ids, t.transaction_id)] FROM transactions AS t"
        " JOIN answer_signatures AS s ON s.first_id BETWEEN t.transaction_id - %s::bigint"
        " AND t.transaction_id AND t.transaction_id = ANY(s.transaction_ids)"
        " WHERE t.txid = %b AND t.side = 'acquirer'",
        (_ID_SPAN, txid),
    ).fetchone()
    return None if row is None else SignedRow(int(row[0]), *row[1:])
