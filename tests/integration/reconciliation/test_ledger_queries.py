"""The ledger's reads for console and API, on books that real traffic wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from nodes.authorization import queries as authorization
from nodes.authorization.model import Kind, Outcome
from nodes.cards.model import IssuedCard
from nodes.ledger import queries
from nodes.ledger.queries import TransactionFilter
from tests.conftest import Cluster, NodeDatabase
from tests.factories.network import Network


@dataclass
class Books:
    issuer: NodeDatabase
    acquirer: NodeDatabase
    card: IssuedCard
    other: IssuedCard


@pytest.fixture(scope="module")
def books(cluster: Cluster) -> Iterator[Books]:
    """Two cards: seven purchases with a decline and a hold, and one purchase."""
    issuer, acquirer = cluster.new_database(), cluster.new_database()
    network = Network(issuer, acquirer)
    card, other = network.card(10_000), network.card(500)
    for amount in (100, 200, 300, 99_999, 400):
        network.one(network.request(card, amount))
    block = network.pin_block("123456", card.pan)
    held = network.request(card, 1_500, Kind.AUTHORIZATION, pin_block=block)
    assert network.one(held).outcome is Outcome.APPROVED
    network.send(*[network.request(card, 10) for _ in range(3)], network.request(other, 20))
    network.close()
    yield Books(issuer, acquirer, card, other)
    cluster.drop(issuer)
    cluster.drop(acquirer)


def test_a_cards_transactions_come_page_by_page_the_newest_first(books: Books) -> None:
    wanted = TransactionFilter(card_token=books.card.card_token)
    with books.issuer.engine.connect() as connection:
        everything = queries.find_transactions(connection, wanted, limit=100)
        pages: list[queries.Row] = []
        before = None
        while page := queries.find_transactions(connection, wanted, limit=3, before=before):
            pages += page
            before = page[-1]["transaction_id"]
    assert pages == everything
    assert [row["account_version"] for row in everything] == list(range(10, 0, -1))
    assert {row["card_token"] for row in everything} == {books.card.card_token}


def test_other_filters_hold_with_a_card(books: Books) -> None:
    with books.issuer.engine.connect() as connection:
        declined = TransactionFilter(card_token=books.card.card_token, outcome="insufficient_funds")
        rows = queries.find_transactions(connection, declined, limit=10)
        assert [row["amount"] for row in rows] == [99_999]
        unknown = TransactionFilter(card_token=b"?" * 16)
        assert queries.find_transactions(connection, unknown, limit=10) == []


def test_an_acquirer_finds_a_token_without_knowing_the_card(books: Books) -> None:
    wanted = TransactionFilter(card_token=books.other.card_token)
    with books.acquirer.engine.connect() as connection:
        rows = queries.find_transactions(connection, wanted, limit=10)
    assert [(row["side"], row["amount"]) for row in rows] == [("acquirer", 20)]


def test_the_last_version_is_what_an_account_has(books: Books) -> None:
    ids = [books.card.account_id, books.other.account_id, 987_654]
    with books.issuer.engine.connect() as connection:
        last = authorization.snapshots(connection, ids)
        assert authorization.snapshots(connection, []) == {}
    account = last[books.card.account_id]
    assert (account.balance, account.held, account.available) == (8_970, 1_500, 7_470)
    assert account.version == 10
    assert last[books.other.account_id].balance == 480
    assert 987_654 not in last


def test_an_accounts_history_says_what_made_each_version(books: Books) -> None:
    account = books.card.account_id
    with books.issuer.engine.connect() as connection:
        first = authorization.versions_of(connection, account, limit=6)
        before = first[-1].state.version
        rest = authorization.versions_of(connection, account, limit=6, before=before)
    history = [*first, *rest]
    made = [version.transaction or {} for version in history]
    assert [version.state.version for version in history] == list(range(10, 0, -1))
    assert [version.state.balance for version in history[-3:]] == [9_700, 9_900, 10_000]
    assert (made[-1]["kind"], made[-1]["amount"]) == ("load", 10_000)
    assert {row["outcome"] for row in made} == {"approved", "insufficient_funds"}
    assert all(version.at_ms for version in history)
    declined = [v.detail.reason for v in history if v.detail.reason is not None]
    assert [reason.code for reason in declined] == ["insufficient_funds"]


def test_rolled_up_and_unsealed_make_the_current_balance(books: Books) -> None:
    """Nothing is sealed here: all that moved is unsealed, of cardholders too."""
    with books.issuer.engine.connect() as connection:
        rows = queries.find_accounts(connection, limit=100)
        ids = [row["account_id"] for row in rows]
        moved = queries.unsealed_movements(connection, ids, (0, 0))
        kinds = queries.unsealed_by_kind(connection, (0, 0))
    assert {row["balance"] for row in rows} == {0}
    assert moved[books.card.account_id] == 8_970
    assert kinds["cardholder", "CNY"] == 9_450
    assert sum(moved.values()) == 0
