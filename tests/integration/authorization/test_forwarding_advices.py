"""Store-and-forward of what has happened already: advices, completions, and their reversals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations.accepting import open_batch
from nodes.authorization.operations.forwarding import (
    forwarded_request,
    recover_pending,
    request_of,
    settle_forwards,
    settle_reversals,
    take_forwards,
    take_reversals,
)
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import NodeDatabase
from tests.factories.network import BIN, Network
from tests.factories.pos import luhn


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database)
    yield made
    assert check_invariants(made.issuer_db.owner_engine) == []
    assert check_invariants(made.acquirer_db.owner_engine) == []
    made.close()


def rows(network: Network, statement: str) -> list[Any]:
    with psycopg.connect(network.acquirer_db.dsn) as connection:
        return connection.execute(statement).fetchall()


def deliver(network: Network, rounds: int = 12) -> list[str]:
    """What the acquirer's worker does, until nothing is left; the kinds in the order of sending."""
    acquirer, sent = network.make_acquirer(), []
    assert network.link.issuer is not None
    with psycopg.connect(network.acquirer_db.dsn, autocommit=True) as connection:
        for _ in range(rounds):
            network.clock.advance(120_000)
            deadline = network.clock.now_ms() + 5_000
            queued = take_forwards(connection, acquirer)
            asked = [forwarded_request(acquirer, row, deadline) for row in queued]
            answers = asyncio.run(network.link.issuer.authorize(asked))
            settling = list(zip(queued, answers, strict=True))
            assert settle_forwards(connection, acquirer, settling) == len(queued)
            sent += [one.kind.value for one in asked]
            undo = take_reversals(connection, acquirer)
            wanted = [request_of(row) for row in undo]
            answers = asyncio.run(network.link.issuer.authorize(wanted))
            settle_reversals(connection, acquirer, list(zip(undo, answers, strict=True)))
            sent += [one.kind.value for one in wanted]
            left = connection.execute(
                "SELECT (SELECT count(*) FROM forward_queue WHERE done_ms IS NULL)"
                " + (SELECT count(*) FROM reversal_queue WHERE done_ms IS NULL)"
            ).fetchone()
            if left == (0,):
                return sent
    raise AssertionError("the queues don't empty")


def test_an_advice_for_an_issuer_that_is_away_is_taken_in_and_posted_once(
    network: Network,
) -> None:
    card = network.card(10_000)
    advice = network.request(card, 700, Kind.ADVICE)
    network.link.down = True
    told = network.one(advice)
    assert (told.outcome, told.amount) == (Outcome.APPROVED, 700)
    assert network.one(advice) == told
    assert network.balance(card) == 10_000
    assert rows(network, "SELECT count(*) FROM transactions") == [(0,)]
    [(sealed,)] = rows(network, "SELECT pan_sealed FROM forward_queue")
    assert card.pan.encode() not in bytes(sealed)
    network.link.down = False
    assert deliver(network) == ["advice"]
    assert network.balance(card) == 9_300
    assert network.one(advice) == told
    assert rows(network, "SELECT pan_sealed, outcome FROM forward_queue") == [(None, "approved")]


@pytest.mark.parametrize("kind", [Kind.ADVICE, Kind.CAPTURE])
def test_an_answer_that_was_lost_isnt_posted_again(network: Network, kind: Kind) -> None:
    card, rrn = network.card(10_000), None
    if kind is Kind.CAPTURE:
        block = network.pin_block("123456", card.pan)
        asked = network.request(card, 700, Kind.AUTHORIZATION, pin_block=block)
        rrn = network.one(asked).rrn
    network.link.lose_answer = True
    told = network.one(network.request(card, 700, kind, rrn=rrn))
    assert told.outcome is Outcome.APPROVED
    assert network.balance(card) == 9_300
    network.link.lose_answer = False
    deliver(network)
    assert network.balance(card) == 9_300


def test_completions_and_reversals_go_in_order_behind_their_original(network: Network) -> None:
    card = network.card(10_000)
    block = network.pin_block("123456", card.pan)
    held = network.one(network.request(card, 5_000, Kind.AUTHORIZATION, pin_block=block))
    network.link.down = True
    captures = [
        network.request(card, amount, Kind.CAPTURE, rrn=held.rrn, final=amount == 2_000)
        for amount in (1_000, 2_000)
    ]
    advice = network.request(card, 300, Kind.ADVICE)
    for one in (*captures, advice):
        assert network.one(one).outcome is Outcome.APPROVED
    assert network.one(network.reversal_of(advice)).outcome is Outcome.APPROVED
    network.link.down = False
    # The issuer is back, but what was taken in before goes first.
    third = network.request(card, 500, Kind.CAPTURE, rrn=held.rrn)
    assert network.one(third).outcome is Outcome.APPROVED
    sent = deliver(network)
    assert sent.index("advice") < sent.index("reversal")
    assert network.balance(card) == 10_000 - 3_000
    refused = rows(network, "SELECT amount, outcome FROM transactions WHERE outcome = 'hold_ended'")
    assert refused == [(500, "hold_ended")], "the final completion had ended the hold"
    alarm = rows(network, "SELECT kind, detail FROM offline_alarms")
    assert alarm == [("refused", "taken in, then refused by aurora: hold_ended")]


def test_what_a_crash_left_between_two_commits_is_forwarded_not_reversed(
    network: Network,
) -> None:
    card = network.card(10_000)
    advice = network.request(card, 700, Kind.ADVICE)
    acquirer = network.make_acquirer()
    with psycopg.connect(network.acquirer_db.dsn, autocommit=True) as connection:
        open_batch(connection, acquirer, [advice])  # and then the process dies
        network.clock.advance(60_000)
        assert recover_pending(connection, acquirer) == 1
    assert network.one(advice).outcome is Outcome.APPROVED
    deliver(network)
    assert network.balance(card) == 9_300


def test_an_issuer_that_refuses_at_once_is_told_at_once(network: Network) -> None:
    stranger = network.card(1)
    advice = network.request(stranger, 700, Kind.ADVICE, pan=luhn(f"{BIN}7777777"))
    assert network.one(advice).outcome is Outcome.CARD_UNKNOWN
    assert rows(network, "SELECT outcome FROM forward_queue") == [("card_unknown",)]
    assert rows(network, "SELECT count(*) FROM offline_alarms") == [(0,)]
