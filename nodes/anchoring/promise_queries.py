"""SQL of promises: what was promised, and what of it isn't anchored."""

from __future__ import annotations

from dataclasses import dataclass

from nodes.anchoring.queries import AnyConnection
from nodes.anchoring.receipt import Promise
from nodes.anchoring.store import Connection, driver

_JOINED = (
    "SELECT p.txid, p.commitment, t.salt_fin, p.merge_deadline, p.signature FROM promises AS p"
    " CROSS JOIN LATERAL (SELECT salt_fin FROM transactions WHERE transactions.txid = p.txid"
    " LIMIT 1) AS t"
)


@dataclass(frozen=True, slots=True)
class Promisable:
    """What of a transaction a promise is about; both sides of an on-us one are alike."""

    commitment: bytes
    salt_fin: bytes


def promisable(connection: AnyConnection, txid: bytes) -> Promisable | None:
    """The transaction in these books; None if there is none."""
    row = (
        driver(connection)
        .execute("SELECT commitment, salt_fin FROM transactions WHERE txid = %s LIMIT 1", (txid,))
        .fetchone()
    )
    return None if row is None else Promisable(row[0], row[1])


def promise_of(connection: AnyConnection, member_id: str, txid: bytes) -> Promise | None:
    """The promise that was made of a transaction."""
    row = driver(connection).execute(_JOINED + " WHERE p.txid = %s", (txid,)).fetchone()
    return None if row is None else Promise(member_id, *row)


def overdue_count(connection: AnyConnection, now_s: int) -> int:
    """How many promises are past their deadline with no anchored entry."""
    row = (
        driver(connection)
        .execute(
            "SELECT count(*) FROM promises AS p WHERE merge_deadline < %s AND NOT EXISTS ("
            " SELECT FROM transactions AS t JOIN log_leaves AS l USING (transaction_id)"
            " JOIN anchor_submissions AS a ON a.seq = l.batch_seq AND a.state = 'ANCHORED'"
            " WHERE t.txid = p.txid)",
            (now_s,),
        )
        .fetchone()
    )
    return int(row[0]) if row else 0


def insert_promise(connection: Connection, promise: Promise, promised_ms: int) -> None:
    """Remember a promise; one that was made before stays."""
    connection.execute(
        "INSERT INTO promises (txid, commitment, merge_deadline, signature, promised_ms)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            promise.txid,
            promise.commitment,
            promise.merge_deadline,
            promise.signature,
            promised_ms,
        ),
    )
