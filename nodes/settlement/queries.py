"""All SQL of settlement statements that reads; psycopg connections within a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import psycopg
from psycopg.rows import dict_row

from nodes.clearing.model import Close, CloseStage, DayKey
from nodes.clearing.queries import close_by_id
from nodes.settlement.model import NewOrder, Order, OrderAction, Settlement, StatementState

Connection = psycopg.Connection[Any]
Row = dict[str, Any]

#: Statements (s) with their close (c), last step (l), and what came of it.
_FOUND = (
    "SELECT s.*, c.acquirer, c.issuer, c.currency, c.business_date, l.state, l.step, l.at AS since,"
    " (SELECT disputable_until FROM settlement_steps AS x WHERE x.settlement_id = s.settlement_id"
    " AND x.state = 'CONFIRMED') AS disputable_until,"
    " (SELECT verdict FROM settlement_steps AS x WHERE x.settlement_id = s.settlement_id"
    " AND x.state = 'RESOLVED') AS verdict,"
    " (SELECT superseded_by FROM settlement_steps AS x WHERE x.settlement_id = s.settlement_id"
    " AND x.state = 'SUPERSEDED') AS superseded_by,"
    " coalesce((SELECT by_member FROM settlement_steps AS x"
    " WHERE x.settlement_id = s.settlement_id AND x.state = 'PROPOSED'), s.proposer) AS first,"
    " ARRAY(SELECT member FROM settlement_signatures AS g"
    " WHERE g.settlement_id = s.settlement_id) AS signed"
    " FROM settlements AS s JOIN closes AS c USING (close_id)"
    " JOIN LATERAL (SELECT state, step, at FROM settlement_steps AS x"
    " WHERE x.settlement_id = s.settlement_id ORDER BY step DESC LIMIT 1) AS l ON true"
)


def scan(connection: Connection) -> int:
    """The first block whose events weren't read."""
    row = connection.execute("SELECT next_block FROM settlement_scan").fetchone()
    return int(row[0]) if row else 0


def days(connection: Connection) -> list[DayKey]:
    """All days that these books have closed."""
    rows = connection.execute(
        "SELECT DISTINCT acquirer, issuer, currency, business_date FROM closes"
    ).fetchall()
    return [DayKey(*row) for row in rows]


def settlement(connection: Connection, settlement_id: bytes) -> Settlement | None:
    """One statement."""
    found = _settlements(connection, "s.settlement_id = %s", (settlement_id,))
    return found[0] if found else None


def close_is_in_force(connection: Connection, close_id: int) -> bool:
    """Whether a revision of a close is Confirmed, and no later one is."""
    staged = close_by_id(connection, close_id)
    return staged is not None and staged.stage is CloseStage.CONFIRMED


def has_been(connection: Connection, settlement_id: bytes, state: StatementState) -> bool:
    """Whether a statement was ever at a state."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM settlement_steps WHERE (settlement_id, state) = (%s, %s))",
        (settlement_id, state.value),
    ).fetchone()
    return bool(row and row[0])


def settlements_in(connection: Connection, *states: StatementState) -> list[Settlement]:
    """Statements at one of these states, in the order in which they were made."""
    names = [state.value for state in states]
    return _settlements(connection, "l.state = ANY(%s) ORDER BY s.number", (names,))


def settlements_of(connection: Connection, close_id: int) -> list[Settlement]:
    """The statements of one revision of a close."""
    return _settlements(connection, "s.close_id = %s ORDER BY s.number", (close_id,))


def proposable(connection: Connection) -> list[int]:
    """Confirmed closes of this acquirer's that never had a statement, but for a few that lapsed:
    the other's proposal of the same pair was first with its number."""
    rows = connection.execute(
        "SELECT c.close_id FROM closes AS c WHERE c.party = 'acquirer' AND EXISTS (SELECT"
        " FROM close_stages AS t WHERE t.close_id = c.close_id AND t.stage = 'CONFIRMED')"
        " AND NOT EXISTS (SELECT FROM close_stages AS t WHERE t.close_id = c.close_id"
        " AND t.stage = 'SUPERSEDED')"
        " AND NOT EXISTS (SELECT FROM settlements AS s WHERE s.close_id = c.close_id"
        " AND NOT EXISTS (SELECT FROM settlement_steps AS x"
        " WHERE x.settlement_id = s.settlement_id AND x.state = 'LAPSED'))"
        " AND (SELECT count(*) FROM settlements AS s WHERE s.close_id = c.close_id) < 5"
        " ORDER BY c.business_date, c.close_id"
    ).fetchall()
    return [row[0] for row in rows]


def pair_is_busy(connection: Connection, key: DayKey) -> bool:
    """Whether a statement of this pair is on its way: the next number isn't known before it is."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM settlements AS s JOIN closes AS c USING (close_id)"
        " WHERE (c.acquirer, c.issuer) = (%s, %s) AND 'PREPARED' = (SELECT state"
        " FROM settlement_steps AS x WHERE x.settlement_id = s.settlement_id"
        " ORDER BY step DESC LIMIT 1))",
        (key.acquirer, key.issuer),
    ).fetchone()
    return bool(row and row[0])


def signature(connection: Connection, settlement_id: bytes, member: str) -> bytes | None:
    """A party's signature, if it is kept here."""
    row = connection.execute(
        "SELECT signature FROM settlement_signatures WHERE (settlement_id, member) = (%s, %s)",
        (settlement_id, member),
    ).fetchone()
    return row[0] if row else None


def close_of(connection: Connection, key: DayKey, revision: int) -> Close | None:
    """A revision of a day's close as these books have it."""
    row = connection.execute(
        "SELECT close_id FROM closes WHERE (acquirer, issuer, currency, business_date, revision)"
        " = (%s, %s, %s, %s, %s)",
        (key.acquirer, key.issuer, key.currency, key.business_date, revision),
    ).fetchone()
    staged = close_by_id(connection, row[0]) if row else None
    return staged.close if staged else None


def _settlements(connection: Connection, where: str, parameters: Sequence[Any]) -> list[Settlement]:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(f"{_FOUND} WHERE {where}", parameters).fetchall()
    found = []
    for row in rows:
        staged = close_by_id(connection, row["close_id"])
        assert staged is not None
        found.append(settlement_of(row, staged.close))
    return found


def settlement_of(row: Mapping[str, Any], close: Close) -> Settlement:
    """A statement of its row."""
    return Settlement(
        settlement_id=row["settlement_id"],
        close=close,
        proposer=row["first"],
        statement_hash=row["statement_hash"],
        supersedes=row["supersedes"],
        nonce=row["nonce"],
        deadline=row["deadline"],
        agrees=row["agrees"],
        state=StatementState(row["state"]),
        steps=row["step"],
        since=row["since"],
        disputable_until=row["disputable_until"],
        verdict=row["verdict"],
        signed=frozenset(row["signed"]),
        number=row["number"],
    )


def find_settlements(
    connection: Connection,
    *,
    limit: int,
    before: int | None = None,
    day: date | None = None,
    counterparty: str | None = None,
    state: str | None = None,
    close_id: int | None = None,
) -> list[tuple[Settlement, bytes | None]]:
    """Statements, the newest first, each with what has superseded it."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            f"{_FOUND} WHERE (%(before)s::bigint IS NULL OR s.number < %(before)s)"
            " AND (%(day)s::date IS NULL OR c.business_date = %(day)s)"
            " AND (%(other)s::text IS NULL OR %(other)s IN (c.acquirer, c.issuer))"
            " AND (%(state)s::text IS NULL OR l.state = %(state)s)"
            " AND (%(close)s::bigint IS NULL OR s.close_id = %(close)s)"
            " ORDER BY s.number DESC LIMIT %(limit)s",
            {
                "before": before,
                "day": day,
                "other": counterparty,
                "state": state,
                "close": close_id,
                "limit": limit,
            },
        ).fetchall()
    found = []
    for row in rows:
        staged = close_by_id(connection, row["close_id"])
        assert staged is not None
        found.append((settlement_of(row, staged.close), row["superseded_by"]))
    return found


def steps_of(connection: Connection, settlement_id: bytes) -> list[Row]:
    """A statement's steps in order."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT * FROM settlement_steps WHERE settlement_id = %s ORDER BY step",
            (settlement_id,),
        ).fetchall()


def signatures_of(connection: Connection, settlement_id: bytes) -> list[Row]:
    """The signatures over a statement that are kept here."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT member, signature, at FROM settlement_signatures WHERE settlement_id = %s"
            " ORDER BY at",
            (settlement_id,),
        ).fetchall()


def in_force(connection: Connection, key: DayKey) -> bytes | None:
    """The statement that a close has now; None if it has none."""
    row = connection.execute(
        "SELECT settlement_id FROM settlements_in_force"
        " WHERE (acquirer, issuer, currency, business_date) = (%s, %s, %s, %s)",
        (key.acquirer, key.issuer, key.currency, key.business_date),
    ).fetchone()
    return row[0] if row else None


# --- orders ------------------------------------------------------------------------------------

_ORDER = (
    "SELECT o.*, e.refusal, e.settlement_id AS made, e.at AS ended_at FROM settlement_orders AS o"
    " LEFT JOIN settlement_order_ends AS e USING (order_id)"
)


def waiting_orders(connection: Connection) -> list[Order]:
    """Orders that aren't carried out, the first first."""
    return _orders(connection, "e.order_id IS NULL ORDER BY o.order_id", ())


def order(connection: Connection, order_id: int) -> Order | None:
    """One order."""
    found = _orders(connection, "o.order_id = %s", (order_id,))
    return found[0] if found else None


def orders_of(
    connection: Connection, settlement_id: bytes, close_id: int | None = None
) -> list[Order]:
    """The orders about a statement, the newest first; with `close_id` also those that propose for
    that close."""
    return _orders(
        connection,
        "o.settlement_id = %s OR e.settlement_id = %s OR o.close_id = %s ORDER BY o.order_id DESC",
        (settlement_id, settlement_id, close_id),
    )


def find_orders(connection: Connection, *, limit: int, before: int | None = None) -> list[Order]:
    """Orders, the newest first."""
    return _orders(
        connection,
        "(%s::bigint IS NULL OR o.order_id < %s) ORDER BY o.order_id DESC LIMIT %s",
        (before, before, limit),
    )


def order_by_key(connection: Connection, request_key: bytes) -> tuple[Order, bytes] | None:
    """The order that was taken under an idempotency key, and its content's fingerprint."""
    row = connection.execute(
        "SELECT order_id, fingerprint FROM settlement_orders WHERE request_key = %s",
        (request_key,),
    ).fetchone()
    found = order(connection, row[0]) if row else None
    return None if row is None or found is None else (found, row[1])


def _orders(connection: Connection, where: str, parameters: Sequence[Any]) -> list[Order]:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(f"{_ORDER} WHERE {where}", parameters).fetchall()
    return [
        Order(
            order_id=row["order_id"],
            new=NewOrder(
                action=OrderAction(row["action"]),
                actor=row["actor"],
                close_id=row["close_id"],
                settlement_id=row["settlement_id"],
                txid=row["txid"],
                reason=row["reason"],
                verdict=row["verdict"],
                deadline_s=row["deadline_s"],
                signatures=tuple(row["signatures"] or ()),
            ),
            at=row["at"],
            refusal=row["refusal"],
            made=row["made"],
            ended_at=row["ended_at"],
        )
        for row in rows
    ]
