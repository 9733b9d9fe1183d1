"""What the tests stand on: a real PostgreSQL cluster, a migrated database a test, a real chain."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from nodes.db.engine import make_engine, migrate
from nodes.db.provision import dsn_for, provision

_TEMPLATE = "template_node"
#: Files that take more than half a minute.
_LONG = (
    "tests/integration/campaigns/",
    "test_engine_machine",
    "tests/integration/sandbox/",
    "_machine.py",
    "test_money_paths",
)
_numbers = itertools.count(1)


@dataclass
class NodeDatabase:
    """One migrated node database. DSNs by login; engines are disposed of with the test."""

    name: str
    admin_dsn: str
    owner_dsn: str
    dsn: str
    worker_dsn: str
    reader_dsn: str

    @cached_property
    def engine(self) -> Engine:
        """An engine with the worker's rights (the app's and the anchor's)."""
        return make_engine(self.worker_dsn)

    @cached_property
    def owner_engine(self) -> Engine:
        return make_engine(self.owner_dsn)

    def dispose(self) -> None:
        for name in ("engine", "owner_engine"):
            if name in self.__dict__:
                getattr(self, name).dispose()


class Cluster:
    """The session's PostgreSQL and the template that each test's database is copied from."""

    def __init__(self, admin_dsn: str) -> None:
        self.admin_dsn = admin_dsn
        self.passwords = {
            login: secrets.token_hex(8) for login in ("owner", "app", "worker", "reader")
        }
        dsns = provision(admin_dsn, _TEMPLATE, self.passwords)
        migrate(dsns["owner"])

    def new_database(self) -> NodeDatabase:
        name = f"node_{next(_numbers)}"
        with psycopg.connect(self.admin_dsn, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY WAL_LOG").format(
                    sql.Identifier(name),
                    sql.Identifier(_TEMPLATE),
                    sql.Identifier(f"{_TEMPLATE}_owner"),
                )
            )
        dsns = {
            login: dsn_for(self.admin_dsn, name, f"{_TEMPLATE}_{login}", password)
            for login, password in self.passwords.items()
        }
        return NodeDatabase(
            name=name,
            admin_dsn=dsn_for_database(self.admin_dsn, name),
            owner_dsn=dsns["owner"],
            dsn=dsns["app"],
            worker_dsn=dsns["worker"],
            reader_dsn=dsns["reader"],
        )

    def drop(self, database: NodeDatabase) -> None:
        database.dispose()
        with psycopg.connect(self.admin_dsn, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database.name))
            )


def dsn_for_database(admin_dsn: str, name: str) -> str:
    """The administrator's DSN with another database."""
    return urlunsplit(urlsplit(admin_dsn)._replace(path=f"/{name}"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: Playwright's synchronous API leaves an event loop running in this thread,
    and whatever calls asyncio.run() after it would be refused. The longest files first: of two
    processes neither shall wait for the other's last file.
    """

    def place(item: pytest.Item) -> tuple[bool, bool]:
        path = item.path.as_posix()
        return "tests/browser/" in path, not any(part in path for part in _LONG)

    items.sort(key=place)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    from sandbox.postgres import EmbeddedPostgres

    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), durable=False)
    running = server.start()
    try:
        yield Cluster(running.superuser_dsn("postgres"))
    finally:
        running.delete()


@pytest.fixture
def database(cluster: Cluster) -> Iterator[NodeDatabase]:
    made = cluster.new_database()
    yield made
    cluster.drop(made)


@pytest.fixture
def second_database(cluster: Cluster) -> Iterator[NodeDatabase]:
    """The other institution's database."""
    made = cluster.new_database()
    yield made
    cluster.drop(made)
