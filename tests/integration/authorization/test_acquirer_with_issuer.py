"""The newer kinds over both institutions' real databases: alike in both books."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from nodes.authorization.model import (
    Kind,
    Outcome,
    TerminalRequest,
)
from nodes.authorization.queries import requested_amount
from nodes.cards.model import IssuedCard
from tests.conftest import NodeDatabase
from tests.factories.network import Network
from tests.integration.authorization.test_money_paths import forward_reversals, in_both_books


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database)
    yield made
    made.close()


def merchant_balance(network: Network) -> int:
    query = (
        "SELECT coalesce(sum(p.amount), 0)::bigint FROM postings p"
        " JOIN accounts a USING (account_id) WHERE a.kind = 'merchant'"
    )
    with psycopg.connect(network.acquirer_db.owner_dsn) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def hold(network: Network, card: IssuedCard, amount: int, **changes: object) -> TerminalRequest:
    pin_block = network.pin_block("123456", card.pan)
    return network.request(card, amount, Kind.AUTHORIZATION, pin_block=pin_block, **changes)


def test_an_authorization_raised_captured_twice_and_voided_stands_alike_in_both_books(
    network: Network,
) -> None:
    card = network.card(10_000)
    told = network.one(hold(network, card, 5_000))
    assert told.outcome is Outcome.APPROVED
    steps = [
        (Kind.INCREMENT, 1_000, 0),
        (Kind.CAPTURE, 2_000, 2_000),
        (Kind.CAPTURE, 1_500, 3_500),
        (Kind.VOID, 0, 3_500),
    ]
    for kind, amount, paid in steps:
        answer = network.one(network.request(card, amount, kind, rrn=told.rrn))
        assert answer.outcome is Outcome.APPROVED, kind
        assert merchant_balance(network) == paid
    assert answer.amount == 2_500
    late = network.one(network.request(card, 100, Kind.CAPTURE, rrn=told.rrn))
    assert late.outcome in {Outcome.ALREADY_REVERSED, Outcome.HOLD_ENDED}
    assert network.balance(card) == 6_500
    assert len(in_both_books(network)) == 6


def test_a_partial_approval_whose_answer_was_lost_is_taken_back_as_a_whole(
    network: Network,
) -> None:
    with psycopg.connect(network.issuer_db.owner_dsn, autocommit=True) as connection:
        connection.execute("UPDATE products SET terms = '{\"partial_approval\": true}'")
    card = network.card(6_000)
    told = network.one(network.request(card, 10_000, partial_ok=True))
    assert (told.outcome, told.amount) == (Outcome.APPROVED, 6_000)
    assert merchant_balance(network) == 6_000
    with network.acquirer_db.engine.connect() as books:
        assert told.txid is not None
        assert requested_amount(books, told.txid) == 10_000, "for the receipt"
    assert network.one(network.request(card, 1_000)).outcome is Outcome.INSUFFICIENT_FUNDS
    other = network.card(6_000)
    network.link.lose_answer = True
    lost = network.one(network.request(other, 10_000, partial_ok=True))
    assert lost.outcome is Outcome.ISSUER_UNAVAILABLE
    network.link.lose_answer = False
    assert network.balance(other) == 0
    assert forward_reversals(network) == 1
    assert network.balance(other) == 6_000
    assert merchant_balance(network) == 6_000
    assert len(in_both_books(network)) == 4
    with network.acquirer_db.engine.connect() as books:
        rows = books.exec_driver_sql("SELECT txid, requested FROM partial_approvals").all()
    assert len(rows) == 2, "those two, and no payment that was approved in full"


# Captures and advices are taken in and forwarded instead: test_forwarding_advices.py.
@pytest.mark.parametrize("kind", [Kind.AUTHORIZATION, Kind.TOP_UP, Kind.REFUND])
def test_each_kind_whose_answer_was_lost_is_undone_in_both_books(
    network: Network, kind: Kind
) -> None:
    card = network.card(10_000)
    rrn = None
    if kind is Kind.REFUND:
        rrn = network.one(network.request(card, 3_000)).rrn
    before, paid = network.balance(card), merchant_balance(network)
    pin_block = network.pin_block("123456", card.pan)
    network.link.lose_answer = True
    request = network.request(card, 2_000, kind, rrn=rrn, pin_block=pin_block)
    assert network.one(request).outcome is Outcome.ISSUER_UNAVAILABLE
    network.link.lose_answer = False
    assert forward_reversals(network) == 1
    assert network.balance(card) == before
    assert merchant_balance(network) == paid
    books = in_both_books(network)
    assert [outcome for *_, outcome in books[-2:]] == ["approved", "approved"]


def test_a_part_is_reversed_by_the_terminal(network: Network) -> None:
    card = network.card(10_000)
    request = network.request(card, 3_000)
    assert network.one(request).outcome is Outcome.APPROVED
    part = network.reversal_of(request, amount=1_000)
    told = network.one(part)
    assert (told.outcome, told.amount) == (Outcome.APPROVED, 1_000)
    assert network.one(part) == told
    assert network.balance(card) == 8_000
    assert merchant_balance(network) == 2_000
    in_both_books(network)
