"""Requests and answers stand in the partition of their business date (migration 0021)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config

import nodes.db
from nodes.authorization.operations.days import make_days
from nodes.authorization.store import acquirer, requests
from nodes.authorization.store.requests import StoredRequest
from nodes.clock import to_datetime
from nodes.db.engine import migrate
from nodes.db.provision import LOGINS, provision
from nodes.db.writes import Writes, execute
from tests.conftest import Cluster, NodeDatabase

TODAY = date(2027, 3, 1)
NOW_MS = 1_803_859_200_000  # 2027-03-01 08:00 UTC
DAY = timedelta(days=1)


def write(dsn: str, day: date, key: bytes | None = None) -> bytes:
    """A request and its answer, of this business date, as a node's login writes them."""
    key = key or secrets.token_bytes(32)
    row = StoredRequest(key, day, bytes(32), secrets.token_bytes(32), "aurora", b"asked", None)
    with psycopg.connect(dsn) as connection:
        writes = Writes()
        requests.insert_requests(writes, "acquirer", [row])
        acquirer.insert_answers(writes, {key: (day, b"told")})
        execute(connection, writes)
    return key


def places(dsn: str, key: bytes) -> list[str]:
    """The partitions that a request and its answer stand in."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT tableoid::regclass::text FROM authorization_requests WHERE idempotency_key = %b"
            " UNION ALL SELECT tableoid::regclass::text FROM authorization_answers"
            " WHERE idempotency_key = %b",
            (key, key),
        ).fetchall()
    return [name.removeprefix("authorization_") for (name,) in rows]


def told(dsn: str, key: bytes, day: date) -> bytes | None:
    with psycopg.connect(dsn) as connection:
        return requests.stored_requests(connection, [(key, day)], "acquirer")[key].answer


def test_a_migrated_database_has_the_days_around_today(database: NodeDatabase) -> None:
    with psycopg.connect(database.owner_dsn) as connection:
        row = connection.execute("SELECT current_date").fetchone()
    assert row is not None
    for day in (row[0] - DAY, row[0], row[0] + 6 * DAY):
        assert places(database.dsn, write(database.dsn, day)) == [
            f"requests_{day:%Y%m%d}",
            f"answers_{day:%Y%m%d}",
        ]


def test_the_worker_makes_each_day_once_and_a_week_ahead(database: NodeDatabase) -> None:
    assert to_datetime(NOW_MS).date() == TODAY
    assert make_days(database.engine, NOW_MS) == 2 * 9
    assert make_days(database.engine, NOW_MS) == 0
    assert make_days(database.engine, NOW_MS + 86_400_000) == 2
    for day, name in ((TODAY - DAY, "20270228"), (TODAY + 8 * DAY, "20270309")):
        key = write(database.dsn, day)
        assert places(database.dsn, key) == [f"requests_{name}", f"answers_{name}"]
        assert told(database.dsn, key, day) == b"told"
    late = write(database.dsn, TODAY - 9 * DAY)
    assert places(database.dsn, late) == ["requests_else", "answers_else"]


def test_a_day_that_has_begun_elsewhere_ends_there(database: NodeDatabase) -> None:
    first = write(database.dsn, TODAY)
    assert make_days(database.engine, NOW_MS) == 2 * 8, "all but today"
    second = write(database.dsn, TODAY)
    assert places(database.dsn, second) == ["requests_else", "answers_else"]
    assert [told(database.dsn, key, TODAY) for key in (first, second)] == [b"told", b"told"]
    with pytest.raises(psycopg.errors.UniqueViolation):
        write(database.dsn, TODAY, first)


def test_a_days_rows_are_exactly_once_and_never_changed(database: NodeDatabase) -> None:
    make_days(database.engine, NOW_MS)
    key = write(database.dsn, TODAY)
    with pytest.raises(psycopg.errors.UniqueViolation):
        write(database.dsn, TODAY, key)
    for statement in (
        "UPDATE authorization_requests_20270301 SET fingerprint = sha256('x')",
        "DELETE FROM authorization_answers_20270301",
    ):
        with (
            psycopg.connect(database.owner_dsn) as connection,
            pytest.raises(psycopg.errors.RestrictViolation),
        ):
            connection.execute(statement)
    for dsn in (database.dsn, database.worker_dsn, database.reader_dsn):
        with (
            psycopg.connect(dsn) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute("TRUNCATE authorization_requests_20270301")


def test_while_a_day_is_made_payments_of_another_go_on(database: NodeDatabase) -> None:
    make_days(database.engine, NOW_MS)
    with psycopg.connect(database.worker_dsn) as maker:
        requests.make_days(maker, TODAY + 30 * DAY, TODAY + 30 * DAY)
        # Not committed: what it has locked is locked.
        with psycopg.connect(database.dsn) as connection:
            connection.execute("SET lock_timeout = '2s'")
            row = StoredRequest(bytes(32), TODAY, bytes(32), None, "aurora", b"asked", None)
            writes = Writes()
            requests.insert_requests(writes, "acquirer", [row])
            execute(connection, writes)


def test_readers_make_no_days_and_nobody_makes_years(database: NodeDatabase) -> None:
    with (
        psycopg.connect(database.reader_dsn) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        requests.make_days(connection, TODAY, TODAY)
    with (
        psycopg.connect(database.dsn) as connection,
        pytest.raises(psycopg.errors.InvalidParameterValue, match="400 days"),
    ):
        requests.make_days(connection, TODAY, TODAY + 401 * DAY)


@pytest.fixture
def older(cluster: Cluster) -> Iterator[NodeDatabase]:
    """A database as it was before days were made."""
    name = f"older_{secrets.token_hex(4)}"
    dsns = provision(cluster.admin_dsn, name, {login: secrets.token_hex(8) for login in LOGINS})
    config = Config()
    config.set_main_option("script_location", str(Path(nodes.db.__file__).parent / "migrations"))
    config.attributes["dsn"] = dsns["owner"]
    command.upgrade(config, "0020")
    made = NodeDatabase(
        name, cluster.admin_dsn, dsns["owner"], dsns["app"], dsns["worker"], dsns["reader"]
    )
    yield made
    cluster.drop(made)


def test_what_was_written_before_keeps_its_place_and_is_found(older: NodeDatabase) -> None:
    keys = {day: write(older.dsn, day) for day in (TODAY - 3 * DAY, TODAY)}
    migrate(older.owner_dsn)
    for day, key in keys.items():
        assert places(older.dsn, key) == ["requests_before", "answers_before"]
        assert told(older.dsn, key, day) == b"told"
        with pytest.raises(psycopg.errors.UniqueViolation):
            write(older.dsn, day, key)
    assert make_days(older.engine, NOW_MS) == 2 * 7, "from tomorrow on"
    assert places(older.dsn, write(older.dsn, TODAY)) == ["requests_before", "answers_before"]
    tomorrow = write(older.dsn, TODAY + DAY)
    assert places(older.dsn, tomorrow) == ["requests_20270302", "answers_20270302"]
    with (
        psycopg.connect(older.owner_dsn) as connection,
        pytest.raises(psycopg.errors.RestrictViolation),
    ):
        connection.execute("DELETE FROM authorization_requests_before")
