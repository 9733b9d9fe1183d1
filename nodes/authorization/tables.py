"""The authorization tables as far as reads name them: no stored request or answer."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, LargeBinary, Table, Text

from nodes.ledger.tables import metadata

authorization_requests = Table(
    "authorization_requests",
    metadata,
    Column("idempotency_key", LargeBinary, primary_key=True),
    Column("side", Text, primary_key=True),
    Column("state", Text),
    Column("txid", LargeBinary),
    Column("deadline_ms", BigInteger),
)

reversal_queue = Table(
    "reversal_queue",
    metadata,
    Column("original_txid", LargeBinary, primary_key=True),
    Column("issuer", Text),
    Column("reason", Text),
    Column("attempts", BigInteger),
    Column("next_attempt_ms", BigInteger),
    Column("done_ms", BigInteger),
)
