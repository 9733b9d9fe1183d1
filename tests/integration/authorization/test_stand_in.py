"""An issuer is away and the acquirer approves in its place, by contract."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import psycopg
import pytest

from nodes.authorization.model import Kind, Outcome
from nodes.authorization.rules.stand_in import WINDOW_MS, StandIn
from nodes.authorization.services import ServiceOutcome
from nodes.cards.model import IssuedCard
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import NodeDatabase
from tests.factories.network import ISSUER, Network
from tests.integration.authorization.test_forwarding_advices import deliver, rows
from tests.integration.reconciliation.test_offline_invariants import close_batch, upload_item

CONTRACT = StandIn("CNY", amount=500, day_amount=1_200, day_count=3)


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database, stand_in={ISSUER: CONTRACT})
    yield made
    assert check_invariants(made.issuer_db.owner_engine) == []
    assert check_invariants(made.acquirer_db.owner_engine) == []
    made.close()


@pytest.fixture
def card(network: Network) -> IssuedCard:
    return network.card(2_000, service_code="221")


def test_a_purchase_is_approved_while_its_issuer_is_away_and_posted_once(
    network: Network, card: IssuedCard
) -> None:
    network.link.down = True
    asked = network.request(card, 400, pin=None)
    told = network.one(asked)
    assert (told.outcome, told.amount) == (Outcome.APPROVED, 400)
    assert told.approval_code is not None
    assert network.one(asked) == told
    assert network.balance(card) == 2_000
    network.link.down = False
    assert deliver(network) == ["advice", "reversal"]
    assert network.balance(card) == 1_600
    assert network.one(asked) == told
    assert rows(network, "SELECT kind, outcome, amount FROM transactions ORDER BY kind") == [
        ("advice", "approved", 400),
        ("purchase", "reversed_before_arrival", 400),
        ("reversal", "approved", 0),
    ]
    refund = network.request(card, 100, Kind.REFUND, rrn=told.rrn)
    assert network.one(refund).outcome is Outcome.APPROVED


def test_it_is_posted_over_funds_and_statuses_as_the_merchant_was_promised(
    network: Network,
) -> None:
    poor = network.card(100)
    network.link.down = True
    assert network.one(network.request(poor, 400, pin=None)).outcome is Outcome.APPROVED
    network.link.down = False
    deliver(network)
    assert network.balance(poor) == 0
    with psycopg.connect(network.issuer_db.dsn) as connection:
        [detail] = connection.execute(
            "SELECT v.detail FROM account_versions AS v JOIN transactions AS t"
            " USING (transaction_id) WHERE t.kind = 'advice'"
        ).fetchone() or [b""]
    decoded = msgspec.msgpack.decode(detail)
    assert (decoded["shortfall"], decoded["stand_in"]) == (300, True)


def test_an_issuer_that_had_approved_it_posts_it_no_second_time(
    network: Network, card: IssuedCard
) -> None:
    network.link.lose_answer = True
    assert network.one(network.request(card, 400, pin=None)).outcome is Outcome.APPROVED
    assert network.balance(card) == 1_600
    network.link.lose_answer = False
    assert deliver(network) == ["advice", "reversal"]
    assert network.balance(card) == 1_600


def test_what_the_issuer_had_declined_is_posted_as_the_merchant_was_promised(
    network: Network,
) -> None:
    poor = network.card(100, service_code="221")
    network.link.lose_answer = True
    asked = network.request(poor, 400, pin=None)
    assert network.one(asked).outcome is Outcome.APPROVED
    network.link.lose_answer = False
    deliver(network)
    assert network.balance(poor) == 0
    assert rows(network, "SELECT kind, outcome FROM transactions WHERE kind = 'advice'") == [
        ("advice", "approved")
    ]


@pytest.mark.parametrize("delivered", [False, True])
@pytest.mark.parametrize("lost", [False, True])
def test_a_reversal_undoes_it_whether_the_issuer_has_it_already(
    network: Network, card: IssuedCard, delivered: bool, lost: bool
) -> None:
    network.link.down, network.link.lose_answer = not lost, lost
    asked = network.request(card, 400, pin=None)
    assert network.one(asked).outcome is Outcome.APPROVED
    network.link.down = network.link.lose_answer = False
    if delivered:
        deliver(network)
    network.link.down = not delivered
    assert network.one(network.reversal_of(asked)).outcome is Outcome.APPROVED
    network.link.down = False
    if not delivered:
        deliver(network)
    assert network.balance(card) == 2_000


def test_a_batch_with_it_closes_equal_before_and_after_it_is_posted(
    network: Network, card: IssuedCard
) -> None:
    for batch, first in (("000021", True), ("000022", False)):
        network.link.down = True
        asked = network.request(card, 400, pin=None, batch=batch)
        assert network.one(asked).outcome is Outcome.APPROVED
        network.link.down = False
        if not first:
            deliver(network)
        closed = close_batch(network, batch, f"0009{batch[-2:]}", 1, 400)
        assert closed.outcome is ServiceOutcome.DONE
        if first:
            deliver(network)


def test_an_upload_knows_it_by_the_terminals_number(network: Network, card: IssuedCard) -> None:
    network.link.down = True
    asked = network.request(card, 400, pin=None, batch="000023")
    assert network.one(asked).outcome is Outcome.APPROVED
    network.link.down = False
    deliver(network)
    lost = network.request(card, 30, pin=None, batch="000023")
    assert close_batch(network, "000023", "000931", 2, 430).outcome is ServiceOutcome.DIFFERS
    for item in (asked, lost):
        assert upload_item(network, item).outcome is ServiceOutcome.DONE
    assert close_batch(network, "000023", "000932", 2, 430).outcome is ServiceOutcome.DONE
    assert network.balance(card) == 2_000 - 430


def test_the_ceilings_of_a_card_hold_in_one_batch_and_over_a_day(
    network: Network, card: IssuedCard
) -> None:
    other = network.card(2_000)
    network.link.down = True
    asked = [network.request(card, 450, pin=None) for _ in range(3)]
    asked.append(network.request(other, 450, pin=None))
    told = [one.outcome for one in network.send(*asked)]
    assert told == [Outcome.APPROVED] * 2 + [Outcome.ISSUER_UNAVAILABLE, Outcome.APPROVED]
    network.clock.advance(WINDOW_MS - 1)
    assert network.one(network.request(card, 301, pin=None)).outcome is Outcome.ISSUER_UNAVAILABLE
    assert network.one(network.request(card, 300, pin=None)).outcome is Outcome.APPROVED
    assert network.one(network.request(card, 1, pin=None)).outcome is Outcome.ISSUER_UNAVAILABLE
    network.clock.advance(1)
    assert network.one(network.request(card, 500, pin=None)).outcome is Outcome.APPROVED
    network.link.down = False
    deliver(network)
    assert network.balance(card) == 2_000 - 450 - 450 - 300 - 500


@pytest.mark.parametrize(
    ("kind", "amount", "more"),
    [
        (Kind.PURCHASE, 501, {"pin": None}),
        (Kind.PURCHASE, 400, {}),  # with a PIN, which only the issuer can check
        (Kind.PURCHASE, 400, {"pin": None, "partial_ok": True}),
        (Kind.PURCHASE, 400, {"pin": None, "channel": "ecommerce"}),
        (Kind.PURCHASE, 400, {"pin": None, "entry_mode": "032"}),
        (Kind.PURCHASE, 400, {"pin": None, "service_code": "220"}),
        (Kind.PURCHASE, 400, {"pin": None, "icc": bytes(4), "entry_mode": "071"}),
        (Kind.AUTHORIZATION, 400, {"pin": None}),
        (Kind.BALANCE_INQUIRY, 0, {"pin": None}),
        (Kind.TOP_UP, 400, {"pin": None}),
    ],
)
def test_what_only_the_issuer_can_judge_waits_for_it(
    network: Network, card: IssuedCard, kind: Kind, amount: int, more: dict[str, object]
) -> None:
    network.link.down = True
    told = network.one(network.request(card, amount, kind, **more))
    assert told.outcome is Outcome.ISSUER_UNAVAILABLE
    assert rows(network, "SELECT count(*) FROM stand_ins") == [(0,)]
    assert rows(network, "SELECT reason FROM reversal_queue") == [("issuer unavailable",)]


def test_without_a_contract_nothing_is_approved_unseen(
    database: NodeDatabase, second_database: NodeDatabase
) -> None:
    plain = Network(database, second_database)
    card = plain.card(2_000)
    plain.link.down = True
    told = plain.one(plain.request(card, 400, pin=None))
    assert told.outcome is Outcome.ISSUER_UNAVAILABLE
    plain.close()
