"""What a terminal that was told 96 hears when it sends the same message again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from nodes.authorization.model import AuthorizationAnswer, AuthorizationRequest, Kind, Outcome
from nodes.authorization.operations.accepting import open_batch
from nodes.authorization.operations.forwarding import (
    request_of,
    settle_reversals,
    take_reversals,
)
from nodes.authorization.operations.pending import Closing, Forward
from nodes.authorization.operations.recording import close_batch
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import NodeDatabase
from tests.factories.network import ISSUER, DirectLink, Network
from tests.integration.authorization.test_forwarding_advices import deliver


class BusyLink(DirectLink):
    """An issuer that is asked too much: it does nothing, and says so."""

    busy = False

    async def authorize(
        self, issuer: str, requests: list[AuthorizationRequest], deadline_ms: int
    ) -> list[AuthorizationAnswer]:
        if not self.busy:
            return await super().authorize(issuer, requests, deadline_ms)
        return [
            AuthorizationAnswer(
                txid=one.txid,
                outcome=Outcome.OVERLOADED,
                currency=one.currency,
                commitment=bytes(32),
                pair_seq=0,
                decided_ms=one.transmitted_ms,
            )
            for one in requests
        ]


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database, link=BusyLink())
    yield made
    assert check_invariants(made.issuer_db.owner_engine) == []
    assert check_invariants(made.acquirer_db.owner_engine) == []
    made.close()


def test_an_issuers_96_is_an_answer_and_stays_one(network: Network) -> None:
    """The repeat is asked for while the issuer is well again: what it then approves is reversed."""
    link, card = network.link, network.card(1_000)
    assert isinstance(link, BusyLink)
    link.busy = True
    asked = network.request(card, 400)
    told = network.one(asked)
    assert told.outcome is Outcome.OVERLOADED
    link.busy = False
    assert network.one(asked) == told
    deliver(network)
    assert network.one(asked) == told
    assert network.one(network.reversal_of(asked)).outcome is Outcome.APPROVED
    assert network.balance(card) == 1_000
    assert network.one(network.request(card, 400)).outcome is Outcome.APPROVED
    assert network.balance(card) == 600


def test_a_repeat_beside_the_first_one_is_not_approved_behind_its_96(network: Network) -> None:
    """Two copies are at the issuer at once: it refuses the first and approves the second."""
    link, card = network.link, network.card(1_000)
    assert isinstance(link, BusyLink)
    asked = network.request(card, 400)
    with psycopg.connect(network.acquirer_db.dsn, autocommit=True) as connection:
        acquirer = network.make_acquirer()
        [first] = open_batch(connection, acquirer, [asked])
        [second] = open_batch(connection, acquirer, [asked])
        assert isinstance(first, Forward)
        assert isinstance(second, Forward)
        link.busy = True
        for forward, outcome in ((first, Outcome.OVERLOADED), (second, Outcome.APPROVED)):
            link.busy = outcome is Outcome.OVERLOADED
            answer = asyncio.run(link.authorize(ISSUER, [forward.request], 0))[0]
            assert answer.outcome is outcome
            told = close_batch(connection, acquirer, [Closing(forward, answer)])
            assert told[0].outcome is Outcome.OVERLOADED
    assert network.balance(card) == 600
    deliver(network)
    assert network.balance(card) == 1_000


def test_a_reversal_that_the_issuer_could_not_decide_is_sent_again(network: Network) -> None:
    link, card = network.link, network.card(1_000)
    assert isinstance(link, BusyLink)
    asked = network.request(card, 400)
    assert network.one(asked).outcome is Outcome.APPROVED
    link.busy = True
    assert network.one(network.reversal_of(asked)).outcome is Outcome.APPROVED
    assert network.balance(card) == 600
    busy = asyncio.run(link.authorize(ISSUER, _queued(network), 0))
    assert [one.outcome for one in busy] == [Outcome.OVERLOADED]
    link.busy = False
    deliver(network)
    assert network.balance(card) == 1_000


def _queued(network: Network) -> list[AuthorizationRequest]:
    """A round of the worker in which the issuer is still too busy."""
    network.clock.advance(120_000)
    acquirer = network.make_acquirer()
    with psycopg.connect(network.acquirer_db.dsn, autocommit=True) as connection:
        due = take_reversals(connection, acquirer)
        asked = [request_of(row) for row in due]
        answers = asyncio.run(network.link.authorize(ISSUER, asked, 0))
        assert settle_reversals(connection, acquirer, list(zip(due, answers, strict=True))) == 0
    return asked


def test_an_advice_never_hears_it(network: Network) -> None:
    link, card = network.link, network.card(1_000)
    assert isinstance(link, BusyLink)
    link.busy = True
    advice = network.request(card, 400, Kind.ADVICE)
    told = network.one(advice)
    assert told.outcome is Outcome.APPROVED
    link.busy = False
    deliver(network)
    assert network.one(advice) == told
    assert network.balance(card) == 600
