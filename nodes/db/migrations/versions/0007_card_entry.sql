-- Chip, stripe, contactless, QR, orders, webhooks.

-- What a card was made with beside its number (nodes/authorization/state.py, CardEntry); NULL: a plain one.
ALTER TABLE cards ADD COLUMN entry text;

-- What chips said, and what they were answered: one row a request with readable chip data.
CREATE TABLE chip_records (
    txid        bytea    PRIMARY KEY CHECK (octet_length(txid) = 32),
    card_token  bytea    CHECK (octet_length(card_token) = 16),
    atc         bigint   NOT NULL,
    kind        smallint NOT NULL,  -- 0 AAC, 1 TC, 2 ARQC
    cryptogram  bytea    NOT NULL CHECK (octet_length(cryptogram) = 8),
    covered     bytea    NOT NULL,  -- the bytes under the cryptogram
    cvm_results bytea    NOT NULL,
    genuine     boolean  NOT NULL,
    answer      bytea               -- DE55 of the answer
);
CREATE INDEX chip_records_by_card ON chip_records (card_token, atc);
CREATE TYPE chip_records_row AS (
    txid bytea, card_token bytea, atc bigint, kind smallint, cryptogram bytea, covered bytea,
    cvm_results bytea, genuine boolean, answer bytea
);
CREATE TRIGGER chip_records_unchanging BEFORE UPDATE OR DELETE ON chip_records
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER chip_records_untruncated BEFORE TRUNCATE ON chip_records
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT ON chip_records TO countersign_app, countersign_anchor, countersign_reader;
GRANT INSERT ON chip_records TO countersign_app;

-- Consumers' single-use codes: found like card numbers, by a keyed hash. That one was used is known from
-- its card account's versions: the last number used, and no lower one is taken after it.
CREATE SEQUENCE consumer_code_numbers;
CREATE TABLE consumer_codes (
    code_lookup bytea  PRIMARY KEY CHECK (octet_length(code_lookup) = 32),
    card_token  bytea  NOT NULL REFERENCES cards (card_token),
    number      bigint NOT NULL UNIQUE,
    expires_ms  bigint NOT NULL
);
CREATE INDEX consumer_codes_expired ON consumer_codes (expires_ms);
GRANT SELECT, INSERT, DELETE ON consumer_codes TO countersign_app;
GRANT USAGE ON SEQUENCE consumer_code_numbers TO countersign_app;
