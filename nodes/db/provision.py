"""A node's database and its login roles, made by a cluster's administrator (idempotent)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

#: Each login and the group roles it works with (see 0001_initial.sql). The owner migrates.
LOGINS: dict[str, tuple[str, ...]] = {
    "owner": (),
    "app": ("countersign_app",),
    "worker": ("countersign_app", "countersign_anchor"),
    "reader": ("countersign_reader",),
}


def provision(admin_dsn: str, database: str, passwords: Mapping[str, str]) -> dict[str, str]:
    """Make `database` with the logins `<database>_owner|app|worker|reader` where they lack.

    `passwords`: one for each of LOGINS; set anew at each call. Returns a DSN for each login.
    """
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        for group in ("countersign_app", "countersign_anchor", "countersign_reader"):
            if not _role_exists(connection, group):
                connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(group)))
        for login, groups in LOGINS.items():
            role = f"{database}_{login}"
            verb = "ALTER" if _role_exists(connection, role) else "CREATE"
            connection.execute(
                sql.SQL(verb + " ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(role), sql.Literal(passwords[login])
                )
            )
            for group in groups:
                connection.execute(
                    sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(role))
                )
        if (
            connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", (database,)
            ).fetchone()
            is None
        ):
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(
                    sql.Identifier(database), sql.Identifier(f"{database}_owner")
                )
            )
            connection.execute(
                sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(
                    sql.Identifier(database)
                )
            )
            for login in LOGINS:
                connection.execute(
                    sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
                        sql.Identifier(database), sql.Identifier(f"{database}_{login}")
                    )
                )
    return {
        login: dsn_for(admin_dsn, database, f"{database}_{login}", passwords[login])
        for login in LOGINS
    }


def dsn_for(admin_dsn: str, database: str, user: str, password: str) -> str:
    """The admin's DSN with another database, user and password."""
    parts = urlsplit(admin_dsn)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(
        ("postgresql", f"{quote(user)}:{quote(password)}@{place}", f"/{database}", parts.query, "")
    )


def _role_exists(connection: psycopg.Connection, role: str) -> bool:
    row = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    return row is not None
