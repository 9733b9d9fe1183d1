-- The shard column (docs/ledger.md, Growth): rows of a card account carry the account's id, others (an
-- acquirer's, a merchant's, a request for a card that isn't known) a number out of their txid. Each unique
-- key of a table that is distributed by it contains it, so no key has to be compared between shards.
CREATE FUNCTION shard_of(txid bytea) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ('x' || encode(substr(txid, 1, 8), 'hex'))::bit(64)::bigint
$$;

ALTER TABLE transactions ADD COLUMN shard bigint;
-- By rewriting the column: no row changes hands, and the triggers that refuse changes stay in place.
ALTER TABLE transactions ALTER COLUMN shard TYPE bigint USING coalesce(account_id, shard_of(txid));
ALTER TABLE transactions ALTER COLUMN shard SET NOT NULL;
ALTER TABLE transactions DROP CONSTRAINT transactions_pkey;
ALTER TABLE transactions ADD PRIMARY KEY (transaction_id, shard);
ALTER TABLE transactions DROP CONSTRAINT transactions_txid_side_key;
ALTER TABLE transactions ADD CONSTRAINT transactions_txid_side_key UNIQUE (txid, side, shard);
-- A pair's numbers are given out by comparing and advancing pair_counters in the same commit (advance_pair):
-- that, not an index over all shards, keeps them unique; check_invariants looks (11).
DROP INDEX transactions_pair_seq;
CREATE INDEX transactions_pair_seq ON transactions (acquirer, issuer, side, pair_seq) WHERE pair_seq > 0;

CREATE FUNCTION shard_of_row(number bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT shard FROM transactions WHERE transaction_id = number
$$;
ALTER TABLE transfers ADD COLUMN shard bigint;
ALTER TABLE transfers ALTER COLUMN shard TYPE bigint USING shard_of_row(transaction_id);
ALTER TABLE transfers ALTER COLUMN shard SET NOT NULL;
ALTER TABLE transfers DROP CONSTRAINT transfers_pkey;
ALTER TABLE transfers ADD PRIMARY KEY (transaction_id, line, shard);
DROP FUNCTION shard_of_row;

CREATE FUNCTION shard_of_original(original bytea) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT shard FROM transactions WHERE txid = original AND side = 'issuer' LIMIT 1),
                    shard_of(original))
$$;
ALTER TABLE payment_progress ADD COLUMN shard bigint;
ALTER TABLE payment_progress ALTER COLUMN shard TYPE bigint USING shard_of_original(txid);
ALTER TABLE payment_progress ALTER COLUMN shard SET NOT NULL;
ALTER TABLE payment_progress DROP CONSTRAINT payment_progress_pkey;
ALTER TABLE payment_progress ADD PRIMARY KEY (txid, version, shard);
DROP FUNCTION shard_of_original;

ALTER TYPE transactions_row ADD ATTRIBUTE shard bigint;
ALTER TYPE transfers_row ADD ATTRIBUTE shard bigint;
ALTER TYPE payment_progress_row ADD ATTRIBUTE shard bigint;

-- ---------------------------------------------------------------------------------------------
-- Later terms of products: one person proposes a version, another approves it, and from its moment on
-- it is what the product's cards may do. A version never changes; the first terms stand in `products`.
CREATE TABLE product_terms (
    product_id      text    NOT NULL REFERENCES products,
    version         integer NOT NULL CHECK (version > 1),
    terms           jsonb   NOT NULL,   -- nodes/authorization/controls.py, Terms
    effective_from_ms bigint NOT NULL,
    reason          text    NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    made_by         text    NOT NULL,
    made_at         timestamptz NOT NULL,
    state           text    NOT NULL DEFAULT 'proposed' CHECK (state IN ('proposed', 'approved', 'rejected')),
    checked_by      text,
    checked_at      timestamptz,
    PRIMARY KEY (product_id, version),
    CHECK (checked_by IS NULL OR checked_by <> made_by),
    CHECK ((state = 'proposed') = (checked_by IS NULL)),
    CHECK ((checked_by IS NULL) = (checked_at IS NULL))
);
-- What people read as the product's terms, and decisions are made by: of the approved versions whose moment
-- has come, the one that came last.
CREATE FUNCTION products_at(now_ms bigint)
RETURNS TABLE (product_id text, name text, terms jsonb, version integer, created_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT p.product_id, p.name, coalesce(v.terms, p.terms), coalesce(v.version, 1), p.created_at
    FROM products AS p LEFT JOIN LATERAL (SELECT t.terms, t.version FROM product_terms AS t
        WHERE t.product_id = p.product_id AND t.state = 'approved' AND t.effective_from_ms <= now_ms
        ORDER BY t.effective_from_ms DESC, t.version DESC LIMIT 1) AS v ON true
$$;
CREATE TRIGGER product_terms_are_events AFTER INSERT OR UPDATE ON product_terms
    FOR EACH ROW EXECUTE FUNCTION note_row('audit', 'product_terms', 'product_id');
CREATE TRIGGER product_terms_undeleted BEFORE DELETE ON product_terms
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER product_terms_untruncated BEFORE TRUNCATE ON product_terms
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT ON product_terms TO countersign_app, countersign_anchor, countersign_reader;
GRANT INSERT ON product_terms TO countersign_app;
GRANT UPDATE (state, checked_by, checked_at, effective_from_ms) ON product_terms TO countersign_app;
