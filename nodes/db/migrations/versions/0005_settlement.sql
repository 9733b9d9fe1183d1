-- Answer signatures, settlement.

-- ---------------------------------------------------------------------------------------------
-- What issuers have signed of their answers (nodes/crypto/answer_signature.py), in the acquirer's
-- books: a row a commit, so that the authorization path pays for one row and not for one a
-- transaction. Ids of one commit lie close together: first_id finds the row.
CREATE TABLE answer_signatures (
    first_id        bigint   PRIMARY KEY,
    transaction_ids bigint[] NOT NULL,
    shares          bytea[]  NOT NULL,
    xact            xid8     NOT NULL DEFAULT pg_current_xact_id(),
    CHECK (cardinality(transaction_ids) > 0 AND cardinality(transaction_ids) = cardinality(shares)),
    CHECK (transaction_ids[1] = first_id)
);
ALTER TABLE answer_signatures ALTER COLUMN shares SET STORAGE EXTERNAL;  -- hashes don't get any smaller
CREATE INDEX answer_signatures_in_order ON answer_signatures (xact);

-- How far they were verified. What doesn't hold stands in unsigned_answers.
CREATE TABLE answer_checks (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    next_xact       xid8    NOT NULL
);
INSERT INTO answer_checks (next_xact) VALUES ('0');

CREATE TRIGGER answer_signatures_unchanging BEFORE UPDATE OR DELETE ON answer_signatures
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER answer_signatures_untruncated BEFORE TRUNCATE ON answer_signatures
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT ON answer_signatures, answer_checks TO countersign_app, countersign_anchor, countersign_reader;
GRANT INSERT ON answer_signatures TO countersign_app;
GRANT UPDATE (next_xact) ON answer_checks TO countersign_app;
