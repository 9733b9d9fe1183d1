"""The ledger's tables as far as reads name them; the migrations are the schema."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    column,
    table,
)

metadata = MetaData()

accounts = Table(
    "accounts",
    metadata,
    Column("account_id", BigInteger, primary_key=True),
    Column("kind", Text),
    Column("owner", Text),
    Column("currency", Text),
    Column("balance", BigInteger),
    Column("opened_at", DateTime(timezone=True)),
)

account_versions = Table(
    "account_versions",
    metadata,
    Column("account_id", BigInteger, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("line", SmallInteger, primary_key=True),
    Column("purse_account", BigInteger),
    Column("transaction_id", BigInteger),
    Column("at_ms", BigInteger),
    Column("balance", BigInteger),
    Column("held", BigInteger),
    Column("overdraft_limit", BigInteger),
    Column("state", LargeBinary),
    Column("detail", LargeBinary),
)

#: What of the card slice's table leads from a card to its account's versions.
card_accounts = table("cards", column("card_token", LargeBinary), column("account_id", BigInteger))

transactions = Table(
    "transactions",
    metadata,
    Column("transaction_id", BigInteger, primary_key=True),
    Column("txid", LargeBinary),
    Column("side", Text),
    Column("acquirer", Text),
    Column("issuer", Text),
    Column("kind", Text),
    Column("outcome", Text),
    Column("amount", BigInteger),
    Column("currency", Text),
    Column("approval_code", Text),
    Column("merchant_id", Text),
    Column("merchant_name", Text),
    Column("mcc", Text),
    Column("country", Text),
    Column("terminal_id", Text),
    Column("terminal_seq", BigInteger),
    Column("pair_seq", BigInteger),
    Column("business_date", Date),
    Column("batch", Text),
    Column("stan", Text),
    Column("rrn", Text),
    Column("entry_mode", Text),
    Column("pan_masked", Text),
    Column("card_token", LargeBinary),
    Column("account_id", BigInteger),
    Column("account_version", BigInteger),
    Column("original_txid", LargeBinary),
    Column("transmitted_ms", BigInteger),
    Column("decided_ms", BigInteger),
    Column("commitment", LargeBinary),
    Column("recorded_at", DateTime(timezone=True)),
)

transfers = Table(
    "transfers",
    metadata,
    Column("transaction_id", BigInteger, primary_key=True),
    Column("line", BigInteger, primary_key=True),
    Column("debit_account", BigInteger),
    Column("credit_account", BigInteger),
    Column("amount", BigInteger),
    Column("currency", Text),
    Column("balance_after", BigInteger),
)
