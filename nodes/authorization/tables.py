"""The authorization tables as far as reads name them: no stored request or answer."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, Table, Text, column
from sqlalchemy.dialects.postgresql import JSONB

from nodes.ledger.tables import metadata

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

#: Of the function products_at: products with the terms in force.
product_columns = (
    column("product_id", Text),
    column("name", Text),
    column("terms", JSONB),
    column("version", BigInteger),
    column("created_at", DateTime(timezone=True)),
)

product_terms = Table(
    "product_terms",
    metadata,
    Column("product_id", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("terms", JSONB),
    Column("effective_from_ms", BigInteger),
    Column("reason", Text),
    Column("made_by", Text),
    Column("made_at", DateTime(timezone=True)),
    Column("state", Text),
    Column("checked_by", Text),
    Column("checked_at", DateTime(timezone=True)),
)

spend_rules = Table(
    "spend_rules",
    metadata,
    Column("rule_id", Text, primary_key=True),
    Column("scope", Text),
    Column("subject", Text),
    Column("definition", JSONB),
    Column("created_by", Text),
    Column("created_at", DateTime(timezone=True)),
    Column("ended_by", Text),
    Column("effective_from_ms", BigInteger),
    Column("effective_to_ms", BigInteger),
)

disputes = Table(
    "disputes",
    metadata,
    Column("dispute_id", BigInteger, primary_key=True),
    Column("txid", LargeBinary),
    Column("account_id", BigInteger),
    Column("amount", BigInteger),
    Column("currency", Text),
    Column("reason", Text),
    Column("opened_by", Text),
    Column("opened_at", DateTime(timezone=True)),
    Column("closed_by", Text),
    Column("closed_at", DateTime(timezone=True)),
    Column("closing_reason", Text),
    Column("ended_as", Text),
)

adjustments = Table(
    "adjustments",
    metadata,
    Column("adjustment_id", BigInteger, primary_key=True),
    Column("account_id", BigInteger),
    Column("amount", BigInteger),
    Column("currency", Text),
    Column("reason", Text),
    Column("made_by", Text),
    Column("made_at", DateTime(timezone=True)),
    Column("state", Text),
    Column("checked_by", Text),
    Column("checked_at", DateTime(timezone=True)),
    Column("txid", LargeBinary),
    Column("disputed", LargeBinary),
)
