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

-- ---------------------------------------------------------------------------------------------
-- Events of the member's own business, leaves of the log like transactions (nodes/anchoring/events.py).
-- subject, actor and detail never hold a card number or token: those are in card_token alone, under
-- salt_pii, so that a person can be erased.
CREATE TABLE events (
    event_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind            text   NOT NULL CHECK (kind IN ('card', 'merchant', 'settlement', 'key', 'audit')),
    action          text   NOT NULL CHECK (action ~ '^[!-~]{1,32}$'),
    subject         text   NOT NULL,
    actor           text   NOT NULL,
    detail          text   NOT NULL,
    occurred_ms     bigint NOT NULL CHECK (occurred_ms >= 0),
    card_token      bytea CHECK (octet_length(card_token) = 16),
    salt_fin        bytea  NOT NULL CHECK (octet_length(salt_fin) = 32),
    salt_pii        bytea CHECK (octet_length(salt_pii) = 32),
    card_token_leaf bytea CHECK (octet_length(card_token_leaf) = 32),  -- after an erasure
    salt_private    bytea  NOT NULL CHECK (octet_length(salt_private) = 32),
    xact            xid8   NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX events_in_order ON events (xact, event_id);
CREATE INDEX events_of_keys ON events (subject) WHERE kind = 'key';
CREATE INDEX events_by_card ON events (card_token) WHERE card_token IS NOT NULL;
-- In log_leaves an event has its number, negative, as transaction_id.
CREATE INDEX log_leaves_of_events ON log_leaves (log_index) WHERE leaf_kind > 3;

-- 244 random bits of the machine's source (gen_random_uuid), as 32 bytes.
CREATE FUNCTION new_salt() RETURNS bytea LANGUAGE sql VOLATILE AS $$
    SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
$$;
CREATE FUNCTION record_event(kind text, action text, subject text, actor text, detail text, token bytea)
RETURNS bigint LANGUAGE sql VOLATILE AS $$
    INSERT INTO events (kind, action, subject, actor, detail, occurred_ms, card_token, salt_fin,
                        salt_pii, salt_private)
    VALUES ($1, $2, $3, $4, $5, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, $6,
            new_salt(), new_salt(), new_salt())
    RETURNING event_id
$$;

-- What people and nodes do becomes an event in the same transaction; nothing has to remember to.
CREATE FUNCTION note_card_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM record_event('card', 'card.' || regexp_replace(left(NEW.event, 27), '[^!-~]', '_', 'g'), '',
                         NEW.actor, NEW.reason, NEW.card_token);
    RETURN NULL;
END $$;
CREATE TRIGGER card_events_are_events AFTER INSERT ON card_events
    FOR EACH ROW EXECUTE FUNCTION note_card_event();

-- TG_ARGV: kind, the name in the action, the column that names the subject, then columns that aren't
-- to be shown. The detail is the row as JSON.
CREATE FUNCTION note_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    shown jsonb := to_jsonb(NEW);
    k text;
BEGIN
    FOR k IN 3 .. TG_NARGS - 1 LOOP
        shown := shown - TG_ARGV[k];
    END LOOP;
    PERFORM record_event(TG_ARGV[0], TG_ARGV[1] || CASE TG_OP WHEN 'INSERT' THEN '.added' ELSE '.changed' END,
                         to_jsonb(NEW) ->> TG_ARGV[2], 'node', shown::text, NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER merchants_are_events AFTER INSERT OR UPDATE ON merchants
    FOR EACH ROW EXECUTE FUNCTION note_row('merchant', 'merchant', 'merchant_id');
CREATE TRIGGER terminals_are_events AFTER INSERT OR UPDATE OF status ON terminals
    FOR EACH ROW EXECUTE FUNCTION note_row('merchant', 'terminal', 'terminal_id', 'last_seq');
CREATE TRIGGER products_are_events AFTER INSERT OR UPDATE ON products
    FOR EACH ROW EXECUTE FUNCTION note_row('audit', 'product', 'product_id');
CREATE TRIGGER adjustments_are_events AFTER INSERT OR UPDATE ON adjustments
    FOR EACH ROW EXECUTE FUNCTION note_row('audit', 'adjustment', 'adjustment_id');
-- Of a card's own rule the subject is the card.
CREATE FUNCTION note_rule() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM record_event('audit', CASE TG_OP WHEN 'INSERT' THEN 'rule.added' ELSE 'rule.changed' END,
        NEW.rule_id, NEW.created_by, (to_jsonb(NEW) - 'subject')::text,
        CASE WHEN NEW.scope = 'card' THEN decode(NEW.subject, 'hex') END);
    RETURN NULL;
END $$;
CREATE TRIGGER rules_are_events AFTER INSERT OR UPDATE ON spend_rules
    FOR EACH ROW EXECUTE FUNCTION note_rule();

-- How closes went, and what was done about their breaks. The chain's word on them is repeated here.
CREATE FUNCTION note_close_stage() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    c closes%ROWTYPE;
BEGIN
    SELECT * INTO c FROM closes WHERE close_id = NEW.close_id;
    PERFORM record_event('settlement', 'close.' || lower(NEW.stage),
        format('%s-%s %s %s, revision %s', c.acquirer, c.issuer, c.business_date, c.currency, c.revision),
        'node', jsonb_build_object('item_count', c.item_count, 'close_root', encode(c.close_root, 'hex'),
            'totals_hash', encode(c.totals_hash, 'hex'), 'other_root', encode(NEW.other_root, 'hex'),
            'other_totals', encode(NEW.other_totals, 'hex'))::text, NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER close_stages_are_events AFTER INSERT ON close_stages
    FOR EACH ROW EXECUTE FUNCTION note_close_stage();
CREATE FUNCTION note_case_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM record_event('settlement', 'case.' || NEW.step, encode(NEW.break_ref, 'hex'),
        NEW.member || ': ' || NEW.actor, (to_jsonb(NEW) - 'event_id')::text, NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER case_events_are_events AFTER INSERT ON case_events
    FOR EACH ROW EXECUTE FUNCTION note_case_event();

-- ---------------------------------------------------------------------------------------------
-- Erasure: of whom nothing is left but C, with a leaf hash in the place of the card token.
CREATE TABLE erasures (
    erasure_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pseudonym       bytea  NOT NULL UNIQUE CHECK (octet_length(pseudonym) = 16),
    reason          text   NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    erased_by       text   NOT NULL,
    erased_at       timestamptz NOT NULL
);
CREATE TABLE erased_rows (
    table_name      text   NOT NULL CHECK (table_name IN ('transactions', 'events')),
    row_id          bigint NOT NULL,
    erasure_id      bigint NOT NULL REFERENCES erasures,
    PRIMARY KEY (table_name, row_id)
);

-- Within an erasure (countersign.erasing = on) rows that never change lose what names a person, and
-- nothing else. Only who owns the tables may update them at all.
CREATE FUNCTION refuse_change_but_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    free text[] := TG_ARGV[0]::text[];
BEGIN
    IF TG_OP = 'UPDATE' AND current_setting('countersign.erasing', true) = 'on'
            AND to_jsonb(OLD) - free = to_jsonb(NEW) - free THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = '23001';
END $$;
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['transactions {salt_pii,card_token,card_token_leaf}',
                             'account_versions {state,detail}', 'card_events {card_token}',
                             'authorization_requests {request,answer}', 'authorization_answers {answer}'] LOOP
        EXECUTE format('DROP TRIGGER %I ON %I', split_part(t, ' ', 1) || '_unchanging', split_part(t, ' ', 1));
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change_but_erasure(%L)',
                       split_part(t, ' ', 1) || '_unchanging', split_part(t, ' ', 1), split_part(t, ' ', 2));
    END LOOP;
    FOREACH t IN ARRAY ARRAY['erasures', 'erased_rows'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()',
                       t || '_unchanging', t);
    END LOOP;
    FOREACH t IN ARRAY ARRAY['events', 'erasures', 'erased_rows'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
                       t || '_untruncated', t);
    END LOOP;
END $$;
CREATE TRIGGER events_unchanging BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION refuse_change_but_erasure('{salt_pii,card_token,card_token_leaf}');
-- A card's events follow it to its pseudonym at the end of the erasure.
ALTER TABLE card_events ALTER CONSTRAINT card_events_card_token_fkey DEFERRABLE INITIALLY IMMEDIATE;

GRANT SELECT ON events, erasures, erased_rows TO countersign_app, countersign_anchor, countersign_reader;
GRANT INSERT ON events TO countersign_app, countersign_anchor;
