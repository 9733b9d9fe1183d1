"""Payments of which people decide who bears them: a copied card's, and what a holder disputes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from nodes.authorization.model import Kind, Outcome, TerminalAnswer
from nodes.authorization.operations.adjusting import (
    AdjustmentOutcome,
    approve_adjustment,
    propose_adjustment,
)
from nodes.authorization.operations.disputing import (
    DisputeOutcome,
    DisputeResult,
    close_dispute,
    open_dispute,
)
from nodes.authorization.operations.own import LoadOutcome, load_card
from nodes.cards.model import IssuedCard
from nodes.clock import to_datetime
from nodes.db import migrations
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import NodeDatabase
from tests.factories.network import ACQUIRER, ISSUER, Network
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


def test_what_the_issuer_bears_of_a_copys_payment_is_not_refunded_to_the_holder(
    copied: Copied,
) -> None:
    first = copied.payments[0]
    network, card = copied.network, copied.card
    assert copied.decide(500, first.txid or b"") is AdjustmentOutcome.DONE
    for amount, outcome in ((301, Outcome.OVER_ORIGINAL_AMOUNT), (300, Outcome.APPROVED)):
        refund = network.request(card.card, amount, Kind.REFUND, rrn=first.rrn)
        assert network.one(refund).outcome is outcome
    assert available(network, card) == (400, 0, 300), "the second payment's debt is left"


@dataclass
class Bought:
    """A card of 1,000 that has paid 400, which its holder may dispute."""

    network: Network
    card: IssuedCard
    rrn: str
    txid: bytes

    def dispute(self, amount: int | None = None, key: str = "") -> DisputeResult:
        return open_dispute(
            self.network.issuer_db.engine, ISSUER, txid=self.txid, amount=amount,
            reason="never came", opened_by="mei", idempotency_key=key or f"d{next(_NUMBERS)}",
            now=to_datetime(self.network.clock.now_ms()),
        )  # fmt: skip

    def give_back(self, amount: int) -> AdjustmentOutcome:
        engine, number = self.network.issuer_db.engine, next(_NUMBERS)
        now = to_datetime(self.network.clock.now_ms())
        made = propose_adjustment(
            engine, ISSUER, account_id=self.card.account_id, amount=amount, currency="CNY",
            reason="never came", made_by="mei", idempotency_key=f"p{number}", now=now,
            disputed=self.txid,
        )  # fmt: skip
        if made.outcome is not AdjustmentOutcome.DONE:
            return made.outcome
        return approve_adjustment(
            engine, ISSUER, made.adjustment_id or 0, checked_by="lin",
            idempotency_key=f"a{number}", now=now,
        ).outcome  # fmt: skip

    def close(self, dispute_id: int) -> DisputeOutcome:
        return close_dispute(
            self.network.issuer_db.engine, dispute_id, closed_by="mei", reason="withdrawn",
            now=to_datetime(self.network.clock.now_ms()),
        )  # fmt: skip

    def refund(self, amount: int) -> Outcome:
        asked = self.network.request(self.card, amount, Kind.REFUND, rrn=self.rrn)
        return self.network.one(asked).outcome

    @property
    def available(self) -> int | None:
        asked = self.network.request(self.card, 0, Kind.BALANCE_INQUIRY)
        return self.network.one(asked).available


@pytest.fixture
def bought(network: Network) -> Bought:
    card = network.card(1_000)
    answer = network.one(network.request(card, 400))
    assert answer.txid is not None
    return Bought(network, card, answer.rrn, answer.txid)


def test_a_refund_under_an_open_dispute_is_refused_until_it_is_closed(bought: Bought) -> None:
    assert bought.refund(50) is Outcome.APPROVED
    # The engine keeps the account in its memory; the dispute is another process's version of it.
    opened = bought.dispute()
    assert opened.outcome is DisputeOutcome.DONE
    assert bought.refund(10) is Outcome.UNDER_DISPUTE
    void = bought.network.request(bought.card, 400, Kind.VOID, rrn=bought.rrn)
    assert bought.network.one(void).outcome is not Outcome.APPROVED
    assert bought.available == 650
    assert bought.dispute().outcome is DisputeOutcome.UNDER_DISPUTE
    assert bought.close(opened.dispute_id or 0) is DisputeOutcome.DONE
    assert bought.close(opened.dispute_id or 0) is DisputeOutcome.DISPUTE_CLOSED
    assert bought.close(999) is DisputeOutcome.DISPUTE_UNKNOWN
    assert bought.refund(10) is Outcome.APPROVED
    assert bought.available == 660


def test_a_dispute_is_opened_once_a_key(bought: Bought) -> None:
    first = bought.dispute(100, key="one")
    assert bought.dispute(100, key="one") == first
    assert bought.dispute(101, key="one").outcome is DisputeOutcome.KEY_REUSED


def test_nobody_gets_a_payment_back_from_the_issuer_and_the_merchant(bought: Bought) -> None:
    assert bought.dispute(300).outcome is DisputeOutcome.DONE
    assert bought.give_back(301) is AdjustmentOutcome.OVER_DISPUTED
    assert bought.give_back(-300) is AdjustmentOutcome.OVER_DISPUTED, "he has paid it already"
    assert bought.give_back(300) is AdjustmentOutcome.DONE
    assert bought.available == 900
    assert bought.refund(101) is Outcome.OVER_ORIGINAL_AMOUNT
    assert bought.refund(100) is Outcome.APPROVED
    assert bought.available == 1_000
    nothing_left = bought.dispute()
    assert nothing_left.outcome is DisputeOutcome.OVER_ORIGINAL_AMOUNT


def test_what_a_reversal_gave_back_is_disputed_no_more(bought: Bought) -> None:
    network = bought.network
    asked = network.request(bought.card, 200)
    answer = network.one(asked)
    other = Bought(network, bought.card, answer.rrn, answer.txid or b"")
    opened = other.dispute()
    assert opened.outcome is DisputeOutcome.DONE
    half = network.reversal_of(asked, amount=100)
    assert network.one(half).outcome is Outcome.APPROVED
    assert other.give_back(101) is AdjustmentOutcome.OVER_DISPUTED
    assert other.give_back(100) is AdjustmentOutcome.DONE
    assert other.available == 600, "the first purchase's 400 are gone, the second's are back"
    assert other.close(opened.dispute_id or 0) is DisputeOutcome.DISPUTE_CLOSED


def ends(network: Network) -> list[Any]:
    with psycopg.connect(network.issuer_db.dsn) as connection:
        return connection.execute(
            "SELECT ended_as, closed_by, closing_reason FROM disputes ORDER BY dispute_id"
        ).fetchall()


def test_a_reversal_ends_the_dispute_of_its_payment_and_says_so(bought: Bought) -> None:
    """In the reversal's own commit: nobody finds it open with nothing left."""
    network = bought.network
    asked = network.request(bought.card, 200)
    answer = network.one(asked)
    other = Bought(network, bought.card, answer.rrn, answer.txid or b"")
    opened = [one.dispute() for one in (bought, other)]
    assert network.one(network.reversal_of(asked)).outcome is Outcome.APPROVED
    assert ends(network) == [
        (None, None, None), ("reversed", ACQUIRER, "reversed by the terminal"),
    ]  # fmt: skip
    assert other.close(opened[1].dispute_id or 0) is DisputeOutcome.DISPUTE_CLOSED
    assert other.dispute().outcome is DisputeOutcome.ALREADY_REVERSED
    assert bought.give_back(400) is AdjustmentOutcome.DONE
    assert ends(network)[0][0] == "given_back"


def test_a_part_that_is_reversed_leaves_the_dispute_of_the_rest_open(bought: Bought) -> None:
    network = bought.network
    asked = network.request(bought.card, 200)
    answer = network.one(asked)
    other = Bought(network, bought.card, answer.rrn, answer.txid or b"")
    opened = other.dispute()
    assert network.one(network.reversal_of(asked, amount=150)).outcome is Outcome.APPROVED
    assert ends(network) == [(None, None, None)]
    assert other.close(opened.dispute_id or 0) is DisputeOutcome.DONE
    assert ends(network) == [("dropped", "mei", "withdrawn")]


def test_a_dispute_that_is_open_over_nothing_is_found(bought: Bought) -> None:
    assert bought.dispute().outcome is DisputeOutcome.DONE
    with psycopg.connect(bought.network.issuer_db.owner_dsn) as connection:
        connection.execute(
            "INSERT INTO disputes (txid, account_id, amount, currency, reason, opened_by,"
            " opened_at) SELECT sha256('x'), account_id, 1, currency, 'x', 'x', now()"
            " FROM disputes"
        )
    owner = bought.network.issuer_db.owner_engine
    assert [found.invariant for found in check_invariants(owner)] == [2]
    with psycopg.connect(bought.network.issuer_db.owner_dsn) as connection:
        connection.execute(
            "UPDATE disputes SET closed_by = 'x', closed_at = now(), closing_reason = 'x',"
            " ended_as = 'dropped' WHERE txid = sha256('x')"
        )


def test_only_what_was_paid_is_disputed(bought: Bought) -> None:
    unknown = Bought(bought.network, bought.card, "", bytes(32))
    assert unknown.dispute().outcome is DisputeOutcome.PAYMENT_UNKNOWN
    declined = bought.network.one(bought.network.request(bought.card, 9_999))
    refused = Bought(bought.network, bought.card, declined.rrn, declined.txid or b"")
    assert refused.dispute().outcome is DisputeOutcome.PAYMENT_UNKNOWN
    assert bought.dispute(401).outcome is DisputeOutcome.OVER_ORIGINAL_AMOUNT


def test_the_migration_closes_what_a_reversal_had_ended_before_it(bought: Bought) -> None:
    """Until 0017 such a dispute stayed open; how others ended, their closing reason says."""
    network = bought.network
    asked, other = network.request(bought.card, 200), network.request(bought.card, 100)
    disputed = [bought]
    for request in (asked, other):
        answer = network.one(request)
        disputed.append(Bought(network, bought.card, answer.rrn, answer.txid or b""))
    opened = [one.dispute() for one in disputed]
    assert bought.give_back(400) is AdjustmentOutcome.DONE
    assert network.one(network.reversal_of(asked)).outcome is Outcome.APPROVED
    assert disputed[2].close(opened[2].dispute_id or 0) is DisputeOutcome.DONE
    after = [row[0] for row in ends(network)]
    assert after == ["given_back", "reversed", "dropped"]
    script = (Path(migrations.__file__).parent / "versions" / "0017_ended_offline.sql").read_text(
        encoding="utf-8"
    )
    changes = re.findall(r"^UPDATE disputes.*?;", script, re.DOTALL | re.MULTILINE)
    assert len(changes) == 2
    with psycopg.connect(network.issuer_db.owner_dsn) as connection:
        connection.execute("ALTER TABLE disputes DROP CONSTRAINT disputes_ended_as")
        connection.execute(
            "UPDATE disputes SET ended_as = NULL, closed_by = CASE WHEN ended_as <> 'reversed'"
            " THEN closed_by END, closed_at = CASE WHEN ended_as <> 'reversed' THEN closed_at END,"
            " closing_reason = CASE WHEN ended_as <> 'reversed' THEN closing_reason END"
        )
        for change in changes:
            connection.execute(change)
    assert [row[0] for row in ends(network)] == after
    assert ends(network)[1] == ("reversed", ACQUIRER, "reversed by the terminal")
