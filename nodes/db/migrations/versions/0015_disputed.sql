-- What receipts tell of partial approvals; what people decide about payments of copied cards.

-- The acquirer's: what was asked for, where less was approved. One row a partial approval.
CREATE TABLE partial_approvals (
    txid      bytea  PRIMARY KEY CHECK (octet_length(txid) = 32),
    requested bigint NOT NULL CHECK (requested > 0)
);
CREATE TYPE partial_approvals_row AS (txid bytea, requested bigint);
CREATE TRIGGER partial_approvals_unchanging BEFORE UPDATE OR DELETE ON partial_approvals
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER partial_approvals_untruncated BEFORE TRUNCATE ON partial_approvals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT ON partial_approvals TO countersign_app, countersign_anchor, countersign_reader;
GRANT INSERT ON partial_approvals TO countersign_app;

-- The payment whose disputed debt an adjustment decides about: a positive amount lets the issuer bear it,
-- a negative one the holder. NULL: a correction like any other.
ALTER TABLE adjustments ADD COLUMN disputed bytea CHECK (octet_length(disputed) = 32);
