"""Two operating-system processes of one issuer on one database: each money path holds between them.

test_two_engines has the same within one process, where a test can choose the very moment; here the
moments are the machine's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from nodes.authorization.controls import Terms
from nodes.authorization.model import AuthorizationAnswer, AuthorizationRequest, Kind, Outcome
from nodes.authorization.operations.expiring import expire_holds
from nodes.authorization.operations.standing import set_card_status
from nodes.cards.model import CardOutcome, CardStatus
from nodes.clock import to_datetime
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import Cluster
from tests.factories.issuing import ISSUER, IssuingHouse, approved
from tests.integration.authorization.node_process import NodeProcess

ROUNDS = 8
#: So far ahead both processes are told when to begin.
_AHEAD_S = 0.02


class Pair:
    """The house and two processes of it."""

    def __init__(self, house: IssuingHouse) -> None:
        self.house = house
        self.processes = (NodeProcess(house), NodeProcess(house))

    def begin(self, *shares: Sequence[AuthorizationRequest]) -> None:
        """Both begin at one moment with their share."""
        at = time.time() + _AHEAD_S
        for process, share in zip(self.processes, shares, strict=True):
            process.ask(at, self.house.clock.now_ms(), share)

    def ended(self) -> list[AuthorizationAnswer]:
        """The answers of the first, then those of the second."""
        return [answer for process in self.processes for answer in process.answers()]

    def both(self, *shares: Sequence[AuthorizationRequest]) -> list[Outcome]:
        self.begin(*shares)
        return [answer.outcome for answer in self.ended()]


@pytest.fixture(scope="module")
def pair(cluster: Cluster) -> Iterator[Pair]:
    database = cluster.new_database()
    house = IssuingHouse(database)
    # Before the processes start: running ones read products once a second.
    house.product("three", Terms(uses=3))
    house.product("short", Terms(hold_seconds=60))
    made = Pair(house)
    yield made
    for process in made.processes:
        process.close()
    assert check_invariants(database.engine) == []
    cluster.drop(database)


def test_a_hold_and_a_purchase_take_the_last_money_once(pair: Pair) -> None:
    house = pair.house
    for _ in range(ROUNDS):
        card = house.card(1_000)
        holding = house.request(Kind.AUTHORIZATION, 600, card)
        buying = house.request(Kind.PURCHASE, 401, card)
        assert approved(pair.both([holding], [buying])) == 1
        account = house.account(card)
        assert account.balance - account.held in (400, 599)


def test_a_card_of_three_uses_is_used_three_times(pair: Pair) -> None:
    house = pair.house
    for _ in range(ROUNDS):
        card = house.card(10_000, "three")
        asked = [house.request(Kind.PURCHASE, 10, card) for _ in range(8)]
        outcomes = pair.both(asked[::2], asked[1::2])
        assert approved(outcomes) == 3
        assert set(outcomes) == {Outcome.APPROVED, Outcome.USES_EXHAUSTED}
        assert house.account(card).balance == 9_970


def test_refunds_give_back_no_more_than_was_paid(pair: Pair) -> None:
    house = pair.house
    for _ in range(ROUNDS):
        card = house.card(1_000)
        bought = house.request(Kind.PURCHASE, 500, card)
        pair.both([bought], [])
        asked = [house.request(Kind.REFUND, 300, original=bought) for _ in range(4)]
        assert approved(pair.both(asked[::2], asked[1::2])) == 1
        assert house.account(card).balance == 800


def test_a_reversal_and_its_original_have_no_effect_together(pair: Pair) -> None:
    house = pair.house
    for turn in range(ROUNDS):
        card = house.card(1_000)
        bought = house.request(Kind.PURCHASE, 500, card)
        undone = house.request(Kind.REVERSAL, 500, original=bought)
        shares = ([bought], [undone]) if turn % 2 else ([undone], [bought])
        outcomes = pair.both(*shares)
        assert outcomes[turn % 2] is Outcome.APPROVED, "the reversal"
        assert outcomes[1 - turn % 2] in (Outcome.APPROVED, Outcome.REVERSED_BEFORE_ARRIVAL)
        assert house.account(card).balance == 1_000


def test_a_hold_is_captured_or_expires(pair: Pair) -> None:
    """The capture comes in the hold's last millisecond by its process's clock, and the sweep of
    another process, whose clock is a little ahead, finds the hold due."""
    house = pair.house
    for _ in range(ROUNDS):
        card = house.card(1_000, "short")
        held = house.request(Kind.AUTHORIZATION, 600, card)
        pair.both([held], [])
        house.clock.advance(59_999)
        pair.begin([house.request(Kind.CAPTURE, 600, original=held)], [])
        time.sleep(_AHEAD_S)
        later_ms = house.clock.now_ms() + 2
        expire_holds(house.database.engine, ISSUER, later_ms, "Asia/Shanghai")
        [answer] = pair.ended()
        house.clock.advance(2)
        account = house.account(card)
        assert (account.held, account.holds) == (0, ())
        taken = answer.outcome is Outcome.APPROVED
        assert taken or answer.outcome is Outcome.HOLD_ENDED
        assert account.balance == (400 if taken else 1_000)


def test_nothing_is_approved_after_a_freeze_was_answered(pair: Pair) -> None:
    house = pair.house
    for _ in range(ROUNDS):
        card = house.card(1_000)
        asked = [house.request(Kind.PURCHASE, 10, card) for _ in range(12)]
        pair.begin(asked[::2], asked[1::2])
        time.sleep(_AHEAD_S)
        changed = set_card_status(
            house.database.engine,
            card.card_token,
            CardStatus.BLOCKED,
            actor="ops",
            reason="customer's wish",
            now=to_datetime(house.clock.now_ms()),
        )
        assert changed is CardOutcome.DONE
        during = [answer.outcome for answer in pair.ended()]
        assert set(during) <= {Outcome.APPROVED, Outcome.CARD_BLOCKED}
        after = [house.request(Kind.PURCHASE, 10, card) for _ in range(2)]
        assert pair.both(after[:1], after[1:]) == [Outcome.CARD_BLOCKED] * 2
        assert house.account(card).balance == 1_000 - 10 * approved(during)
