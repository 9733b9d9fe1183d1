"""An offline payment under a counter with which the card was online before: nothing is paid twice,
and whatever doesn't fit is told to people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from nodes.authorization.model import Kind, Outcome, TerminalRequest
from nodes.authorization.services import ServiceOutcome
from nodes.cards.model import IssuedCard
from nodes.reconciliation.invariants import check_invariants
from sandbox.cards.chip import Purchase
from tests.conftest import NodeDatabase
from tests.factories.network import Network
from tests.factories.offline import OfflineCard, new_chain
from tests.integration.authorization.test_forwarding_advices import deliver
from tests.integration.authorization.test_offline_chip import (
    CHIP,
    TODAY,
    advice,
    alarms,
    hotlisted,
    owed,
    plastic,
    post,
)
from tests.integration.reconciliation.test_offline_invariants import close_batch, upload_item

#: How the advice tells of the payment: by the chip's word (TC), by the card's record, by both.
TOLD = ("chip", "record", "both")


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database)
    yield made
    assert check_invariants(made.issuer_db.owner_engine) == []
    assert check_invariants(made.acquirer_db.owner_engine) == []
    made.close()


class Holder:
    """A chip card whose copy tells of another payment under the first one's counter."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.card: IssuedCard = network.card(10_000, making=CHIP)
        self.signer = OfflineCard(self.card, network)

    def online(self, amount: int, kind: Kind = Kind.PURCHASE) -> TerminalRequest:
        icc = plastic(self.card).first_cryptogram(Purchase(amount, "156", TODAY))
        pin = self.network.pin_block("123456", self.card.pan)
        return self.network.request(
            self.card, amount, kind, entry_mode="051", icc=icc, pin_block=pin
        )

    def offline(self, amount: int, told: str) -> TerminalRequest:
        """The advice of a payment under the same counter, 1."""
        icc = plastic(self.card).approve_offline(Purchase(amount, "156", TODAY))
        more: dict[str, Any] = {}
        if told != "chip":
            more["offline"] = self.signer.record(new_chain(), amount, 1)
        request: TerminalRequest = advice(
            self.network, self.card, icc if told != "record" else None, amount, **more
        )
        return request


def test_what_was_paid_online_is_not_paid_again(network: Network) -> None:
    """The terminal knows of the online payment: it has refunded a part of it."""
    for told in TOLD:
        holder = Holder(network)
        paid = network.one(holder.online(700))
        assert paid.outcome is Outcome.APPROVED
        refund = network.request(holder.card, 100, Kind.REFUND, rrn=paid.rrn)
        assert network.one(refund).outcome is Outcome.APPROVED
        assert network.one(holder.offline(700, told)).outcome is Outcome.KEY_REUSED, told
        assert network.balance(holder.card) == 9_400, told
    assert hotlisted(network) == [], "one card is enough for one payment told twice"
    assert alarms(network) == [
        ("cryptogram", "refused to meridian: counter 1 was online with it before (paid)")
    ] * len(TOLD)


@pytest.mark.parametrize("first", ["paid", "undone", "refused"])
def test_another_payment_under_an_online_counter_is_a_copy(network: Network, first: str) -> None:
    listed = []
    for told in TOLD:
        holder = Holder(network)
        online = holder.online(20_000 if first == "refused" else 700)
        network.one(online)
        if first == "undone":
            assert network.one(network.reversal_of(online)).outcome is Outcome.APPROVED
        balance = network.balance(holder.card)
        post(network, holder.offline(400, told))
        assert (network.balance(holder.card), owed(network, holder.card)) == (balance, 400), told
        listed.append(holder.signer.key_id)
    assert sorted(hotlisted(network)) == sorted(listed)
    assert alarms(network) == [("clone", "approved at meridian")] * len(TOLD)


@pytest.mark.parametrize("before", ["undone", "refused"])
def test_a_payment_that_went_wrong_online_may_end_offline_and_is_told_of(
    network: Network, before: str
) -> None:
    """The terminal has reversed (or heard a refusal), and the card has approved all the same."""
    for told in TOLD:
        holder = Holder(network)
        amount = 20_000 if before == "refused" else 700
        online = holder.online(amount)
        outcome = network.one(online).outcome
        assert outcome is (Outcome.INSUFFICIENT_FUNDS if before == "refused" else Outcome.APPROVED)
        if before == "undone":
            assert network.one(network.reversal_of(online)).outcome is Outcome.APPROVED
        post(network, holder.offline(amount, told))
        assert network.balance(holder.card) == max(0, 10_000 - amount), told
    assert hotlisted(network) == []
    assert alarms(network) == [
        ("cryptogram", f"posted for meridian: counter 1 was online with it before ({before})")
    ] * len(TOLD)


def test_a_captured_authorization_is_not_paid_again_and_a_part_of_it_is_no_copy(
    network: Network,
) -> None:
    holder = Holder(network)
    authorized = network.one(holder.online(700, Kind.AUTHORIZATION))
    capture = network.request(holder.card, 700, Kind.CAPTURE, entry_mode="052", rrn=authorized.rrn)
    assert network.one(capture).outcome is Outcome.APPROVED
    assert network.one(holder.offline(700, "chip")).outcome is Outcome.KEY_REUSED
    post(network, holder.offline(100, "chip"))
    assert network.balance(holder.card) == 9_200
    assert hotlisted(network) == []
    assert [kind for kind, _ in alarms(network)] == ["cryptogram", "cryptogram"]


def test_the_counter_of_an_inquiry_pays_nothing(network: Network) -> None:
    holder = Holder(network)
    inquiry = holder.online(0, Kind.BALANCE_INQUIRY)
    assert network.one(inquiry).outcome is Outcome.APPROVED
    post(network, holder.offline(700, "both"))
    assert (network.balance(holder.card), owed(network, holder.card)) == (10_000, 700)
    assert hotlisted(network) == [holder.signer.key_id]


def test_in_one_batch_the_advice_sees_what_stands_before_it(network: Network) -> None:
    twice, ended = Holder(network), Holder(network)
    paid, undone = twice.online(700), ended.online(700)
    told = network.send(paid, twice.offline(700, "chip"), undone)
    told += network.send(network.reversal_of(undone), ended.offline(700, "record"))
    outcomes = [one.outcome for one in told]
    # A terminal that still waits for its answer has given up nothing.
    assert outcomes[1] in (Outcome.KEY_REUSED, Outcome.APPROVED)
    assert outcomes[:1] + outcomes[2:] == [Outcome.APPROVED] * 4
    deliver(network)
    assert network.balance(twice.card) == network.balance(ended.card) == 9_300


def test_the_difference_that_a_batch_upload_finds_is_posted_without_the_chips_word(
    network: Network,
) -> None:
    """The chip has signed the whole, which is paid: the difference is the acquirer's own word."""
    holder = Holder(network)
    bought = holder.online(700)
    assert network.one(bought).outcome is Outcome.APPROVED
    assert close_batch(network, "000001", "000900", 1, 750).outcome is ServiceOutcome.DIFFERS
    item = msgspec.structs.replace(bought, amount=750, pin_block=None)
    assert upload_item(network, item).outcome is ServiceOutcome.DONE
    assert close_batch(network, "000001", "000901", 1, 750).outcome is ServiceOutcome.DONE
    assert network.balance(holder.card) == 9_250
    assert alarms(network) == []


def test_the_counter_of_an_offline_payment_is_not_taken_online_after_it(network: Network) -> None:
    for told in TOLD:
        holder = Holder(network)
        late = holder.online(700)
        post(network, holder.offline(700, told))
        assert network.one(late).outcome is Outcome.CRYPTOGRAM_WRONG, told
        assert network.balance(holder.card) == 9_300, told
