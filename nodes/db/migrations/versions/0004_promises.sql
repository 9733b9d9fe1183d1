-- Signed promises, events as leaves, erasure.

-- What receipts carry: the member's word that a transaction will be anchored by a moment. Made once
-- a transaction, so that each copy of a receipt says the same. Signed by the promise key over
-- (member, txid, C, merge deadline); salt_fin, which the receipt carries too, stands in the row.
CREATE TABLE promises (
    txid            bytea  PRIMARY KEY CHECK (octet_length(txid) = 32),
    commitment      bytea  NOT NULL CHECK (octet_length(commitment) = 32),
    merge_deadline  bigint NOT NULL CHECK (merge_deadline > 0),  -- seconds since 1970
    signature       bytea  NOT NULL CHECK (octet_length(signature) = 65),
    promised_ms     bigint NOT NULL
);
CREATE INDEX promises_by_deadline ON promises (merge_deadline);

CREATE TRIGGER promises_unchanging BEFORE UPDATE OR DELETE ON promises
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER promises_untruncated BEFORE TRUNCATE ON promises
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT ON promises TO countersign_app, countersign_anchor, countersign_reader;
GRANT INSERT ON promises TO countersign_app;
