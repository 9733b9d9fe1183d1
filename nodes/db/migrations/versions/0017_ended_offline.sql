-- The acquirer's: under which counter (ATC) a card's chip asked online at one of its terminals. An advice under the same
-- counter says that card and terminal ended the payment offline: the online request is reversed before the advice goes to
-- the issuer. card_lookup: the card number under the acquirer's own keyed hash.
CREATE TABLE online_counters (
    card_lookup     bytea  NOT NULL CHECK (octet_length(card_lookup) = 32),
    atc             bigint NOT NULL CHECK (atc BETWEEN 0 AND 65535),
    idempotency_key bytea  NOT NULL CHECK (octet_length(idempotency_key) = 32),
    business_date   date   NOT NULL,
    PRIMARY KEY (card_lookup, atc, idempotency_key)
);
CREATE TYPE online_counters_row AS (card_lookup bytea, atc bigint, idempotency_key bytea, business_date date);
CREATE TRIGGER online_counters_unchanging BEFORE UPDATE OR DELETE ON online_counters
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER online_counters_untruncated BEFORE TRUNCATE ON online_counters
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT ON online_counters TO countersign_app, countersign_anchor;
GRANT INSERT ON online_counters TO countersign_app;

-- Whose reversal an advice waits for.
ALTER TABLE forward_queue ADD COLUMN behind_txid bytea CHECK (octet_length(behind_txid) = 32);

-- How a dispute ended: dropped by people, given back by the issuer, or reversed by the terminal (then closed_by is the
-- acquirer). Those that a reversal ended before are closed now.
ALTER TABLE disputes ADD COLUMN ended_as text CHECK (ended_as IN ('dropped', 'given_back', 'reversed'));
GRANT UPDATE (ended_as) ON disputes TO countersign_app;
UPDATE disputes AS d SET ended_as = CASE WHEN closing_reason = 'given back by the merchant' THEN 'reversed'
    WHEN EXISTS (SELECT FROM adjustments AS j WHERE j.disputed = d.txid
        AND format('adjustment %s', j.adjustment_id) = d.closing_reason) THEN 'given_back' ELSE 'dropped' END
WHERE closed_at IS NOT NULL;
UPDATE disputes AS d SET closed_by = r.acquirer, closed_at = r.recorded_at, ended_as = 'reversed',
    closing_reason = 'reversed by the terminal'
FROM (SELECT t.original_txid, max(t.recorded_at) AS recorded_at,
        (array_agg(t.acquirer ORDER BY t.transaction_id DESC) FILTER (WHERE t.kind = 'reversal'))[1] AS acquirer
    FROM transactions AS t
    JOIN disputes AS o ON o.txid = t.original_txid AND o.closed_at IS NULL AND t.recorded_at >= o.opened_at
    WHERE t.side = 'issuer' AND t.kind IN ('reversal', 'adjustment') AND t.outcome = 'approved'
    GROUP BY t.original_txid HAVING sum(t.amount) >= max(o.amount)) AS r
WHERE r.original_txid = d.txid AND r.acquirer IS NOT NULL AND d.closed_at IS NULL;
ALTER TABLE disputes ADD CONSTRAINT disputes_ended_as CHECK ((closed_at IS NULL) = (ended_as IS NULL));
