"""What a key over all shards would hold, and the keys of single shards don't (invariant 5)."""

from __future__ import annotations

#: (invariant, rule, statement): each row of a statement's result is a violation.
SHARDS: tuple[tuple[int, str, str], ...] = (
    (
        5,
        "a transaction's number is its own",
        "SELECT format('transaction %s: %s times', transaction_id, count(*)) FROM transactions"
        " GROUP BY transaction_id HAVING count(*) > 1",
    ),
    (
        5,
        "a row stands in the shard of its account or, where none takes part, of its txid",
        "SELECT format('transaction %s: shard %s', transaction_id, shard) FROM transactions"
        " WHERE shard <> coalesce(account_id, shard_of(txid))",
    ),
    (
        5,
        "a transfer stands in the shard of its transaction",
        "SELECT format('transfer %s/%s: shard %s', f.transaction_id, f.line, f.shard)"
        " FROM transfers AS f JOIN transactions AS t USING (transaction_id)"
        " WHERE f.shard <> t.shard",
    ),
    (
        5,
        "what became of a payment stands in the payment's shard",
        "SELECT format('progress of txid %s: shard %s', encode(p.txid, 'hex'), p.shard)"
        " FROM payment_progress AS p JOIN transactions AS t ON t.txid = p.txid"
        " AND t.side = 'issuer' WHERE p.shard <> t.shard",
    ),
)
