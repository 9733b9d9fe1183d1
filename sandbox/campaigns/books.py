"""A member's books in the hands of the database's owner: nothing is enforced, everything undone.

Who judges is `countersign verify-ledger`'s own code, within the owner's transaction.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from nodes.anchoring.checkpoint import Origin
from nodes.anchoring.note import NoteSigner
from nodes.chain.anchors import Anchored
from nodes.chain.directory import KeyPeriod
from nodes.reconciliation.findings import Report
from nodes.reconciliation.ledger_check import check_tables
from sandbox.campaigns.scene import Scene

Connection = psycopg.Connection[Any]
#: (table, row, column, change) as findings are printed.
Name = tuple[str, str, str | None, str]


@dataclass(frozen=True)
class Deed:
    """What was done to the books, and what has to be said about it.

    `must`: each has to be named. `rows`: other rows (table, row) that may be named too, because
    what was done shows there as well; anything else named is a mistake.
    """

    what: str
    must: frozenset[Name]
    rows: frozenset[tuple[str, str]] = frozenset()
    #: Rows (table, row) of which at least one cell has to be named, whichever.
    touched: frozenset[tuple[str, str]] = frozenset()
    #: Batches that can't be judged after this; any others mustn't be given up.
    unjudged: frozenset[int] = frozenset()

    def named_by(self, report: Report) -> bool:
        """Whether the report says what was done, and nothing that wasn't."""
        said = {(f.table, f.row, f.column, f.change.value) for f in report.findings}
        rows = {(table, row) for table, row, *_ in said}
        return (
            self.must <= said
            and self.touched <= rows
            and rows <= self.rows | self.touched | {(table, row) for table, row, *_ in self.must}
            and set(report.unjudged) <= self.unjudged
        )


def altered(table: str, row: str, column: str) -> Name:
    """The name of a changed cell."""
    return (table, row, column, "altered")


def missing(table: str, row: str) -> Name:
    """The name of a row that was taken out."""
    return (table, row, None, "missing")


def inserted(table: str, row: str) -> Name:
    """The name of a row that was put in."""
    return (table, row, None, "inserted")


@dataclass
class Books:
    """An owner's connection to a copy of a member's database."""

    member_id: str
    connection: Connection
    origin: Origin
    anchors: Mapping[int, Anchored]
    signer: NoteSigner
    note_keys: Sequence[KeyPeriod]
    kinds: dict[str, dict[str, str]] = field(default_factory=dict)

    def check(self) -> Report:
        """What the deep check says of the books as they are now."""
        return check_tables(self.connection, self.origin, self.anchors, self.note_keys)

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Whatever is done within is undone at the end."""
        with self.connection.transaction(force_rollback=True):
            yield

    def rows(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return self.connection.execute(query, values).fetchall()

    def do(self, query: str, values: Any = ()) -> int:
        """Execute; how many rows it touched."""
        return self.connection.execute(query, values).rowcount

    def columns(self, table: str) -> dict[str, str]:
        """Column names and types of a table."""
        if table not in self.kinds:
            self.kinds[table] = dict(
                self.rows(
                    "SELECT column_name, udt_name FROM information_schema.columns WHERE"
                    " table_schema = 'public' AND table_name = %s ORDER BY ordinal_position",
                    (table,),
                )
            )
        return self.kinds[table]

    def record(self, table: str, key: Mapping[str, Any]) -> dict[str, Any]:
        """One row, by its key, as PostgreSQL gives it; xid8 as text."""
        columns = self.columns(table)
        shown = sql.SQL(", ").join(_readable(name, kind) for name, kind in columns.items())
        query = sql.SQL("SELECT {} FROM {} WHERE {}").format(
            shown, sql.Identifier(table), _where(key)
        )
        found = self.connection.execute(query).fetchone()
        assert found is not None
        return dict(zip(columns, found, strict=True))

    def update(self, table: str, key: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        """Change cells of one row."""
        columns = self.columns(table)
        parts = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), _literal(value, columns[name]))
            for name, value in changes.items()
        )
        done = self.connection.execute(
            sql.SQL("UPDATE {} SET {} WHERE {}").format(sql.Identifier(table), parts, _where(key))
        )
        assert done.rowcount == 1, (table, key)

    def insert(self, table: str, record: Mapping[str, Any]) -> None:
        """Put a row in."""
        columns = self.columns(table)
        self.connection.execute(
            sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, record)),
                sql.SQL(", ").join(_literal(value, columns[n]) for n, value in record.items()),
            )
        )

    def delete(self, table: str, key: Mapping[str, Any]) -> None:
        """Take a row out."""
        done = self.connection.execute(
            sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(table), _where(key))
        )
        assert done.rowcount == 1, (table, key)

    def keys(self, table: str, names: tuple[str, ...], condition: str = "true") -> list[Any]:
        """All keys of a table, in order, as dictionaries."""
        listed = ", ".join(names)
        rows = self.rows(f"SELECT {listed} FROM {table} WHERE {condition} ORDER BY {listed}")
        return [dict(zip(names, row, strict=True)) for row in rows]


def _readable(name: str, kind: str) -> sql.Composable:
    column = sql.Identifier(name)
    return sql.SQL("{}::text").format(column) if kind == "xid8" else column


def _literal(value: Any, kind: str) -> sql.Composable:
    cast = sql.SQL("::text::xid8") if kind == "xid8" else sql.SQL("::" + kind)
    return sql.Literal(value) + cast


def _where(key: Mapping[str, Any]) -> sql.Composable:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))
        for name, value in key.items()
    )


@contextmanager
def unguarded(scene: Scene, member_id: str, name: str) -> Iterator[Books]:
    """A copy of a member's database, without triggers, foreign keys, CHECKs and unique keys that
    aren't primary: who owns a database can do without them."""
    dsn = scene.copy(member_id, name)
    view = scene.view
    with psycopg.connect(dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        for table, constraint in connection.execute(
            "SELECT conrelid::regclass::text, conname FROM pg_constraint"
            " WHERE contype IN ('c', 'u') AND coninhcount = 0"
            " AND connamespace = 'public'::regnamespace AND conrelid <> 0"
        ).fetchall():
            connection.execute(
                sql.SQL("ALTER TABLE {} DROP CONSTRAINT {} CASCADE").format(
                    sql.SQL(table), sql.Identifier(constraint)
                )
            )
        connection.execute("ALTER TABLE events ALTER event_id DROP IDENTITY")
        for (index,) in connection.execute(
            "SELECT indexrelid::regclass::text FROM pg_index AS i JOIN pg_class AS c"
            " ON c.oid = i.indexrelid WHERE indisunique AND NOT indisprimary"
            " AND c.relnamespace = 'public'::regnamespace AND NOT c.relispartition"
        ).fetchall():
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.SQL(index)))
        yield Books(
            member_id=member_id,
            connection=connection,
            origin=scene.origin(member_id),
            anchors=scene.anchors(member_id),
            signer=scene.note_signer(member_id),
            note_keys=view.note_keys(member_id),
        )
        connection.rollback()
    scene.drop(name)


def pick(source: random.Random, keys: list[Any]) -> Any:
    """One of them."""
    return keys[source.randrange(len(keys))]
