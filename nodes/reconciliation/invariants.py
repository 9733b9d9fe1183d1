"""The invariants of a node's database, looked at in one snapshot (docs/invariants.md by number).

Most hold by constraint, right or trigger; this check is the second pair of eyes, and finds what was
done with those set aside. The statements are in statements.py, log_statements.py,
offline_statements.py and others of such a name; what SQL can't read (the roots of the log, the
snapshots of accounts) is looked at here and in account_states.py. Comparing
with what clients saw (6, 7) is possible only as far as the database remembers the requests; the
rest is for the client histories of the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice

import psycopg
import sqlalchemy

from nodes.anchoring import tree
from nodes.anchoring.store import Connection, transaction
from nodes.chain.anchors import Anchored
from nodes.crypto.merkle import EMPTY_ROOT
from nodes.reconciliation.account_states import broken_states
from nodes.reconciliation.form_statements import FORMS
from nodes.reconciliation.log_statements import ANSWERS, GUARDS, LEDGER_TABLES, LOG
from nodes.reconciliation.offline_statements import OFFLINE
from nodes.reconciliation.settlement_statements import SETTLEMENTS
from nodes.reconciliation.shard_statements import SHARDS
from nodes.reconciliation.statements import MONEY, ONCE, SEQUENCES

#: So many violations of one statement are listed.
_LISTED = 20
#: Joins of millions of rows are hashed in memory.
_WORK_MEMORY = "128MB"
_LEAVES = "SELECT leaf FROM log_leaves WHERE log_index >= %s AND log_index < %s ORDER BY log_index"
_STATEMENTS = (
    *MONEY,
    *ONCE,
    *SEQUENCES,
    *LOG,
    *ANSWERS,
    *GUARDS,
    *OFFLINE,
    *SETTLEMENTS,
    *SHARDS,
    *FORMS,
)


@dataclass(frozen=True, slots=True)
class Violation:
    """One invariant's number, what it says, and which row breaks it."""

    invariant: int
    rule: str
    detail: str

    def __str__(self) -> str:
        return f"invariant {self.invariant}, {self.rule}: {self.detail}"


def check_invariants(
    engine: sqlalchemy.Engine,
    *,
    max_unsealed_s: float | None = None,
    anchors: Mapping[int, Anchored] | None = None,
) -> list[Violation]:
    """All violations, in one REPEATABLE READ snapshot.

    `max_unsealed_s`: also refuse rows that have waited longer for sealing. `anchors`: the member's
    anchors, read from the chain before; every root is then compared with them too.
    """
    with transaction(engine, "REPEATABLE READ") as connection:
        connection.execute("SET TRANSACTION READ ONLY")
        return violations(connection, max_unsealed_s=max_unsealed_s, anchors=anchors)


def violations(
    connection: Connection,
    *,
    max_unsealed_s: float | None = None,
    anchors: Mapping[int, Anchored] | None = None,
) -> list[Violation]:
    """All violations that the connection's transaction sees."""
    found: list[Violation] = []
    connection.execute(f"SET LOCAL work_mem = '{_WORK_MEMORY}'")
    connection.execute("SET LOCAL jit = off")
    parameters = {"empty": EMPTY_ROOT, "ledger": list(LEDGER_TABLES)}
    for number, rule, statement in _STATEMENTS:
        found += _broken(connection, number, rule, statement, parameters)
    if max_unsealed_s is not None:
        found += _broken(
            connection,
            12,
            "no row waits longer than that for sealing",
            "SELECT format('transaction %s since %s', transaction_id, recorded_at)"
            " FROM transactions AS t WHERE recorded_at < clock_timestamp() - make_interval("
            "secs => %(age)s) AND NOT EXISTS (SELECT FROM log_leaves AS l"
            " WHERE l.transaction_id = t.transaction_id)",
            {"age": max_unsealed_s},
        )
    found += [
        Violation(number, rule, detail)
        for number, rule, detail in islice(broken_states(connection), _LISTED)
    ]
    return sorted([*found, *_roots(connection, anchors or {})], key=lambda v: v.invariant)


def _broken(
    connection: Connection,
    number: int,
    rule: str,
    statement: str,
    parameters: Mapping[str, object],
) -> Iterable[Violation]:
    # In `format` a per cent sign is PostgreSQL's; psycopg wants those doubled.
    named = statement.replace("%", "%%")
    for name in parameters:
        named = named.replace(f"%%({name})s", f"%({name})s")
    try:
        with connection.transaction():
            # Materialized: a plan for the first rows would look every row up.
            listed = f"WITH found AS MATERIALIZED ({named}) SELECT * FROM found LIMIT {_LISTED}"
            rows = connection.execute(listed, parameters).fetchall()
    except psycopg.DataError as error:
        reason = type(error).__name__
        return [Violation(number, rule, f"what is stored can't be read ({reason})")]
    return [Violation(number, rule, str(row[0])) for row in rows]


def _roots(connection: Connection, anchors: Mapping[int, Anchored]) -> Iterable[Violation]:
    """14: the roots of batches (and on the chain) are those of the leaves, computed anew.

    Other code than sealing's: a stack of equal-sized subtrees, merged from the leaves' own bytes.
    """
    rule = "the root is the one recomputed from the rows"
    cursor = connection.cursor(binary=True)
    stack: list[bytes] = []
    roots: dict[int, bytes] = {}
    seq, first, count = 1, 0, 0
    for batch in _all_batches(connection):
        for (leaf,) in cursor.execute(_LEAVES, (first, batch[1])):
            node, merged = sha256(b"\0" + leaf).digest(), count
            while merged & 1:
                node = sha256(b"\1" + stack.pop() + node).digest()
                merged >>= 1
            stack.append(node)
            count += 1
        seq, first = batch[0], batch[1]
        root = tree.bag(stack)
        roots[seq] = root
        if root != batch[2]:
            yield Violation(14, rule, f"batch {seq}")
    for seq, anchor in anchors.items():
        if roots.get(seq) != anchor.root:
            yield Violation(14, rule, f"anchor {seq} on the chain")


def _all_batches(connection: Connection) -> list[tuple[int, int, bytes]]:
    return [
        (seq, size, root)
        for seq, size, root in connection.execute(
            "SELECT seq, size, root FROM batches ORDER BY seq"
        )
    ]
