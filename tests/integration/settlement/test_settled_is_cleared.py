"""Invariant 16: what is settled is what was cleared; silent on sound books, planted ones found."""

from __future__ import annotations

import pytest

from nodes.reconciliation.invariants import check_invariants, violations
from nodes.reconciliation.settlement_statements import SETTLEMENTS
from tests.factories.tampering import unguarded
from tests.integration.clearing.institutions import Pair
from tests.integration.clearing.test_day_close import PAID

CLOSE, PASSED_OVER, IN_FORCE = (rule for _, rule, _ in SETTLEMENTS)

PLANTED = [
    (CLOSE, "UPDATE closes SET debits = debits + 1"),
    (CLOSE, "UPDATE closes SET item_count = item_count - 1"),
    (CLOSE, "UPDATE transactions SET amount = amount + 1 WHERE pair_seq = 2"),
    (CLOSE, "DELETE FROM transactions WHERE pair_seq = 3"),
    (PASSED_OVER, "DELETE FROM close_days"),
    (PASSED_OVER, "UPDATE transactions SET business_date = business_date - 1 WHERE pair_seq = 1"),
    (IN_FORCE, "UPDATE settlements SET agrees = false"),
    (IN_FORCE, "DELETE FROM close_stages WHERE stage = 'CONFIRMED'"),
    (IN_FORCE, "UPDATE settlements_in_force SET business_date = business_date + 1"),
]


def test_what_is_settled_is_what_was_cleared(pair: Pair) -> None:
    pair.both(6, **PAID)
    pair.work()
    pair.both(2, **PAID)  # rows that came after the close: the next revision
    pair.work(30)
    for one in (pair.acquirer, pair.issuer):
        assert one.rows("SELECT count(*) FROM closes") == [(2,)]
        assert one.rows("SELECT count(*) FROM settlements_in_force") == [(1,)]
        kept = [v for v in check_invariants(one.database.owner_engine) if v.invariant == 16]
        assert kept == []
        for rule, statement in PLANTED:
            with unguarded(one.database) as owner:
                assert owner.execute(statement).rowcount != 0, "the violation was not planted"
                found = {v.rule for v in violations(owner) if v.invariant == 16}
            assert rule in found, statement


def test_a_day_that_isnt_closed_yet_is_no_violation(pair: Pair) -> None:
    pair.both(3, **PAID)
    for one in (pair.acquirer, pair.issuer):
        assert [v for v in check_invariants(one.database.owner_engine) if v.invariant == 16] == []


@pytest.mark.parametrize("rule", [CLOSE, PASSED_OVER, IN_FORCE])
def test_each_rule_has_two_planted_violations(rule: str) -> None:
    assert [planted for planted, _ in PLANTED].count(rule) >= 2
