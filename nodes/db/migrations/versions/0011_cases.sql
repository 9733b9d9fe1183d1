-- Two closes with equal lists and other totals have a class of their own, and a case lies on a desk.

ALTER TABLE breaks DROP CONSTRAINT breaks_kind_check, DROP CONSTRAINT breaks_check;
ALTER TABLE breaks
    ADD CONSTRAINT breaks_kind_check CHECK (kind IN ('DUPLICATE', 'FIELD_MISMATCH', 'TOTALS_MISMATCH', 'WRONG_DATE',
                                                     'LATE', 'MISSING_AT_ISSUER', 'MISSING_AT_ACQUIRER', 'SEQ_GAP',
                                                     'UNSIGNED')),
    -- Other totals that no transaction explains are about the close itself.
    ADD CONSTRAINT breaks_check CHECK (CASE kind WHEN 'SEQ_GAP' THEN txid IS NULL
                                                 WHEN 'TOTALS_MISMATCH' THEN true ELSE txid IS NOT NULL END);

-- Whose desk in this institution a case lies on: its own business, and no step of the case, whose
-- history both institutions share. The newest row of a case says it; holder NULL: nobody's.
CREATE TABLE case_desk (
    desk_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    break_ref       bytea   NOT NULL REFERENCES breaks,
    number          integer NOT NULL CHECK (number > 0),
    holder          text CHECK (length(holder) BETWEEN 1 AND 100),
    actor           text    NOT NULL,
    request_key     bytea   NOT NULL UNIQUE CHECK (octet_length(request_key) = 32),
    fingerprint     bytea   NOT NULL CHECK (octet_length(fingerprint) = 32),
    at              timestamptz NOT NULL,
    UNIQUE (break_ref, number)
);
CREATE FUNCTION require_desk_step() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last record;
BEGIN
    SELECT * INTO last FROM case_desk WHERE break_ref = NEW.break_ref ORDER BY number DESC LIMIT 1;
    IF NEW.number <> coalesce(last.number, 0) + 1 OR (last.holder IS NULL) = (NEW.holder IS NULL) THEN
        RAISE EXCEPTION 'a case is taken on by one, and laid down before another takes it'
            USING ERRCODE = '40001';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER case_desk_in_order BEFORE INSERT ON case_desk
    FOR EACH ROW EXECUTE FUNCTION require_desk_step();
CREATE TRIGGER case_desk_unchanging BEFORE UPDATE OR DELETE ON case_desk
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER case_desk_untruncated BEFORE TRUNCATE ON case_desk
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE FUNCTION note_desk_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM record_event('audit', CASE WHEN NEW.holder IS NULL THEN 'case.laid_down' ELSE 'case.taken_on' END,
        encode(NEW.break_ref, 'hex'), NEW.actor, coalesce(NEW.holder, ''), NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER case_desk_steps_are_events AFTER INSERT ON case_desk
    FOR EACH ROW EXECUTE FUNCTION note_desk_step();

GRANT SELECT ON case_desk TO countersign_app, countersign_anchor, countersign_reader;
GRANT INSERT ON case_desk TO countersign_app;
