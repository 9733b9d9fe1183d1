-- The log's copy of private columns (docs/evidence.md, P): what P is the hash of, instead of a salted
-- hash a column. Leaves that were sealed before have another P, so such a log can't go on.
DO $$
BEGIN
    IF EXISTS (SELECT FROM log_leaves) THEN
        RAISE EXCEPTION 'this log was sealed by a development build before 2026-11-23: start a new one'
            USING ERRCODE = '0A000';
    END IF;
END $$;
ALTER TABLE log_leaves DROP COLUMN private_leaves;
ALTER TABLE log_leaves ADD COLUMN private_copy bytea NOT NULL;

-- Erasing a person takes the masked number out of the ledger, too.
DROP TRIGGER transactions_unchanging ON transactions;
CREATE TRIGGER transactions_unchanging BEFORE UPDATE OR DELETE ON transactions FOR EACH ROW
    EXECUTE FUNCTION refuse_change_but_erasure('{salt_pii,card_token,card_token_leaf,pan_masked}');
