"""The tables that payments write can be distributed on Citus: read from the catalogue, and from
what real payments write. Citus itself isn't here: what it asks for is its documentation's word
(create_distributed_table: the distribution column in each unique key, no generated one; foreign
keys only to reference tables or within a shard).
"""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from nodes.authorization.model import Kind, Outcome
from nodes.db.sharding import COORDINATOR, DISTRIBUTED, statements
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import NodeDatabase
from tests.factories.network import Network

LEDGER = Path(__file__).parents[3] / "docs" / "ledger.md"

#: Unique indexes that don't contain the distribution column; generated, nullable or missing ones;
#: exclusion constraints; foreign keys of or to such a table.
UNFIT = """
SELECT i.indexrelid::regclass::text FROM pg_index AS i WHERE i.indrelid = %(table)s::regclass
    AND i.indisunique AND NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = i.indrelid
        AND a.attname = %(column)s AND a.attnum = ANY(i.indkey))
UNION ALL SELECT 'column ' || %(column)s WHERE NOT EXISTS (SELECT FROM pg_attribute
    WHERE attrelid = %(table)s::regclass AND attname = %(column)s AND attnotnull
    AND attgenerated = '' AND attidentity = '' AND NOT attisdropped)
UNION ALL SELECT conname FROM pg_constraint WHERE contype = 'x' AND conrelid = %(table)s::regclass
UNION ALL SELECT conname FROM pg_constraint WHERE contype = 'f'
    AND %(table)s::regclass IN (conrelid, confrelid)
"""
#: Ordinary tables; those of partitions by their parent.
TABLES = """
SELECT oid::regclass::text, coalesce((SELECT inhparent FROM pg_inherits WHERE inhrelid = oid),
    oid)::regclass::text FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""


def written(books: NodeDatabase, since: str) -> set[str]:
    """The tables with rows of this transaction or a later one."""
    found: set[str] = set()
    with psycopg.connect(books.admin_dsn) as connection:
        for table, parent in connection.execute(TABLES).fetchall():
            [(any_row,)] = connection.execute(
                f"SELECT EXISTS (SELECT FROM {table} WHERE xmin::text::bigint >= {since})"
            )
            found |= {parent} if any_row else set()
    return found


def unfit(database: NodeDatabase, table: str, column: str) -> list[str]:
    with psycopg.connect(database.owner_dsn) as connection:
        found = connection.execute(UNFIT, {"table": table, "column": column}).fetchall()
    return [name for (name,) in found]


@pytest.mark.parametrize("table", DISTRIBUTED)
def test_each_unique_key_of_a_distributed_table_has_its_column(
    database: NodeDatabase, table: str
) -> None:
    assert unfit(database, table, DISTRIBUTED[table].column) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("CREATE UNIQUE INDEX bad ON transactions (acquirer, pair_seq)", "bad"),
        (
            "ALTER TABLE transactions DROP CONSTRAINT transactions_pkey,"
            " ALTER COLUMN shard DROP NOT NULL",
            "column shard",
        ),
        (
            "ALTER TABLE transactions ADD CONSTRAINT bad FOREIGN KEY (account_id)"
            " REFERENCES accounts",
            "bad",
        ),
    ],
)
def test_a_schema_that_breaks_the_rule_is_found(
    database: NodeDatabase, change: str, found: str
) -> None:
    with psycopg.connect(database.owner_dsn) as owner:
        owner.execute(change)
    assert unfit(database, "transactions", "shard") == [found]


def test_payments_write_no_other_tables_and_each_row_is_in_its_accounts_shard(
    database: NodeDatabase, second_database: NodeDatabase
) -> None:
    network = Network(database, second_database)
    card = network.card(10_000)
    network.one(network.request(card, 1))  # opens the settlement accounts, once
    since = {}
    for books in (database, second_database):
        with psycopg.connect(books.owner_dsn) as connection:
            [(since[books.name],)] = connection.execute("SELECT pg_current_xact_id()::text")
    bought = network.request(card, 2_500)
    held = network.one(network.request(card, 1_000, Kind.AUTHORIZATION))
    captured = network.request(card, 700, Kind.CAPTURE, rrn=held.rrn)
    for request in (bought, captured, network.request(card, 50_000)):
        network.one(request)
    refund = network.request(card, 100, Kind.REFUND, rrn=network.one(bought).rrn)
    undone = network.reversal_of(captured)
    assert [a.outcome for a in network.send(refund, undone)] == [Outcome.APPROVED] * 2
    network.close()
    for books in (database, second_database):
        tables = written(books, since[books.name])
        assert {"transactions", "transfers", "authorization_requests"} <= tables
        assert tables <= DISTRIBUTED.keys() | COORDINATOR
        assert check_invariants(books.owner_engine) == []
    with psycopg.connect(database.owner_dsn) as connection:
        for table in ("transactions", "transfers", "payment_progress"):
            shards = connection.execute(f"SELECT DISTINCT shard FROM {table}").fetchall()
            assert shards == [(card.account_id,)], table
    with psycopg.connect(second_database.owner_dsn) as connection:
        [(alike,)] = connection.execute("SELECT bool_and(shard = shard_of(txid)) FROM transactions")
    assert alike


def test_the_documentation_has_the_statements(database: NodeDatabase) -> None:
    text = LEDGER.read_text(encoding="utf-8")
    assert "\n".join(statements()) in text
    with psycopg.connect(database.owner_dsn) as connection:
        for table in COORDINATOR:
            connection.execute("SELECT %s::regclass", (table,))
