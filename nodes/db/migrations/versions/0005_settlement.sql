-- Answer signatures, settlement.

-- ---------------------------------------------------------------------------------------------
-- What issuers have signed of their answers (nodes/crypto/answer_signature.py), in the acquirer's
-- books: a row a commit, so that the authorization path pays for one row and not for one a
-- transaction. Ids of one commit lie close together: first_id finds the row.
CREATE TABLE answer_signatures (
    first_id        bigint   PRIMARY KEY,
    transaction_ids bigint[] NOT NULL,
    shares          bytea[]  NOT NULL,
    xact            xid8     NOT NULL DEFAULT pg_current_xact_id(),
    CHECK (cardinality(transaction_ids) > 0 AND cardinality(transaction_ids) = cardinality(shares)),
    CHECK (transaction_ids[1] = first_id)
);
ALTER TABLE answer_signatures ALTER COLUMN shares SET STORAGE EXTERNAL;  -- hashes don't get any smaller
CREATE INDEX answer_signatures_in_order ON answer_signatures (xact);

-- How far they were verified. What doesn't hold stands in unsigned_answers.
CREATE TABLE answer_checks (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    next_xact       xid8    NOT NULL
);
INSERT INTO answer_checks (next_xact) VALUES ('0');

CREATE TRIGGER answer_signatures_unchanging BEFORE UPDATE OR DELETE ON answer_signatures
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER answer_signatures_untruncated BEFORE TRUNCATE ON answer_signatures
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT ON answer_signatures, answer_checks TO countersign_app, countersign_anchor, countersign_reader;
GRANT INSERT ON answer_signatures TO countersign_app;
GRANT UPDATE (next_xact) ON answer_checks TO countersign_app;

-- ---------------------------------------------------------------------------------------------
-- Settlement statements: what both institutions sign of a confirmed close (nodes/settlement). The
-- numbers are the close's; payer, payee and amount follow from them.
CREATE TABLE settlements (
    settlement_id   bytea  PRIMARY KEY CHECK (octet_length(settlement_id) = 32),  -- the EIP-712 digest
    number          bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    close_id        bigint NOT NULL REFERENCES closes,
    proposer        text   NOT NULL,        -- here; both may sign the same: see the step PROPOSED
    statement_hash  bytea  NOT NULL CHECK (octet_length(statement_hash) = 32),
    supersedes      bytea  CHECK (octet_length(supersedes) = 32),
    nonce           bigint NOT NULL CHECK (nonce >= 0),
    deadline        timestamptz NOT NULL,
    agrees          boolean NOT NULL,       -- these books lead to the same statement
    made_at         timestamptz NOT NULL
);
CREATE INDEX settlements_by_close ON settlements (close_id);

-- How far a statement is: PREPARED and LAPSED of these books, the others of the chain's events.
CREATE TABLE settlement_steps (
    settlement_id   bytea    NOT NULL REFERENCES settlements,
    step            smallint NOT NULL CHECK (step > 0),
    state           text     NOT NULL,
    at              timestamptz NOT NULL,
    block_number    bigint,
    tx_hash         bytea CHECK (octet_length(tx_hash) = 32),
    disputable_until timestamptz,
    by_member       text,                   -- who was first to propose, who disputes
    txid            bytea CHECK (octet_length(txid) = 32),          -- by which transaction
    leaf_member     text,                   -- of whose log
    reason_hash     bytea CHECK (octet_length(reason_hash) = 32),
    verdict         text CHECK (verdict IN ('UPHELD', 'ANNULLED')),
    superseded_by   bytea CHECK (octet_length(superseded_by) = 32),
    PRIMARY KEY (settlement_id, step),
    UNIQUE (settlement_id, state),
    CHECK ((state IN ('PREPARED', 'LAPSED')) = (block_number IS NULL)),
    CHECK ((state = 'CONFIRMED') = (disputable_until IS NOT NULL)),
    CHECK ((state IN ('PROPOSED', 'DISPUTED')) = (by_member IS NOT NULL)),
    CHECK ((state = 'DISPUTED') = (txid IS NOT NULL)),
    CHECK ((state = 'RESOLVED') = (verdict IS NOT NULL)),
    CHECK ((state = 'SUPERSEDED') = (superseded_by IS NOT NULL))
);
CREATE FUNCTION require_settlement_step() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last settlement_steps%ROWTYPE;
BEGIN
    SELECT * INTO last FROM settlement_steps WHERE settlement_id = NEW.settlement_id
        ORDER BY step DESC LIMIT 1;
    IF NEW.step <> coalesce(last.step, 0) + 1 OR NOT (coalesce(last.state, '') || '/' || NEW.state = ANY (ARRAY[
        '/PREPARED', '/PROPOSED', 'PREPARED/PROPOSED', 'PREPARED/LAPSED', 'LAPSED/PROPOSED',
        'PROPOSED/CONFIRMED', 'PROPOSED/EXPIRED', 'PROPOSED/SUPERSEDED',
        'CONFIRMED/DISPUTED', 'CONFIRMED/FINAL', 'CONFIRMED/SUPERSEDED',
        'DISPUTED/RESOLVED', 'DISPUTED/SUPERSEDED', 'RESOLVED/SUPERSEDED', 'FINAL/SUPERSEDED'])) THEN
        RAISE EXCEPTION 'settlement %: % does not follow %', encode(NEW.settlement_id, 'hex'), NEW.state,
            coalesce(last.state, 'nothing') USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER settlement_steps_in_order BEFORE INSERT ON settlement_steps
    FOR EACH ROW EXECUTE FUNCTION require_settlement_step();

-- The statement in force of each close: one, and each statement of one close. So a transaction, which
-- is in one close, is paid in one statement.
CREATE TABLE settlements_in_force (
    acquirer        text    NOT NULL,
    issuer          text    NOT NULL,
    currency        char(3) NOT NULL,
    business_date   date    NOT NULL,
    settlement_id   bytea   NOT NULL UNIQUE REFERENCES settlements,
    PRIMARY KEY (acquirer, issuer, currency, business_date)
);

-- Signatures over settlement_id: this institution's own, stored before it is sent, and the other's.
CREATE TABLE settlement_signatures (
    settlement_id   bytea NOT NULL REFERENCES settlements,
    member          text  NOT NULL,
    signature       bytea NOT NULL CHECK (octet_length(signature) = 65),
    at              timestamptz NOT NULL,
    PRIMARY KEY (settlement_id, member)
);

-- What people order; the worker, which has the operator's key, carries it out.
CREATE TABLE settlement_orders (
    order_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action          text   NOT NULL CHECK (action IN ('propose', 'countersign', 'dispute', 'resolve')),
    close_id        bigint REFERENCES closes,
    settlement_id   bytea  REFERENCES settlements,
    actor           text   NOT NULL,
    txid            bytea  CHECK (octet_length(txid) = 32),
    reason          text   CHECK (length(reason) BETWEEN 1 AND 500),
    verdict         text   CHECK (verdict IN ('UPHELD', 'ANNULLED')),
    deadline_s      bigint,
    signatures      bytea[],
    request_key     bytea  NOT NULL UNIQUE CHECK (octet_length(request_key) = 32),
    fingerprint     bytea  NOT NULL CHECK (octet_length(fingerprint) = 32),
    at              timestamptz NOT NULL,
    CHECK ((action = 'propose') = (close_id IS NOT NULL)),
    CHECK ((action = 'propose') = (settlement_id IS NULL)),
    CHECK ((action = 'dispute') = (txid IS NOT NULL)),
    CHECK ((action IN ('dispute', 'resolve')) = (reason IS NOT NULL)),
    CHECK ((action = 'resolve') = (verdict IS NOT NULL AND deadline_s IS NOT NULL AND signatures IS NOT NULL))
);
CREATE TABLE settlement_order_ends (
    order_id        bigint PRIMARY KEY REFERENCES settlement_orders,
    refusal         text,                   -- NULL: done
    settlement_id   bytea REFERENCES settlements,
    at              timestamptz NOT NULL
);

-- How far the chain's settlement events were read.
CREATE TABLE settlement_scan (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    next_block      bigint NOT NULL
);
INSERT INTO settlement_scan (next_block) VALUES (0);

-- All of it is part of the log.
CREATE FUNCTION note_settlement_step() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    s settlements%ROWTYPE;
    c closes%ROWTYPE;
BEGIN
    SELECT * INTO s FROM settlements WHERE settlement_id = NEW.settlement_id;
    SELECT * INTO c FROM closes WHERE close_id = s.close_id;
    PERFORM record_event('settlement', 'statement.' || lower(NEW.state), encode(NEW.settlement_id, 'hex'),
        'node', jsonb_build_object('close', format('%s-%s %s %s, revision %s', c.acquirer, c.issuer,
            c.business_date, c.currency, c.revision), 'statement_hash', encode(s.statement_hash, 'hex'),
            'proposer', s.proposer, 'nonce', s.nonce, 'agrees', s.agrees, 'debits', c.debits,
            'credits', c.credits, 'step', to_jsonb(NEW) - 'settlement_id')::text, NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER settlement_steps_are_events AFTER INSERT ON settlement_steps
    FOR EACH ROW EXECUTE FUNCTION note_settlement_step();
CREATE FUNCTION note_settlement_signature() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM record_event('settlement', 'statement.signature', encode(NEW.settlement_id, 'hex'), NEW.member,
        encode(NEW.signature, 'hex'), NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER settlement_signatures_are_events AFTER INSERT ON settlement_signatures
    FOR EACH ROW EXECUTE FUNCTION note_settlement_signature();
CREATE FUNCTION note_settlement_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM record_event('settlement', 'order.' || NEW.action, NEW.order_id::text, NEW.actor,
        (to_jsonb(NEW) - 'request_key' - 'fingerprint')::text, NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER settlement_orders_are_events AFTER INSERT ON settlement_orders
    FOR EACH ROW EXECUTE FUNCTION note_settlement_order();

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['settlements', 'settlement_steps', 'settlement_signatures', 'settlement_orders',
                             'settlement_order_ends'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()',
                       t || '_unchanging', t);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
                       t || '_untruncated', t);
    END LOOP;
END $$;
GRANT SELECT ON settlements, settlement_steps, settlements_in_force, settlement_signatures, settlement_orders,
    settlement_order_ends, settlement_scan TO countersign_app, countersign_anchor, countersign_reader;
GRANT INSERT ON settlements, settlement_steps, settlements_in_force, settlement_signatures, settlement_orders,
    settlement_order_ends TO countersign_app;
GRANT UPDATE (settlement_id) ON settlements_in_force TO countersign_app;
GRANT UPDATE (next_block) ON settlement_scan TO countersign_app;
