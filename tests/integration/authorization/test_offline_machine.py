"""A state machine over both databases: offline and online payments mixed, against a model of three
numbers. Uploads come late, twice, in any order, copied, and while the issuer is away."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from nodes.authorization.model import Kind, Outcome, TerminalAnswer, TerminalRequest
from nodes.authorization.operations.offline import ReserveOutcome
from nodes.authorization.rules.offline import MAX_RESERVE
from nodes.authorization.store import accounts
from nodes.crypto.offline_record import decode_record
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import NodeDatabase
from tests.factories.network import Network
from tests.factories.offline import OfflineCard, new_chain
from tests.integration.authorization.test_forwarding_advices import deliver

_AMOUNTS = st.integers(min_value=1, max_value=3_000)


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database)
    yield made
    made.close()


class OfflineMachine(RuleBasedStateMachine):
    """The model: what is available, reserved and owed; counters that were used."""

    network: Network
    advices: Bundle[TerminalRequest] = Bundle("advices")

    def __init__(self) -> None:
        super().__init__()
        self.network.link.down = False
        self.card = OfflineCard(self.network.card(5_000), self.network)
        self.chain = new_chain()
        self.available, self.reserved, self.owed, self.disputed = 5_000, 0, 0, 0
        self.told: dict[str, TerminalAnswer] = {}
        self.used: set[int] = set()
        self.pending: list[tuple[int, int]] = []

    def post(self, amount: int) -> None:
        """An offline payment: reserve, then purse, then debt."""
        drawn = min(amount, self.reserved)
        paid = min(amount - drawn, self.available)
        self.reserved -= drawn
        self.available -= paid
        self.owed += amount - drawn - paid

    def credit(self, amount: int) -> None:
        """What comes in repays first."""
        repaid = min(amount, self.owed)
        self.owed -= repaid
        self.available += amount - repaid

    @rule(amount=_AMOUNTS)
    def reserve(self, amount: int) -> None:
        made = self.card.reserve(amount)
        fits = amount <= self.available and self.reserved + amount <= MAX_RESERVE
        assert (made.outcome is ReserveOutcome.DONE) == fits
        if fits:
            self.available -= amount
            self.reserved += amount

    @rule(amount=_AMOUNTS)
    def release(self, amount: int) -> None:
        made = self.card.reserve(-amount)
        assert (made.outcome is ReserveOutcome.DONE) == (amount <= self.reserved)
        if amount <= self.reserved:
            self.reserved -= amount
            self.credit(amount)

    @rule(amount=_AMOUNTS)
    def pay_online(self, amount: int) -> None:
        if self.network.link.down:
            return
        told = self.network.one(self.network.request(self.card.card, amount))
        assert (told.outcome is Outcome.APPROVED) == (amount <= self.available)
        if told.outcome is Outcome.APPROVED:
            self.available -= amount

    @rule(amount=_AMOUNTS)
    def top_up(self, amount: int) -> None:
        if self.network.link.down:
            return
        request = self.network.request(self.card.card, amount, Kind.TOP_UP, pin=None)
        assert self.network.one(request).outcome is Outcome.APPROVED
        self.credit(amount)

    @rule(target=advices, amount=_AMOUNTS)
    def pay_offline(self, amount: int) -> TerminalRequest:
        return self.card.advice(self.card.record(self.chain, amount), amount)

    @rule(target=advices, amount=_AMOUNTS)
    def copy_the_card(self, amount: int) -> TerminalRequest:
        atc = max(1, self.card.atc)
        return self.card.advice(self.card.record(self.chain, amount, atc=atc), amount)

    @rule(advice=advices, days=st.integers(min_value=0, max_value=3))
    def upload(self, advice: TerminalRequest, days: int) -> None:
        self.network.clock.advance(days * 86_400_000)
        told = self.network.one(advice)
        if advice.stan in self.told:
            assert told == self.told[advice.stan], "a repeat gets what was told first"
            return
        self.told[advice.stan] = told
        atc = decode_record(advice.offline or b"").atc
        if self.network.link.down:
            assert told.outcome is Outcome.APPROVED
            self.pending.append((atc, advice.amount))
        else:
            assert told.outcome is Outcome.APPROVED
            self._posted(atc, advice.amount)

    def _posted(self, atc: int, amount: int) -> None:
        if atc not in self.used:
            self.used.add(atc)
            self.post(amount)
        else:
            self.disputed += amount  # a copy's: it draws on nothing, and no credit repays it

    @rule()
    def issuer_goes(self) -> None:
        self.network.link.down = True

    @rule()
    def issuer_comes_back(self) -> None:
        self.network.link.down = False
        if self.pending:
            deliver(self.network)
            for atc, amount in self.pending:
                self._posted(atc, amount)
            self.pending.clear()

    @invariant()
    def the_books_say_what_the_model_says(self) -> None:
        with psycopg.connect(self.network.issuer_db.dsn) as connection:
            number = self.card.card.account_id
            account = accounts.holders(connection, [number], {})[number].account
        found = (account.available, sum(account.offline.values()), account.receivable)
        assert found == (self.available, self.reserved, self.owed + self.disputed)

    def teardown(self) -> None:
        self.issuer_comes_back()
        self.the_books_say_what_the_model_says()
        for database in (self.network.issuer_db, self.network.acquirer_db):
            assert check_invariants(database.owner_engine) == []


def test_offline_and_online_payments_mixed(network: Network) -> None:
    class Machine(OfflineMachine):
        pass

    Machine.network = network
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
