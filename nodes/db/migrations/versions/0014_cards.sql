-- What receipts tell of chips; alarms about advices that a chip doesn't bear out.

-- The acquirer's: one row a request with readable chip data. No card number, no track, nothing of the issuer's.
CREATE TABLE chip_slips (
    txid        bytea    PRIMARY KEY CHECK (octet_length(txid) = 32),
    aid         bytea    NOT NULL CHECK (octet_length(aid) <= 16),
    label       text     NOT NULL CHECK (length(label) <= 16),
    kind        smallint NOT NULL CHECK (kind BETWEEN 0 AND 2),  -- 0 AAC, 1 TC, 2 ARQC
    cryptogram  bytea    NOT NULL CHECK (octet_length(cryptogram) = 8),
    atc         bigint   NOT NULL CHECK (atc BETWEEN 0 AND 65535),
    cvm_results bytea    NOT NULL CHECK (octet_length(cvm_results) IN (0, 3))
);
CREATE TYPE chip_slips_row AS (
    txid bytea, aid bytea, label text, kind smallint, cryptogram bytea, atc bigint, cvm_results bytea
);
CREATE TRIGGER chip_slips_unchanging BEFORE UPDATE OR DELETE ON chip_slips
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER chip_slips_untruncated BEFORE TRUNCATE ON chip_slips
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT ON chip_slips TO countersign_app, countersign_anchor, countersign_reader;
GRANT INSERT ON chip_slips TO countersign_app;

ALTER TABLE offline_alarms DROP CONSTRAINT offline_alarms_kind_check;
ALTER TABLE offline_alarms ADD CONSTRAINT offline_alarms_kind_check
    CHECK (kind IN ('clone', 'invalid', 'fork', 'cap', 'refused', 'cryptogram'));
