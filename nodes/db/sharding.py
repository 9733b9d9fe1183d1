"""How the tables that a payment writes are spread over the nodes of a Citus cluster.

One distribution column a table, in each of its unique keys: Citus compares keys within a shard only
(Citus documentation, create_distributed_table, Limitations). What stands together, is joined within
a shard. tests/integration/db/test_sharding.py holds the schema, and what payments write, to this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Distribution(NamedTuple):
    """By which column a table is distributed, and with which table its shards lie."""

    column: str
    colocate_with: str | None = None


#: Money by the card account (`shard`: nodes/ledger/model.py, shard_of). Messages by their own key:
#: the same message with another card must meet the first one.
DISTRIBUTED: Mapping[str, Distribution] = {
    "account_versions": Distribution("account_id"),
    "transactions": Distribution("shard", "account_versions"),
    "transfers": Distribution("shard", "account_versions"),
    "payment_progress": Distribution("shard", "account_versions"),
    "hold_deadlines": Distribution("account_id", "account_versions"),
    "authorization_requests": Distribution("idempotency_key"),
    "authorization_answers": Distribution("idempotency_key", "authorization_requests"),
}
#: One row a batch, a pair or a terminal, not one a payment: they stay whole, on the coordinator.
COORDINATOR = frozenset(
    {
        *("answer_signatures", "open_batches", "unsigned_answers", "reversal_queue"),
        *("pair_counters", "terminals", "events"),
    }
)


def statements() -> list[str]:
    """The statements that distribute a database's tables, in order."""
    return [
        f"SELECT create_distributed_table('{table}', '{way.column}'"
        + (f", colocate_with => '{way.colocate_with}'" if way.colocate_with else "")
        + ");"
        for table, way in DISTRIBUTED.items()
    ]
