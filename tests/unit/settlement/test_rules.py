"""What a statement says, over all sums; and what its hash binds."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.clearing.model import Close, DayItems, DayKey, Item, Totals
from nodes.clearing.rules.closing import totals_of
from nodes.settlement.model import OrderOutcome, Settlement, StatementState
from nodes.settlement.rules import (
    Statement,
    may_countersign,
    may_dispute,
    may_propose,
    may_resolve,
    statement_hash,
)

KEY = DayKey("meridian", "aurora", "CNY", date(2026, 11, 20))
SALT = bytes(range(32))
NOW = datetime(2026, 11, 21, tzinfo=UTC)
amounts = st.integers(0, 10**15)
effects = st.lists(st.integers(-(10**12), 10**12), max_size=60)


@given(effects)
def test_what_is_paid_is_the_sum_of_what_each_item_moved(moved: list[int]) -> None:
    items = DayItems.of(
        Item(hashlib.sha256(str(n).encode()).digest(), bytes(32), effect)
        for n, effect in enumerate(moved)
    )
    statement = Statement(KEY, 0, totals_of(items))
    assert statement.balance == sum(moved)
    assert statement.net == abs(sum(moved))
    assert statement.gross == sum(map(abs, moved))
    # Paying it leaves nobody owing anything.
    paid = {KEY.acquirer: 0, KEY.issuer: 0}
    if statement.payer is not None and statement.payee is not None:
        paid[statement.payer] -= statement.net
        paid[statement.payee] += statement.net
    assert paid == {KEY.acquirer: sum(moved), KEY.issuer: -sum(moved)}


@given(amounts, amounts)
def test_swapping_debits_and_credits_swaps_payer_and_payee(debits: int, credits: int) -> None:
    one = Statement(KEY, 0, Totals(2, debits, credits))
    other = Statement(KEY, 0, Totals(2, credits, debits))
    assert (one.payer, one.payee, one.net) == (other.payee, other.payer, other.net)
    assert (one.payer is None) == (debits == credits)


def test_the_hash_is_what_the_document_says() -> None:
    """Written out anew after docs/settlement.md."""

    def word(text: str) -> bytes:
        return text.encode().ljust(32, b"\0")

    def number(value: int) -> bytes:
        return value.to_bytes(32, "big")

    preimage = (
        b"countersign/settlement/1"
        + SALT
        + word("meridian")
        + word("aurora")
        + word("CNY")
        + b"".join(map(number, (20261120, 3, 7, 1_500, 400)))
        + word("aurora")
        + word("meridian")
        + number(1_100)
    )
    statement = Statement(KEY, 3, Totals(7, 1_500, 400))
    assert statement_hash(statement, SALT) == hashlib.sha256(preimage).digest()


BASE = Statement(KEY, 1, Totals(5, 900, 300))
OTHERS = [
    replace(BASE, revision=2),
    replace(BASE, totals=Totals(6, 900, 300)),
    replace(BASE, totals=Totals(5, 901, 301)),  # the same net
    replace(BASE, totals=Totals(5, 300, 900)),
    replace(BASE, key=replace(KEY, currency="USD")),
    replace(BASE, key=replace(KEY, business_date=date(2026, 11, 21))),
    replace(BASE, key=replace(KEY, acquirer="aurora", issuer="meridian")),
]


def test_the_hash_binds_everything_and_the_salt() -> None:
    hashes = {statement_hash(statement, SALT) for statement in [BASE, *OTHERS]}
    assert len(hashes) == len(OTHERS) + 1
    assert statement_hash(BASE, bytes(32)) not in hashes


def settlement(state: StatementState, **changes: object) -> Settlement:
    close = Close(KEY, 1, "issuer", 1, BASE.totals, *[bytes(32)] * 3, 0, 0, 0, 9)
    made = Settlement(
        settlement_id=bytes(32),
        close=close,
        proposer="meridian",
        statement_hash=bytes(32),
        supersedes=None,
        nonce=0,
        deadline=NOW + timedelta(hours=1),
        agrees=True,
        state=state,
        steps=1,
        since=NOW,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", list(StatementState))
def test_only_the_others_open_proposal_is_countersigned(state: StatementState) -> None:
    outcome = may_countersign(settlement(state), "aurora", NOW)
    wanted = StatementState.PROPOSED
    assert (outcome is OrderOutcome.DONE) == (state is wanted)
    one = settlement(wanted)
    assert may_countersign(one, "meridian", NOW) is OrderOutcome.NOT_TO_SIGN
    assert may_countersign(replace(one, agrees=False), "aurora", NOW) is OrderOutcome.BOOKS_DIFFER
    late = NOW + timedelta(hours=2)
    assert may_countersign(one, "aurora", late) is OrderOutcome.DEADLINE_PASSED
    signed = replace(one, signed=frozenset({"aurora"}))
    assert may_countersign(signed, "aurora", NOW) is OrderOutcome.NOT_TO_SIGN


@pytest.mark.parametrize("state", list(StatementState))
def test_disputes_and_resolutions_have_their_state_and_time(state: StatementState) -> None:
    until = NOW + timedelta(hours=1)
    one = settlement(state, disputable_until=until)
    assert (may_dispute(one, NOW) is OrderOutcome.DONE) == (state is StatementState.CONFIRMED)
    assert may_dispute(one, until + timedelta(seconds=1)) is OrderOutcome.NOT_DISPUTABLE
    allowed = may_resolve(one, until, NOW) is OrderOutcome.DONE
    assert allowed == (state is StatementState.DISPUTED)
    assert may_resolve(one, NOW - timedelta(seconds=1), NOW) is not OrderOutcome.DONE


def test_a_close_has_one_statement_that_stands() -> None:
    assert may_propose(False, []) is OrderOutcome.CLOSE_NOT_CONFIRMED
    assert may_propose(True, []) is OrderOutcome.DONE
    free = {StatementState.EXPIRED, StatementState.LAPSED, StatementState.SUPERSEDED}
    for state in set(StatementState) - {StatementState.RESOLVED}:
        wanted = OrderOutcome.DONE if state in free else OrderOutcome.ALREADY_SETTLED
        assert may_propose(True, [settlement(state)]) is wanted, state
    upheld = settlement(StatementState.RESOLVED, verdict="UPHELD")
    annulled = settlement(StatementState.RESOLVED, verdict="ANNULLED")
    assert may_propose(True, [upheld]) is OrderOutcome.ALREADY_SETTLED
    assert may_propose(True, [annulled]) is OrderOutcome.DONE
