"""SQL that writes merchants and terminals, and locks terminals. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import psycopg

from nodes.acquiring.model import Merchant, Terminal
from nodes.db.writes import Statement, Writes, array, boolean

Connection = psycopg.Connection[Any]


def insert_merchant(connection: Connection, merchant: Merchant, account_id: int) -> bool:
    """Add a merchant; False if the id is taken."""
    done = connection.execute(
        "INSERT INTO merchants (merchant_id, name, mcc, country, currency, member_id, account_id,"
        " status) VALUES (%s, %s, %s, %s, %s, %s, %s, 'active') ON CONFLICT DO NOTHING",
        (
            merchant.merchant_id,
            merchant.name,
            merchant.mcc,
            merchant.country,
            merchant.currency,
            merchant.member_id,
            account_id,
        ),
    )
    return done.rowcount == 1


def merchant_exists(connection: Connection, merchant_id: str) -> bool:
    """Whether the acquirer has this merchant."""
    query = "SELECT 1 FROM merchants WHERE merchant_id = %s"
    return connection.execute(query, (merchant_id,)).fetchone() is not None


def insert_terminal(connection: Connection, terminal_id: str, merchant_id: str) -> bool:
    """Add a terminal; False if the id is taken."""
    done = connection.execute(
        "INSERT INTO terminals (terminal_id, merchant_id, status) VALUES (%s, %s, 'active')"
        " ON CONFLICT DO NOTHING",
        (terminal_id, merchant_id),
    )
    return done.rowcount == 1


_TERMINALS = (
    "SELECT t.terminal_id, t.status, t.last_seq, m.merchant_id, m.name, m.mcc, m.country,"
    " m.currency, m.account_id, m.status"
    " FROM terminals t JOIN merchants m USING (merchant_id)"
    " WHERE t.terminal_id = ANY(%s) ORDER BY t.terminal_id"
)


def lock_terminals(connection: Connection, terminal_ids: Iterable[str]) -> dict[str, Terminal]:
    """The terminals of these ids, their rows locked in the order of the id."""
    query = f"{_TERMINALS} FOR NO KEY UPDATE OF t"
    rows = connection.execute(query, (sorted(set(terminal_ids)),), prepare=True).fetchall()
    return {row[0]: Terminal(*row) for row in rows}


def read_terminals(connection: Connection, terminal_ids: Iterable[str]) -> dict[str, Terminal]:
    """The terminals of these ids as they are now."""
    rows = connection.execute(_TERMINALS, (sorted(set(terminal_ids)),), prepare=True).fetchall()
    return {row[0]: Terminal(*row) for row in rows}


_ADVANCE = Statement(
    "advance terminals",
    "SELECT advance_terminals($1::text[], $2::bigint[], $3::bigint[], $4::boolean)",
)


def advance_terminals(
    writes: Writes, reached: Mapping[str, tuple[int, int]], *, in_use: bool
) -> None:
    """Set the last sequence numbers given out: by terminal the last before, and the last now.

    SerializationFailure if one isn't as expected any more or, with `in_use`, if its terminal or
    merchant isn't active.
    """
    if reached:
        ordered = sorted(reached)
        writes.call(
            _ADVANCE,
            array("text", ordered),
            array("bigint", [reached[name][0] for name in ordered]),
            array("bigint", [reached[name][1] for name in ordered]),
            boolean(in_use),
        )
