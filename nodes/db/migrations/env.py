"""Alembic's environment: one migration at a time, with bounded waits for locks."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool, text

from nodes.db.engine import sqlalchemy_url

#: "cosign" in ASCII: the advisory lock that migrations of one database share.
_ADVISORY_LOCK = 0x636F7369676E


def run() -> None:
    dsn = context.config.attributes.get("dsn") or context.get_x_argument(as_dictionary=True)["dsn"]
    engine = create_engine(sqlalchemy_url(dsn), poolclass=pool.NullPool)
    with engine.connect() as connection:
        # A migration that can't get its lock in 5 s gives up: traffic queues behind it.
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.execute(text("SET statement_timeout = '60s'"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
        connection.commit()
        context.configure(connection=connection, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()


run()
