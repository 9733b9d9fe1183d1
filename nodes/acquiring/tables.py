"""The acquirer's tables as far as reads name them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Table, Text

from nodes.ledger.tables import metadata

merchants = Table(
    "merchants",
    metadata,
    Column("merchant_id", Text, primary_key=True),
    Column("name", Text),
    Column("mcc", Text),
    Column("country", Text),
    Column("currency", Text),
    Column("member_id", Text),
    Column("account_id", BigInteger),
    Column("status", Text),
)

terminals = Table(
    "terminals",
    metadata,
    Column("terminal_id", Text, primary_key=True),
    Column("merchant_id", Text),
    Column("status", Text),
    Column("last_seq", BigInteger),
)
