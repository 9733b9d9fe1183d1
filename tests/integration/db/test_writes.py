"""Writes and Link on a real PostgreSQL: binary rows, one transaction, errors, lost links."""

from __future__ import annotations

import asyncio
from datetime import date

import psycopg
import pytest

from nodes.db.link import Link, LinkBroken
from nodes.db.writes import (
    Statement,
    Writes,
    append_columns,
    append_rows,
    array,
    bigint,
    execute,
    text,
)
from tests.conftest import NodeDatabase

TYPES = {
    "number": "bigint",
    "small": "smallint",
    "label": "text",
    "blob": "bytea",
    "day": "date",
    "flag": "boolean",
}
ROWS = [
    (2**62, -7, "été \N{SNOWMAN}", b"\x00\xff", date(1999, 12, 31), True),
    (-(2**63), 32_767, "", b"", date(2000, 1, 1), False),
    (3, None, None, None, None, None),
    (4, 0, "x" * 5_000, bytes(70_000), date(2261, 1, 1), True),
]
INSERT_ONE = Statement("one", "INSERT INTO things (number, label) VALUES ($1::bigint, $2::text)")


@pytest.fixture
def dsn(database: NodeDatabase) -> str:
    with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
        columns = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
        connection.execute(f"CREATE TABLE things ({columns}, PRIMARY KEY (number))")
        connection.execute(f"CREATE TYPE things_row AS ({columns})")
    return database.owner_dsn


def connect(dsn: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(dsn, autocommit=True)


def stored(dsn: str) -> list[tuple[object, ...]]:
    with connect(dsn) as connection:
        return connection.execute("SELECT * FROM things ORDER BY number").fetchall()


def one(number: int, label: str = "x") -> Writes:
    writes = Writes()
    writes.call(INSERT_ONE, bigint(number), text(label))
    return writes


def test_rows_of_every_type_come_back_as_they_were_by_copy_and_by_array(dsn: str) -> None:
    with connect(dsn) as connection:
        append_rows(connection, "things", TYPES, ROWS[:2])
        writes = Writes()
        append_rows(writes, "things", TYPES, ROWS[2:])
        with connection.transaction():
            execute(connection, writes)
    assert stored(dsn) == sorted(ROWS, key=lambda row: row[0])


@pytest.mark.parametrize("by_link", [True, False])
def test_a_row_of_every_type_comes_back_as_it_was_when_it_is_alone(dsn: str, by_link: bool) -> None:
    async def run() -> None:
        link = Link(lambda: connect(dsn), "test")
        for row in ROWS:
            writes = Writes()
            append_rows(writes, "things", TYPES, [row])
            if by_link:
                await link.commit(writes)
            else:
                with connect(dsn) as connection:
                    execute(connection, writes)
        link.close()

    asyncio.run(run())
    assert stored(dsn) == sorted(ROWS, key=lambda row: row[0])


def test_no_rows_are_no_statement() -> None:
    writes = Writes()
    append_rows(writes, "things", TYPES, [])
    append_columns(writes, "things", TYPES, [[], [], [], [], [], []])
    assert writes.statements == []


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("bigint", [1, -1, 2**40]),
        ("bytea", [b"", b"a" * 2_000]),
        ("text", ["a", "\N{SNOWMAN}"]),
        ("date", [date(2026, 11, 22)]),
        ("boolean", [True, False]),
        ("text", []),
    ],
)
def test_array_parameters_are_what_they_say(dsn: str, kind: str, values: list[object]) -> None:
    with connect(dsn) as connection:
        same = f"SELECT array_to_json($1::{kind}[])::text = array_to_json($2::{kind}[])::text"
        rows = connection.pgconn.exec_params(
            same.encode(),
            [array(kind, values), _literal(connection, kind, values)],
            param_formats=[1, 0],
        )
        assert rows.get_value(0, 0) == b"t"


def _literal(
    connection: psycopg.Connection[tuple[object, ...]], kind: str, values: list[object]
) -> bytes:
    row = connection.execute(f"SELECT (%s::{kind}[])::text", (values,)).fetchone()
    assert row is not None
    return str(row[0]).encode()


def test_a_commit_is_all_or_nothing_and_its_error_is_the_databases(dsn: str) -> None:
    async def run() -> None:
        link = Link(lambda: connect(dsn), "test")
        await link.commit(one(1))
        both = one(2)
        both.call(INSERT_ONE, bigint(1), text("taken"))
        with pytest.raises(psycopg.errors.UniqueViolation):
            await link.commit(both)
        await link.commit(one(3))
        link.close()

    asyncio.run(run())
    assert [row[0] for row in stored(dsn)] == [1, 3]


def test_a_statement_that_fails_at_its_first_use_can_be_used_again(dsn: str) -> None:
    broken = Statement("broken", "INSERT INTO nowhere VALUES ($1::bigint)")

    async def run() -> None:
        link = Link(lambda: connect(dsn), "test")
        for _ in range(2):
            writes = Writes()
            writes.call(broken, bigint(1))
            writes.call(INSERT_ONE, bigint(1), text("x"))
            with pytest.raises(psycopg.errors.UndefinedTable):
                await link.commit(writes)
        await link.commit(one(5))
        link.close()

    asyncio.run(run())
    assert [row[0] for row in stored(dsn)] == [5]


def test_commits_under_way_end_in_order_and_one_that_fails_takes_no_other_along(dsn: str) -> None:
    async def run() -> list[object]:
        link = Link(lambda: connect(dsn), "test")
        await link.open()
        under_way = [link.begin(one(number)) for number in (1, 2, 1, 4)]
        ended = await asyncio.gather(*under_way, return_exceptions=True)
        link.close()
        return [type(result).__name__ for result in ended]

    assert asyncio.run(run()) == ["NoneType", "NoneType", "UniqueViolation", "NoneType"]
    assert [row[0] for row in stored(dsn)] == [1, 2, 4]


def test_what_a_failing_commit_prepares_serves_the_one_that_is_under_way_behind_it(
    dsn: str,
) -> None:
    """The second is sent before the first one's error is known, and calls what that prepared."""
    other = Statement("other", "UPDATE things SET label = $2::text WHERE number = $1::bigint")

    async def run() -> list[object]:
        link = Link(lambda: connect(dsn), "test")
        await link.commit(one(1))
        first, second = one(1), Writes()
        for writes in (first, second):
            writes.call(other, bigint(1), text("y"))
        under_way = [link.begin(writes) for writes in (first, second, second)]
        ended = await asyncio.gather(*under_way, return_exceptions=True)
        link.close()
        return [type(result).__name__ for result in ended]

    assert asyncio.run(run()) == ["UniqueViolation", "NoneType", "NoneType"]


def test_a_large_commit_is_sent_whole(dsn: str) -> None:
    rows = [(number, 1, "y" * 1_000, bytes(20_000), None, True) for number in range(1_000)]

    async def run() -> None:
        link = Link(lambda: connect(dsn), "test")
        writes = Writes()
        append_rows(writes, "things", TYPES, rows)
        await link.commit(writes)
        link.close()

    asyncio.run(run())
    assert len(stored(dsn)) == 1_000


def test_a_lost_connection_leaves_the_fate_unknown_and_the_next_commit_connects_anew(
    dsn: str,
) -> None:
    async def run() -> None:
        link = Link(lambda: connect(dsn), "test")
        await link.commit(one(1))
        with connect(dsn) as other:
            other.execute("BEGIN; LOCK TABLE things IN EXCLUSIVE MODE")
            waiting = link.begin(one(2))
            await asyncio.sleep(0.2)
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            with pytest.raises(LinkBroken):
                await waiting
            other.execute("ROLLBACK")
        await link.commit(one(3))
        link.close()

    asyncio.run(run())
    assert [row[0] for row in stored(dsn)] == [1, 3]


def test_a_link_serves_the_loop_that_runs(dsn: str) -> None:
    link = Link(lambda: connect(dsn), "test")
    asyncio.run(link.commit(one(1)))
    asyncio.run(link.commit(one(2)))
    link.close()
    assert [row[0] for row in stored(dsn)] == [1, 2]


def test_columns_that_are_the_same_in_all_rows_stand_in_each(dsn: str) -> None:
    rows = [
        (number, 5, "all alike", None, date(2026, 11, 23), number % 2 == 0)
        for number in range(1, 4)
    ]
    writes = Writes()
    append_rows(writes, "things", TYPES, rows)
    with connect(dsn) as connection, connection.transaction():
        execute(connection, writes)
    assert stored(dsn) == rows
