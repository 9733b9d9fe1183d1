"""The invariants as SQL, by number (docs/invariants.md): data, which invariants.py runs.

Each statement returns one text for each violation. They run over millions of rows: joins that
PostgreSQL can hash, nothing looked up a row, and stored JSON is read as text (`_ANSWERED`).
"""

from __future__ import annotations

#: Transactions after the last sealed one: few, and found by index.
_UNSEALED = """
    place AS (SELECT coalesce(max(last_xact::text::numeric), 0)::text::xid8 AS xact,
        coalesce((SELECT last_transaction_id FROM batches ORDER BY seq DESC LIMIT 1), 0) AS number
        FROM batches),
    unsealed AS (SELECT t.transaction_id FROM transactions AS t, place
        WHERE (t.xact, t.transaction_id) > (place.xact, place.number))
"""
#: Both ends of each transfer: a posting with its account's kind.
_SIDES = """
    sides AS (SELECT f.transaction_id, f.debit_account AS account_id, -f.amount AS moved, a.kind
        FROM transfers AS f JOIN accounts AS a ON a.account_id = f.debit_account
        UNION ALL SELECT f.transaction_id, f.credit_account, f.amount, a.kind
        FROM transfers AS f JOIN accounts AS a ON a.account_id = f.credit_account)
"""
#: What a transaction is expected to take from the cardholder (negative: to give), by its kind.
_EFFECTS = """
    effects AS (SELECT t.transaction_id, t.txid, t.side, t.kind, t.currency,
            CASE WHEN t.outcome <> 'approved' THEN 0
                WHEN t.kind IN ('purchase', 'capture', 'advice') THEN t.amount
                WHEN t.kind IN ('refund', 'top_up') THEN -t.amount
                WHEN t.kind IN ('reversal', 'void') AND o.outcome = 'approved' THEN
                    CASE WHEN o.kind IN ('purchase', 'capture', 'advice') THEN -t.amount
                        WHEN o.kind IN ('refund', 'top_up') THEN t.amount ELSE 0 END
                ELSE 0 END AS taken,
            CASE WHEN t.outcome = 'approved' AND t.kind = 'load' THEN t.amount ELSE 0 END AS loaded,
            CASE WHEN t.outcome = 'approved' AND t.kind = 'adjustment' THEN t.amount ELSE 0 END
                AS adjusted,
            CASE WHEN t.outcome = 'approved' AND t.kind = 'transfer' THEN t.amount ELSE 0 END
                AS passed_on,
            CASE WHEN t.outcome <> 'approved' THEN 0 WHEN t.kind = 'reserve' THEN t.amount
                WHEN t.kind = 'release' THEN -t.amount ELSE 0 END AS reserved
        FROM transactions AS t LEFT JOIN transactions AS o ON t.kind IN ('reversal', 'void')
            AND o.txid = t.original_txid AND o.side = t.side)
"""
#: The outcome in a stored answer (JSON): it is the first such member of the text.
_ANSWERED = (
    'substr({answer}, position(\'"outcome":"\'::bytea IN {answer}) + 11,'
    " length({outcome}) + 1) = convert_to({outcome} || '\"', 'UTF8')"
    ' AND position(\'"outcome":"\'::bytea IN {answer}) > 0'
)
#: Kinds that only the issuer itself makes.
_OWN = "('load', 'expiry', 'adjustment', 'transfer', 'reserve', 'release')"

MONEY: tuple[tuple[int, str, str], ...] = (
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
        f"WITH {_EFFECTS}, moved AS (SELECT f.transaction_id,"
        " sum(f.amount * ((c.kind = 'settlement')::int - (d.kind = 'settlement')::int))"
        " AS settlement, sum(f.amount * ((c.kind = 'funding')::int - (d.kind = 'funding')::int))"
        " AS funding, sum(f.amount * ((c.kind = 'adjustment')::int"
        " - (d.kind = 'adjustment')::int)) AS adjustment,"
        " sum(f.amount * ((c.kind = 'offline_reserved')::int - (d.kind = 'offline_reserved')::int))"
        " AS reserved,"
        " sum(f.amount * ((c.kind = 'receivable')::int - (d.kind = 'receivable')::int)) AS repaid"
        " FROM transfers AS f"
        " JOIN accounts AS d ON d.account_id = f.debit_account"
        " JOIN accounts AS c ON c.account_id = f.credit_account GROUP BY 1)"
        " SELECT format('transaction %s (%s)', e.transaction_id, e.kind)"
        " FROM effects AS e LEFT JOIN moved AS m USING (transaction_id)"
        " WHERE (coalesce(m.settlement, 0) <> CASE e.side WHEN 'issuer' THEN e.taken"
        " ELSE -e.taken END OR coalesce(m.funding, 0) <> -e.loaded"
        " OR abs(coalesce(m.adjustment, 0)) <> e.adjusted"
        " OR (e.passed_on > 0 AND m.transaction_id IS NULL)"
        # An advice draws on the reserve, by as much as its record says or less.
        " OR (e.kind <> 'advice' AND coalesce(m.reserved, 0) <> e.reserved)"
        " OR (e.kind = 'advice' AND NOT coalesce(m.reserved, 0) BETWEEN -e.taken AND 0)"
        " OR (m.transaction_id IS NOT NULL AND e.taken = 0 AND e.loaded = 0 AND e.adjusted = 0"
        " AND e.passed_on = 0 AND e.reserved = 0))"
        # The merchant takes a reversal that came before its original as a pair without effect.
        " AND NOT (e.side = 'merchant' AND (m.transaction_id IS NULL OR EXISTS (SELECT"
        " FROM transactions AS r WHERE r.original_txid = e.txid AND r.side = 'merchant'"
        " AND r.transaction_id < e.transaction_id)))"
        # A correcting entry moves settlement by what two institutions have countersigned.
        " AND NOT (e.kind = 'adjustment' AND abs(coalesce(m.settlement, 0)) = e.adjusted"
        " AND EXISTS (SELECT FROM close_corrections AS k WHERE k.entry_txid = e.txid))"
        # A disputed debt that the holder bears is paid out of the purses, as far as they can.
        " AND NOT (e.kind = 'adjustment' AND EXISTS (SELECT FROM adjustments AS j"
        " WHERE j.txid = e.txid AND j.disputed IS NOT NULL AND j.amount = -e.adjusted)"
        " AND coalesce(m.settlement, 0) = 0 AND coalesce(m.funding, 0) = 0"
        " AND coalesce(m.adjustment, 0) = 0 AND coalesce(m.reserved, 0) = 0"
        " AND coalesce(m.repaid, 0) BETWEEN 0 AND e.adjusted)",
    ),
    (
        2,
        "the balances of a currency add up to zero",
        "SELECT format('%s: %s', currency, sum(balance)) FROM accounts GROUP BY currency"
        " HAVING sum(balance) <> 0",
    ),
    (
        2,
        "cardholders' balances are loads less spending plus what was given back and is owed",
        f"WITH {_UNSEALED}, {_EFFECTS}, expected AS ("
        " SELECT currency, sum(loaded - taken) AS amount FROM effects WHERE side = 'issuer'"
        " GROUP BY 1 UNION ALL"
        # What corrections gave, is owed, or set aside for offline payments: the other side of it.
        " SELECT currency, -sum(balance) FROM accounts WHERE kind IN ('receivable', 'adjustment',"
        " 'offline_reserved')"
        " GROUP BY 1 UNION ALL SELECT a.currency, -sum(p.amount) FROM unsealed"
        " JOIN postings AS p USING (transaction_id) JOIN accounts AS a"
        " ON a.account_id = p.account_id AND a.kind IN ('receivable', 'adjustment',"
        " 'offline_reserved') GROUP BY 1"
        " ), last AS (SELECT DISTINCT ON (purse_account) purse_account, balance"
        " FROM account_versions ORDER BY purse_account, version DESC),"
        " kept AS (SELECT a.currency, sum(last.balance) AS amount FROM last JOIN accounts AS a"
        " ON a.account_id = last.purse_account GROUP BY 1),"
        " owed AS (SELECT currency, sum(amount) AS amount FROM expected GROUP BY 1)"
        " SELECT format('%s: %s in accounts, %s by transactions', currency,"
        " coalesce(kept.amount, 0), coalesce(owed.amount, 0))"
        " FROM owed FULL JOIN kept USING (currency)"
        " WHERE coalesce(kept.amount, 0) <> coalesce(owed.amount, 0)",
    ),
    (
        3,
        "a rolled-up balance is the sum of the sealed postings",
        f"WITH {_UNSEALED}, sealed AS (SELECT p.account_id, sum(p.amount) AS amount"
        " FROM postings AS p LEFT JOIN unsealed AS u USING (transaction_id)"
        " WHERE u.transaction_id IS NULL GROUP BY 1)"
        " SELECT format('account %s: balance %s, postings %s', account_id, a.balance,"
        " coalesce(s.amount, 0)) FROM accounts AS a FULL JOIN sealed AS s USING (account_id)"
        " WHERE coalesce(a.balance, 0) <> coalesce(s.amount, 0)",
    ),
    (
        3,
        "from version to version a purse's balance changes by its postings",
        f"WITH {_SIDES}, posted AS (SELECT transaction_id, account_id, sum(moved) AS amount"
        " FROM sides WHERE kind = 'cardholder' GROUP BY 1, 2), steps AS (SELECT transaction_id,"
        " purse_account AS account_id, version, balance - lag(balance, 1, 0::bigint)"
        " OVER (PARTITION BY purse_account ORDER BY version) AS amount FROM account_versions)"
        " SELECT format('account %s, version %s, transaction %s: %s posted, %s in the version',"
        " account_id, s.version, transaction_id, coalesce(p.amount, 0), coalesce(s.amount, 0))"
        " FROM steps AS s FULL JOIN posted AS p USING (transaction_id, account_id)"
        " WHERE coalesce(p.amount, 0) <> coalesce(s.amount, 0)",
    ),
    (
        3,
        "a transfer's balance after it leads to the version's",
        "WITH moves AS (SELECT f.transaction_id, f.line, f.balance_after,"
        " CASE d.kind WHEN 'cardholder' THEN f.debit_account ELSE f.credit_account END AS purse,"
        " CASE d.kind WHEN 'cardholder' THEN -f.amount ELSE f.amount END AS moved"
        " FROM transfers AS f JOIN accounts AS d ON d.account_id = f.debit_account"
        " JOIN accounts AS c ON c.account_id = f.credit_account"
        " WHERE 'cardholder' IN (d.kind, c.kind)), steps AS (SELECT transaction_id, line, purse,"
        " balance_after, sum(moved) OVER (PARTITION BY transaction_id, purse ORDER BY line"
        " ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS to_come FROM moves)"
        " SELECT format('transfer %s/%s', s.transaction_id, s.line) FROM steps AS s"
        " LEFT JOIN account_versions AS v ON v.transaction_id = s.transaction_id"
        " AND v.purse_account = s.purse"
        " WHERE s.balance_after IS DISTINCT FROM v.balance - coalesce(s.to_come, 0)"
        # From card to card it is the payer's; what the payee then repays has none.
        " AND NOT (s.balance_after IS NULL AND EXISTS (SELECT FROM transactions AS t"
        " WHERE t.transaction_id = s.transaction_id AND t.kind = 'transfer'))",
    ),
    (
        3,
        "versions have no gap, and each of their lines its own",
        "SELECT format('account %s: %s versions, %s to %s', account_id, count(*), min(version),"
        " max(version)) FROM account_versions WHERE line = 0 GROUP BY account_id"
        " HAVING count(*) <> max(version) OR min(version) <> 1"
        " UNION ALL SELECT format('account %s, version %s, line %s', account_id, version, line)"
        " FROM account_versions AS v WHERE line <> 0 AND NOT EXISTS (SELECT FROM account_versions"
        " AS w WHERE w.account_id = v.account_id AND w.version = v.version AND w.line = 0"
        " AND w.transaction_id IS NOT DISTINCT FROM v.transaction_id)",
    ),
    (
        3,
        "a transaction and its account's version name each other",
        "SELECT format('transaction %s: account %s, version %s', t.transaction_id, t.account_id,"
        " t.account_version) FROM transactions AS t LEFT JOIN account_versions AS v"
        " ON v.account_id = t.account_id AND v.version = t.account_version AND v.line = 0"
        " WHERE t.side = 'issuer' AND (t.account_id IS NOT NULL OR t.account_version IS NOT NULL)"
        " AND v.transaction_id IS DISTINCT FROM t.transaction_id",
    ),
    (
        4,
        "no card was ever overdrawn",
        "SELECT format('account %s, version %s, line %s: available %s', account_id, version, line,"
        " balance - held + overdraft_limit) FROM account_versions"
        " WHERE balance - held < -overdraft_limit OR held < 0 OR overdraft_limit < 0",
    ),
    (
        4,
        "no transfer left a card overdrawn",
        "SELECT format('transfer %s/%s: %s', f.transaction_id, f.line, f.balance_after)"
        " FROM transfers AS f WHERE f.balance_after < 0 AND NOT EXISTS (SELECT"
        " FROM account_versions AS v WHERE v.transaction_id = f.transaction_id"
        " AND v.purse_account IN (f.debit_account, f.credit_account)"
        " AND f.balance_after >= -v.overdraft_limit)",
    ),
)

ONCE: tuple[tuple[int, str, str], ...] = (
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
        " business_date, batch, stan, side, count(*)) FROM transactions"
        f" WHERE kind NOT IN {_OWN} AND outcome = 'approved' GROUP BY acquirer, terminal_id,"
        " business_date, batch, stan, side, kind = 'reversal' HAVING count(*) > 1",
    ),
    (
        5,
        "a request is stored once, with its fingerprint, and answered once",
        "SELECT format('key %s, %s', encode(idempotency_key, 'hex'), side)"
        " FROM authorization_requests GROUP BY idempotency_key, side"
        " HAVING count(*) > 1 OR bool_or(octet_length(fingerprint) <> 32)"
        " UNION ALL SELECT format('key %s, acquirer: a second answer, or none was asked for',"
        " encode(a.idempotency_key, 'hex')) FROM authorization_answers AS a"
        " LEFT JOIN authorization_requests AS r ON r.idempotency_key = a.idempotency_key"
        " AND r.business_date = a.business_date AND r.side = 'acquirer'"
        " WHERE r.idempotency_key IS NULL OR r.answer IS NOT NULL",
    ),
    (
        6,
        "every approval that was answered is recorded",
        # Most requests have their transaction: only the others' answers are read.
        "WITH alone AS MATERIALIZED (SELECT r.idempotency_key, r.business_date, r.side, r.txid,"
        " r.answer FROM authorization_requests AS r LEFT JOIN transactions AS t"
        " ON t.txid = r.txid AND t.side = r.side WHERE r.txid IS NOT NULL AND t.txid IS NULL)"
        " SELECT format('key %s, %s', encode(r.idempotency_key, 'hex'), r.side) FROM alone AS r"
        " LEFT JOIN authorization_answers AS a ON r.side = 'acquirer'"
        " AND a.idempotency_key = r.idempotency_key AND a.business_date = r.business_date"
        " WHERE coalesce(r.answer, a.answer) IS NOT NULL"
        " AND convert_from(coalesce(r.answer, a.answer), 'UTF8')::jsonb ->> 'outcome' = 'approved'"
        # An acquirer's reversal is acknowledged at once, and recorded when its issuer has it.
        " AND NOT (r.side = 'acquirer' AND EXISTS (SELECT FROM reversal_queue AS q"
        " WHERE q.done_ms IS NULL AND position(r.txid IN q.request) > 0))"
        # So is an advice.
        " AND NOT EXISTS (SELECT FROM forward_queue AS f WHERE f.txid = r.txid"
        " AND f.done_ms IS NULL)",
    ),
    (
        7,
        "nothing is recorded that nobody asked for",
        "SELECT format('transaction %s, %s', t.transaction_id, t.side) FROM transactions AS t"
        " LEFT JOIN authorization_requests AS r ON r.txid = t.txid AND r.side = t.side"
        " WHERE r.txid IS NULL AND t.side <> 'merchant'"
        " AND NOT (t.side = 'acquirer' AND t.kind = 'reversal' AND EXISTS (SELECT"
        " FROM reversal_queue AS q WHERE q.original_txid = t.original_txid))"
        # The issuer's own: time asks for an expiry, people for a correction.
        " AND NOT (t.side = 'issuer' AND (t.kind = 'expiry' OR (t.kind = 'adjustment'"
        " AND EXISTS (SELECT FROM adjustments AS j WHERE j.txid = t.txid))))"
        # Both sides' own: what a countersigned break corrects.
        " AND NOT (t.kind = 'adjustment' AND EXISTS (SELECT FROM close_corrections AS k"
        " WHERE k.entry_txid = t.txid))",
    ),
    (
        8,
        "the stored answer says what was recorded",
        "SELECT format('transaction %s: %s recorded, another outcome answered',"
        " t.transaction_id, t.outcome) FROM transactions AS t JOIN authorization_requests AS r"
        f" ON r.txid = t.txid AND r.side = t.side WHERE t.side = 'issuer' AND t.kind NOT IN {_OWN}"
        f" AND ({_ANSWERED.format(answer='r.answer', outcome='t.outcome')}) IS NOT TRUE",
    ),
    (
        8,
        "no terminal was told of an approval that is none",
        "SELECT format('transaction %s: %s recorded, approved to the terminal', t.transaction_id,"
        " t.outcome) FROM transactions AS t JOIN authorization_requests AS r"
        " ON r.txid = t.txid AND r.side = t.side LEFT JOIN authorization_answers AS a"
        " ON a.idempotency_key = r.idempotency_key AND a.business_date = r.business_date"
        " WHERE t.side = 'acquirer' AND t.outcome <> 'approved' AND t.kind <> 'reversal' AND "
        + _ANSWERED.format(answer="coalesce(r.answer, a.answer)", outcome="'approved'")
        # Taken in for an issuer that was away, and refused by it later: an alarm tells of it.
        + " AND NOT EXISTS (SELECT FROM stand_ins AS u WHERE u.asked_txid = t.txid)"
        # Approved in the issuer's place: an advice stands for it, and it is reversed.
        " AND NOT EXISTS (SELECT FROM forward_queue AS f JOIN offline_alarms AS l"
        " ON l.txid = f.txid AND l.kind = 'refused' WHERE f.txid = t.txid)",
    ),
    (
        8,
        "a request has its answer once nothing waits for it",
        "SELECT format('key %s, %s', encode(r.idempotency_key, 'hex'), r.side)"
        " FROM authorization_requests AS r LEFT JOIN authorization_answers AS a"
        " ON a.idempotency_key = r.idempotency_key AND a.business_date = r.business_date"
        " AND r.side = 'acquirer' WHERE r.answer IS NULL AND a.answer IS NULL"
        " AND r.request IS NOT NULL AND NOT EXISTS (SELECT FROM open_batches AS o"
        " WHERE r.side = 'acquirer' AND r.idempotency_key = ANY(o.keys))",
    ),
    (
        9,
        "what became of a transaction is what later ones did to it",
        # What the issuer bears of a disputed payment is given back of it, as by a refund.
        """WITH named AS (SELECT t.txid, t.kind, t.amount, t.original_txid, o.kind AS of_kind,
            o.amount AS of_amount, o.original_txid AS root, r.kind AS root_kind,
            r.amount AS root_amount, t.kind = 'adjustment' AND EXISTS (SELECT
                FROM adjustments AS j WHERE j.txid = t.txid) AS given_back
            FROM transactions AS t JOIN transactions AS o
                ON o.txid = t.original_txid AND o.side = t.side AND o.outcome = 'approved'
            LEFT JOIN transactions AS r ON r.txid = o.original_txid AND r.side = t.side
                AND t.kind IN ('reversal', 'void') AND o.kind IN ('capture', 'refund', 'increment')
            WHERE t.side = 'issuer' AND t.outcome = 'approved'),
        changes AS (
            SELECT original_txid AS txid, of_amount AS amount,
                CASE WHEN kind = 'increment' THEN amount ELSE 0 END AS authorized,
                CASE WHEN kind = 'capture' THEN amount ELSE 0 END AS captured,
                CASE WHEN kind = 'refund' OR given_back THEN amount ELSE 0 END AS refunded,
                CASE WHEN kind IN ('reversal', 'void') THEN amount ELSE 0 END AS reversed
            FROM named UNION ALL
            SELECT root, root_amount, CASE of_kind WHEN 'increment' THEN -amount ELSE 0 END,
                CASE of_kind WHEN 'capture' THEN -amount ELSE 0 END,
                CASE of_kind WHEN 'refund' THEN -amount ELSE 0 END, 0
            FROM named WHERE root_kind IS NOT NULL),
        expected AS (SELECT txid, amount + sum(authorized) AS authorized, sum(captured) AS captured,
            sum(refunded) AS refunded, sum(reversed) AS reversed FROM changes
            GROUP BY txid, amount),
        kept AS (SELECT DISTINCT ON (txid) txid, authorized, captured, refunded, reversed
            FROM payment_progress ORDER BY txid, version DESC)
        SELECT format('txid %s: %s kept, %s by transactions', encode(txid, 'hex'),
            ROW(k.authorized, k.captured, k.refunded, k.reversed)::text,
            ROW(e.authorized, e.captured, e.refunded, e.reversed)::text)
        FROM expected AS e FULL JOIN kept AS k USING (txid)
        WHERE (k.txid IS NOT NULL OR e.captured <> 0 OR e.refunded <> 0 OR e.reversed <> 0)
            AND (e.authorized, e.captured, e.refunded, e.reversed) IS DISTINCT FROM
                (k.authorized::numeric, k.captured::numeric, k.refunded::numeric,
                 k.reversed::numeric)""",
    ),
    (
        9,
        "what was reversed as a whole has no effect left",
        f"""WITH {_SIDES}, undone AS (SELECT o.transaction_id, o.txid, o.side
            FROM transactions AS t JOIN transactions AS o ON o.txid = t.original_txid
                AND o.side = t.side AND o.outcome = 'approved'
                AND o.kind IN ('purchase', 'advice', 'capture', 'refund', 'top_up')
            WHERE t.kind IN ('reversal', 'void') AND t.outcome = 'approved'
            GROUP BY 1, 2, 3, o.amount HAVING sum(t.amount) >= o.amount),
        together AS (SELECT txid, side, transaction_id FROM undone UNION ALL
            SELECT u.txid, u.side, t.transaction_id FROM undone AS u JOIN transactions AS t
                ON t.original_txid = u.txid AND t.side = u.side AND t.outcome = 'approved'
                AND t.kind IN ('reversal', 'void'))
        SELECT format('txid %s, %s: %s left', encode(g.txid, 'hex'), g.side, sum(s.moved))
        FROM together AS g JOIN sides AS s ON s.transaction_id = g.transaction_id
            AND s.kind = 'settlement'
        GROUP BY g.txid, g.side HAVING sum(s.moved) <> 0""",
    ),
)

SEQUENCES: tuple[tuple[int, str, str], ...] = (
    (
        11,
        "an issuer's numbers of a pair have no gap",
        "SELECT format('%s and %s: %s transactions, numbers %s to %s, counter %s', acquirer,"
        " issuer, coalesce(t.count, 0), t.first, t.last, c.last_seq)"
        " FROM pair_counters AS c FULL JOIN (SELECT acquirer, issuer, count(*), min(pair_seq)"
        " AS first, max(pair_seq) AS last, count(DISTINCT pair_seq) AS numbers FROM transactions"
        " WHERE side = 'issuer' AND pair_seq > 0 GROUP BY 1, 2) AS t USING (acquirer, issuer)"
        " WHERE c.last_seq IS NULL OR coalesce(t.count, 0) <> c.last_seq"
        " OR (t.count > 0 AND (t.first <> 1 OR t.last <> c.last_seq OR t.numbers <> c.last_seq))",
    ),
    (
        11,
        "an acquirer's numbers of a pair have no gap once nothing is under way",
        "SELECT format('%s and %s: %s transactions, numbers %s to %s', acquirer, issuer,"
        " count(*), min(pair_seq), max(pair_seq)) FROM transactions WHERE side = 'acquirer'"
        " AND pair_seq > 0 AND NOT EXISTS (SELECT FROM open_batches) AND NOT EXISTS (SELECT"
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
)
