"""The end of a day on two real databases and a real chain."""

from __future__ import annotations

from nodes.clearing.model import CloseStage
from tests.integration.clearing.institutions import Pair


def test_equal_days_are_confirmed_by_themselves(pair: Pair) -> None:
    pair.both(40)
    pair.work()
    assert (pair.acquirer.stage(), pair.issuer.stage()) == (CloseStage.CONFIRMED,) * 2
    seen = pair.round()
    assert seen.state.name == "CONFIRMED"
    assert seen.acquirer.close_root == seen.issuer.close_root
    assert pair.acquirer.cases() == pair.issuer.cases() == []
    [(count, debits, credits)] = pair.acquirer.rows("SELECT item_count, debits, credits FROM closes")
    assert count == 40
    settlement = pair.acquirer.rows(
        "SELECT coalesce(sum(p.amount), 0) FROM postings p JOIN accounts a USING (account_id)"
        " WHERE a.kind = 'settlement'"
    )
    assert debits - credits == -settlement[0][0]
