"""What is settled is what was cleared (invariant 16), in one institution's books.

Payer, payee and amount of a statement follow from its close's debits and credits
(nodes/settlement/rules.Statement), so those are held against the rows. Closes after a correction
have items that rows alone don't tell: `countersign reconcile` computes them anew.
"""

from __future__ import annotations

from nodes.clearing.day_queries import EFFECT, KINDS

_KEY = "acquirer, issuer, currency, business_date"
_OF_PAIRS = (
    "t.pair_seq > 0 AND t.acquirer <> t.issuer"
    f" AND t.kind IN ({', '.join(repr(kind) for kind in KINDS)})"
)

#: (invariant, rule, statement): each row of a statement's result is a violation.
SETTLEMENTS: tuple[tuple[int, str, str], ...] = (
    (
        16,
        "a close has what its rows have",
        f"WITH moved AS (SELECT t.side, t.xact, t.acquirer, t.issuer, t.currency, t.business_date,"
        f" ({EFFECT})::bigint AS effect FROM transactions AS t WHERE {_OF_PAIRS}),"
        " plain AS (SELECT * FROM closes AS c WHERE NOT EXISTS (SELECT FROM close_corrections AS k"
        f"  JOIN closes AS b USING (close_id) WHERE (b.{_KEY.replace(', ', ', b.')})"
        f"  = (c.{_KEY.replace(', ', ', c.')}) AND b.revision < c.revision)),"
        " sums AS (SELECT p.close_id, count(m.effect) AS item_count,"
        "  coalesce(sum(greatest(m.effect, 0)), 0) AS debits,"
        "  coalesce(sum(greatest(-m.effect, 0)), 0) AS credits FROM plain AS p LEFT JOIN moved AS m"
        f"  ON (m.{_KEY.replace(', ', ', m.')}) = (p.{_KEY.replace(', ', ', p.')})"
        "  AND m.side = p.party AND m.xact < p.horizon GROUP BY p.close_id)"
        " SELECT format('close %s: its rows are %s, with debits %s and credits %s', close_id,"
        " s.item_count, s.debits, s.credits) FROM sums AS s JOIN plain AS p USING (close_id)"
        " WHERE (p.item_count, p.debits, p.credits) <> (s.item_count, s.debits, s.credits)",
    ),
    (
        16,
        "the days' closes pass no transaction over",
        "SELECT format('transaction %s: no close of its day has it or waits for it',"
        f" t.transaction_id) FROM transactions AS t, close_scan AS s WHERE {_OF_PAIRS}"
        " AND t.side IN ('acquirer', 'issuer') AND t.xact < s.next_xact"
        " AND NOT EXISTS (SELECT FROM close_days AS d WHERE"
        f" (d.{_KEY.replace(', ', ', d.')}) = (t.{_KEY.replace(', ', ', t.')})"
        " AND d.last_xact >= t.xact)",
    ),
    (
        16,
        "a statement in force is of its own day's confirmed close and agrees with the books",
        "SELECT format('settlement %s', encode(f.settlement_id, 'hex'))"
        " FROM settlements_in_force AS f JOIN settlements AS t USING (settlement_id)"
        " JOIN closes AS c USING (close_id) WHERE NOT t.agrees"
        f" OR (f.{_KEY.replace(', ', ', f.')}) <> (c.{_KEY.replace(', ', ', c.')})"
        " OR NOT EXISTS (SELECT FROM close_stages AS g WHERE g.close_id = c.close_id"
        "  AND g.stage = 'CONFIRMED')",
    ),
)
