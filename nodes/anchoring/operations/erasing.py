"""Erasure of a person: card token, masked number and salt_pii go; the financial proofs stay.

C's eighth field stays as its leaf hash, which without salt_pii tells nothing (a token is 16 random
bytes, the salt 32), so C, each leaf and each anchored root hold as before. What keeps working
through the token afterwards (the card's row, its events and rules) goes under a random pseudonym.
Runs as the owner of the tables: no login of a node may change such rows.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

import sqlalchemy

from nodes.anchoring import store
from nodes.anchoring.leaf import event_ref
from nodes.anchoring.store import Connection
from nodes.crypto.commitment import SharedField, field_leaf, field_salt
from nodes.db.events import record_event

#: Cards of these states can't pay any more.
_ENDED = ("cancelled", "lost", "stolen")


class ErasureOutcome(Enum):
    """In order of precedence."""

    UNKNOWN = "unknown"  # nothing here names such a card
    CARD_LIVE = "card_live"  # it may still pay: end it first
    PENDING = "pending"  # a reversal of it isn't acknowledged yet
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was done; `rows` by table. The pseudonym tells nothing of who it was."""

    outcome: ErasureOutcome
    pseudonym: bytes | None = None
    rows: Mapping[str, int] = field(default_factory=dict)


def erase_person(
    engine: sqlalchemy.Engine,
    member_id: str,
    card_token: bytes,
    *,
    reason: str,
    by: str,
    now: datetime,
) -> Erasure:
    """Erase the holder of a card from one member's database, in one transaction.

    `engine`: of the tables' owner. PostgreSQL keeps old row versions until VACUUM, and backups keep
    theirs: see docs/evidence.md, Erasure.
    """
    with store.transaction(engine) as connection:
        # No sealing in between: it would read a row before and write its leaf after.
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('countersign/seal', 0))")
        refused = _refusal(connection, card_token)
        if refused is not None:
            return Erasure(refused)
        connection.execute("SET LOCAL countersign.erasing = 'on'")
        connection.execute("SET CONSTRAINTS ALL DEFERRED")
        pseudonym = secrets.token_bytes(16)
        record = connection.execute(
            "INSERT INTO erasures (pseudonym, reason, erased_by, erased_at)"
            " VALUES (%s, %s, %s, %s) RETURNING erasure_id",
            (pseudonym, reason, by, now),
        ).fetchone()
        erasure_id = record[0] if record else 0
        account = _account_of(connection, card_token)
        salts = _from_transactions(connection, erasure_id, card_token)
        rows = {
            "transactions": len(salts),
            "events": _from_events(connection, member_id, erasure_id, card_token),
            "authorization_requests": _from_requests(connection, card_token, pseudonym, salts),
            "account_versions": _from_versions(connection, account, card_token, pseudonym),
            "cards": _from_card(connection, card_token, pseudonym),
        }
        told = ", ".join(f"{table} {count}" for table, count in rows.items())
        record_event(
            connection,
            "audit",
            "person.erased",
            subject=pseudonym.hex(),
            actor=by,
            detail=f"{reason} ({told})",
        )
    return Erasure(ErasureOutcome.DONE, pseudonym, rows)


def _refusal(connection: Connection, token: bytes) -> ErasureOutcome | None:
    card = connection.execute(
        "SELECT status FROM cards WHERE card_token = %s FOR UPDATE", (token,)
    ).fetchone()
    known = (
        card
        or connection.execute(
            "SELECT FROM transactions WHERE card_token = %s LIMIT 1", (token,)
        ).fetchone()
    )
    if known is None:
        return ErasureOutcome.UNKNOWN
    if card is not None and card[0] not in _ENDED:
        return ErasureOutcome.CARD_LIVE
    pending = connection.execute(
        "SELECT FROM reversal_queue AS q JOIN transactions AS t ON t.txid = q.original_txid"
        " WHERE q.done_ms IS NULL AND t.card_token = %s LIMIT 1",
        (token,),
    ).fetchone()
    return ErasureOutcome.PENDING if pending is not None else None


def _account_of(connection: Connection, token: bytes) -> int | None:
    row = connection.execute(
        "SELECT account_id FROM cards WHERE card_token = %s", (token,)
    ).fetchone()
    return row[0] if row else None


def _from_transactions(connection: Connection, erasure_id: int, token: bytes) -> dict[bytes, bytes]:
    """Take the person out of the ledger's rows; the salts that they had, by txid."""
    rows = connection.execute(
        "SELECT transaction_id, txid, salt_pii, card_token_leaf FROM transactions"
        " WHERE card_token = %s",
        (token,),
    ).fetchall()
    stand_ins = [_stand_in(txid, salt, token) if salt else old for _, txid, salt, old in rows]
    connection.execute(
        "UPDATE transactions AS t SET card_token = NULL, pan_masked = NULL, salt_pii = NULL,"
        " card_token_leaf = e.leaf FROM unnest(%s::bigint[], %s::bytea[]) AS e (id, leaf)"
        " WHERE t.transaction_id = e.id",
        ([row[0] for row in rows], stand_ins),
    )
    _remember(connection, erasure_id, "transactions", [row[0] for row in rows])
    return {row[1]: row[2] for row in rows if row[2]}


def _from_events(connection: Connection, member_id: str, erasure_id: int, token: bytes) -> int:
    rows = connection.execute(
        "SELECT event_id, salt_pii FROM events WHERE card_token = %s AND salt_pii IS NOT NULL",
        (token,),
    ).fetchall()
    leaves = [_stand_in(event_ref(member_id, number), salt, token) for number, salt in rows]
    connection.execute(
        "UPDATE events AS v SET card_token = NULL, salt_pii = NULL, card_token_leaf = e.leaf"
        " FROM unnest(%s::bigint[], %s::bytea[]) AS e (id, leaf) WHERE v.event_id = e.id",
        ([row[0] for row in rows], leaves),
    )
    _remember(connection, erasure_id, "events", [row[0] for row in rows])
    return len(rows)


def _stand_in(reference: bytes, salt_pii: bytes, token: bytes) -> bytes:
    own = field_salt(salt_pii, reference, SharedField.CARD_TOKEN)
    return field_leaf(SharedField.CARD_TOKEN, own, token.ljust(32, b"\0"))


def _remember(connection: Connection, erasure_id: int, table: str, ids: Sequence[int]) -> None:
    connection.execute(
        "INSERT INTO erased_rows (table_name, row_id, erasure_id)"
        " SELECT %s, id, %s FROM unnest(%s::bigint[]) AS ids (id)",
        (table, erasure_id, list(ids)),
    )


def _from_requests(
    connection: Connection, token: bytes, pseudonym: bytes, salts: Mapping[bytes, bytes]
) -> int:
    """Stored requests and exact answers; both keep their lengths and whatever else they say."""
    count = 0
    for key, side, day, txid, request, answer in connection.execute(
        "SELECT idempotency_key, side, business_date, txid, request, answer"
        " FROM authorization_requests WHERE txid = ANY(%s::bytea[])",
        (list(salts),),
    ).fetchall():
        swaps = [(token, pseudonym), (salts[txid], bytes(32))]
        connection.execute(
            "UPDATE authorization_requests SET request = %s, answer = %s"
            " WHERE idempotency_key = %s AND side = %s AND business_date = %s",
            (_swapped(request, swaps), _swapped(answer, swaps), key, side, day),
        )
        for (said,) in connection.execute(
            "SELECT answer FROM authorization_answers"
            " WHERE idempotency_key = %s AND business_date = %s",
            (key, day),
        ).fetchall():
            connection.execute(
                "UPDATE authorization_answers SET answer = %s"
                " WHERE idempotency_key = %s AND business_date = %s",
                (_swapped(said, swaps), key, day),
            )
        count += 1
    for original, request in connection.execute(
        "SELECT original_txid, request FROM reversal_queue WHERE original_txid = ANY(%s::bytea[])",
        (list(salts),),
    ).fetchall():
        swaps = [(token, pseudonym), *((salt, bytes(32)) for salt in salts.values())]
        connection.execute(
            "UPDATE reversal_queue SET request = %s WHERE original_txid = %s",
            (_swapped(request, swaps), original),
        )
    return count


def _from_versions(
    connection: Connection, account: int | None, token: bytes, pseudonym: bytes
) -> int:
    """The account's versions name the card where a decision did."""
    if account is None:
        return 0
    count, swaps = 0, [(token, pseudonym)]
    for version, line, state, detail in connection.execute(
        "SELECT version, line, state, detail FROM account_versions WHERE account_id = %s",
        (account,),
    ).fetchall():
        new = _swapped(state, swaps), _swapped(detail, swaps)
        if new != (state, detail):
            connection.execute(
                "UPDATE account_versions SET state = %s, detail = %s"
                " WHERE account_id = %s AND version = %s AND line = %s",
                (*new, account, version, line),
            )
            count += 1
    return count


def _from_card(connection: Connection, token: bytes, pseudonym: bytes) -> int:
    """The card's own row: number, PIN and token go; what stays goes under the pseudonym."""
    done = connection.execute(
        "UPDATE cards SET card_token = %s, pan_lookup = %s, pan_sealed = '', pan_masked = 'erased',"
        " pin_lookup = NULL WHERE card_token = %s",
        (pseudonym, secrets.token_bytes(32), token),
    )
    connection.execute(
        "UPDATE card_events SET card_token = %s WHERE card_token = %s", (pseudonym, token)
    )
    connection.execute(
        "UPDATE spend_rules SET subject = %s WHERE subject = %s", (pseudonym.hex(), token.hex())
    )
    connection.execute(
        "UPDATE accounts SET owner = %s WHERE owner = %s", (pseudonym.hex(), token.hex())
    )
    return done.rowcount


def _swapped(blob: bytes | None, swaps: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """A stored message with some values replaced by others of their length, however written."""
    if blob is None:
        return None
    for old, new in swaps:
        for written in (bytes, _hex, base64.b64encode):
            blob = blob.replace(written(old), written(new))
    return blob


def _hex(value: bytes) -> bytes:
    return value.hex().encode()
