"""SQL of the authorization path, for whole batches. Callers own the transaction.

Locks are taken in one order everywhere: cards by id, accounts by id, terminals by id, pair
counters by name; so batches can't deadlock. Rows are locked in one statement and written in a
later one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import psycopg

from nodes.authorization.model import Kind, Outcome
from nodes.authorization.state import Account, Card, Original

Connection = psycopg.Connection[Any]
Pair = tuple[str, str]


class StoredRequest(msgspec.Struct, frozen=True):
    """A row of authorization_requests."""

    key: bytes
    fingerprint: bytes
    state: str
    txid: bytes | None
    issuer: str | None
    request: bytes | None
    answer: bytes | None
    deadline_ms: int = 0


_STORED = "idempotency_key, fingerprint, state, txid, issuer, request, answer, deadline_ms"


def stored_requests(
    connection: Connection, keys: Sequence[bytes], side: str, *, lock: bool = False
) -> dict[bytes, StoredRequest]:
    """What is stored under idempotency keys; with `lock` the rows are locked in key order."""
    if not keys:
        return {}
    tail = " ORDER BY idempotency_key FOR NO KEY UPDATE" if lock else ""
    rows = connection.execute(
        f"SELECT {_STORED} FROM authorization_requests"
        f" WHERE idempotency_key = ANY(%b) AND side = %s{tail}",
        (list(keys), side),
        prepare=True,
    ).fetchall()
    return {row[0]: StoredRequest(*row) for row in rows}


def stored_answers_by_txid(
    connection: Connection, txids: Sequence[bytes], side: str
) -> dict[bytes, bytes]:
    """The exact answers given to transactions, by txid."""
    if not txids:
        return {}
    rows = connection.execute(
        "SELECT txid, answer FROM authorization_requests"
        " WHERE txid = ANY(%b) AND side = %s AND answer IS NOT NULL",
        (list(txids), side),
    ).fetchall()
    return {row[0]: row[1] for row in rows}


def insert_requests(connection: Connection, side: str, rows: Sequence[StoredRequest]) -> None:
    """Store requests; UniqueViolation if a key is taken (another batch was first)."""
    if not rows:
        return
    connection.execute(
        f"INSERT INTO authorization_requests (side, {_STORED})"
        " SELECT %s, * FROM unnest(%b::bytea[], %b::bytea[], %b::text[], %b::bytea[], %b::text[],"
        " %b::bytea[], %b::bytea[], %b::bigint[])",
        (
            side,
            [row.key for row in rows],
            [row.fingerprint for row in rows],
            [row.state for row in rows],
            [row.txid for row in rows],
            [row.issuer for row in rows],
            [row.request for row in rows],
            [row.answer for row in rows],
            [row.deadline_ms for row in rows],
        ),
        prepare=True,
    )


def store_answers(connection: Connection, side: str, answers: dict[bytes, bytes]) -> None:
    """Give pending requests their answers; RuntimeError if one wasn't pending."""
    if not answers:
        return
    done = connection.execute(
        "UPDATE authorization_requests r SET state = 'answered', answer = new.answer"
        " FROM unnest(%b::bytea[], %b::bytea[]) AS new (idempotency_key, answer)"
        " WHERE r.idempotency_key = new.idempotency_key AND r.side = %s AND r.state = 'pending'",
        (list(answers), list(answers.values()), side),
        prepare=True,
    )
    if done.rowcount != len(answers):
        raise RuntimeError(f"{len(answers)} answers to store, {done.rowcount} stored")


def lock_cards(connection: Connection, lookups: Iterable[bytes]) -> dict[bytes, Card]:
    """The cards of PAN look-up values, their rows locked in the order of the id."""
    wanted = list(set(lookups))
    if not wanted:
        return {}
    rows = connection.execute(
        "SELECT pan_lookup, card_id, card_token, account_id, pan_masked, expiry, service_code,"
        " status, pin_lookup, pin_tries_left FROM cards WHERE pan_lookup = ANY(%b)"
        " ORDER BY card_id FOR NO KEY UPDATE",
        (wanted,),
        prepare=True,
    ).fetchall()
    return {row[0]: Card(*row[1:]) for row in rows}


def lock_accounts(connection: Connection, account_ids: Iterable[int]) -> dict[int, Account]:
    """Cardholder accounts, their rows locked in the order of the id."""
    wanted = sorted(set(account_ids))
    if not wanted:
        return {}
    rows = connection.execute(
        "SELECT account_id, currency, balance, held, overdraft_limit FROM accounts"
        " WHERE account_id = ANY(%b) AND kind = 'cardholder'"
        " ORDER BY account_id FOR NO KEY UPDATE",
        (wanted,),
        prepare=True,
    ).fetchall()
    return {row[0]: Account(*row) for row in rows}


def lock_pairs(connection: Connection, pairs: Iterable[Pair]) -> dict[Pair, int]:
    """The last sequence number of each acquirer-issuer pair, its row locked until the commit."""
    ordered = sorted(set(pairs))
    found: dict[Pair, int] = {}
    for pair in ordered:
        row = None
        while row is None:
            row = connection.execute(
                "SELECT last_seq FROM pair_counters WHERE acquirer = %s AND issuer = %s FOR UPDATE",
                pair,
                prepare=True,
            ).fetchone()
            if row is None:
                connection.execute(
                    "INSERT INTO pair_counters (acquirer, issuer) VALUES (%s, %s)"
                    " ON CONFLICT DO NOTHING",
                    pair,
                )
        found[pair] = row[0]
    return found


def write_pairs(connection: Connection, last_seqs: dict[Pair, int]) -> None:
    """Set the last sequence numbers of locked pairs."""
    for (acquirer, issuer), last_seq in sorted(last_seqs.items()):
        connection.execute(
            "UPDATE pair_counters SET last_seq = %s WHERE acquirer = %s AND issuer = %s",
            (last_seq, acquirer, issuer),
            prepare=True,
        )


def originals(connection: Connection, txids: Iterable[bytes], side: str) -> dict[bytes, Original]:
    """Earlier transactions and what later ones did to them, by txid."""
    wanted = list(set(txids))
    if not wanted:
        return {}
    rows = connection.execute(
        "SELECT t.txid, t.kind, t.outcome, t.amount, t.currency, t.acquirer, t.merchant_id,"
        " t.terminal_id, t.account_id, t.card_token, t.pan_masked, coalesce(s.refunded, 0),"
        " coalesce(s.reversed, false)"
        " FROM transactions t LEFT JOIN original_states s USING (txid)"
        " WHERE t.txid = ANY(%b) AND t.side = %s",
        (wanted, side),
    ).fetchall()
    return {row[0]: Original(row[0], Kind(row[1]), Outcome(row[2]), *row[3:]) for row in rows}


def tombstoned(connection: Connection, txids: Sequence[bytes]) -> set[bytes]:
    """Those whose reversal came before them."""
    if not txids:
        return set()
    rows = connection.execute(
        "SELECT txid FROM tombstones WHERE txid = ANY(%b)", (list(txids),), prepare=True
    ).fetchall()
    return {row[0] for row in rows}


def insert_tombstones(connection: Connection, tombstones: dict[bytes, bytes]) -> None:
    """Bar originals (txid -> the reversal's txid) that were never seen."""
    for txid, reversal in tombstones.items():
        connection.execute(
            "INSERT INTO tombstones (txid, reversal_txid) VALUES (%b, %b) ON CONFLICT DO NOTHING",
            (txid, reversal),
        )


def write_pin_tries(connection: Connection, tries: dict[int, int]) -> None:
    """Set the PIN tries left of locked cards (card id -> tries)."""
    if not tries:
        return
    ordered = sorted(tries)
    done = connection.execute(
        "UPDATE cards SET pin_tries_left = new.tries"
        " FROM unnest(%s::bigint[], %s::smallint[]) AS new (card_id, tries)"
        " WHERE cards.card_id = new.card_id",
        (ordered, [tries[number] for number in ordered]),
    )
    if done.rowcount != len(ordered):
        raise RuntimeError("a locked card has gone")


def write_original_states(connection: Connection, changed: Iterable[Original]) -> None:
    """Keep what became of originals; the constraints of original_states stand behind it."""
    for original in changed:
        connection.execute(
            "INSERT INTO original_states (txid, amount, refunded, reversed)"
            " VALUES (%b, %s, %s, %s) ON CONFLICT (txid) DO UPDATE"
            " SET refunded = excluded.refunded, reversed = excluded.reversed",
            (original.txid, original.amount, original.refunded, original.reversed),
        )


def next_rrns(connection: Connection, count: int) -> list[str]:
    """Retrieval reference numbers (DE37), 12 digits each."""
    if count == 0:
        return []
    rows = connection.execute(
        "SELECT nextval('retrieval_references') FROM generate_series(1, %s)", (count,), prepare=True
    ).fetchall()
    return [f"{row[0]:012d}" for row in rows]


def approved_purchases(
    connection: Connection, wanted: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], bytes | None]:
    """txid of an approved purchase by (merchant_id, rrn); None where several match."""
    found: dict[tuple[str, str], bytes | None] = {}
    if not wanted:
        return found
    rows = connection.execute(
        "SELECT t.merchant_id, t.rrn, t.txid FROM transactions t"
        " JOIN unnest(%s::text[], %s::text[]) AS w (merchant_id, rrn) USING (merchant_id, rrn)"
        " WHERE t.side = 'acquirer' AND t.kind = 'purchase' AND t.outcome = 'approved'",
        ([merchant for merchant, _ in wanted], [rrn for _, rrn in wanted]),
    ).fetchall()
    for merchant_id, rrn, txid in rows:
        known = found.get((merchant_id, rrn), txid)
        found[merchant_id, rrn] = txid if known == txid else None
    return found


# --- the acquirer's store-and-forward ----------------------------------------------------------


class QueuedReversal(msgspec.Struct, frozen=True):
    """A reversal that the issuer must acknowledge; `request` is an AuthorizationRequest as JSON."""

    original_txid: bytes
    issuer: str
    reason: str
    request: bytes
    next_attempt_ms: int
    attempts: int = 0


def queue_reversals(connection: Connection, rows: Sequence[QueuedReversal]) -> None:
    """Take reversals into the queue; one an original, the first stays."""
    for row in rows:
        connection.execute(
            "INSERT INTO reversal_queue (original_txid, issuer, reason, request, next_attempt_ms)"
            " VALUES (%b, %s, %s, %b, %s) ON CONFLICT DO NOTHING",
            (row.original_txid, row.issuer, row.reason, row.request, row.next_attempt_ms),
        )


def queued_originals(connection: Connection, txids: Sequence[bytes]) -> set[bytes]:
    """Those originals for which a reversal was ever queued."""
    if not txids:
        return set()
    rows = connection.execute(
        "SELECT original_txid FROM reversal_queue WHERE original_txid = ANY(%b)", (list(txids),)
    ).fetchall()
    return {row[0] for row in rows}


def take_due_reversals(
    connection: Connection, now_ms: int, retry_at_ms: int, limit: int
) -> list[QueuedReversal]:
    """Due reversals, put off to `retry_at_ms` at once so that no second worker takes them."""
    rows = connection.execute(
        "UPDATE reversal_queue SET attempts = attempts + 1, next_attempt_ms = %s"
        " WHERE original_txid IN (SELECT original_txid FROM reversal_queue"
        "  WHERE done_ms IS NULL AND next_attempt_ms <= %s ORDER BY next_attempt_ms LIMIT %s"
        "  FOR UPDATE SKIP LOCKED)"
        " RETURNING original_txid, issuer, reason, request, next_attempt_ms, attempts",
        (retry_at_ms, now_ms, limit),
    ).fetchall()
    return [QueuedReversal(*row) for row in rows]


def put_off_reversal(connection: Connection, original_txid: bytes, until_ms: int) -> None:
    """Try again at `until_ms`."""
    connection.execute(
        "UPDATE reversal_queue SET next_attempt_ms = %s WHERE original_txid = %b",
        (until_ms, original_txid),
    )


def finish_reversals(connection: Connection, txids: Sequence[bytes], done_ms: int) -> None:
    """The issuer has acknowledged the reversals of these originals."""
    if txids:
        connection.execute(
            "UPDATE reversal_queue SET done_ms = %s"
            " WHERE original_txid = ANY(%b) AND done_ms IS NULL",
            (done_ms, list(txids)),
        )


def overdue_requests(connection: Connection, before_ms: int, limit: int) -> list[StoredRequest]:
    """The acquirer's requests still pending although their deadline has passed, locked."""
    rows = connection.execute(
        f"SELECT {_STORED} FROM authorization_requests"
        " WHERE state = 'pending' AND side = 'acquirer' AND deadline_ms < %s"
        " ORDER BY deadline_ms LIMIT %s FOR UPDATE SKIP LOCKED",
        (before_ms, limit),
    ).fetchall()
    return [StoredRequest(*row) for row in rows]
