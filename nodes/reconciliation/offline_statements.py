"""Invariants of offline payments, terminal batches and store-and-forward, as SQL: data, like
statements.py. Each statement returns one text for each violation."""

from __future__ import annotations

OFFLINE: tuple[tuple[int, str, str], ...] = (
    (
        19,
        "an offline record is posted once, for its amount",
        "SELECT format('%s: terminal %s, epoch %s, seq %s', r.side, r.terminal_id, r.epoch, r.seq)"
        " FROM offline_records AS r LEFT JOIN transactions AS t ON t.txid = r.txid"
        " AND t.side = r.side WHERE (r.side = 'issuer' AND t.outcome IS DISTINCT FROM 'approved')"
        " OR (t.txid IS NOT NULL AND (t.kind <> 'advice' OR t.amount <> r.amount"
        " OR t.currency <> r.currency))"
        " UNION ALL SELECT format('card key %s, ATC %s: %s records', encode(card_key_id, 'hex'),"
        " atc, count(*)) FROM offline_records WHERE side = 'issuer' GROUP BY card_key_id, atc"
        " HAVING count(*) > 1"
        " UNION ALL SELECT format('%s: terminal %s, epoch %s, seq %s: %s records', side,"
        " terminal_id, epoch, seq, count(*)) FROM offline_records GROUP BY side, acquirer,"
        " terminal_id, epoch, seq HAVING count(*) > 1"
        " UNION ALL SELECT format('txid %s, %s: %s records', encode(txid, 'hex'), side, count(*))"
        " FROM offline_records GROUP BY txid, side HAVING count(*) > 1",
    ),
    (
        19,
        "a copied card's record is posted once, as what is owed, with an alarm",
        "SELECT format('terminal %s, epoch %s, seq %s', c.terminal_id, c.epoch, c.seq)"
        " FROM offline_clones AS c LEFT JOIN transactions AS t ON t.txid = c.txid"
        " AND t.side = 'issuer' WHERE t.outcome IS DISTINCT FROM 'approved'"
        " OR t.kind <> 'advice' OR t.amount <> c.amount OR t.currency <> c.currency"
        " OR NOT EXISTS (SELECT FROM offline_alarms AS a WHERE a.txid = c.txid"
        "  AND a.kind = 'clone')"
        " OR NOT EXISTS (SELECT FROM offline_records AS r WHERE r.side = 'issuer'"
        "  AND r.card_key_id = c.card_key_id AND r.atc = c.atc"
        "  AND r.record_hash <> c.record_hash)"
        " OR EXISTS (SELECT FROM transfers AS f JOIN accounts AS d"
        "  ON d.account_id = f.debit_account WHERE f.transaction_id = t.transaction_id"
        "  AND d.kind <> 'receivable')",
    ),
    (
        19,
        "a chip's counter pays once; what else was posted under it is owed, with an alarm",
        "WITH a AS (SELECT c.*, t.transaction_id, EXISTS (SELECT FROM offline_alarms AS o"
        "  WHERE o.txid = c.txid AND o.side = 'issuer' AND o.kind = 'clone') AS clone,"
        " EXISTS (SELECT FROM offline_alarms AS o WHERE o.txid = c.txid AND o.side = 'issuer'"
        "  AND o.kind = 'cryptogram') AS doubted"
        "  FROM chip_records AS c JOIN transactions AS t ON t.txid = c.txid"
        "  AND t.side = 'issuer' AND t.kind = 'advice' AND t.outcome = 'approved')"
        " SELECT format('txid %s: counter %s has paid before', min(encode(txid, 'hex')), atc)"
        " FROM a WHERE genuine AND NOT clone GROUP BY card_token, atc HAVING count(*) > 1"
        " UNION ALL SELECT format('txid %s: one cryptogram, %s postings',"
        " min(encode(txid, 'hex')), count(*)) FROM a GROUP BY card_token, atc, cryptogram, covered"
        " HAVING count(*) > 1"
        " UNION ALL SELECT format('txid %s: a copy has paid with the holder''s money',"
        " encode(txid, 'hex')) FROM a WHERE clone AND EXISTS (SELECT FROM transfers AS f"
        "  JOIN accounts AS d ON d.account_id = f.debit_account"
        "  WHERE f.transaction_id = a.transaction_id AND d.kind <> 'receivable')"
        " UNION ALL SELECT format('txid %s: counter %s has paid online', encode(v.txid, 'hex'),"
        " v.atc) FROM (SELECT txid, card_token, atc FROM a WHERE genuine AND NOT (clone OR doubted)"
        "  UNION SELECT r.txid, k.card_token, r.atc FROM offline_records AS r"
        "  JOIN card_offline_keys AS k USING (card_key_id) WHERE r.side = 'issuer'"
        "  AND NOT EXISTS (SELECT FROM offline_alarms AS o WHERE o.txid = r.txid"
        "   AND o.side = 'issuer' AND o.kind IN ('clone', 'cryptogram'))) AS v"
        " JOIN chip_records AS c USING (card_token, atc) JOIN transactions AS t ON t.txid = c.txid"
        "  AND t.side = 'issuer' AND t.kind = 'purchase' AND t.outcome = 'approved'"
        " WHERE c.genuine AND NOT coalesce((SELECT p.ended FROM payment_progress AS p"
        "  WHERE p.txid = t.txid AND p.shard = t.shard ORDER BY p.version DESC LIMIT 1), false)",
    ),
    (
        20,
        "a transaction is in one close at most, of its own terminal and batch",
        "SELECT format('close %s, transaction %s', l.close_id, l.transaction_id)"
        " FROM terminal_batch_lines AS l LEFT JOIN batch_closes AS c USING (close_id)"
        " LEFT JOIN transactions AS t USING (transaction_id) WHERE t.transaction_id IS NULL"
        " OR t.side <> 'acquirer' OR t.outcome <> 'approved' OR t.terminal_id <> l.terminal_id"
        " OR t.batch <> l.batch OR (l.close_id IS NOT NULL AND (c.close_id IS NULL"
        " OR c.terminal_id <> l.terminal_id OR c.batch <> l.batch OR c.outcome = 'differs'))"
        " UNION ALL SELECT format('transaction %s: in %s lines', transaction_id, count(*))"
        " FROM terminal_batch_lines GROUP BY transaction_id HAVING count(*) > 1",
    ),
    (
        20,
        "a batch was closed on equal totals, or after an upload",
        "SELECT format('close %s: %s', c.close_id, c.outcome) FROM batch_closes AS c"
        " WHERE (c.outcome = 'equal') <> (c.reported = c.booked) AND c.outcome <> 'adjusted'"
        " OR (c.outcome = 'adjusted' AND NOT EXISTS (SELECT FROM batch_closes AS d"
        " WHERE d.terminal_id = c.terminal_id AND d.batch = c.batch AND d.outcome = 'differs'"
        " AND d.close_id < c.close_id AND d.reported = c.reported))",
    ),
    (
        20,
        "what an upload was adjusted by stands in the books, once",
        "SELECT format('finding %s: %s %s', f.finding_id, f.action, f.adjusted)"
        " FROM batch_findings AS f LEFT JOIN transactions AS t ON t.txid = f.txid"
        " AND t.side = 'acquirer' WHERE (f.action = 'posted' AND f.txid IS NOT NULL"
        " AND (f.adjusted <= 0 OR (t.txid IS NULL AND NOT EXISTS (SELECT FROM forward_queue AS q"
        " WHERE q.txid = f.txid)) OR t.kind <> 'advice' OR t.amount <> f.adjusted))"
        " OR (f.action = 'reversed' AND (f.adjusted <= 0 OR NOT EXISTS (SELECT"
        " FROM reversal_queue AS q WHERE q.original_txid = f.txid)))"
        " OR (f.action IN ('none', 'flagged') AND f.adjusted <> 0)"
        " UNION ALL SELECT format('txid %s: adjusted %s times', encode(txid, 'hex'), count(*))"
        " FROM batch_findings WHERE action = 'posted' GROUP BY txid HAVING count(*) > 1",
    ),
    (
        21,
        "what was taken in for an issuer is sent until it has answered, and recorded then",
        "SELECT format('txid %s: %s', encode(f.txid, 'hex'), coalesce(f.outcome, 'waits'))"
        " FROM forward_queue AS f LEFT JOIN transactions AS t ON t.txid = f.txid"
        " AND t.side = 'acquirer' LEFT JOIN authorization_requests AS r"
        " ON r.idempotency_key = f.idempotency_key AND r.business_date = f.business_date"
        " AND r.side = 'acquirer' WHERE r.txid IS DISTINCT FROM f.txid"
        " OR (f.done_ms IS NULL AND t.txid IS NOT NULL)"
        " OR (f.done_ms IS NOT NULL AND f.outcome <> 'system_error'"
        " AND t.outcome IS DISTINCT FROM f.outcome)",
    ),
    (
        21,
        "what was approved in an issuer's place goes to it",
        "SELECT format('txid %s', encode(s.txid, 'hex')) FROM stand_ins AS s"
        " LEFT JOIN forward_queue AS f ON f.txid = s.txid AND f.issuer = s.issuer"
        " LEFT JOIN reversal_queue AS q ON q.original_txid = s.asked_txid"
        " WHERE f.txid IS NULL OR q.original_txid IS NULL",
    ),
    (
        21,
        "card numbers wait only as long as their advices, and only sealed",
        "SELECT format('txid %s', encode(txid, 'hex')) FROM forward_queue"
        " WHERE (done_ms IS NULL) <> (pan_sealed IS NOT NULL) OR octet_length(pan_sealed) < 40",
    ),
)
