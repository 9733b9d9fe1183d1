-- Offline payments, terminal batches, store-and-forward of advices, top-ups.

-- What others' migrations permit stays permitted: the lists are added to.
DO $$
DECLARE
    change record;
BEGIN
    FOR change IN SELECT c.conname, c.conrelid::regclass AS relation, pg_get_constraintdef(c.oid) AS old,
            replace(pg_get_constraintdef(c.oid), '''adjustment''::text', '''adjustment''::text, ' || w.more) AS new
        FROM (VALUES ('accounts_kind_check', '''offline_reserved''::text'),
                     ('transactions_kind_check', '''top_up''::text, ''reserve''::text, ''release''::text'))
            AS w (name, more) JOIN pg_constraint AS c ON c.conname = w.name LOOP
        IF change.old = change.new THEN
            RAISE EXCEPTION 'the list of % is not as expected: %', change.conname, change.old;
        END IF;
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', change.relation, change.conname);
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I %s', change.relation, change.conname, change.new);
    END LOOP;
END $$;

-- ---------------------------------------------------------------------------------------------
-- The acquirer's store-and-forward of what has happened already (advices, completions): stored in the
-- commit that takes the message in, sent until the issuer has answered, then done. The card number is
-- sealed under the acquirer's own key, bound to the txid, and taken away when it is done.
CREATE TABLE forward_queue (
    txid            bytea PRIMARY KEY CHECK (octet_length(txid) = 32),
    -- What is sent in order: the original that a follow-up names, else the transaction itself.
    group_txid      bytea  NOT NULL CHECK (octet_length(group_txid) = 32),
    issuer          text   NOT NULL,
    terminal_id     text   NOT NULL,
    batch           text   NOT NULL,
    place           bigint GENERATED ALWAYS AS IDENTITY,
    idempotency_key bytea  NOT NULL CHECK (octet_length(idempotency_key) = 32),
    business_date   date   NOT NULL,
    request         bytea  NOT NULL,   -- its Pending; no card number
    pan_sealed      bytea,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_ms bigint NOT NULL,
    done_ms         bigint,
    outcome         text,              -- the issuer's, once it is done
    CHECK ((done_ms IS NULL) = (outcome IS NULL)),
    CHECK (done_ms IS NULL OR pan_sealed IS NULL)
);
CREATE INDEX forward_queue_due ON forward_queue (next_attempt_ms) WHERE done_ms IS NULL;
CREATE INDEX forward_queue_groups ON forward_queue (group_txid, place) WHERE done_ms IS NULL;
CREATE INDEX forward_queue_terminals ON forward_queue (terminal_id, batch) WHERE done_ms IS NULL;

-- ---------------------------------------------------------------------------------------------
-- Batches of terminals. The lines are rolled up from `transactions` after the fact, by (xact,
-- transaction_id) as sealing takes them: no payment pays for an index. A close reads the lines and,
-- by the same cursor, what isn't rolled up yet.
CREATE TABLE terminal_batch_scan (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    last_xact       xid8   NOT NULL,
    last_transaction_id bigint NOT NULL
);
INSERT INTO terminal_batch_scan VALUES (true, '0', 0);

-- Each 0500 that was answered. 'differs': totals are others, an upload follows; 'adjusted': closed
-- after one. A batch number may come again after many others, as it has six digits.
CREATE TABLE batch_closes (
    close_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    terminal_id     text   NOT NULL REFERENCES terminals,
    batch           text   NOT NULL CHECK (batch ~ '^[0-9]{6}$'),
    business_date   date   NOT NULL,
    stan            text   NOT NULL CHECK (stan ~ '^[0-9]{6}$'),
    fingerprint     bytea  NOT NULL CHECK (octet_length(fingerprint) = 32),
    outcome         text   NOT NULL CHECK (outcome IN ('equal', 'differs', 'adjusted')),
    reported        jsonb  NOT NULL,   -- the terminal's totals, a currency an entry
    booked          jsonb  NOT NULL,   -- the acquirer's at that moment
    at_ms           bigint NOT NULL,
    CHECK (outcome <> 'equal' OR reported = booked),
    CHECK (outcome <> 'differs' OR reported <> booked),
    UNIQUE (terminal_id, business_date, batch, stan)
);
CREATE TABLE terminal_batch_lines (
    terminal_id     text   NOT NULL,
    batch           text   NOT NULL,
    transaction_id  bigint NOT NULL UNIQUE,
    close_id        bigint REFERENCES batch_closes,  -- once: a transaction is in one close at most
    PRIMARY KEY (terminal_id, batch, transaction_id)
);

-- What was counted in a close while it waited for its issuer, isn't counted again when it is recorded.
ALTER TABLE forward_queue ADD COLUMN close_id bigint REFERENCES batch_closes;
CREATE INDEX forward_queue_closed ON forward_queue (txid) WHERE close_id IS NOT NULL;

-- Items of uploads, each compared with the books when it came, and what was missing in one. A finding is
-- acted on in the same commit or by the normal path under a key of its own, so never twice.
CREATE TABLE batch_findings (
    finding_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    close_id        bigint NOT NULL REFERENCES batch_closes,  -- the 'differs' that opened the upload
    stan            text   NOT NULL,
    business_date   date   NOT NULL,
    kind            text   NOT NULL,
    amount          bigint NOT NULL CHECK (amount >= 0),  -- the terminal's; 0: it knows of none
    currency        char(3) NOT NULL,
    booked          bigint NOT NULL CHECK (booked >= 0),  -- the acquirer's; 0: it knows of none
    finding         text   NOT NULL CHECK (finding IN ('equal', 'missing_here', 'missing_there', 'amount')),
    action          text   NOT NULL CHECK (action IN ('none', 'posted', 'reversed', 'flagged')),
    adjusted        bigint NOT NULL DEFAULT 0,  -- minor units posted or reversed
    txid            bytea CHECK (octet_length(txid) = 32),
    fingerprint     bytea  NOT NULL CHECK (octet_length(fingerprint) = 32),
    at_ms           bigint NOT NULL,
    UNIQUE (close_id, stan, business_date),
    CHECK ((finding = 'equal') = (amount = booked)),
    CHECK (action <> 'none' OR finding = 'equal')
);

-- ---------------------------------------------------------------------------------------------
-- Offline payments.
CREATE TABLE card_offline_keys (
    card_key_id     bytea PRIMARY KEY CHECK (octet_length(card_key_id) = 8),
    -- After an erasure it is the card's pseudonym, as in `cards`.
    card_token      bytea  NOT NULL REFERENCES cards (card_token) ON UPDATE CASCADE,
    issuer          text   NOT NULL,   -- this member
    public_key      bytea  NOT NULL CHECK (octet_length(public_key) = 65),
    registered_by   text   NOT NULL,
    registered_ms   bigint NOT NULL
);
CREATE INDEX card_offline_keys_by_card ON card_offline_keys (card_token);

-- Records that were taken in: at the acquirer one a place in a terminal's chain, at the issuer one a
-- card's counter, whatever is sent again.
CREATE TABLE offline_records (
    side            text   NOT NULL CHECK (side IN ('issuer', 'acquirer')),
    acquirer        text   NOT NULL,
    terminal_id     text   NOT NULL,
    epoch           bigint NOT NULL CHECK (epoch >= 0),
    seq             bigint NOT NULL CHECK (seq > 0),
    previous        bytea  NOT NULL CHECK (octet_length(previous) = 32),
    record_hash     bytea  NOT NULL CHECK (octet_length(record_hash) = 32),
    card_key_id     bytea  NOT NULL CHECK (octet_length(card_key_id) = 8),
    atc             bigint NOT NULL CHECK (atc BETWEEN 0 AND 65535),
    amount          bigint NOT NULL CHECK (amount > 0),
    currency        text   NOT NULL,
    made_ms         bigint NOT NULL,
    received_ms     bigint NOT NULL,
    txid            bytea  NOT NULL CHECK (octet_length(txid) = 32),
    idempotency_key bytea  NOT NULL CHECK (octet_length(idempotency_key) = 32),
    business_date   date   NOT NULL,
    PRIMARY KEY (side, acquirer, terminal_id, epoch, seq),
    CHECK ((seq = 1) = (previous = decode(repeat('00', 32), 'hex')))
);
CREATE UNIQUE INDEX offline_records_by_counter ON offline_records (card_key_id, atc) WHERE side = 'issuer';
CREATE TYPE offline_records_row AS (
    side text, acquirer text, terminal_id text, epoch bigint, seq bigint, previous bytea, record_hash bytea,
    card_key_id bytea, atc bigint, amount bigint, currency text, made_ms bigint, received_ms bigint, txid bytea,
    idempotency_key bytea, business_date date
);

-- What people must look at.
CREATE TABLE offline_alarms (
    alarm_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind            text   NOT NULL CHECK (kind IN ('clone', 'invalid', 'fork', 'cap', 'refused')),
    side            text   NOT NULL CHECK (side IN ('issuer', 'acquirer')),
    terminal_id     text   NOT NULL,
    epoch           bigint,
    seq             bigint,
    card_key_id     bytea,
    atc             bigint,
    txid            bytea,
    detail          text   NOT NULL,
    at_ms           bigint NOT NULL
);
CREATE TYPE offline_alarms_row AS (
    kind text, side text, terminal_id text, epoch bigint, seq bigint, card_key_id bytea, atc bigint,
    txid bytea, detail text, at_ms bigint
);

-- Cards that may not pay offline, by their keys' names. Each issuer numbers its own entries; an acquirer
-- has a copy of all issuers' and numbers that, for its terminals (list_number).
CREATE TABLE hotlist_entries (
    issuer          text   NOT NULL,
    version         bigint NOT NULL CHECK (version > 0),
    card_key_id     bytea  NOT NULL CHECK (octet_length(card_key_id) = 8),
    listed          boolean NOT NULL,  -- false: taken off again
    reason          text   NOT NULL,
    at_ms           bigint NOT NULL,
    list_number     bigint NOT NULL UNIQUE CHECK (list_number > 0),
    PRIMARY KEY (issuer, version)
);
CREATE INDEX hotlist_by_key ON hotlist_entries (card_key_id, list_number);
-- When an issuer's entries were last asked for, and all of them were had.
CREATE TABLE hotlist_copies (
    issuer          text PRIMARY KEY,
    checked_ms      bigint NOT NULL
);

-- One after the other, so that numbers are seen in their order.
CREATE FUNCTION append_hotlist(of_issuer text, with_version bigint, key_id bytea, is_listed boolean, why text, at bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
    last boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(x'0A12'::integer, 0);
    SELECT listed INTO last FROM hotlist_entries WHERE issuer = of_issuer AND card_key_id = key_id
        ORDER BY list_number DESC LIMIT 1;
    IF with_version IS NULL AND coalesce(last, false) = is_listed THEN
        RETURN NULL;  -- it says so already
    END IF;
    SELECT coalesce(max(list_number), 0) + 1 INTO number FROM hotlist_entries;
    INSERT INTO hotlist_entries VALUES (of_issuer, coalesce(with_version,
        (SELECT coalesce(max(version), 0) + 1 FROM hotlist_entries WHERE issuer = of_issuer)),
        key_id, is_listed, why, at, number) ON CONFLICT DO NOTHING;
    RETURN number;
END $$;
-- A card that is lost, stolen, blocked or cancelled may not pay offline either; nothing has to remember.
CREATE FUNCTION hotlist_card() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    k record;
BEGIN
    FOR k IN SELECT issuer, card_key_id FROM card_offline_keys WHERE card_token = NEW.card_token LOOP
        PERFORM append_hotlist(k.issuer, NULL, k.card_key_id, NEW.status <> 'active', NEW.status,
            (extract(epoch FROM clock_timestamp()) * 1000)::bigint);
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER cards_are_hotlisted AFTER UPDATE OF status ON cards FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION hotlist_card();
CREATE FUNCTION append_hotlist_clone(key_id bytea, at bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM append_hotlist(k.issuer, NULL, key_id, true, 'clone', at) FROM card_offline_keys AS k
        WHERE k.card_key_id = key_id;
END $$;

-- ---------------------------------------------------------------------------------------------
-- Events of the log.
CREATE TRIGGER batch_closes_are_events AFTER INSERT ON batch_closes
    FOR EACH ROW EXECUTE FUNCTION note_row('merchant', 'batch_close', 'terminal_id', 'fingerprint');
CREATE FUNCTION note_finding() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.finding <> 'equal' THEN
        PERFORM record_event('merchant', 'batch.' || NEW.action, NEW.close_id || '/' || NEW.stan, 'node',
            (to_jsonb(NEW) - 'fingerprint')::text, NULL);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER batch_findings_are_events AFTER INSERT ON batch_findings
    FOR EACH ROW EXECUTE FUNCTION note_finding();
CREATE FUNCTION note_alarm() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM record_event('audit', 'offline.' || NEW.kind, NEW.terminal_id, 'node',
        (to_jsonb(NEW) - 'card_key_id')::text, NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER offline_alarms_are_events AFTER INSERT ON offline_alarms
    FOR EACH ROW EXECUTE FUNCTION note_alarm();

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['batch_closes', 'batch_findings', 'offline_records', 'offline_alarms', 'hotlist_entries'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()',
                       t || '_unchanging', t);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
                       t || '_untruncated', t);
    END LOOP;
END $$;

GRANT SELECT ON forward_queue, terminal_batch_scan, terminal_batch_lines, batch_closes, batch_findings,
    card_offline_keys, offline_records, offline_alarms, hotlist_entries, hotlist_copies
    TO countersign_app, countersign_anchor;
GRANT SELECT ON terminal_batch_lines, batch_closes, batch_findings, offline_records, offline_alarms,
    hotlist_entries, hotlist_copies TO countersign_reader;
GRANT INSERT ON forward_queue, terminal_batch_lines, batch_closes, batch_findings, card_offline_keys,
    offline_records, offline_alarms, hotlist_entries, hotlist_copies TO countersign_app;
GRANT UPDATE (attempts, next_attempt_ms, done_ms, outcome, pan_sealed, close_id) ON forward_queue TO countersign_app;
GRANT UPDATE (last_xact, last_transaction_id) ON terminal_batch_scan TO countersign_app;
GRANT UPDATE (close_id) ON terminal_batch_lines TO countersign_app;
GRANT UPDATE (checked_ms) ON hotlist_copies TO countersign_app;
