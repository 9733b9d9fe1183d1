"""The webhooks' scan passes over what nobody is told of, however much it is."""

from __future__ import annotations

from nodes.acquiring.online.delivering import collect
from tests.conftest import NodeDatabase
from tests.factories.ledger import LedgerFactory


def place(database: NodeDatabase) -> tuple[object, ...] | None:
    with database.engine.connect() as connection:
        row = connection.exec_driver_sql(
            "SELECT s.xact = t.xact, s.transaction_id - t.transaction_id FROM webhook_scan AS s,"
            " (SELECT xact, transaction_id FROM transactions"
            " ORDER BY xact DESC, transaction_id DESC LIMIT 1) AS t"
        ).fetchone()
    return None if row is None else tuple(row)


def test_transactions_of_merchants_without_an_endpoint_are_passed_over_at_once(
    database: NodeDatabase,
) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO webhook_scan (xact, transaction_id) VALUES ('0', 0)"
        )
    factory = LedgerFactory(database.engine, "acquirer")
    factory.add(600)
    assert collect(database.engine, 1_000) == 0
    assert place(database) == (True, 0)

    factory.add(3)
    assert place(database) != (True, 0)
    assert collect(database.engine, 2_000) == 0
    assert place(database) == (True, 0)
