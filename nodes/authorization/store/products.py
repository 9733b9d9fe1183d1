"""SQL that writes products, rules and adjustments. Callers own the transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import psycopg

from nodes.authorization.controls import Rule, Terms
from nodes.authorization.store.accounts import Connection, rule_json, stored_rule


class StoredRule(msgspec.Struct, frozen=True):
    """A row of spend_rules. `subject`: product id, account id, or card token in hex."""

    scope: str
    subject: str
    rule: Rule
    ended_by: str | None = None


class Adjustment(msgspec.Struct, frozen=True):
    """A proposed, posted or rejected correction; `amount` is positive to the cardholder."""

    adjustment_id: int
    account_id: int
    amount: int
    currency: str
    reason: str
    made_by: str
    state: str
    checked_by: str | None
    txid: bytes | None
    #: The payment (txid) whose disputed debt it decides about.
    disputed: bytes | None = None


def insert_product(
    connection: Connection, product_id: str, name: str, terms: Terms, created_at: datetime
) -> bool:
    """Add a product; False if its id is taken."""
    done = connection.execute(
        "INSERT INTO products (product_id, name, terms, created_at) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (product_id, name, msgspec.json.encode(terms).decode(), created_at),
    )
    return done.rowcount == 1


def terms_of_product(connection: Connection, product_id: str) -> Terms | None:
    """What a product allows; None if there is none of this id."""
    row = connection.execute(
        "SELECT terms::text FROM products WHERE product_id = %s", (product_id,)
    ).fetchone()
    return None if row is None else msgspec.json.decode(row[0], type=Terms)


def insert_rule(
    connection: Connection, stored: StoredRule, created_by: str, created_at: datetime
) -> bool:
    """Add a rule; False if its id is taken."""
    rule = stored.rule
    done = connection.execute(
        "INSERT INTO spend_rules (rule_id, scope, subject, definition, created_by, created_at,"
        " effective_from_ms, effective_to_ms) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (
            rule.rule_id,
            stored.scope,
            stored.subject,
            rule_json(rule),
            created_by,
            created_at,
            rule.effective_from_ms,
            rule.effective_to_ms,
        ),
    )
    return done.rowcount == 1


def find_rule(connection: Connection, rule_id: str) -> StoredRule | None:
    """One rule as it stands."""
    row = connection.execute(
        "SELECT scope, subject, definition::text, effective_to_ms, ended_by FROM spend_rules"
        " WHERE rule_id = %s",
        (rule_id,),
    ).fetchone()
    if row is None:
        return None
    return StoredRule(row[0], row[1], stored_rule(row[2], row[3]), row[4])


def end_rule(connection: Connection, rule_id: str, ended_by: str, at_ms: int) -> bool:
    """A rule is in force no longer from `at_ms` on; False if somebody ended it before."""
    done = connection.execute(
        "UPDATE spend_rules SET ended_by = %s, effective_to_ms = %s"
        " WHERE rule_id = %s AND ended_by IS NULL",
        (ended_by, at_ms, rule_id),
    )
    return done.rowcount == 1


_ADJUSTMENT = (
    "adjustment_id, account_id, amount, currency, reason, made_by, state, checked_by, txid,"
    " disputed"
)


def insert_adjustment(
    connection: Connection,
    *,
    account_id: int,
    amount: int,
    currency: str,
    reason: str,
    made_by: str,
    made_at: datetime,
    disputed: bytes | None = None,
) -> int:
    """Propose a correction; its number."""
    row = connection.execute(
        "INSERT INTO adjustments (account_id, amount, currency, reason, made_by, made_at, disputed)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING adjustment_id",
        (account_id, amount, currency, reason, made_by, made_at, disputed),
    ).fetchone()
    return int(_given(row)[0])


def lock_adjustment(connection: Connection, adjustment_id: int) -> Adjustment | None:
    """A correction, its row locked: it is decided about once."""
    row = connection.execute(
        f"SELECT {_ADJUSTMENT} FROM adjustments WHERE adjustment_id = %s FOR UPDATE",
        (adjustment_id,),
    ).fetchone()
    return None if row is None else Adjustment(*row)


def check_adjustment(
    connection: Connection,
    adjustment_id: int,
    *,
    state: str,
    checked_by: str,
    checked_at: datetime,
    txid: bytes | None,
) -> None:
    """Write down how a locked correction was decided. CheckViolation if its maker decided."""
    connection.execute(
        "UPDATE adjustments SET state = %s, checked_by = %s, checked_at = %s, txid = %s"
        " WHERE adjustment_id = %s",
        (state, checked_by, checked_at, txid, adjustment_id),
    )


# -- holds that end


def take_due_deadlines(connection: Connection, now_ms: int, limit: int) -> list[int]:
    """Accounts of which a hold's time is over, each once; their rows are taken away."""
    rows = connection.execute(
        "DELETE FROM hold_deadlines WHERE ctid = ANY (ARRAY(SELECT ctid FROM hold_deadlines"
        " WHERE expires_ms <= %s ORDER BY expires_ms LIMIT %s)) RETURNING account_id",
        (now_ms, limit),
    ).fetchall()
    return sorted({row[0] for row in rows})


def _given(row: Any) -> Any:
    if row is None:
        raise psycopg.DataError("INSERT ... RETURNING gave no row")
    return row
