-- Day closes, breaks and their cases (docs/reconciliation.md).

-- A day's rows lie close together: a few kilobytes find them, and no purchase waits for it.
CREATE INDEX transactions_by_business_date ON transactions
    USING brin (business_date) WITH (pages_per_range = 32, autosummarize = on);

-- The other side of a correcting entry: what the two institutions have agreed on after the day.
ALTER TABLE accounts DROP CONSTRAINT accounts_kind_check;
ALTER TABLE accounts ADD CONSTRAINT accounts_kind_check CHECK (kind IN
    ('cardholder', 'funding', 'settlement', 'merchant', 'receivable', 'adjustment', 'clearing'));

-- Exceptions alone: transactions that an acquirer recorded without its issuer's valid signature.
CREATE TABLE unsigned_answers (
    txid            bytea PRIMARY KEY CHECK (octet_length(txid) = 32),
    why             text  NOT NULL,
    noted_at        timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Which days have something to close, and how far that was looked for. last_xact: the newest
-- transaction that wrote a row of that day; 0 if only the other institution has any.
-- opened_revision: the newest that either of the two has opened on the chain.
CREATE TABLE close_days (
    acquirer        text NOT NULL,
    issuer          text NOT NULL,
    currency        char(3) NOT NULL,
    business_date   date NOT NULL,
    last_xact       xid8 NOT NULL,
    opened_revision integer NOT NULL DEFAULT -1,
    PRIMARY KEY (acquirer, issuer, currency, business_date),
    CHECK (acquirer <> issuer)
);
CREATE TABLE close_scan (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    next_xact       xid8   NOT NULL,
    next_block      bigint NOT NULL
);
INSERT INTO close_scan (next_xact, next_block) VALUES ('0', 0);

-- A close never changes; a corrected one is the next revision. Its rows are those of its day, pair
-- and currency with a pair_seq and below `horizon`: which they are can be told at any time.
CREATE TABLE closes (
    close_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    acquirer        text    NOT NULL,
    issuer          text    NOT NULL,
    currency        char(3) NOT NULL,
    business_date   date    NOT NULL,
    revision        integer NOT NULL CHECK (revision >= 0),
    party           text    NOT NULL CHECK (party IN ('acquirer', 'issuer')),
    horizon         xid8    NOT NULL,
    item_count      bigint  NOT NULL CHECK (item_count >= 0),
    debits          bigint  NOT NULL CHECK (debits >= 0),
    credits         bigint  NOT NULL CHECK (credits >= 0),
    close_root      bytea   NOT NULL CHECK (octet_length(close_root) = 32),
    totals_hash     bytea   NOT NULL CHECK (octet_length(totals_hash) = 32),
    blind           bytea   NOT NULL CHECK (octet_length(blind) = 32),
    after_pair_seq  bigint  NOT NULL CHECK (after_pair_seq >= 0),
    last_pair_seq   bigint  NOT NULL,
    closed_at       timestamptz NOT NULL,
    UNIQUE (acquirer, issuer, currency, business_date, revision),
    CHECK (acquirer <> issuer),
    CHECK (last_pair_seq >= after_pair_seq)
);

-- Repeated terminal messages of a close, found when it was made: later than `first_txid`.
CREATE TABLE close_duplicates (
    close_id        bigint NOT NULL REFERENCES closes,
    txid            bytea  NOT NULL CHECK (octet_length(txid) = 32),
    first_txid      bytea  NOT NULL CHECK (octet_length(first_txid) = 32),
    PRIMARY KEY (close_id, txid),
    CHECK (txid <> first_txid)
);

-- A close's packed items, until it is compared or confirmed: working memory, not evidence. They can be
-- read from the rows again at any time, in ten times the time.
CREATE TABLE close_items (
    close_id        bigint   NOT NULL REFERENCES closes,
    part            smallint NOT NULL,
    items           bytea    NOT NULL,
    PRIMARY KEY (close_id, part)
);
ALTER TABLE close_items ALTER COLUMN items SET STORAGE EXTERNAL;  -- hashes don't get any smaller

-- How far a close is, a row a stage. CONFIRMED and BROKEN are the chain's word.
CREATE TABLE close_stages (
    close_id        bigint NOT NULL REFERENCES closes,
    stage           text   NOT NULL CHECK (stage IN ('PREPARED', 'COMMITTED', 'REVEALED', 'CONFIRMED',
                                                     'BROKEN', 'EXPIRED', 'SUPERSEDED')),
    at              timestamptz NOT NULL,
    other_root      bytea CHECK (octet_length(other_root) = 32),   -- what the other side revealed
    other_totals    bytea CHECK (octet_length(other_totals) = 32),
    PRIMARY KEY (close_id, stage),
    CHECK ((stage IN ('CONFIRMED', 'BROKEN')) = (other_root IS NOT NULL AND other_totals IS NOT NULL))
);
CREATE FUNCTION close_stage_rank(stage text) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE stage WHEN 'PREPARED' THEN 1 WHEN 'COMMITTED' THEN 2 WHEN 'REVEALED' THEN 3
        WHEN 'SUPERSEDED' THEN 5 ELSE 4 END
$$;
CREATE FUNCTION require_close_stage() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    reached integer;
    first integer;
BEGIN
    SELECT max(close_stage_rank(stage)) INTO reached FROM close_stages WHERE close_id = NEW.close_id;
    first := close_stage_rank(NEW.stage);
    IF coalesce(reached, 0) >= first OR (reached IS NULL AND first <> 1)
        OR (NEW.stage IN ('CONFIRMED', 'BROKEN') AND reached <> 3)
        OR (NEW.stage = 'CONFIRMED' AND NOT EXISTS (SELECT FROM closes AS c WHERE c.close_id = NEW.close_id
            AND c.close_root = NEW.other_root AND c.totals_hash = NEW.other_totals))
        OR (NEW.stage = 'BROKEN' AND EXISTS (SELECT FROM closes AS c WHERE c.close_id = NEW.close_id
            AND c.close_root = NEW.other_root AND c.totals_hash = NEW.other_totals)) THEN
        RAISE EXCEPTION 'close %: % does not follow', NEW.close_id, NEW.stage USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER close_stages_in_order BEFORE INSERT ON close_stages
    FOR EACH ROW EXECUTE FUNCTION require_close_stage();

-- A revision stands on the one before, which the chain has judged.
CREATE FUNCTION require_previous_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.revision > 0 AND NOT EXISTS (SELECT FROM closes AS c JOIN close_stages AS s USING (close_id)
        WHERE (c.acquirer, c.issuer, c.currency, c.business_date, c.revision)
            = (NEW.acquirer, NEW.issuer, NEW.currency, NEW.business_date, NEW.revision - 1)
        AND s.stage IN ('CONFIRMED', 'BROKEN', 'EXPIRED')) THEN
        RAISE EXCEPTION 'revision % has no judged predecessor', NEW.revision USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER closes_in_order BEFORE INSERT ON closes
    FOR EACH ROW EXECUTE FUNCTION require_previous_revision();

-- What the operator's key signs beside anchors: stored with its nonce before it is sent.
CREATE TABLE chain_outbox (
    purpose         text   NOT NULL,   -- close-commit, close-reveal, close-expire
    subject         text   NOT NULL,   -- what of
    state           text   NOT NULL CHECK (state IN ('SUBMITTED', 'DONE', 'FAILED')),
    nonce           bigint NOT NULL,
    tx_hash         bytea  NOT NULL CHECK (octet_length(tx_hash) = 32),
    raw_tx          bytea  NOT NULL,
    submitted_at    timestamptz NOT NULL,
    broadcasts      integer NOT NULL DEFAULT 0,
    outcome         text,
    PRIMARY KEY (purpose, subject)
);
CREATE INDEX chain_outbox_waiting ON chain_outbox (nonce) WHERE state = 'SUBMITTED';

-- One comparison a close, made by the acquirer's node.
CREATE TABLE comparisons (
    close_id        bigint PRIMARY KEY REFERENCES closes,
    breaks          integer NOT NULL CHECK (breaks >= 0),
    rounds          integer NOT NULL,
    bytes_sent      bigint  NOT NULL,
    bytes_received  bigint  NOT NULL,
    milliseconds    bigint  NOT NULL,
    compared_at     timestamptz NOT NULL
);

CREATE TABLE breaks (
    break_id        bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    break_ref       bytea PRIMARY KEY CHECK (octet_length(break_ref) = 32),  -- alike in both books
    close_id        bigint NOT NULL REFERENCES closes,
    kind            text   NOT NULL CHECK (kind IN ('DUPLICATE', 'FIELD_MISMATCH', 'WRONG_DATE', 'LATE',
                        'MISSING_AT_ISSUER', 'MISSING_AT_ACQUIRER', 'SEQ_GAP', 'UNSIGNED')),
    txid            bytea CHECK (octet_length(txid) = 32),
    fields          text[] NOT NULL DEFAULT '{}',
    pair_seq        bigint CHECK (pair_seq > 0),
    lacking         text CHECK (lacking IN ('acquirer', 'issuer')),
    other_date      date,
    first_txid      bytea CHECK (octet_length(first_txid) = 32),
    late_until      timestamptz,
    due_at          timestamptz NOT NULL,   -- by when the case should be closed
    opened_at       timestamptz NOT NULL,
    detail          jsonb,                  -- what each side has; salts in it: not for readers
    CHECK ((kind = 'SEQ_GAP') = (txid IS NULL)),
    CHECK ((kind = 'SEQ_GAP') = (pair_seq IS NOT NULL)),
    CHECK ((kind = 'FIELD_MISMATCH') = (cardinality(fields) > 0)),
    CHECK ((kind = 'LATE') = (late_until IS NOT NULL)),
    CHECK ((kind = 'DUPLICATE') = (first_txid IS NOT NULL)),
    CHECK (kind <> 'WRONG_DATE' OR other_date IS NOT NULL),
    CHECK (kind NOT IN ('MISSING_AT_ISSUER', 'MISSING_AT_ACQUIRER')
           OR lacking = CASE kind WHEN 'MISSING_AT_ISSUER' THEN 'issuer' ELSE 'acquirer' END)
);
CREATE INDEX breaks_by_close ON breaks (close_id);

-- A case is its events. Whoever proposes doesn't countersign: they are of two institutions.
CREATE TABLE case_events (
    event_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    break_ref       bytea   NOT NULL REFERENCES breaks,
    number          integer NOT NULL CHECK (number > 0),
    step            text    NOT NULL CHECK (step IN ('opened', 'proposed', 'refused', 'countersigned',
                                                     'corrected', 'arrived', 'overdue', 'closed')),
    state           text    NOT NULL,       -- after it
    member          text    NOT NULL,
    actor           text    NOT NULL,
    resolution      text CHECK (resolution IN ('TAKE_ACQUIRER', 'TAKE_ISSUER', 'ACKNOWLEDGE')),
    note            text    NOT NULL DEFAULT '' CHECK (length(note) <= 500),
    entry_txid      bytea CHECK (octet_length(entry_txid) = 32),
    request_key     bytea CHECK (octet_length(request_key) = 32),
    fingerprint     bytea CHECK (octet_length(fingerprint) = 32),
    at              timestamptz NOT NULL,
    UNIQUE (break_ref, number),
    CHECK ((step = 'proposed') = (resolution IS NOT NULL)),
    CHECK (step <> 'proposed' OR length(note) > 0)
);
CREATE UNIQUE INDEX case_events_once ON case_events (request_key) WHERE request_key IS NOT NULL;
CREATE FUNCTION require_case_step() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last record;
    expected text;
BEGIN
    SELECT * INTO last FROM case_events WHERE break_ref = NEW.break_ref ORDER BY number DESC LIMIT 1;
    expected := CASE coalesce(last.state, '') || '/' || NEW.step
        WHEN '/opened' THEN 'open'
        WHEN 'open/proposed' THEN 'proposed'
        WHEN 'open/arrived' THEN 'corrected'
        WHEN 'open/overdue' THEN 'open'
        WHEN 'proposed/refused' THEN 'open'
        WHEN 'proposed/countersigned' THEN 'countersigned'
        WHEN 'countersigned/corrected' THEN 'corrected'
        WHEN 'corrected/closed' THEN 'closed' END;
    IF NEW.number <> coalesce(last.number, 0) + 1 OR NEW.state IS DISTINCT FROM expected THEN
        RAISE EXCEPTION 'case: % does not follow %', NEW.step, coalesce(last.step, 'nothing')
            USING ERRCODE = '40001';
    END IF;
    IF NEW.step IN ('countersigned', 'refused') AND last.member = NEW.member THEN
        RAISE EXCEPTION 'case: whoever proposes does not countersign' USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER case_events_in_order BEFORE INSERT ON case_events
    FOR EACH ROW EXECUTE FUNCTION require_case_step();

-- The correcting entry of this institution's books: what it takes out of its close and puts in, and
-- the ledger's transaction that moves the difference. One a break.
CREATE TABLE close_corrections (
    break_ref       bytea PRIMARY KEY REFERENCES breaks,
    close_id        bigint NOT NULL REFERENCES closes,
    removed_txid    bytea CHECK (octet_length(removed_txid) = 32),
    removed_c       bytea CHECK (octet_length(removed_c) = 32),
    removed_effect  bigint,
    added_txid      bytea CHECK (octet_length(added_txid) = 32),
    added_c         bytea CHECK (octet_length(added_c) = 32),
    added_effect    bigint,
    added_salt      bytea CHECK (octet_length(added_salt) = 32),
    entry_txid      bytea NOT NULL UNIQUE CHECK (octet_length(entry_txid) = 32),
    made_at         timestamptz NOT NULL,
    CHECK (num_nulls(removed_txid, removed_c, removed_effect) IN (0, 3)),
    CHECK (num_nulls(added_txid, added_c, added_effect, added_salt) IN (0, 4)),
    CHECK (removed_txid IS NOT NULL OR added_txid IS NOT NULL)
);

-- How far an issuer has taken its acquirers' cases.
CREATE TABLE case_cursors (
    acquirer        text PRIMARY KEY,
    last_event_id   bigint NOT NULL
);

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['unsigned_answers', 'closes', 'close_duplicates', 'close_stages', 'comparisons', 'breaks',
                             'case_events', 'close_corrections'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()',
                       t || '_unchanging', t);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
                       t || '_untruncated', t);
    END LOOP;
END $$;

GRANT SELECT ON unsigned_answers, close_days, close_scan, closes, close_items, close_duplicates, close_stages, chain_outbox,
    comparisons, breaks, case_events, close_corrections, case_cursors
    TO countersign_app, countersign_anchor;
GRANT SELECT ON close_days, close_duplicates, close_stages, comparisons, case_events, close_corrections, unsigned_answers
    TO countersign_reader;
-- Without `blind` and the salts in `detail`.
GRANT SELECT (close_id, acquirer, issuer, currency, business_date, revision, party, horizon, item_count,
    debits, credits, close_root, totals_hash, after_pair_seq, last_pair_seq, closed_at)
    ON closes TO countersign_reader;
GRANT SELECT (break_id, break_ref, close_id, kind, txid, fields, pair_seq, lacking, other_date, first_txid,
    late_until, due_at, opened_at) ON breaks TO countersign_reader;
GRANT DELETE ON close_items TO countersign_app;
GRANT INSERT ON unsigned_answers, close_days, closes, close_items, close_duplicates, close_stages, chain_outbox, comparisons, breaks,
    case_events, close_corrections, case_cursors TO countersign_app;
GRANT UPDATE (last_xact, opened_revision) ON close_days TO countersign_app;
GRANT UPDATE (next_xact, next_block) ON close_scan TO countersign_app;
GRANT UPDATE (last_event_id) ON case_cursors TO countersign_app;
GRANT UPDATE (state, nonce, tx_hash, raw_tx, submitted_at, broadcasts, outcome) ON chain_outbox
    TO countersign_app;
