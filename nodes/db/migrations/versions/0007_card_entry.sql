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

-- ---------------------------------------------------------------------------------------------
-- The acquirer's HTTP front: keys of smart terminals and online merchants, orders, webhooks.
CREATE TABLE front_keys (
    key_id      text  PRIMARY KEY CHECK (key_id ~ '^[A-Za-z0-9._-]{1,64}$'),
    terminal_id text  NOT NULL REFERENCES terminals,
    algorithm   text  NOT NULL CHECK (algorithm IN ('ES256', 'SM2')),
    public_key  bytea NOT NULL CHECK (octet_length(public_key) = 64),  -- x, y
    status      text  NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'revoked')),
    created_by  text  NOT NULL,
    created_at  timestamptz NOT NULL
);
GRANT SELECT, INSERT ON front_keys TO countersign_app;
GRANT SELECT ON front_keys TO countersign_reader;
GRANT UPDATE (status) ON front_keys TO countersign_app;

-- An order waits for one payment. `attempt` names the payment's request (batch ORDER, trace number
-- of id and attempt), so what became of it is looked up, never guessed.
CREATE TABLE orders (
    order_id        text   PRIMARY KEY CHECK (order_id ~ '^[A-Z2-7]{16}$'),
    terminal_id     text   NOT NULL REFERENCES terminals,
    merchant_id     text   NOT NULL REFERENCES merchants,
    amount          bigint NOT NULL CHECK (amount > 0),
    currency        char(3) NOT NULL,
    reference       text   NOT NULL,
    business_date   date   NOT NULL,
    idempotency_key text   NOT NULL,
    fingerprint     bytea  NOT NULL CHECK (octet_length(fingerprint) = 32),
    state           text   NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'paying', 'paid', 'expired')),
    attempt         integer NOT NULL DEFAULT 0,
    paying_until_ms bigint,
    expires_ms      bigint NOT NULL,
    created_ms      bigint NOT NULL,
    txid            bytea,
    rrn             text,
    UNIQUE (terminal_id, idempotency_key)
);
GRANT SELECT, INSERT ON orders TO countersign_app;
GRANT SELECT ON orders TO countersign_reader;
GRANT UPDATE (state, attempt, paying_until_ms, txid, rrn) ON orders TO countersign_app;

CREATE TABLE order_attempts (
    terminal_id text NOT NULL,
    stan        text NOT NULL,
    order_id    text NOT NULL REFERENCES orders,
    PRIMARY KEY (terminal_id, stan)
);
GRANT SELECT, INSERT ON order_attempts TO countersign_app;
GRANT SELECT ON order_attempts TO countersign_reader;

-- Where merchants are told of outcomes. The secret isn't stored: it is derived in the node.
CREATE TABLE webhook_endpoints (
    endpoint_id  text PRIMARY KEY CHECK (endpoint_id ~ '^[A-Z2-7]{16}$'),
    merchant_id  text NOT NULL REFERENCES merchants,
    url          text NOT NULL CHECK (length(url) <= 500),
    status       text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'ended')),
    created_by   text NOT NULL,
    created_at   timestamptz NOT NULL
);
CREATE TABLE webhook_deliveries (
    delivery_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id      text   NOT NULL,
    endpoint_id     text   NOT NULL REFERENCES webhook_endpoints,
    body            bytea  NOT NULL,
    created_ms      bigint NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_ms bigint,            -- NULL: over
    delivered_ms    bigint,
    last_status     integer,
    last_error      text,
    UNIQUE (message_id, endpoint_id)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_ms) WHERE next_attempt_ms IS NOT NULL;
-- How far the transactions were read for webhooks, below the horizon of running ones (ADR 7).
CREATE TABLE webhook_scan (
    only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    xact           xid8    NOT NULL,
    transaction_id bigint  NOT NULL
);
GRANT SELECT, INSERT ON webhook_endpoints, webhook_deliveries, webhook_scan TO countersign_app;
GRANT SELECT ON webhook_endpoints, webhook_deliveries, webhook_scan TO countersign_reader;
GRANT UPDATE (status) ON webhook_endpoints TO countersign_app;
GRANT UPDATE (attempts, next_attempt_ms, delivered_ms, last_status, last_error) ON webhook_deliveries TO countersign_app;
GRANT UPDATE (xact, transaction_id) ON webhook_scan TO countersign_app;
