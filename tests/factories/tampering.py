"""The database's owner at work: triggers, keys and checks set aside for one statement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from tests.conftest import NodeDatabase


@contextmanager
def unguarded(database: NodeDatabase) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection on which no trigger, foreign key, CHECK or identity is enforced.

    Rolled back at the end, unless the caller commits: what was done is to be judged within.
    """
    with psycopg.connect(database.admin_dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        for table, name in connection.execute(
            "SELECT conrelid::regclass::text, conname FROM pg_constraint"
            " WHERE contype = 'c' AND coninhcount = 0 AND connamespace = 'public'::regnamespace"
        ).fetchall():
            connection.execute(
                sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                    sql.Identifier(table), sql.Identifier(name)
                )
            )
        yield connection
        connection.rollback()


def columns_of(database: NodeDatabase, table: str) -> dict[str, str]:
    """Column names and types of a table."""
    with psycopg.connect(database.admin_dsn) as connection:
        rows = connection.execute(
            "SELECT column_name, udt_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position",
            (table,),
        ).fetchall()
    return dict(rows)


#: An expression that gives another value of the type, whatever the old one was.
OTHER_VALUE = {
    "int8": "coalesce({c}, 0) + 1000000",
    "int4": "coalesce({c}, 0) + 1",
    "int2": "coalesce({c}, 0) + 1",
    "text": "coalesce({c}, '') || 'x'",
    "bpchar": "CASE WHEN {c} = 'USD' THEN 'EUR' ELSE 'USD' END",
    "bytea": "CASE WHEN {c} IS NULL THEN sha256('x')"
    " ELSE set_byte({c}, 0, get_byte({c}, 0) # 1) END",
    "date": "{c} + 1",
    "timestamptz": "{c} + interval '1 microsecond'",
    "xid8": "({c}::text::numeric + 1000000)::text::xid8",
    "bool": "NOT {c}",
}
