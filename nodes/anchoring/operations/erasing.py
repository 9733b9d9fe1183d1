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
from functools import cached_property

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
        person = _person(connection, card_token, pseudonym)
        rows = {
            "transactions": _from_transactions(connection, erasure_id, card_token),
            "events": _from_events(connection, member_id, erasure_id, card_token),
            "authorization_requests": _from_requests(connection, person),
            "reversal_queue": _from_reversals(connection, person),
            "forward_queue": _from_forwards(connection, person),
            "webhook_deliveries": _from_webhooks(connection, person),
            "account_versions": _from_versions(connection, account, person),
            "chip_records": _from_chips(connection, person),
            "consumer_codes": _from_codes(connection, person),
            **_from_lookups(connection, person),
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


@dataclass(frozen=True)
class _Person:
    """Who is erased, as other rows name them; not to be kept."""

    token: bytes
    pseudonym: bytes
    #: salt_pii of their transactions by txid, and what each one follows; None: has none.
    salts: Mapping[bytes, bytes | None]
    originals: Mapping[bytes, bytes | None]
    #: Masked card numbers, of as many letters as the numbers have digits.
    masked: frozenset[str]

    @property
    def txids(self) -> list[bytes]:
        return list(self.salts)

    def swaps(self, txid: bytes | None = None) -> list[tuple[bytes, bytes]]:
        """What is replaced by values of the same length. `txid`: in the stored messages of this
        transaction, which may also tell of those that it follows or that follow it."""
        salts = () if txid is None else self._families.get(self._first(txid), ())
        return [
            (self.token, self.pseudonym),
            *((salt, bytes(32)) for salt in salts),
            *((mask.encode(), b"*" * len(mask)) for mask in self.masked),
        ]

    def _first(self, txid: bytes) -> bytes:
        """The transaction at the beginning of those that this one follows."""
        while original := self.originals.get(txid):
            txid = original
        return txid

    @cached_property
    def _families(self) -> Mapping[bytes, Sequence[bytes]]:
        """The salts of transactions that follow each other, by the first one's txid."""
        families: dict[bytes, list[bytes]] = {}
        for txid, salt in self.salts.items():
            if salt:
                families.setdefault(self._first(txid), []).append(salt)
        return families


def _person(connection: Connection, token: bytes, pseudonym: bytes) -> _Person:
    rows = connection.execute(
        "SELECT txid, salt_pii, original_txid, pan_masked FROM transactions WHERE card_token = %s",
        (token,),
    ).fetchall()
    cards = connection.execute(
        "SELECT pan_masked FROM cards WHERE card_token = %s", (token,)
    ).fetchall()
    masked = frozenset(row[-1] for row in (*rows, *cards) if row[-1])
    salts = {row[0]: row[1] for row in rows}
    return _Person(token, pseudonym, salts, {row[0]: row[2] for row in rows}, masked)


def _from_transactions(connection: Connection, erasure_id: int, token: bytes) -> int:
    """Take the person out of the ledger's rows."""
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
    return len(rows)


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


def _from_requests(connection: Connection, person: _Person) -> int:
    """Stored requests and exact answers; both keep their lengths and whatever else they say."""
    count = 0
    for key, side, day, txid, request, answer in connection.execute(
        "SELECT idempotency_key, side, business_date, txid, request, answer"
        " FROM authorization_requests WHERE txid = ANY(%s::bytea[])",
        (person.txids,),
    ).fetchall():
        swaps = person.swaps(txid)
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
    return count


def _from_reversals(connection: Connection, person: _Person) -> int:
    return _from_queue(connection, person, "reversal_queue", "original_txid")


def _from_forwards(connection: Connection, person: _Person) -> int:
    return _from_queue(connection, person, "forward_queue", "txid")


def _from_queue(connection: Connection, person: _Person, table: str, name: str) -> int:
    """The messages that an acquirer kept to send them until they were answered."""
    rows = connection.execute(
        f"SELECT {name}, request FROM {table} WHERE {name} = ANY(%s::bytea[])",
        (person.txids,),
    ).fetchall()
    for txid, request in rows:
        connection.execute(
            f"UPDATE {table} SET request = %s WHERE {name} = %s",
            (_swapped(request, person.swaps(txid)), txid),
        )
    return len(rows)


def _from_webhooks(connection: Connection, person: _Person) -> int:
    """What merchants were told of these transactions has the masked number."""
    rows = connection.execute(
        "SELECT delivery_id, body FROM webhook_deliveries WHERE message_id = ANY(%s)",
        ([f"msg_{txid.hex()}" for txid in person.txids],),
    ).fetchall()
    for number, body in rows:
        connection.execute(
            "UPDATE webhook_deliveries SET body = %s WHERE delivery_id = %s",
            (_swapped(body, person.swaps()), number),
        )
    return len(rows)


def _from_chips(connection: Connection, person: _Person) -> int:
    """What the card's chip said keeps its counters, under the pseudonym."""
    return connection.execute(
        "UPDATE chip_records SET card_token = %s WHERE card_token = %s",
        (person.pseudonym, person.token),
    ).rowcount


def _from_codes(connection: Connection, person: _Person) -> int:
    return connection.execute(
        "DELETE FROM consumer_codes WHERE card_token = %s", (person.token,)
    ).rowcount


def _from_lookups(connection: Connection, person: _Person) -> dict[str, int]:
    """The acquirer's keyed hash of the number: whoever has the key and a number could look."""
    other = secrets.token_bytes(32)
    return {
        "stand_ins": connection.execute(
            "UPDATE stand_ins SET card_lookup = %s"
            " WHERE txid = ANY(%s::bytea[]) OR asked_txid = ANY(%s::bytea[])",
            (other, person.txids, person.txids),
        ).rowcount,
        "online_counters": connection.execute(
            "UPDATE online_counters AS c SET card_lookup = %s FROM authorization_requests AS r"
            " WHERE r.txid = ANY(%s::bytea[]) AND c.idempotency_key = r.idempotency_key"
            " AND c.business_date = r.business_date",
            (other, person.txids),
        ).rowcount,
    }


def _from_versions(connection: Connection, account: int | None, person: _Person) -> int:
    """The account's versions name the card where a decision did."""
    if account is None:
        return 0
    count, swaps = 0, person.swaps()
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
