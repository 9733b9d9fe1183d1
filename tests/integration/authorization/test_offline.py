"""Offline payments on two real databases: reserve, upload, repeats, clones, gaps, shortfalls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import psycopg
import pytest

from nodes import ids
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.offline_queries import alarms, chains, gaps
from nodes.authorization.operations.offline import KeyOutcome, ReserveOutcome, register_offline_key
from nodes.authorization.operations.pending import decode_pending
from nodes.authorization.operations.standing import set_card_status
from nodes.authorization.store import accounts
from nodes.cards.model import CardStatus
from nodes.crypto.offline_record import decode_record, encode_record
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import NodeDatabase
from tests.factories.network import ISSUER, TERMINAL, Network
from tests.factories.offline import OfflineCard, new_chain


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database)
    yield made
    assert check_invariants(made.issuer_db.owner_engine) == []
    assert check_invariants(made.acquirer_db.owner_engine) == []
    made.close()


def rows(network: Network, statement: str, *, issuer: bool = True) -> list[Any]:
    database = network.issuer_db if issuer else network.acquirer_db
    with psycopg.connect(database.dsn) as connection:
        return connection.execute(statement).fetchall()


def available(network: Network, card: OfflineCard) -> tuple[int, int, int]:
    """Available, reserved, owed."""
    with psycopg.connect(network.issuer_db.dsn) as connection:
        number = card.card.account_id
        holder = accounts.holders(connection, [number], {})[number]
    account = holder.account
    return account.available, sum(account.offline.values()), account.receivable


def test_a_reserve_lowers_what_is_available_and_pays_for_offline_payments(
    network: Network,
) -> None:
    card = OfflineCard(network.card(50_000), network)
    assert card.reserve(30_000).available == 20_000
    assert available(network, card) == (20_000, 30_000, 0)
    assert network.one(network.request(card.card, 20_001)).outcome is Outcome.INSUFFICIENT_FUNDS
    chain = new_chain()
    paid = network.one(card.advice(card.record(chain, 12_000), 12_000))
    assert (paid.outcome, paid.amount) == (Outcome.APPROVED, 12_000)
    assert available(network, card) == (20_000, 18_000, 0)
    # More than is left of the reserve: the purse pays the rest, and then the cardholder owes.
    assert network.one(card.advice(card.record(chain, 20_000), 20_000)).amount == 20_000
    assert available(network, card) == (18_000, 0, 0)
    assert network.one(card.advice(card.record(chain, 19_500), 19_500)).amount == 19_500
    assert available(network, card) == (0, 0, 1_500)


def test_what_may_be_reserved_and_given_back(network: Network) -> None:
    card = OfflineCard(network.card(150_000), network)
    plain = network.card(1_000)
    first = card.reserve(60_000, "a key")
    assert card.reserve(60_000, "a key") == first
    assert card.reserve(60_001, "a key").outcome is ReserveOutcome.KEY_REUSED
    assert card.reserve(40_001).outcome is ReserveOutcome.OVER_RESERVE_LIMIT
    assert card.reserve(0).outcome is ReserveOutcome.AMOUNT_INVALID
    assert card.reserve(-60_001).outcome is ReserveOutcome.INSUFFICIENT_FUNDS
    assert card.reserve(-20_000).reserved == 40_000
    assert available(network, card) == (110_000, 40_000, 0)
    set_card_status(
        network.issuer_db.engine, card.card.card_token, CardStatus.BLOCKED, actor="t", reason="t",
        now=card.now,
    )  # fmt: skip
    assert card.reserve(1).outcome is ReserveOutcome.CARD_NOT_ACTIVE
    taken = register_offline_key(
        network.issuer_db.engine, ISSUER, card_token=plain.card_token, public_key=card.public_key,
        actor="t", now=card.now,
    )  # fmt: skip
    assert taken is KeyOutcome.KEY_TAKEN


def test_a_repeat_gets_the_stored_answer_whatever_message_it_comes_in(network: Network) -> None:
    card = OfflineCard(network.card(10_000), network)
    card.reserve(5_000)
    record = card.record(new_chain(), 700)
    advice = card.advice(record, 700)
    first = network.one(advice)
    assert network.one(advice) == first
    assert network.one(card.advice(record, 700)) == first, "the same record, another DE11"
    assert available(network, card) == (5_000, 4_300, 0)
    assert rows(network, "SELECT count(*) FROM offline_records") == [(1,)]


def test_the_same_counter_with_other_content_is_a_clone_and_owed(network: Network) -> None:
    card = OfflineCard(network.card(10_000), network)
    card.reserve(5_000)
    chain = new_chain()
    assert network.one(card.advice(card.record(chain, 700), 700)).outcome is Outcome.APPROVED
    record = card.record(chain, 800, atc=1)
    copied = network.one(card.advice(record, 800))
    assert (copied.outcome, copied.amount) == (Outcome.APPROVED, 800)
    # Nothing that is the holder's pays for it: it is owed until people have decided.
    assert available(network, card) == (5_000, 4_300, 800)
    assert rows(network, "SELECT kind, atc FROM offline_alarms") == [("clone", 1)]
    hot = rows(network, "SELECT card_key_id, listed, reason FROM hotlist_entries")
    assert hot == [(card.key_id, True, "clone")]
    assert rows(network, "SELECT count(*) FROM events WHERE action = 'offline.clone'") == [(1,)]
    # Two that come in one batch are told apart as well.
    other = OfflineCard(network.card(10_000), network)
    both = [other.advice(other.record(chain, n, atc=9), n) for n in (10, 20)]
    assert {a.outcome for a in network.send(*both)} == {Outcome.APPROVED}
    assert rows(network, "SELECT count(*) FROM offline_alarms") == [(2,)]
    assert available(network, other)[2] in (10, 20)
    # A second copy is another record; the first copy again, another way, is posted no second time.
    assert network.one(card.advice(card.record(chain, 50, atc=1), 50)).amount == 50
    again = issuer_asked(network, card, record)
    assert again is Outcome.KEY_REUSED
    assert available(network, card) == (5_000, 4_300, 850)
    # It is given back as it came.
    undo = network.request(card.card, 50, Kind.REFUND, rrn=copied.rrn)
    assert network.one(undo).outcome is Outcome.APPROVED
    assert available(network, card) == (5_000, 4_300, 800)


def issuer_asked(network: Network, card: OfflineCard, record: bytes) -> Outcome:
    """What the issuer says to another acquirer that sends a record again."""
    kept = [decode_pending(row[0]).request for row in rows(network, _QUEUED, issuer=False)]
    first = next(one for one in kept if one.offline == record)
    network_ref = ids.new_network_ref()
    again = msgspec.structs.replace(
        first,
        acquirer="lantern",
        txid=ids.txid("lantern", first.issuer, network_ref),
        network_ref=network_ref,
        stan="999999",
        pan=card.card.pan,
    )
    assert network.link.issuer is not None
    [answer] = asyncio.run(network.link.issuer.authorize([again]))
    return answer.outcome


_QUEUED = "SELECT request FROM forward_queue"


def test_a_record_that_the_card_has_not_signed_is_refused_aloud(network: Network) -> None:
    card, stranger = (OfflineCard(network.card(1_000), network) for _ in range(2))
    chain = new_chain()
    forged = decode_record(card.record(chain, 100))
    changed = encode_record(
        decode_record(encode_record(forged)[:139] + bytes((encode_record(forged)[139] ^ 1,))
                      + encode_record(forged)[140:])
    )  # fmt: skip
    assert network.one(card.advice(changed, 100)).outcome is Outcome.OFFLINE_RECORD_INVALID
    theirs = card.advice(stranger.record(new_chain(), 100), 100)
    assert network.one(theirs).outcome is Outcome.OFFLINE_RECORD_INVALID
    short = card.advice(b"\1\2", 100)
    assert network.one(short).outcome is Outcome.MALFORMED
    more = card.advice(card.record(new_chain(), 100), 101)
    assert network.one(more).outcome is Outcome.MALFORMED
    assert available(network, card) == (1_000, 0, 0)
    assert len(rows(network, "SELECT FROM offline_alarms WHERE kind = 'invalid'")) == 2
    # Its counter isn't used up by it.
    assert network.one(card.advice(card.record(new_chain(), 100, atc=1), 100)).amount == 100


def test_a_place_in_the_terminals_chain_is_taken_once_and_gaps_show(network: Network) -> None:
    card = OfflineCard(network.card(10_000), network)
    chain, twin = new_chain(77), new_chain(77)
    records = [card.record(chain, 10 + n) for n in range(6)]
    for place in (0, 1, 4):
        assert network.one(card.advice(records[place], 10 + place)).outcome is Outcome.APPROVED
    fork = card.record(twin, 99)
    assert network.one(card.advice(fork, 99)).outcome is Outcome.KEY_REUSED
    with network.acquirer_db.engine.connect() as connection:
        [chained] = chains(connection, limit=9, after=None, terminal_id=TERMINAL)
        assert (chained["records"], chained["last_seq"], chained["lacking"]) == (3, 5, 2)
        assert gaps(connection, TERMINAL, 77, limit=9) == [{"first": 3, "last": 4}]
        assert gaps(connection, TERMINAL, 77, limit=9, after=4) == []
        [alarm] = alarms(connection, limit=9, before=None, kind="fork")
        assert (alarm["epoch"], alarm["seq"]) == (77, 1)
    for place in (2, 3, 5):
        assert network.one(card.advice(records[place], 10 + place)).outcome is Outcome.APPROVED
    with network.acquirer_db.engine.connect() as connection:
        [chained] = chains(connection, limit=9, after=None, terminal_id=None)
        assert (chained["lacking"], chained["broken"]) == (0, 0)
        assert gaps(connection, TERMINAL, 77, limit=9) == []


def test_a_lost_cards_payment_is_posted_late_and_given_back_by_a_reversal(
    network: Network,
) -> None:
    card = OfflineCard(network.card(1_000), network)
    card.reserve(500)
    paid = card.advice(card.record(new_chain(), 400), 400)
    set_card_status(
        network.issuer_db.engine, card.card.card_token, CardStatus.LOST, actor="t", reason="t",
        now=card.now,
    )  # fmt: skip
    assert rows(network, "SELECT listed, reason FROM hotlist_entries") == [(True, "lost")]
    network.clock.advance(3 * 86_400_000)  # long after its deadline
    late = network.one(paid)
    assert late.outcome is Outcome.APPROVED
    assert available(network, card) == (500, 100, 0)
    assert network.one(network.reversal_of(paid)).outcome is Outcome.APPROVED
    assert available(network, card) == (900, 100, 0)
    refund = network.request(card.card, 1, Kind.REFUND, rrn=late.rrn)
    assert network.one(refund).outcome is Outcome.ALREADY_REVERSED
