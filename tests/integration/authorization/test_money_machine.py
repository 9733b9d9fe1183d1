"""A state machine over both databases, against a model that knows what terminals were told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from nodes.authorization.model import Kind, Outcome, TerminalAnswer, TerminalRequest
from tests.conftest import NodeDatabase
from tests.factories.network import Network
from tests.integration.authorization.test_money_paths import forward_reversals, in_both_books, rows

_START = 10_000
_AMOUNTS = st.integers(min_value=1, max_value=4_000)
#: Half of the amounts stand at the limit or one beside it: there the mistakes are.
_TRIED = st.one_of(
    _AMOUNTS.map(lambda amount: (False, amount)), st.tuples(st.just(True), st.integers(-1, 1))
)


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database)
    yield made
    made.close()


@dataclass
class Bought:
    """A purchase that a terminal was told is approved."""

    request: TerminalRequest
    answer: TerminalAnswer
    refunded: int = 0
    reversed: bool = False

    @property
    def net(self) -> int:
        return 0 if self.reversed else self.request.amount - self.refunded


def at_limit(tried: tuple[bool, int], limit: int) -> int:
    """An amount as drawn, or one at most 1 off the limit; at least 1."""
    at_edge, number = tried
    return max(1, limit + number) if at_edge else number


class Money(RuleBasedStateMachine):
    """Purchases, refunds, reversals and repeats, with the issuer away or its answers lost."""

    network: Network
    purchases = Bundle("purchases")
    unanswered = Bundle("unanswered")

    @initialize()
    def issue(self) -> None:
        self.card = self.network.card(_START)
        self.bought: list[Bought] = []
        self.network.link.down = self.network.link.lose_answer = False

    def expected(self) -> int:
        return _START - sum(bought.net for bought in self.bought)

    @rule(target=purchases, tried=_TRIED)
    def purchase(self, tried: tuple[bool, int]) -> object:
        amount = at_limit(tried, self.expected())
        request = self.network.request(self.card, amount)
        fits = amount <= self.expected()
        answer = self.network.one(request)
        assert answer.outcome is (Outcome.APPROVED if fits else Outcome.INSUFFICIENT_FUNDS)
        if not fits:
            return multiple()
        made = Bought(request, answer)
        self.bought.append(made)
        return made

    @rule(bought=purchases)
    def repeat(self, bought: Bought) -> None:
        assert self.network.one(bought.request) == bought.answer

    @rule(bought=purchases, tried=_TRIED)
    def refund(self, bought: Bought, tried: tuple[bool, int]) -> None:
        amount = at_limit(tried, bought.request.amount - bought.refunded)
        request = self.network.request(self.card, amount, Kind.REFUND, rrn=bought.answer.rrn)
        answer = self.network.one(request)
        if bought.reversed:
            assert answer.outcome is Outcome.ALREADY_REVERSED
        elif bought.refunded + amount > bought.request.amount:
            assert answer.outcome is Outcome.OVER_ORIGINAL_AMOUNT
        else:
            assert answer.outcome is Outcome.APPROVED
            bought.refunded += amount

    @rule(bought=purchases)
    def reverse(self, bought: Bought) -> None:
        answer = self.network.one(self.network.reversal_of(bought.request))
        if bought.refunded and not bought.reversed:
            assert answer.outcome is Outcome.ORIGINAL_MISMATCH
        else:
            assert answer.outcome is Outcome.APPROVED
            bought.reversed = True

    @rule(target=unanswered, amount=_AMOUNTS, decided=st.booleans())
    def purchase_without_answer(self, amount: int, decided: bool) -> TerminalRequest:
        request = self.network.request(self.card, amount)
        link = self.network.link
        link.lose_answer, link.down = decided, not decided
        answer = self.network.one(request)
        link.lose_answer = link.down = False
        assert answer.outcome is Outcome.ISSUER_UNAVAILABLE
        # Whether or not the issuer had decided: once the queue has run, nothing has moved.
        forward_reversals(self.network)
        return request

    @rule(request=consumes(unanswered))
    def the_terminal_reverses_too(self, request: TerminalRequest) -> None:
        assert self.network.one(self.network.reversal_of(request)).outcome is Outcome.APPROVED

    @rule(amount=_AMOUNTS)
    def reversal_first(self, amount: int) -> None:
        request = self.network.request(self.card, amount)
        assert self.network.one(self.network.reversal_of(request)).outcome is Outcome.APPROVED
        assert self.network.one(request).outcome is Outcome.REVERSED_BEFORE_ARRIVAL

    @invariant()
    def the_balance_is_what_terminals_were_told(self) -> None:
        assert self.network.balance(self.card) == self.expected()

    def teardown(self) -> None:
        in_both_books(self.network)


def test_money_moves_as_terminals_were_told(network: Network) -> None:
    machine = type("MoneyOnThisNetwork", (Money,), {"network": network})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    seqs = rows(network.acquirer_db, "SELECT terminal_seq FROM transactions ORDER BY 1")
    assert [row[0] for row in seqs] == list(range(1, len(seqs) + 1))
    query = "SELECT currency, sum(amount)::bigint FROM postings GROUP BY currency"
    for database in (network.issuer_db, network.acquirer_db):
        assert {total for _, total in rows(database, query)} <= {0}
