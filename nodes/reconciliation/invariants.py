"""The invariants of a node's database, looked at in one snapshot (docs/invariants.md by number).

Most hold by constraint, right or trigger; this check is the second pair of eyes, and finds what was
done with those set aside. Each statement returns what violates it; an empty result is good.
Comparing with what clients saw (6, 7) is possible here only as far as the database remembers the
requests; the rest is for the client histories of the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psycopg
import sqlalchemy

from nodes.anchoring import queries, tree
from nodes.anchoring.store import Connection, transaction
from nodes.chain.anchors import Anchored
from nodes.crypto.merkle import EMPTY_ROOT, leaf_hash, node_hash

#: So many violations of one statement are listed.
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Violation:
    """One invariant's number, what it says, and which row breaks it."""

    invariant: int
    rule: str
    detail: str

    def __str__(self) -> str:
        return f"invariant {self.invariant}, {self.rule}: {self.detail}"


_EFFECTS = """
    effects AS (
        SELECT t.transaction_id, t.side, t.kind, t.outcome, t.currency, t.amount, o.kind AS of_kind,
            CASE WHEN t.outcome <> 'approved' THEN 0
                WHEN t.kind IN ('purchase') THEN -t.amount
                WHEN t.kind IN ('refund', 'load') THEN t.amount
                WHEN t.kind = 'reversal' AND o.outcome = 'approved' THEN
                    CASE o.kind WHEN 'purchase' THEN o.amount WHEN 'refund' THEN -o.amount
                        ELSE 0 END
                ELSE 0 END AS to_cardholder
        FROM transactions AS t LEFT JOIN transactions AS o
            ON t.kind = 'reversal' AND o.txid = t.original_txid AND o.side = t.side
    )
"""

#: (invariant, what it says, a statement that returns one text for each violation)
_STATEMENTS: tuple[tuple[int, str, str], ...] = (
    (
        1,
        "a transfer moves a positive amount between two accounts of its currency",
        "SELECT format('transfer %s/%s', f.transaction_id, f.line) FROM transfers AS f"
        " LEFT JOIN transactions AS t USING (transaction_id)"
        " LEFT JOIN accounts AS d ON d.account_id = f.debit_account"
        " LEFT JOIN accounts AS c ON c.account_id = f.credit_account"
        " WHERE f.amount <= 0 OR f.debit_account = f.credit_account"
        " OR d.currency IS DISTINCT FROM f.currency OR c.currency IS DISTINCT FROM f.currency"
        " OR t.currency IS DISTINCT FROM f.currency",
    ),
    (
        1,
        "a transaction's transfers move what its kind and outcome say",
        f"WITH {_EFFECTS}, moved AS (SELECT transaction_id, sum(amount) AS amount FROM transfers"
        " GROUP BY 1)"
        " SELECT format('transaction %s: %s moved, %s expected', e.transaction_id,"
        " coalesce(m.amount, 0), abs(e.to_cardholder))"
        " FROM effects AS e LEFT JOIN moved AS m USING (transaction_id)"
        " WHERE coalesce(m.amount, 0) <> abs(e.to_cardholder)"
        # The merchant takes a reversal that came before its original as a pair without effect.
        " AND NOT (e.side = 'merchant' AND m.amount IS NULL)",
    ),
    (
        2,
        "balances and unsealed transfers of a currency add up to zero",
        "SELECT format('%s: %s', currency, sum(amount)) FROM ("
        " SELECT currency, balance AS amount FROM accounts UNION ALL"
        " SELECT p.currency, p.amount FROM postings AS p JOIN accounts AS a USING (account_id)"
        " LEFT JOIN log_leaves AS l USING (transaction_id)"
        " WHERE a.kind <> 'cardholder' AND l.transaction_id IS NULL) AS all_money"
        " GROUP BY currency HAVING sum(amount) <> 0",
    ),
    (
        2,
        "cardholders' balances are loads less spending plus what was given back",
        f"WITH {_EFFECTS}, owed AS (SELECT currency, sum(to_cardholder) AS amount FROM effects"
        " WHERE side = 'issuer' GROUP BY 1), held AS (SELECT currency, sum(balance) AS amount"
        " FROM accounts WHERE kind = 'cardholder' GROUP BY 1)"
        " SELECT format('%s: %s in accounts, %s by transactions', currency,"
        " coalesce(held.amount, 0), coalesce(owed.amount, 0))"
        " FROM owed FULL JOIN held USING (currency)"
        " WHERE coalesce(held.amount, 0) <> coalesce(owed.amount, 0)",
    ),
    (
        3,
        "a kept balance is the sum of its postings",
        "SELECT format('account %s: balance %s, postings %s', a.account_id, a.balance,"
        " coalesce(sum(p.amount), 0)) FROM accounts AS a LEFT JOIN postings AS p"
        " ON p.account_id = a.account_id AND (a.kind = 'cardholder' OR EXISTS (SELECT"
        " FROM log_leaves AS l WHERE l.transaction_id = p.transaction_id))"
        " GROUP BY a.account_id HAVING a.balance <> coalesce(sum(p.amount), 0)",
    ),
    (
        3,
        "a transfer's balance after it is the running sum",
        "SELECT format('transfer %s/%s', transaction_id, line) FROM (SELECT p.transaction_id,"
        " p.line, f.balance_after, sum(p.amount) OVER (PARTITION BY p.account_id"
        " ORDER BY p.transaction_id, p.line) AS running FROM postings AS p"
        " JOIN accounts AS a USING (account_id) JOIN transfers AS f USING (transaction_id, line)"
        " WHERE a.kind = 'cardholder') AS steps WHERE balance_after IS DISTINCT FROM running",
    ),
    (
        4,
        "no card is overdrawn",
        "SELECT format('account %s: available %s', account_id, balance - held + overdraft_limit)"
        " FROM accounts WHERE kind = 'cardholder' AND balance - held < -overdraft_limit",
    ),
    (
        4,
        "no card was ever overdrawn",
        "SELECT format('account %s: lowest %s', a.account_id, min(p.running)) FROM (SELECT"
        " account_id, sum(amount) OVER (PARTITION BY account_id ORDER BY transaction_id, line)"
        " AS running FROM postings) AS p JOIN accounts AS a USING (account_id)"
        " WHERE a.kind = 'cardholder' GROUP BY a.account_id, a.overdraft_limit"
        " HAVING min(p.running) < -a.overdraft_limit",
    ),
    (
        5,
        "a transaction stands once in a side's books",
        "SELECT format('txid %s, %s: %s times', encode(txid, 'hex'), side, count(*))"
        " FROM transactions GROUP BY txid, side HAVING count(*) > 1",
    ),
    (
        5,
        "a terminal's message has one effect",
        "SELECT format('%s %s %s batch %s stan %s (%s): %s times', acquirer, terminal_id,"
        " business_date, batch, stan, side, count(*)) FROM transactions WHERE kind <> 'load'"
        " AND outcome = 'approved' GROUP BY acquirer, terminal_id, business_date, batch, stan,"
        " side, kind = 'reversal' HAVING count(*) > 1",
    ),
    (
        5,
        "a request is stored once, with its fingerprint",
        "SELECT format('key %s, %s', encode(idempotency_key, 'hex'), side)"
        " FROM authorization_requests GROUP BY idempotency_key, side"
        " HAVING count(*) > 1 OR bool_or(octet_length(fingerprint) <> 32)",
    ),
    (
        6,
        "every approval that was answered is recorded",
        "SELECT format('key %s, %s', encode(r.idempotency_key, 'hex'), r.side)"
        " FROM authorization_requests AS r LEFT JOIN transactions AS t"
        " ON t.txid = r.txid AND t.side = r.side"
        " WHERE r.state = 'answered' AND r.txid IS NOT NULL AND t.txid IS NULL"
        " AND convert_from(r.answer, 'UTF8')::jsonb ->> 'outcome' = 'approved'"
        # An acquirer's reversal is acknowledged at once, and recorded when its issuer has it.
        " AND NOT EXISTS (SELECT FROM reversal_queue AS q WHERE q.done_ms IS NULL"
        " AND r.side = 'acquirer' AND convert_from(q.request, 'UTF8')::jsonb -> 'request'"
        " ->> 'txid' = translate(encode(r.txid, 'base64'), E'\\n', ''))",
    ),
    (
        7,
        "nothing is recorded that nobody asked for",
        "SELECT format('transaction %s, %s', t.transaction_id, t.side) FROM transactions AS t"
        " WHERE t.side <> 'merchant' AND NOT EXISTS (SELECT FROM authorization_requests AS r"
        " WHERE r.txid = t.txid AND r.side = t.side) AND NOT (t.side = 'acquirer'"
        " AND t.kind = 'reversal' AND EXISTS (SELECT FROM reversal_queue AS q"
        " WHERE q.original_txid = t.original_txid))",
    ),
    (
        8,
        "the stored answer says what was recorded",
        "SELECT format('transaction %s: %s recorded, another outcome answered',"
        " t.transaction_id, t.outcome) FROM transactions AS t JOIN authorization_requests AS r"
        " ON r.txid = t.txid AND r.side = t.side WHERE t.side = 'issuer' AND t.kind <> 'load'"
        " AND r.state = 'answered' AND convert_from(r.answer, 'UTF8')::jsonb ->> 'outcome'"
        " IS DISTINCT FROM t.outcome",
    ),
    (
        8,
        "an answered request has its answer",
        "SELECT format('key %s, %s: %s', encode(idempotency_key, 'hex'), side, state)"
        " FROM authorization_requests WHERE (state = 'answered') <> (answer IS NOT NULL)",
    ),
    (
        11,
        "an issuer's numbers of a pair have no gap",
        "SELECT format('%s and %s: %s transactions, numbers %s to %s, counter %s', acquirer,"
        " issuer, count(t.pair_seq), min(t.pair_seq), max(t.pair_seq), c.last_seq)"
        " FROM pair_counters AS c FULL JOIN (SELECT * FROM transactions"
        " WHERE side = 'issuer' AND pair_seq > 0) AS t USING (acquirer, issuer)"
        " GROUP BY acquirer, issuer, c.last_seq HAVING count(t.pair_seq) <> c.last_seq"
        " OR c.last_seq IS NULL OR (count(t.pair_seq) > 0 AND (min(t.pair_seq) <> 1"
        " OR max(t.pair_seq) <> c.last_seq OR count(DISTINCT t.pair_seq) <> c.last_seq))",
    ),
    (
        11,
        "an acquirer's numbers of a pair have no gap once nothing is under way",
        "SELECT format('%s and %s: %s transactions, numbers %s to %s', acquirer, issuer,"
        " count(*), min(pair_seq), max(pair_seq)) FROM transactions WHERE side = 'acquirer'"
        " AND pair_seq > 0 AND NOT EXISTS (SELECT FROM authorization_requests"
        " WHERE state = 'pending' AND side = 'acquirer') AND NOT EXISTS (SELECT"
        " FROM reversal_queue WHERE done_ms IS NULL) GROUP BY acquirer, issuer"
        " HAVING count(DISTINCT pair_seq) <> max(pair_seq) OR count(*) <> max(pair_seq)",
    ),
    (
        11,
        "the log's indexes and the batches' numbers have no gap",
        "SELECT format('log_leaves: %s entries up to %s', count(*), max(log_index))"
        " FROM log_leaves HAVING count(*) <> coalesce(max(log_index) + 1, 0)"
        " UNION ALL SELECT format('batches: %s up to %s', count(*), max(seq)) FROM batches"
        " HAVING count(*) <> coalesce(max(seq), 0)",
    ),
    (
        12,
        "a sealed row is in exactly one batch",
        "SELECT format('leaf %s: batch %s', l.log_index, l.batch_seq) FROM log_leaves AS l"
        " LEFT JOIN batches AS b ON b.seq = l.batch_seq AND l.log_index >= b.first_index"
        " AND l.log_index < b.size WHERE b.seq IS NULL"
        " UNION ALL SELECT format('transaction %s: %s leaves', transaction_id, count(*))"
        " FROM log_leaves GROUP BY transaction_id HAVING count(*) > 1"
        " UNION ALL SELECT format('leaf %s: no transaction %s', l.log_index, l.transaction_id)"
        " FROM log_leaves AS l WHERE NOT EXISTS (SELECT FROM transactions AS t"
        " WHERE t.transaction_id = l.transaction_id)",
    ),
    (
        12,
        "no row was passed over by sealing",
        "SELECT format('transaction %s', t.transaction_id) FROM transactions AS t,"
        " (SELECT last_xact, last_transaction_id FROM batches ORDER BY seq DESC LIMIT 1) AS b"
        " WHERE (t.xact, t.transaction_id) <= (b.last_xact, b.last_transaction_id)"
        " AND NOT EXISTS (SELECT FROM log_leaves AS l"
        " WHERE l.transaction_id = t.transaction_id)",
    ),
    (
        13,
        "a batch's count and sums are those of its rows",
        "WITH rows AS (SELECT l.batch_seq AS seq, t.currency,"
        " count(*) FILTER (WHERE t.outcome = 'approved') AS approved_count,"
        " coalesce(sum(t.amount) FILTER (WHERE t.outcome = 'approved'), 0) AS approved_amount,"
        " count(*) FILTER (WHERE t.outcome <> 'approved') AS declined_count"
        " FROM log_leaves AS l JOIN transactions AS t USING (transaction_id) GROUP BY 1, 2)"
        " SELECT format('batch %s, %s', seq, currency) FROM rows AS r"
        " FULL JOIN batch_totals AS b USING (seq, currency) WHERE (r.approved_count,"
        " r.approved_amount, r.declined_count) IS DISTINCT FROM (b.approved_count,"
        " b.approved_amount::numeric, b.declined_count)"
        " UNION ALL SELECT format('batch %s: %s leaves, %s stated', b.seq, count(l.log_index),"
        " b.leaf_count) FROM batches AS b LEFT JOIN log_leaves AS l ON l.batch_seq = b.seq"
        " GROUP BY b.seq HAVING count(l.log_index) <> b.leaf_count",
    ),
    (
        15,
        "each batch goes on where the one before ended",
        "SELECT format('batch %s', seq) FROM (SELECT seq, first_index, size, leaf_count, prev_root,"
        " lag(size, 1, 0::bigint) OVER (ORDER BY seq) AS size_before,"
        " lag(root, 1, %(empty)s::bytea) OVER (ORDER BY seq) AS root_before FROM batches) AS b"
        " WHERE first_index <> size_before OR prev_root <> root_before"
        " OR size <> first_index + leaf_count OR size <= size_before",
    ),
    (
        15,
        "anchors are made in order, one a batch",
        "SELECT format('batch %s is not anchored, a later one is', b.seq) FROM batches AS b"
        " LEFT JOIN anchor_submissions AS a ON a.seq = b.seq AND a.state = 'ANCHORED'"
        " WHERE a.seq IS NULL AND b.seq < (SELECT max(seq) FROM anchor_submissions"
        " WHERE state = 'ANCHORED')"
        " UNION ALL SELECT format('transaction %s anchors %s batches', encode(tx_hash, 'hex'),"
        " count(*)) FROM anchor_submissions GROUP BY tx_hash HAVING count(*) > 1"
        " UNION ALL SELECT format('anchor %s has no batch', a.seq) FROM anchor_submissions AS a"
        " WHERE NOT EXISTS (SELECT FROM batches AS b WHERE b.seq = a.seq)",
    ),
    (
        18,
        "triggers refuse every change of what is recorded",
        "SELECT format('%s has no active trigger for %s', t, what) FROM"
        " unnest(%(ledger)s::text[]) AS t, (VALUES ('UPDATE', 16), ('DELETE', 8),"
        " ('TRUNCATE', 32)) AS kinds (what, bit) WHERE NOT EXISTS (SELECT FROM pg_trigger AS g"
        " JOIN pg_proc AS p ON p.oid = g.tgfoid WHERE g.tgrelid = to_regclass(t)"
        " AND p.proname = 'refuse_change' AND g.tgenabled IN ('O', 'A') AND g.tgtype & bit <> 0"
        " AND g.tgtype & 2 <> 0)"
        " UNION ALL SELECT 'authorization_requests has no active trigger' WHERE NOT EXISTS"
        " (SELECT FROM pg_trigger AS g JOIN pg_proc AS p ON p.oid = g.tgfoid"
        " WHERE g.tgrelid = to_regclass('authorization_requests')"
        " AND p.proname = 'refuse_other_answer' AND g.tgenabled IN ('O', 'A'))",
    ),
    (
        18,
        "no role of the node may change what is recorded",
        "SELECT format('%s may %s %s', r.rolname, what, t) FROM unnest(%(ledger)s::text[]) AS t,"
        " unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS what, pg_roles AS r"
        " WHERE r.rolname IN ('countersign_app', 'countersign_anchor', 'countersign_reader')"
        " AND to_regclass(t) IS NOT NULL AND (has_table_privilege(r.oid, t::regclass, what)"
        " OR (what = 'UPDATE' AND has_any_column_privilege(r.oid, t::regclass, what)))",
    ),
)

#: What is only ever appended to.
LEDGER_TABLES = (
    "transactions",
    "transfers",
    "card_events",
    "log_leaves",
    "log_nodes",
    "batches",
    "batch_totals",
    "tombstones",
    "chain_binding",
)


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
            rows = connection.execute(f"{named} LIMIT {_LISTED}", parameters).fetchall()
    except psycopg.DataError as error:
        reason = type(error).__name__
        return [Violation(number, rule, f"what is stored can't be read ({reason})")]
    return [Violation(number, rule, str(row[0])) for row in rows]


def _roots(connection: Connection, anchors: Mapping[int, Anchored]) -> Iterable[Violation]:
    """14: the roots of batches (and on the chain) are those of the leaves, computed anew.

    Other code than sealing's: a stack of equal-sized subtrees, merged from the leaves' own bytes.
    """
    rule = "the root is the one recomputed from the rows"
    stack: list[tuple[int, bytes]] = []
    roots: dict[int, bytes] = {}
    seq, first = 1, 0
    for batch in _all_batches(connection):
        for _, leaf, _, _ in queries.log_entries(connection, first, batch[1]):
            size, node = 1, leaf_hash(leaf)
            while stack and stack[-1][0] == size:
                node = node_hash(stack.pop()[1], node)
                size *= 2
            stack.append((size, node))
        seq, first = batch[0], batch[1]
        root = tree.bag([node for _, node in stack])
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
