"""What a chip says of a payment without connection (TC), checked by its issuer: the payment posts
whatever comes of that, and a doubt is an alarm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from nodes.authorization.model import Kind, Outcome, TerminalRequest
from nodes.authorization.store.accounts import holders
from nodes.cards.model import CardForm, IssuedCard, Making
from nodes.crypto.emv import TRANSPORT_KEY, open_personalization
from nodes.reconciliation.invariants import check_invariants
from sandbox.cards.chip import CardRefuses, ChipCard, OfflineLimits, Purchase
from tests.conftest import NodeDatabase
from tests.factories.network import EMV_KEYS, Network
from tests.factories.offline import OfflineCard, new_chain
from tests.integration.authorization.test_forwarding_advices import deliver

CHIP = Making(CardForm.CHIP)
TODAY = "260921"


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database)
    yield made
    assert check_invariants(made.issuer_db.owner_engine) == []
    assert check_invariants(made.acquirer_db.owner_engine) == []
    made.close()


def plastic(card: IssuedCard) -> ChipCard:
    assert card.personalization is not None
    chip = ChipCard.personalized(
        open_personalization(EMV_KEYS[TRANSPORT_KEY], card.personalization)
    )
    chip.make_offline_key()
    return chip


def advice(network: Network, card: IssuedCard, icc: bytes, amount: int, **more: Any) -> Any:
    return network.request(card, amount, Kind.ADVICE, entry_mode="052", icc=icc, **more)


def alarms(network: Network) -> list[Any]:
    with psycopg.connect(network.issuer_db.dsn) as connection:
        return connection.execute(
            "SELECT kind, detail FROM offline_alarms ORDER BY alarm_id"
        ).fetchall()


def kept(network: Network) -> list[Any]:
    with psycopg.connect(network.issuer_db.dsn) as connection:
        return connection.execute(
            "SELECT kind, atc, genuine, answer FROM chip_records ORDER BY atc"
        ).fetchall()


def post(network: Network, request: TerminalRequest) -> None:
    told = network.one(request)
    assert (told.outcome, told.amount, told.icc) == (Outcome.APPROVED, request.amount, None)


def test_a_genuine_tc_is_kept_and_uses_its_counter_up(network: Network) -> None:
    card = network.card(10_000, making=CHIP)
    chip = plastic(card)
    online = chip.first_cryptogram(Purchase(100, "156", TODAY))
    post(network, advice(network, card, chip.approve_offline(Purchase(700, "156", TODAY)), 700))
    assert alarms(network) == []
    assert kept(network) == [(1, 2, True, None)]
    late = network.request(card, 100, entry_mode="052", icc=online)
    assert network.one(late).outcome is Outcome.CRYPTOGRAM_WRONG, "its counter is behind the TC's"
    # An upload may be later than an online payment: nothing of that is wrong.
    offline = chip.approve_offline(Purchase(300, "156", TODAY))
    after = chip.first_cryptogram(Purchase(50, "156", TODAY))
    paid = network.one(network.request(card, 50, entry_mode="052", icc=after))
    assert paid.outcome is Outcome.APPROVED
    post(network, advice(network, card, offline, 300))
    assert alarms(network) == []
    assert network.balance(card) == 10_000 - 700 - 50 - 300


@pytest.mark.parametrize(
    ("wrong", "detail"),
    [
        ("forged", "the cryptogram isn't this card's"),
        ("stranger", "the cryptogram isn't this card's"),
        ("amount", "amount 600 in the chip's data"),
        ("online", "the cryptogram is ARQC, not TC"),
        ("tomorrow", "date 260922 in the chip's data"),
        ("cut", "a value is cut off"),
    ],
)
def test_a_doubtful_tc_is_posted_with_an_alarm(network: Network, wrong: str, detail: str) -> None:
    card = network.card(10_000, making=CHIP)
    chip = plastic(network.card(0, making=CHIP)) if wrong == "stranger" else plastic(card)
    paid = Purchase(
        600 if wrong == "amount" else 700, "156", "260922" if wrong == "tomorrow" else TODAY
    )
    icc = chip.first_cryptogram(paid) if wrong == "online" else chip.approve_offline(paid)
    if wrong == "forged":
        icc = icc[:3] + bytes((icc[3] ^ 1,)) + icc[4:]
    if wrong == "cut":
        icc = icc[:-1]
    post(network, advice(network, card, icc, 700))
    assert alarms(network) == [("cryptogram", f"posted for meridian: {detail}")]
    assert network.balance(card) == 9_300
    # Its counter counts for nothing: the card's own next cryptogram is taken.
    own = plastic(card)
    own.atc = chip.atc if wrong == "online" else 0
    good = own.first_cryptogram(Purchase(100, "156", TODAY))
    answer = network.one(network.request(card, 100, entry_mode="052", icc=good))
    assert answer.outcome is Outcome.APPROVED


def test_the_record_and_the_chip_must_tell_of_the_same_payment(network: Network) -> None:
    card = network.card(10_000, making=CHIP)
    chip, signer, chain = plastic(card), OfflineCard(card, network), new_chain()
    for record_atc, doubts in ((1, 0), (5, 1)):
        icc = chip.approve_offline(Purchase(200, "156", TODAY))
        record = signer.record(chain, 200, record_atc)
        post(network, advice(network, card, icc, 200, offline=record))
        assert len(alarms(network)) == doubts
    assert alarms(network) == [
        ("cryptogram", "posted for meridian: counter 2 in the chip's data, 5 in the record")
    ]


def owed(network: Network, card: IssuedCard) -> int:
    with psycopg.connect(network.issuer_db.dsn) as connection:
        return holders(connection, [card.account_id], {})[card.account_id].account.receivable


def hotlisted(network: Network) -> list[bytes]:
    with psycopg.connect(network.issuer_db.dsn) as connection:
        rows = connection.execute("SELECT card_key_id FROM hotlist_entries WHERE listed").fetchall()
    return [bytes(row[0]) for row in rows]


@pytest.mark.parametrize("amount", [700, 900])
def test_a_chips_payment_told_twice_without_a_record_is_posted_once(
    network: Network, amount: int
) -> None:
    """Another trace number makes no other payment of it, and another amount neither."""
    card = network.card(10_000, making=CHIP)
    OfflineCard(card, network)
    icc = plastic(card).approve_offline(Purchase(700, "156", TODAY))
    post(network, advice(network, card, icc, 700))
    again = network.one(advice(network, card, icc, amount))
    assert again.outcome is Outcome.KEY_REUSED
    assert network.balance(card) == 9_300
    assert hotlisted(network) == [], "one card is enough for one cryptogram"
    assert alarms(network) == [
        ("cryptogram", "refused to meridian: counter 1 was posted under another message")
    ]


def test_two_chips_under_one_counter_are_a_clone_without_any_record(network: Network) -> None:
    card = network.card(10_000, making=CHIP)
    signer = OfflineCard(card, network)
    one, two = plastic(card), plastic(card)
    post(network, advice(network, card, one.approve_offline(Purchase(700, "156", TODAY)), 700))
    post(network, advice(network, card, two.approve_offline(Purchase(400, "156", TODAY)), 400))
    assert network.balance(card) == 9_300, "the second one is owed, not taken"
    assert hotlisted(network) == [signer.key_id]
    assert alarms(network) == [("clone", "approved at meridian")]
    assert owed(network, card) == 400


def test_at_once_and_in_one_batch_a_counter_pays_once(network: Network) -> None:
    card = network.card(10_000, making=CHIP)
    OfflineCard(card, network)
    first = plastic(card).approve_offline(Purchase(700, "156", TODAY))
    other = plastic(card).approve_offline(Purchase(500, "156", TODAY))
    told = network.send(*(advice(network, card, icc, 700) for icc in (first, first)))
    told += network.send(advice(network, card, other, 500))
    assert [one.outcome for one in told] == [
        Outcome.APPROVED,
        Outcome.KEY_REUSED,
        Outcome.APPROVED,
    ]
    assert [kind for kind, _ in alarms(network)] == ["cryptogram", "clone"]
    assert (network.balance(card), owed(network, card)) == (9_300, 500)


@pytest.mark.parametrize("record_first", [True, False])
@pytest.mark.parametrize("same", [True, False])
def test_a_record_and_a_chip_that_come_apart_have_one_counter(
    network: Network, record_first: bool, same: bool
) -> None:
    """One terminal tells by record alone, another by the chip's word alone."""
    card = network.card(10_000, making=CHIP)
    signer, amount = OfflineCard(card, network), 700 if same else 500
    by_chip = advice(network, card, plastic(card).approve_offline(Purchase(700, "156", TODAY)), 700)
    by_record = signer.advice(signer.record(new_chain(), amount, 1), amount)
    first, second = (by_record, by_chip) if record_first else (by_chip, by_record)
    post(network, first)
    outcome = network.one(second).outcome
    assert outcome is (Outcome.KEY_REUSED if same else Outcome.APPROVED)
    assert network.balance(card) == 10_000 - first.amount
    assert owed(network, card) == (0 if same else second.amount)
    assert hotlisted(network) == ([] if same else [signer.key_id])


def test_what_a_stranger_made_up_under_a_counter_makes_no_clone(network: Network) -> None:
    card = network.card(10_000, making=CHIP)
    OfflineCard(card, network)
    icc = plastic(card).approve_offline(Purchase(700, "156", TODAY))
    forged = icc[:3] + bytes((icc[3] ^ 1,)) + icc[4:]
    for one in (forged, icc):
        post(network, advice(network, card, one, 700))
    assert network.one(advice(network, card, forged, 700)).outcome is Outcome.KEY_REUSED
    assert network.balance(card) == 8_600
    assert hotlisted(network) == []


def test_chip_data_waits_sealed_for_an_issuer_that_is_away(network: Network) -> None:
    card = network.card(10_000, making=CHIP)
    icc = plastic(card).approve_offline(Purchase(700, "156", TODAY))
    forged = icc[:3] + bytes((icc[3] ^ 1,)) + icc[4:]
    network.link.down = True
    for one in (icc, forged):
        post(network, advice(network, card, one, 700))
    with psycopg.connect(network.acquirer_db.dsn) as connection:
        sealed = connection.execute("SELECT pan_sealed, request FROM forward_queue").fetchall()
        slips = connection.execute("SELECT aid, kind, atc FROM chip_slips").fetchall()
    assert len(sealed) == 2
    assert all(icc[3:11] not in bytes(value) for row in sealed for value in row)
    assert slips == [(bytes.fromhex("A000000333010101"), 1, 1)] * 2
    network.link.down = False
    assert deliver(network) == ["advice", "advice"]
    assert network.balance(card) == 8_600
    assert sorted(genuine for _, _, genuine, _ in kept(network)) == [False, True]
    assert alarms(network) == [
        ("cryptogram", "posted for meridian: the cryptogram isn't this card's")
    ]


def test_a_card_keeps_its_own_offline_limits_until_its_issuer_has_answered(
    network: Network,
) -> None:
    chip = plastic(network.card(0, making=CHIP))
    chip.limits = OfflineLimits(payment=500, amount=900, count=3)
    with pytest.raises(CardRefuses, match="too much"):
        chip.approve_offline(Purchase(501, "156", TODAY))
    for amount in (500, 400):
        chip.approve_offline(Purchase(amount, "156", TODAY))
    for limits in (chip.limits, OfflineLimits(count=2)):
        chip.limits = limits
        with pytest.raises(CardRefuses, match="limit is reached"):
            chip.approve_offline(Purchase(1, "156", TODAY))
    assert chip.atc == 2
    chip.first_cryptogram(Purchase(1, "156", TODAY))
    chip.complete(None, approved=False)  # nobody answered
    assert chip.offline.count == 2
