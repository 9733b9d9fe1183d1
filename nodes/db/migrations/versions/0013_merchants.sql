-- Requests that the acquirer refused by itself: they never became transactions, and their merchants are told
-- of them all the same. Written in the commit that stores the answer.
CREATE TABLE acquirer_refusals (
    refusal_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xact            xid8   NOT NULL DEFAULT pg_current_xact_id(),
    idempotency_key bytea  NOT NULL CHECK (octet_length(idempotency_key) = 32),
    merchant_id     text   NOT NULL,   -- of the terminal, whatever the request said
    terminal_id     text   NOT NULL,
    kind            text   NOT NULL,
    outcome         text   NOT NULL,
    amount          bigint NOT NULL,   -- that was asked for, minor units
    currency        text   NOT NULL,
    rrn             text   NOT NULL,
    pan_masked      text   NOT NULL,
    batch           text   NOT NULL,
    stan            text   NOT NULL,
    refused_ms      bigint NOT NULL
);
CREATE INDEX acquirer_refusals_by_commit ON acquirer_refusals (xact, refusal_id);
CREATE INDEX acquirer_refusals_of_terminal ON acquirer_refusals (terminal_id, refusal_id);
CREATE TYPE acquirer_refusals_row AS (
    idempotency_key bytea, merchant_id text, terminal_id text, kind text, outcome text, amount bigint,
    currency text, rrn text, pan_masked text, batch text, stan text, refused_ms bigint
);
CREATE TRIGGER acquirer_refusals_unchanging BEFORE UPDATE OR DELETE ON acquirer_refusals
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER acquirer_refusals_untruncated BEFORE TRUNCATE ON acquirer_refusals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT, INSERT ON acquirer_refusals TO countersign_app;
GRANT SELECT ON acquirer_refusals TO countersign_reader;

-- How far refusals were read for webhooks. Those before this migration, or before the first endpoint, aren't told.
ALTER TABLE webhook_scan
    ADD COLUMN refused_xact xid8 NOT NULL DEFAULT pg_snapshot_xmin(pg_current_snapshot()),
    ADD COLUMN refusal_id   bigint NOT NULL DEFAULT 0;
GRANT UPDATE (refused_xact, refusal_id) ON webhook_scan TO countersign_app;

-- An order whose time is over is told once.
ALTER TABLE orders ADD COLUMN expiry_told boolean NOT NULL DEFAULT false;
UPDATE orders SET expiry_told = true WHERE state = 'expired';
CREATE INDEX orders_ending ON orders (expires_ms) WHERE state IN ('open', 'paying');
CREATE INDEX orders_untold ON orders (order_id) WHERE state = 'expired' AND NOT expiry_told;
GRANT UPDATE (expiry_told) ON orders TO countersign_app;

-- A caller's key may be its merchant's instead of one terminal's; a request names the terminal then.
ALTER TABLE front_keys ADD COLUMN merchant_id text REFERENCES merchants;
ALTER TABLE front_keys ALTER COLUMN terminal_id DROP NOT NULL;
ALTER TABLE front_keys ADD CHECK ((terminal_id IS NULL) <> (merchant_id IS NULL));

-- Each signature's jti, for as long as its request could be replayed: what one front has taken no other takes.
-- Rows are bounded by the number that a front takes of a key (gateway/http/signatures.py) and by their time.
CREATE TABLE front_jtis (
    key_id          text   NOT NULL,
    jti             text   NOT NULL CHECK (length(jti) BETWEEN 8 AND 64),
    forget_ms       bigint NOT NULL,
    PRIMARY KEY (key_id, jti)
);
CREATE INDEX front_jtis_by_time ON front_jtis (forget_ms);
GRANT SELECT, INSERT, DELETE ON front_jtis TO countersign_app;

-- What else may happen to a terminal.
ALTER TABLE terminal_changes DROP CONSTRAINT terminal_changes_kind_check;
ALTER TABLE terminal_changes ADD CONSTRAINT terminal_changes_kind_check CHECK (kind IN
    ('enrolled', 'parameters', 'keys', 'disabled', 'enabled', 'details', 'suite', 'moved', 'retired'));
GRANT UPDATE (merchant_id) ON terminals TO countersign_app;

-- Whose signature makes a terminal's certificate one of this acquirer's (docs/keys.md, Certificates).
CREATE TABLE terminal_authorities (
    fingerprint     text   PRIMARY KEY CHECK (fingerprint ~ '^[0-9a-f]{64}$'),
    subject         text   NOT NULL,
    certificate     text   NOT NULL,   -- base64
    not_after_ms    bigint NOT NULL,
    status          text   NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'ended')),
    created_by      text   NOT NULL,
    created_ms      bigint NOT NULL
);
GRANT SELECT, INSERT ON terminal_authorities TO countersign_app;
GRANT SELECT ON terminal_authorities TO countersign_reader;
GRANT UPDATE (status) ON terminal_authorities TO countersign_app;
