-- The terminal fleet: enrolment, keys, parameters and standing of terminals. What the path of a
-- payment asks stays in `terminals`; here is what the gateway and people are told.

CREATE TABLE fleet_terminals (
    terminal_id     text PRIMARY KEY REFERENCES terminals,
    change_id       bigint NOT NULL UNIQUE,   -- of the last change
    store           text   NOT NULL CHECK (length(store) <= 60),
    record          jsonb  NOT NULL           -- nodes/acquiring/fleet/model.py, FleetRecord
);
CREATE INDEX fleet_terminals_by_store ON fleet_terminals (store);

-- Each change with who, why and what it led to. Numbers are given out under one lock, so that they
-- become visible in their order: a gateway that has seen number n has missed none before it.
CREATE TABLE terminal_changes (
    change_id       bigint PRIMARY KEY CHECK (change_id > 0),
    terminal_id     text   NOT NULL REFERENCES terminals,
    kind            text   NOT NULL CHECK (kind IN ('enrolled', 'parameters', 'keys', 'disabled', 'enabled')),
    record          jsonb  NOT NULL,
    actor           text   NOT NULL,
    reason          text   NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    changed_ms      bigint NOT NULL,
    idempotency_key text   UNIQUE,
    fingerprint     bytea  CHECK (octet_length(fingerprint) = 32),
    CHECK ((idempotency_key IS NULL) = (fingerprint IS NULL))
);
CREATE INDEX terminal_changes_by_terminal ON terminal_changes (terminal_id, change_id);

-- What gateways last saw; overwritten, and no evidence of anything.
CREATE TABLE terminal_sightings (
    terminal_id     text PRIMARY KEY REFERENCES terminals,
    gateway         text   NOT NULL,
    last_seen_ms    bigint,
    last_sign_on_ms bigint,
    batch           text
);
-- Check values of master keys, as gateways derived them. Two of one generation: two gateways with
-- different local master keys, of which one is wrong.
CREATE TABLE terminal_key_checks (
    terminal_id     text   NOT NULL REFERENCES terminals,
    generation      integer NOT NULL CHECK (generation >= 0),
    check_value     text   NOT NULL CHECK (check_value ~ '^([0-9A-F]{2}){2,16}$'),
    gateway         text   NOT NULL,
    reported_ms     bigint NOT NULL,
    PRIMARY KEY (terminal_id, generation, check_value)
);

CREATE FUNCTION note_terminal_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM record_event('merchant', 'terminal.' || NEW.kind, NEW.terminal_id, NEW.actor,
        jsonb_build_object('change_id', NEW.change_id, 'reason', NEW.reason, 'record', NEW.record)::text, NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER terminal_changes_are_events AFTER INSERT ON terminal_changes
    FOR EACH ROW EXECUTE FUNCTION note_terminal_change();
CREATE FUNCTION note_key_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM record_event('merchant', 'terminal.key_checked', NEW.terminal_id, NEW.gateway,
        jsonb_build_object('generation', NEW.generation, 'check_value', NEW.check_value)::text, NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER terminal_key_checks_are_events AFTER INSERT ON terminal_key_checks
    FOR EACH ROW EXECUTE FUNCTION note_key_check();

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['terminal_changes', 'terminal_key_checks'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()',
                       t || '_unchanging', t);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
                       t || '_untruncated', t);
    END LOOP;
END $$;

GRANT SELECT ON fleet_terminals, terminal_changes, terminal_sightings, terminal_key_checks
    TO countersign_app, countersign_anchor, countersign_reader;
GRANT INSERT ON fleet_terminals, terminal_changes, terminal_sightings, terminal_key_checks TO countersign_app;
GRANT UPDATE (change_id, store, record) ON fleet_terminals TO countersign_app;
GRANT UPDATE (gateway, last_seen_ms, last_sign_on_ms, batch) ON terminal_sightings TO countersign_app;
