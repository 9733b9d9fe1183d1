"""What the acquirer's engine has in memory of terminals, and what happens when that is wrong."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from nodes.acquiring.operations import register_terminal
from nodes.authorization.engine import AcquirerMemory, memory
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations import accepting
from tests.conftest import NodeDatabase
from tests.factories.network import MERCHANT, TERMINAL, Network


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database)
    yield made
    made.close()


def change(network: Network, statement: str) -> None:
    with psycopg.connect(network.acquirer_db.owner_dsn, autocommit=True) as connection:
        connection.execute(statement)


def seqs(network: Network) -> list[int]:
    with psycopg.connect(network.acquirer_db.owner_dsn) as connection:
        rows = connection.execute(
            "SELECT terminal_seq FROM transactions WHERE side = 'acquirer' ORDER BY transaction_id"
        ).fetchall()
    return [row[0] for row in rows]


@pytest.mark.parametrize(
    ("table", "outcome", "active", "inactive"),
    [
        ("terminals", Outcome.TERMINAL_NOT_PERMITTED, "active", "disabled"),
        ("merchants", Outcome.MERCHANT_NOT_PERMITTED, "active", "suspended"),
    ],
)
def test_a_terminal_that_is_taken_out_of_use_is_refused_at_once_and_served_again_after(
    network: Network, table: str, outcome: Outcome, active: str, inactive: str
) -> None:
    card = network.card(10_000)
    assert network.one(network.request(card, 100)).outcome is Outcome.APPROVED
    change(network, f"UPDATE {table} SET status = '{inactive}'")
    assert network.one(network.request(card, 100)).outcome is outcome
    change(network, f"UPDATE {table} SET status = '{active}'")
    assert network.one(network.request(card, 100)).outcome is Outcome.APPROVED
    assert network.balance(card) == 9_800


def test_numbers_that_another_process_gave_out_are_not_given_again(network: Network) -> None:
    card = network.card(10_000)
    network.one(network.request(card, 100))
    change(network, f"UPDATE terminals SET last_seq = 41 WHERE terminal_id = '{TERMINAL}'")
    assert network.one(network.request(card, 200)).outcome is Outcome.APPROVED
    assert network.one(network.request(card, 300)).outcome is Outcome.APPROVED
    assert seqs(network) == [1, 42, 43]


def test_a_payment_is_opened_without_a_look_and_a_repeat_gets_the_exact_answer(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = network.card(10_000)
    first = network.request(card, 100)
    told = network.one(first)
    looked: list[int] = []
    real = accepting.read_opening

    def noted(connection, acquirer, requests):  # type: ignore[no-untyped-def]
        looked.append(len(requests))
        return real(connection, acquirer, requests)

    monkeypatch.setattr(accepting, "read_opening", noted)
    assert network.one(first) == told
    assert network.one(network.request(card, 200)).outcome is Outcome.APPROVED
    assert looked == []
    # A follow-up names what stands in the books.
    assert network.one(network.request(card, 100, Kind.REFUND, rrn=told.rrn)).outcome is (
        Outcome.APPROVED
    )
    assert looked == [1]
    assert network.balance(card) == 9_800


def test_a_repeat_whose_answer_memory_has_lost_gets_the_stored_one(network: Network) -> None:
    card = network.card(10_000)
    first = network.request(card, 100)
    told = network.one(first)
    acquiring = network.acquirer._acquiring
    assert acquiring is not None
    acquiring._memory.recent.clear()
    assert network.one(first) == told
    assert network.balance(card) == 9_900


def memory_of(network: Network) -> AcquirerMemory:
    acquiring = network.acquirer._acquiring
    assert acquiring is not None
    return acquiring._memory


def names(network: Network) -> list[str]:
    with psycopg.connect(network.acquirer_db.owner_dsn) as connection:
        rows = connection.execute(
            "SELECT merchant_name FROM transactions WHERE side = 'acquirer' ORDER BY transaction_id"
        ).fetchall()
    return [row[0] for row in rows]


def test_terminals_are_read_again_beside_payments_that_do_not_wait_for_it(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, kept, other = network.card(10_000), memory_of(network), "T0000002"
    register_terminal(network.acquirer_db.engine, other, MERCHANT)
    monkeypatch.setattr(memory, "_PAGE", 1)
    may_read = threading.Event()
    real = memory.read_terminals

    def slow(connection: Any, terminal_ids: Any) -> Any:
        assert may_read.wait(20)
        return real(connection, terminal_ids)

    async def scene() -> None:
        await network.acquirer.accept([network.request(card, 100, terminal_id=other)])
        await network.acquirer.accept([network.request(card, 100)])
        change(network, "UPDATE merchants SET name = 'Renamed'")
        monkeypatch.setattr(memory, "read_terminals", slow)
        kept._refreshed -= memory._REFRESH_EARLY_S + 1
        for _ in range(2):
            await network.acquirer.accept([network.request(card, 100)])
        assert kept._beside.reading is not None
        assert not kept._beside.reading.done()
        may_read.set()
        await kept._beside.reading
        for name in (TERMINAL, other):
            await network.acquirer.accept([network.request(card, 100, terminal_id=name)])

    asyncio.run(asyncio.wait_for(scene(), 15))
    assert names(network) == ["Harbor Stores"] * 4 + ["Renamed"] * 2
    assert seqs(network) == [1, 1, 2, 3, 4, 2], "numbers given out meanwhile stay given out"


def test_a_payment_waits_for_its_terminal_if_that_was_read_too_long_ago(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = network.card(10_000)
    network.one(network.request(card, 100))
    change(network, "UPDATE merchants SET name = 'Renamed'")
    memory_of(network)._refreshed -= memory._REFRESH_S + 1
    network.one(network.request(card, 100))
    assert names(network) == ["Harbor Stores", "Renamed"]
