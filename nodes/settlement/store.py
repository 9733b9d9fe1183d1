"""All SQL of settlement statements that writes. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import psycopg

from nodes.clearing.model import DayKey
from nodes.settlement.model import NewOrder, Settlement, StatementState

Connection = psycopg.Connection[Any]

#: Columns that some states' steps have besides.
_DETAIL = (
    "block_number",
    "tx_hash",
    "disputable_until",
    "by_member",
    "txid",
    "leaf_member",
    "reason_hash",
    "verdict",
    "superseded_by",
)


def insert_settlement(connection: Connection, settlement: Settlement, at: datetime) -> None:
    """A new statement, without steps."""
    connection.execute(
        "INSERT INTO settlements (settlement_id, close_id, proposer, statement_hash, supersedes,"
        " nonce, deadline, agrees, made_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            settlement.settlement_id,
            settlement.close.close_id,
            settlement.proposer,
            settlement.statement_hash,
            settlement.supersedes,
            settlement.nonce,
            settlement.deadline,
            settlement.agrees,
            at,
        ),
    )


def append_step(
    connection: Connection,
    settlement_id: bytes,
    step: int,
    state: StatementState,
    at: datetime,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """The next step of a statement; the database refuses one that doesn't follow."""
    values = [(detail or {}).get(name) for name in _DETAIL]
    connection.execute(
        f"INSERT INTO settlement_steps (settlement_id, step, state, at, {', '.join(_DETAIL)})"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (settlement_id, step, state.value, at, *values),
    )


def put_in_force(connection: Connection, key: DayKey, settlement_id: bytes) -> None:
    """The statement that a close has now."""
    connection.execute(
        "INSERT INTO settlements_in_force AS f (acquirer, issuer, currency, business_date,"
        " settlement_id) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (acquirer, issuer, currency, business_date)"
        " DO UPDATE SET settlement_id = excluded.settlement_id",
        (key.acquirer, key.issuer, key.currency, key.business_date, settlement_id),
    )


def keep_signature(
    connection: Connection, settlement_id: bytes, member: str, signature: bytes, at: datetime
) -> bool:
    """A party's signature; False if it is kept already."""
    done = connection.execute(
        "INSERT INTO settlement_signatures (settlement_id, member, signature, at)"
        " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (settlement_id, member, signature, at),
    )
    return done.rowcount > 0


def insert_order(
    connection: Connection, new: NewOrder, request_key: bytes, fingerprint: bytes, at: datetime
) -> int:
    """A new order; its number. UniqueViolation if the key is taken."""
    row = connection.execute(
        "INSERT INTO settlement_orders (action, close_id, settlement_id, actor, txid, reason,"
        " verdict, deadline_s, signatures, request_key, fingerprint, at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING order_id",
        (
            new.action.value,
            new.close_id,
            new.settlement_id,
            new.actor,
            new.txid,
            new.reason,
            new.verdict,
            new.deadline_s,
            list(new.signatures) if new.signatures else None,
            request_key,
            fingerprint,
            at,
        ),
    ).fetchone()
    assert row is not None
    return int(row[0])


def end_order(
    connection: Connection,
    order_id: int,
    at: datetime,
    *,
    refusal: str | None = None,
    settlement_id: bytes | None = None,
) -> None:
    """An order is carried out, or can't be; the first end stays."""
    connection.execute(
        "INSERT INTO settlement_order_ends (order_id, refusal, settlement_id, at)"
        " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (order_id, refusal, settlement_id, at),
    )


def move_scan(connection: Connection, next_block: int) -> None:
    """How far the chain's events were read; never moves back."""
    connection.execute(
        "UPDATE settlement_scan SET next_block = greatest(next_block, %s)", (next_block,)
    )
