"""Connections to a node's PostgreSQL, and its migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine

_MIGRATIONS = Path(__file__).with_name("migrations")


def make_engine(dsn: str, *, pool_size: int = 5, application_name: str = "countersign") -> Engine:
    """An engine over psycopg 3 for a libpq URL (`postgresql://user:pw@host:port/db`).

    For everything off the authorization path. Sessions are in UTC; a connection that PostgreSQL
    closed is replaced when it is taken from the pool.
    """
    return create_engine(
        sqlalchemy_url(dsn),
        pool_size=pool_size,
        max_overflow=5,
        pool_pre_ping=True,
        pool_timeout=10,
        connect_args={
            "connect_timeout": 5,
            "application_name": application_name,
            "options": "-c timezone=UTC",
        },
    )


def sqlalchemy_url(dsn: str) -> str:
    """The libpq URL with SQLAlchemy's driver name."""
    for scheme in ("postgresql://", "postgres://"):
        if dsn.startswith(scheme):
            return "postgresql+psycopg://" + dsn.removeprefix(scheme)
    raise ValueError("a DSN starts with postgresql://")


def migrate(owner_dsn: str) -> None:
    """Bring a database to the newest schema; waits its turn, gives up on long locks."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["dsn"] = owner_dsn
    command.upgrade(config, "head")


@contextmanager
def transaction(engine: Engine) -> Iterator[psycopg.Connection[Any]]:
    """One database transaction on a driver connection of the engine's pool: commits at the end,
    rolls back on an exception.
    """
    pooled = engine.raw_connection()
    try:
        connection = cast("psycopg.Connection[Any]", pooled.driver_connection)
        try:
            yield connection
        except BaseException:
            connection.rollback()
            raise
        connection.commit()
    except psycopg.OperationalError:
        pooled.invalidate()
        raise
    finally:
        pooled.close()
