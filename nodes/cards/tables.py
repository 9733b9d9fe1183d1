"""The card tables as far as reads name them: neither sealed PAN nor look-up values nor PINs."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, Table, Text

from nodes.ledger.tables import metadata

cards = Table(
    "cards",
    metadata,
    Column("card_id", BigInteger, primary_key=True),
    Column("card_token", LargeBinary),
    Column("account_id", BigInteger),
    Column("pan_masked", Text),
    Column("expiry", Text),
    Column("service_code", Text),
    Column("status", Text),
    Column("product_id", Text),
    Column("issued_at", DateTime(timezone=True)),
)

card_events = Table(
    "card_events",
    metadata,
    Column("card_event_id", BigInteger, primary_key=True),
    Column("card_token", LargeBinary),
    Column("event", Text),
    Column("actor", Text),
    Column("reason", Text),
    Column("occurred_at", DateTime(timezone=True)),
)
