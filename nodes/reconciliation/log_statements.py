"""Invariants of the log, of what issuers have signed, and of who may change what, as SQL: data,
like statements.py. Each statement returns one text for each violation."""

from __future__ import annotations

#: What is only ever appended to (18).
LEDGER_TABLES = (
    "transactions",
    "transfers",
    "account_versions",
    "payment_progress",
    "authorization_requests",
    "authorization_answers",
    "card_events",
    "log_leaves",
    "log_nodes",
    "batches",
    "batch_totals",
    "chain_binding",
    "events",
    "promises",
    "erasures",
    "erased_rows",
    "unsigned_answers",
    "answer_signatures",
    "settlements",
    "settlement_steps",
    "settlement_signatures",
    "settlement_orders",
    "settlement_order_ends",
    "closes",
    "close_duplicates",
    "close_stages",
    "comparisons",
    "breaks",
    "case_events",
    "case_desk",
    "close_corrections",
    "batch_closes",
    "batch_findings",
    "offline_records",
    "offline_clones",
    "chip_slips",
    "partial_approvals",
    "stand_ins",
    "online_counters",
    "offline_alarms",
    "hotlist_entries",
)

LOG: tuple[tuple[int, str, str], ...] = (
    (
        12,
        "a sealed row is in exactly one batch",
        "SELECT format('leaf %s: batch %s', l.log_index, l.batch_seq) FROM log_leaves AS l"
        " LEFT JOIN batches AS b ON b.seq = l.batch_seq AND l.log_index >= b.first_index"
        " AND l.log_index < b.size WHERE b.seq IS NULL"
        " UNION ALL SELECT format('transaction %s: %s leaves', transaction_id, count(*))"
        " FROM log_leaves GROUP BY transaction_id HAVING count(*) > 1"
        " UNION ALL SELECT format('leaf %s: no transaction %s', l.log_index, l.transaction_id)"
        " FROM log_leaves AS l WHERE l.leaf_kind <= 3 AND NOT EXISTS (SELECT FROM transactions AS t"
        " WHERE t.transaction_id = l.transaction_id)"
        " UNION ALL SELECT format('leaf %s: no event %s', l.log_index, -l.transaction_id)"
        " FROM log_leaves AS l WHERE l.leaf_kind > 3 AND NOT EXISTS (SELECT FROM events AS e"
        " WHERE e.event_id = -l.transaction_id)",
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
)

ANSWERS: tuple[tuple[int, str, str], ...] = (
    (
        22,
        "an issuer's answer stands with its signature, or is noted as unsigned",
        "WITH kept AS (SELECT u.transaction_id, count(*) AS shares FROM answer_signatures AS s"
        " CROSS JOIN LATERAL unnest(s.transaction_ids) AS u (transaction_id) GROUP BY 1)"
        " SELECT format('transaction %s has no signature', t.transaction_id)"
        " FROM transactions AS t LEFT JOIN kept AS k USING (transaction_id)"
        " LEFT JOIN unsigned_answers AS n ON n.txid = t.txid"
        " WHERE t.side = 'acquirer' AND t.pair_seq > 0 AND t.issuer <> t.acquirer"
        " AND k.transaction_id IS NULL AND n.txid IS NULL"
        # Nothing was signed yet, or nobody has looked: a node's first seconds.
        " AND (SELECT next_xact <> '0'::xid8 FROM answer_checks)"
        " UNION ALL SELECT format('transaction %s: %s signatures', transaction_id, shares)"
        " FROM kept WHERE shares > 1"
        " UNION ALL SELECT format('signature of transaction %s, which is not there',"
        " transaction_id) FROM kept AS k WHERE NOT EXISTS (SELECT FROM transactions AS t"
        " WHERE t.transaction_id = k.transaction_id)"
        " UNION ALL SELECT format('unsigned answer %s: there is no such transaction',"
        " encode(n.txid, 'hex')) FROM unsigned_answers AS n WHERE NOT EXISTS (SELECT"
        " FROM transactions AS t WHERE t.txid = n.txid AND t.side = 'acquirer')",
    ),
)

#: A partitioned table's triggers stand on its partitions too, but for that of TRUNCATE.
_ALL_TABLES = """
    tables AS (SELECT to_regclass(t) AS id, t AS name, true AS top FROM unnest(%(ledger)s::text[])
        AS t UNION ALL SELECT p.relid, p.relid::text, false FROM unnest(%(ledger)s::text[]) AS t,
        pg_partition_tree(to_regclass(t)) AS p WHERE p.level > 0)
"""

GUARDS: tuple[tuple[int, str, str], ...] = (
    (
        18,
        "triggers refuse every change of what is recorded",
        f"WITH {_ALL_TABLES}"
        " SELECT format('%s has no active trigger for %s', name, what) FROM tables,"
        " (VALUES ('UPDATE', 16), ('DELETE', 8), ('TRUNCATE', 32)) AS kinds (what, bit)"
        " WHERE (top OR what <> 'TRUNCATE') AND NOT EXISTS (SELECT FROM pg_trigger AS g"
        " JOIN pg_proc AS p ON p.oid = g.tgfoid WHERE g.tgrelid = tables.id"
        " AND p.proname IN ('refuse_change', 'refuse_change_but_erasure')"
        " AND g.tgenabled IN ('O', 'A') AND g.tgtype & bit <> 0 AND g.tgtype & 2 <> 0)"
        " UNION ALL SELECT format('%s has no active trigger %s', t, f) FROM (VALUES"
        " ('account_versions', 'require_previous_version'), ('transfers', 'require_one_currency'))"
        " AS w (t, f) WHERE NOT EXISTS (SELECT FROM pg_trigger AS g JOIN pg_proc AS p"
        " ON p.oid = g.tgfoid WHERE g.tgrelid = to_regclass(t) AND p.proname = f"
        " AND g.tgenabled IN ('O', 'A'))",
    ),
    (
        18,
        "no role of the node may change what is recorded",
        f"WITH {_ALL_TABLES}"
        " SELECT format('%s may %s %s', r.rolname, what, t.name) FROM tables AS t,"
        " unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS what, pg_roles AS r"
        " WHERE r.rolname IN ('countersign_app', 'countersign_anchor', 'countersign_reader')"
        " AND t.id IS NOT NULL AND (has_table_privilege(r.oid, t.id, what)"
        " OR (what = 'UPDATE' AND has_any_column_privilege(r.oid, t.id, what)))",
    ),
)
