"""A payment that was asked for online and ended by card and terminal alone: in whatever order its
messages come, and however often, it is posted once and the terminal may forget each of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import psycopg
import pytest

from nodes.authorization.model import Kind, Outcome, TerminalAnswer, TerminalRequest
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import NodeDatabase
from tests.factories.network import Network
from tests.integration.authorization.test_forwarding_advices import deliver
from tests.integration.authorization.test_offline_after_online import Holder
from tests.integration.authorization.test_offline_chip import alarms, hotlisted, owed


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database)
    yield made
    assert check_invariants(made.issuer_db.owner_engine) == []
    assert check_invariants(made.acquirer_db.owner_engine) == []
    made.close()


def merchants(network: Network) -> int:
    """What the merchant has in the acquirer's books."""
    with psycopg.connect(network.acquirer_db.dsn) as connection:
        row = connection.execute(
            "SELECT coalesce(sum(p.amount), 0)::bigint FROM postings AS p JOIN accounts AS a"
            " USING (account_id) WHERE a.kind = 'merchant'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def settled(network: Network) -> None:
    """The acquirer's queues run empty, if anything is in them."""
    with psycopg.connect(network.acquirer_db.dsn) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM forward_queue WHERE done_ms IS NULL)"
            " + (SELECT count(*) FROM reversal_queue WHERE done_ms IS NULL)"
        ).fetchone()
    if row != (0,):
        deliver(network)


def told_of(
    network: Network, messages: dict[str, TerminalRequest], order: Sequence[str]
) -> dict[str, TerminalAnswer]:
    """Send them one after another; the same message is answered the same each time."""
    told: dict[str, TerminalAnswer] = {}
    for name in order:
        answer = network.one(messages[name])
        assert told.setdefault(name, answer) == answer, (order, name)
    return told


#: O: the online request (its answer is lost); T: the advice with the chip's TC; R: the reversal.
ORDERS = sorted(
    set(itertools.permutations("OTTRR")) | set(itertools.permutations("TTRR")) | {("O", "T", "T")}
)


FEW = [tuple(order) for order in ("OT", "OTR", "ORT", "TRO", "TOR", "ROT")]


@pytest.mark.parametrize(
    ("told", "kind", "orders"),
    [
        ("chip", Kind.PURCHASE, ORDERS),
        ("record", Kind.PURCHASE, FEW),
        ("both", Kind.PURCHASE, FEW),
        ("chip", Kind.AUTHORIZATION, FEW),
    ],
)
def test_in_every_order_the_payment_is_posted_once(
    network: Network, told: str, kind: Kind, orders: list[tuple[str, ...]]
) -> None:
    for order in orders:
        holder, before = Holder(network), merchants(network)
        online = holder.online(700, kind)
        messages = {
            "O": online, "T": holder.offline(700, told), "R": network.reversal_of(online),
        }  # fmt: skip
        answers = told_of(network, messages, order)
        for name in "TR":
            if name in answers:
                assert (answers[name].outcome, answers[name].amount) == (Outcome.APPROVED, 700)
        settled(network)
        assert told_of(network, messages, order) == answers, order
        assert network.balance(holder.card) == 9_300, order
        assert (owed(network, holder.card), merchants(network) - before) == (0, 700), order
    assert hotlisted(network) == []


@pytest.mark.parametrize("order", sorted(set(itertools.permutations("OTRU"))))
def test_an_advice_that_is_reversed_itself_leaves_nothing(
    network: Network, order: tuple[str, ...]
) -> None:
    """U: the reversal of the advice."""
    holder = Holder(network)
    online, advice = holder.online(700), holder.offline(700, "chip")
    messages = {
        "O": online, "T": advice, "R": network.reversal_of(online),
        "U": network.reversal_of(advice),
    }  # fmt: skip
    told_of(network, messages, order)
    settled(network)
    assert network.balance(holder.card) == 10_000, order
    assert (owed(network, holder.card), merchants(network)) == (0, 0), order


@pytest.mark.parametrize("lost", ["request", "answer"])
@pytest.mark.parametrize("order", ["TR", "RT", "T"])
def test_an_issuer_that_was_away_posts_it_once(network: Network, lost: str, order: str) -> None:
    """The acquirer's own reversal of what nobody answered goes before the advice."""
    holder = Holder(network)
    online = holder.online(700)
    messages = {"T": holder.offline(700, "chip"), "R": network.reversal_of(online)}
    network.link.down, network.link.lose_answer = lost == "request", lost == "answer"
    assert network.one(online).outcome is Outcome.ISSUER_UNAVAILABLE
    for down in (True, False):
        network.link.down, network.link.lose_answer = down, False
        answers = told_of(network, messages, order)
        assert [one.outcome for one in answers.values()] == [Outcome.APPROVED] * len(order)
    sent = deliver(network)
    assert sent.index("reversal") < sent.index("advice")
    assert network.balance(holder.card) == 9_300
    assert (owed(network, holder.card), merchants(network)) == (0, 700)


def test_the_reversal_that_the_acquirer_makes_is_told_of_and_made_once(network: Network) -> None:
    holder = Holder(network)
    online = holder.online(700)
    network.one(online)
    for advice in (holder.offline(700, "chip"), holder.offline(700, "record")):
        assert network.one(advice).outcome is Outcome.APPROVED
    deliver(network)
    with psycopg.connect(network.acquirer_db.dsn) as connection:
        queued = connection.execute("SELECT reason FROM reversal_queue").fetchall()
    assert queued == [("ended offline",)]
    assert alarms(network)[0] == (
        "cryptogram", "posted for meridian: counter 1 was online with it before (undone)",
    )  # fmt: skip
    # Told twice under two numbers, it is posted once; who told so is to be asked.
    assert network.balance(holder.card) == 9_300
    assert merchants(network) == 700


def test_a_payment_whose_answer_the_terminal_has_used_stands(network: Network) -> None:
    """A refund names it, so its answer has arrived: the advice is one too many."""
    holder = Holder(network)
    online = network.one(holder.online(700))
    refund = network.request(holder.card, 100, Kind.REFUND, rrn=online.rrn)
    assert network.one(refund).outcome is Outcome.APPROVED
    assert network.one(holder.offline(700, "chip")).outcome is Outcome.KEY_REUSED
    assert network.balance(holder.card) == 9_400
    assert merchants(network) == 600


def test_another_cards_payment_under_the_same_counter_stands(network: Network) -> None:
    """Terminal, amount and counter alike, the same first six and last four digits or not."""
    one, other = Holder(network), Holder(network)
    assert network.one(one.online(700)).outcome is Outcome.APPROVED
    assert network.one(other.offline(700, "chip")).outcome is Outcome.APPROVED
    settled(network)
    assert network.balance(one.card) == network.balance(other.card) == 9_300
    assert merchants(network) == 1_400
