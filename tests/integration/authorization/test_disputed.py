"""Payments of what is taken for a copy of a card: what is owed for them waits for people."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from nodes.authorization.model import Kind, Outcome, TerminalAnswer
from nodes.authorization.operations.adjusting import (
    AdjustmentOutcome,
    approve_adjustment,
    propose_adjustment,
)
from nodes.authorization.operations.own import LoadOutcome, load_card
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import NodeDatabase
from tests.factories.network import ISSUER, Network
from tests.factories.offline import OfflineCard, new_chain
from tests.integration.authorization.test_offline import available


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database)
    yield made
    for books in (made.issuer_db, made.acquirer_db):
        assert check_invariants(books.owner_engine) == []
    made.close()


@dataclass
class Copied:
    """A card whose copy has paid twice: 800 and 300 are owed, and disputed."""

    network: Network
    card: OfflineCard
    payments: list[TerminalAnswer]

    def decide(self, amount: int, txid: bytes, *, made_by: str = "maker") -> AdjustmentOutcome:
        engine, number = self.network.issuer_db.engine, next(_NUMBERS)
        now = self.card.now
        made = propose_adjustment(
            engine, ISSUER, account_id=self.card.card.account_id, amount=amount, currency="CNY",
            reason="copied card", made_by=made_by, idempotency_key=f"p{number}", now=now,
            disputed=txid,
        )  # fmt: skip
        if made.outcome is not AdjustmentOutcome.DONE:
            return made.outcome
        return approve_adjustment(
            engine, ISSUER, made.adjustment_id or 0, checked_by="checker",
            idempotency_key=f"a{number}", now=now,
        ).outcome  # fmt: skip

    def load(self, amount: int) -> None:
        done = load_card(
            self.network.issuer_db.engine, ISSUER, card_token=self.card.card.card_token,
            amount=amount, currency="CNY", reference="load", now=self.card.now,
            idempotency_key=f"load {next(_NUMBERS)}",
        )  # fmt: skip
        assert done.outcome is LoadOutcome.DONE


_NUMBERS = itertools.count()


@pytest.fixture
def copied(network: Network) -> Copied:
    card, chain = OfflineCard(network.card(500), network), new_chain()
    assert network.one(card.advice(card.record(chain, 100), 100)).amount == 100
    payments = [network.one(card.advice(card.record(chain, n, atc=1), n)) for n in (800, 300)]
    assert available(network, card) == (400, 0, 1_100)
    return Copied(network, card, payments)


def test_what_is_disputed_is_not_taken_from_the_next_load(copied: Copied) -> None:
    copied.load(5_000)
    assert available(copied.network, copied.card) == (5_400, 0, 1_100)
    # A debt that nobody disputes is repaid as ever, and no more than it.
    copied.network.one(copied.network.request(copied.card.card, 6_000, Kind.ADVICE, pin=None))
    assert available(copied.network, copied.card) == (0, 0, 1_700)
    copied.load(1_000)
    assert available(copied.network, copied.card) == (400, 0, 1_100)


def test_people_decide_who_bears_a_copys_payment(copied: Copied) -> None:
    first, second = (payment.txid or b"" for payment in copied.payments)
    assert copied.decide(801, first) is AdjustmentOutcome.OVER_DISPUTED
    assert copied.decide(800, bytes(32)) is AdjustmentOutcome.OVER_DISPUTED
    assert copied.decide(300, second, made_by="checker") is AdjustmentOutcome.MAKER_IS_CHECKER
    assert copied.decide(500, first) is AdjustmentOutcome.DONE
    assert available(copied.network, copied.card) == (400, 0, 600), "the issuer bears 500"
    # The holder bears the rest: what is there pays at once, the remainder is a debt as any other.
    assert copied.decide(-300, first) is AdjustmentOutcome.DONE
    assert available(copied.network, copied.card) == (100, 0, 300)
    assert copied.decide(-1, first) is AdjustmentOutcome.OVER_DISPUTED
    assert copied.decide(-300, second) is AdjustmentOutcome.DONE
    assert available(copied.network, copied.card) == (0, 0, 200)
    copied.load(1_000)
    assert available(copied.network, copied.card) == (800, 0, 0)


def test_the_merchants_refund_ends_a_dispute_of_its_own_payment_alone(copied: Copied) -> None:
    first, second = copied.payments
    network, card = copied.network, copied.card
    refund = network.request(card.card, 300, Kind.REFUND, rrn=second.rrn)
    assert network.one(refund).outcome is Outcome.APPROVED
    assert available(network, card) == (400, 0, 800)
    assert copied.decide(-300, second.txid or b"") is AdjustmentOutcome.OVER_DISPUTED
    assert copied.decide(800, first.txid or b"") is AdjustmentOutcome.DONE
    assert available(network, card) == (400, 0, 0)
    copied.load(100)
    assert available(network, card) == (500, 0, 0)
