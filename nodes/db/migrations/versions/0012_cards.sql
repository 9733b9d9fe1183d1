-- What receipts tell of chips; alarms about advices that a chip doesn't bear out; records of copied cards.

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

-- The issuer's: records of copied cards. They are posted as what is owed; the first record under a counter stands in
-- offline_records, which has one a counter.
CREATE TABLE offline_clones (
    card_key_id bytea  NOT NULL CHECK (octet_length(card_key_id) = 8),
    atc         bigint NOT NULL CHECK (atc BETWEEN 0 AND 65535),
    record_hash bytea  NOT NULL CHECK (octet_length(record_hash) = 32),
    acquirer    text   NOT NULL,
    terminal_id text   NOT NULL,
    epoch       bigint NOT NULL CHECK (epoch >= 0),
    seq         bigint NOT NULL CHECK (seq > 0),
    amount      bigint NOT NULL CHECK (amount > 0),
    currency    text   NOT NULL,
    made_ms     bigint NOT NULL,
    received_ms bigint NOT NULL,
    txid        bytea  NOT NULL UNIQUE CHECK (octet_length(txid) = 32),
    PRIMARY KEY (card_key_id, atc, record_hash)
);
CREATE TYPE offline_clones_row AS (
    card_key_id bytea, atc bigint, record_hash bytea, acquirer text, terminal_id text, epoch bigint, seq bigint,
    amount bigint, currency text, made_ms bigint, received_ms bigint, txid bytea
);
CREATE TRIGGER offline_clones_unchanging BEFORE UPDATE OR DELETE ON offline_clones
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER offline_clones_untruncated BEFORE TRUNCATE ON offline_clones
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT ON offline_clones TO countersign_app, countersign_anchor, countersign_reader;
GRANT INSERT ON offline_clones TO countersign_app;
