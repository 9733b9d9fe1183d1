-- Invariants by number: docs/invariants.md. What must hold is a constraint here, not a habit there.

-- ---------------------------------------------------------------------------------------------
-- The chain that this database belongs to (a wiped or swapped chain is refused at start).
CREATE TABLE chain_binding (
    only_row         boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    chain_id         bigint NOT NULL,
    genesis_hash     bytea  NOT NULL CHECK (octet_length(genesis_hash) = 32),
    member_registry  text   NOT NULL,
    anchor_registry  text   NOT NULL,
    code_hash        bytea  NOT NULL CHECK (octet_length(code_hash) = 32),
    member_id        text   NOT NULL
);

-- ---------------------------------------------------------------------------------------------
-- ledger
CREATE TABLE accounts (
    account_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind            text    NOT NULL CHECK (kind IN ('cardholder', 'funding', 'settlement', 'merchant')),
    owner           text    NOT NULL,  -- account reference, member id or merchant id
    currency        char(3) NOT NULL,
    -- A cardholder's balance is kept with each transfer; the others (every purchase touches them)
    -- are rolled up when the log is sealed: balance = rolled up + transfers not yet sealed.
    balance         bigint  NOT NULL DEFAULT 0,
    held            bigint  NOT NULL DEFAULT 0 CHECK (held >= 0),
    overdraft_limit bigint  NOT NULL DEFAULT 0 CHECK (overdraft_limit >= 0),
    version         bigint  NOT NULL DEFAULT 0,
    opened_at       timestamptz NOT NULL,
    UNIQUE (kind, owner, currency),
    UNIQUE (account_id, currency),
    CONSTRAINT no_overdraft CHECK (kind <> 'cardholder' OR balance - held >= -overdraft_limit)  -- 4
);

CREATE TABLE transactions (
    transaction_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    txid            bytea   NOT NULL CHECK (octet_length(txid) = 32),
    side            text    NOT NULL CHECK (side IN ('issuer', 'acquirer', 'merchant')),
    network_ref     bytea   NOT NULL CHECK (octet_length(network_ref) = 16),
    acquirer        text    NOT NULL,
    issuer          text    NOT NULL,
    kind            text    NOT NULL CHECK (kind IN ('purchase', 'balance_inquiry', 'refund', 'reversal', 'load')),
    outcome         text    NOT NULL,
    amount          bigint  NOT NULL CHECK (amount >= 0),
    currency        char(3) NOT NULL,
    approval_code   text,
    merchant_id     text    NOT NULL,
    merchant_name   text    NOT NULL,
    mcc             text    NOT NULL,
    country         text    NOT NULL,
    terminal_id     text    NOT NULL,
    terminal_seq    bigint  NOT NULL,
    pair_seq        bigint  NOT NULL CHECK (pair_seq >= 0),  -- 0: the issuer took no part
    business_date   date    NOT NULL,
    batch           text    NOT NULL,
    stan            text    NOT NULL,
    rrn             text    NOT NULL,
    entry_mode      text    NOT NULL,
    pan_masked      text,              -- first 6 and last 4; NULL in the merchant's books
    card_token      bytea CHECK (octet_length(card_token) = 16),
    account_id      bigint REFERENCES accounts,  -- the cardholder's, in the issuer's books
    original_txid   bytea CHECK (octet_length(original_txid) = 32),
    transmitted_ms  bigint  NOT NULL,  -- when the acquirer accepted it; part of C
    decided_ms      bigint  NOT NULL,
    salt_fin        bytea   NOT NULL CHECK (octet_length(salt_fin) = 32),
    salt_pii        bytea CHECK (octet_length(salt_pii) = 32),   -- never sent to the merchant
    card_token_leaf bytea CHECK (octet_length(card_token_leaf) = 32), -- the merchant's stand-in
    salt_private    bytea   NOT NULL CHECK (octet_length(salt_private) = 32),
    commitment      bytea   NOT NULL CHECK (octet_length(commitment) = 32),
    recorded_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The writing transaction. Sealing takes rows by (xact, transaction_id) below the horizon of
    -- running transactions, so each committed row is met exactly once, whatever order ids commit in.
    xact            xid8    NOT NULL DEFAULT pg_current_xact_id(),
    UNIQUE (txid, side)
);
CREATE INDEX transactions_to_seal ON transactions (xact, transaction_id);
CREATE INDEX transactions_by_original ON transactions (original_txid) WHERE original_txid IS NOT NULL;
CREATE INDEX transactions_by_card ON transactions (card_token, transaction_id) WHERE card_token IS NOT NULL;
CREATE UNIQUE INDEX transactions_reversed_once ON transactions (original_txid, side)
    WHERE kind = 'reversal' AND outcome = 'approved' AND original_txid IS NOT NULL;  -- 9
CREATE UNIQUE INDEX transactions_pair_seq ON transactions (acquirer, issuer, side, pair_seq)
    WHERE pair_seq > 0;  -- 11

CREATE INDEX transactions_by_rrn ON transactions (rrn, merchant_id)
    WHERE side = 'acquirer' AND kind = 'purchase' AND outcome = 'approved';
CREATE SEQUENCE retrieval_references MAXVALUE 999999999999 CYCLE;  -- DE37, n12

-- One row moves an amount from one account to another, so the postings of a transaction sum to
-- zero in each currency by construction (1); the foreign keys hold the currencies equal.
CREATE TABLE transfers (
    transaction_id  bigint   NOT NULL REFERENCES transactions,
    line            smallint NOT NULL CHECK (line > 0),
    debit_account   bigint   NOT NULL,
    credit_account  bigint   NOT NULL,
    amount          bigint   NOT NULL CHECK (amount > 0),
    currency        char(3)  NOT NULL,
    -- The cardholder's balance after this transfer, where one of the two is a cardholder (3, 4).
    balance_after   bigint,
    PRIMARY KEY (transaction_id, line),
    FOREIGN KEY (debit_account, currency) REFERENCES accounts (account_id, currency),
    FOREIGN KEY (credit_account, currency) REFERENCES accounts (account_id, currency),
    CHECK (debit_account <> credit_account)
);
CREATE INDEX transfers_by_debit ON transfers (debit_account, transaction_id);
CREATE INDEX transfers_by_credit ON transfers (credit_account, transaction_id);

-- A credit raises, a debit lowers a balance (the ledger's accounts are liabilities).
CREATE VIEW postings AS
    SELECT transaction_id, line, debit_account AS account_id, -amount AS amount, currency FROM transfers
    UNION ALL
    SELECT transaction_id, line, credit_account, amount, currency FROM transfers;

-- What later transactions did to an original: written under its account's lock.
CREATE TABLE original_states (
    txid            bytea  PRIMARY KEY,
    amount          bigint NOT NULL CHECK (amount >= 0),
    refunded        bigint NOT NULL DEFAULT 0 CHECK (refunded >= 0),
    reversed        boolean NOT NULL DEFAULT false,
    CHECK (refunded <= amount),
    CHECK (NOT reversed OR refunded = 0)
);

-- ---------------------------------------------------------------------------------------------
-- cards
CREATE TABLE cards (
    card_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    card_token      bytea  NOT NULL UNIQUE CHECK (octet_length(card_token) = 16),
    account_id      bigint NOT NULL REFERENCES accounts,
    pan_lookup      bytea  NOT NULL UNIQUE CHECK (octet_length(pan_lookup) = 32),  -- keyed HMAC
    pan_sealed      bytea  NOT NULL,   -- AES-GCM: nonce, ciphertext, tag
    pan_masked      text   NOT NULL,
    expiry          char(4) NOT NULL,  -- YYMM
    service_code    char(3) NOT NULL,
    status          text   NOT NULL CHECK (status IN ('inactive', 'active', 'blocked', 'lost', 'stolen', 'cancelled')),
    pin_lookup      bytea  CHECK (octet_length(pin_lookup) = 32),  -- keyed HMAC of card token and PIN
    pin_key_version smallint NOT NULL DEFAULT 1,
    pin_tries_left  smallint NOT NULL DEFAULT 3 CHECK (pin_tries_left >= 0),
    issued_at       timestamptz NOT NULL,
    version         bigint NOT NULL DEFAULT 0
);
CREATE INDEX cards_by_account ON cards (account_id);

-- Each change of a card, with who and why.
CREATE TABLE card_events (
    card_event_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    card_token      bytea NOT NULL REFERENCES cards (card_token),
    event           text  NOT NULL,
    actor           text  NOT NULL,
    reason          text  NOT NULL,
    occurred_at     timestamptz NOT NULL
);

-- ---------------------------------------------------------------------------------------------
-- acquiring
CREATE TABLE merchants (
    merchant_id     text PRIMARY KEY CHECK (length(merchant_id) = 15),
    name            text NOT NULL,
    mcc             char(4) NOT NULL,
    country         char(2) NOT NULL,
    currency        char(3) NOT NULL,
    member_id       text,              -- the merchant's own node, if it runs one
    account_id      bigint NOT NULL REFERENCES accounts,
    status          text NOT NULL CHECK (status IN ('active', 'suspended'))
);
CREATE TABLE terminals (
    terminal_id     text PRIMARY KEY CHECK (length(terminal_id) = 8),
    merchant_id     text NOT NULL REFERENCES merchants,
    status          text NOT NULL CHECK (status IN ('active', 'disabled')),
    last_seq        bigint NOT NULL DEFAULT 0  -- counts this terminal's transactions without a gap
);

-- ---------------------------------------------------------------------------------------------
-- authorization
CREATE TABLE pair_counters (
    acquirer        text NOT NULL,
    issuer          text NOT NULL,
    last_seq        bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (acquirer, issuer)
);

-- Exactly once (5): the key is SHA-256 over (acquirer, terminal, business date, batch, STAN, class).
CREATE TABLE authorization_requests (
    idempotency_key bytea  NOT NULL CHECK (octet_length(idempotency_key) = 32),
    side            text   NOT NULL CHECK (side IN ('issuer', 'acquirer')),
    fingerprint     bytea  NOT NULL CHECK (octet_length(fingerprint) = 32),
    state           text   NOT NULL CHECK (state IN ('pending', 'answered', 'tombstone')),
    txid            bytea  CHECK (octet_length(txid) = 32),
    issuer          text,
    request         bytea,             -- what a repeat or a reversal needs; no PAN, no PIN block
    answer          bytea,             -- the exact answer
    deadline_ms     bigint NOT NULL,
    PRIMARY KEY (idempotency_key, side),
    CHECK ((state = 'answered') = (answer IS NOT NULL))
);
CREATE INDEX authorization_requests_pending ON authorization_requests (deadline_ms) WHERE state = 'pending';
CREATE INDEX authorization_requests_by_txid ON authorization_requests (txid, side);

-- The issuer's tombstones: a reversal that came before its original.
CREATE TABLE tombstones (
    txid            bytea PRIMARY KEY CHECK (octet_length(txid) = 32),
    reversal_txid   bytea NOT NULL
);

-- The acquirer's store-and-forward: reversals that the issuer must still acknowledge.
CREATE TABLE reversal_queue (
    original_txid   bytea PRIMARY KEY CHECK (octet_length(original_txid) = 32),
    issuer          text   NOT NULL,
    reason          text   NOT NULL,
    request         bytea  NOT NULL,   -- the AuthorizationRequest of the reversal
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_ms bigint NOT NULL,
    done_ms         bigint
);
CREATE INDEX reversal_queue_due ON reversal_queue (next_attempt_ms) WHERE done_ms IS NULL;

-- The merchant's place in each acquirer's feed.
CREATE TABLE feed_cursors (
    acquirer        text PRIMARY KEY,
    last_log_index  bigint NOT NULL DEFAULT -1
);

-- ---------------------------------------------------------------------------------------------
-- anchoring
CREATE TABLE log_leaves (
    log_index       bigint PRIMARY KEY CHECK (log_index >= 0),
    batch_seq       bigint NOT NULL,
    leaf_kind       smallint NOT NULL,
    transaction_id  bigint NOT NULL UNIQUE REFERENCES transactions,  -- 12
    txid            bytea  NOT NULL,
    leaf            bytea  NOT NULL CHECK (octet_length(leaf) = 320),
    leaf_hash       bytea  NOT NULL CHECK (octet_length(leaf_hash) = 32),
    -- The field leaf hashes of C (8) and P, 32 bytes each: by them a changed column is named.
    shared_leaves   bytea  NOT NULL CHECK (octet_length(shared_leaves) = 256),
    private_leaves  bytea  NOT NULL CHECK (octet_length(private_leaves) % 32 = 0)
);
CREATE INDEX log_leaves_by_txid ON log_leaves (txid);
CREATE INDEX log_leaves_by_batch ON log_leaves (batch_seq);

CREATE TABLE log_nodes (
    level           smallint NOT NULL CHECK (level > 0),  -- level 0 are the leaf hashes
    node_index      bigint   NOT NULL CHECK (node_index >= 0),
    hash            bytea    NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (level, node_index)
);

CREATE TABLE batches (
    seq             bigint PRIMARY KEY CHECK (seq > 0),
    first_index     bigint NOT NULL,
    size            bigint NOT NULL,   -- of the log after this batch
    leaf_count      bigint NOT NULL CHECK (leaf_count > 0),
    prev_root       bytea  NOT NULL CHECK (octet_length(prev_root) = 32),
    root            bytea  NOT NULL CHECK (octet_length(root) = 32),
    checkpoint      text   NOT NULL,   -- C2SP signed note
    consistency     bytea  NOT NULL,   -- proof from the batch before, 32 bytes a node
    last_xact       xid8   NOT NULL,   -- where the next sealing goes on
    last_transaction_id bigint NOT NULL,
    sealed_at       timestamptz NOT NULL,
    CHECK (size = first_index + leaf_count)
);
CREATE TABLE batch_totals (
    seq             bigint NOT NULL REFERENCES batches,
    currency        char(3) NOT NULL,
    approved_count  bigint NOT NULL,
    approved_amount bigint NOT NULL,
    declined_count  bigint NOT NULL,
    PRIMARY KEY (seq, currency)
);
CREATE TABLE anchor_submissions (
    seq             bigint PRIMARY KEY REFERENCES batches,
    state           text   NOT NULL CHECK (state IN ('SUBMITTED', 'ANCHORED')),
    nonce           bigint NOT NULL,
    tx_hash         bytea  NOT NULL CHECK (octet_length(tx_hash) = 32),
    raw_tx          bytea  NOT NULL,
    submitted_at    timestamptz NOT NULL,
    broadcasts      integer NOT NULL DEFAULT 0,
    block_number    bigint,
    block_hash      bytea,
    gas_used        bigint,
    anchored_at     timestamptz,
    CHECK ((state = 'ANCHORED') = (block_number IS NOT NULL))
);

-- ---------------------------------------------------------------------------------------------
-- What is recorded never changes (18): triggers stop even those whom rights do not.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = '23001';
END $$;

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['transactions', 'transfers', 'card_events', 'log_leaves', 'log_nodes',
                             'batches', 'batch_totals', 'tombstones', 'chain_binding'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()',
                       t || '_unchanging', t);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
                       t || '_untruncated', t);
    END LOOP;
END $$;

-- A stored answer stays as it was given (8).
CREATE FUNCTION refuse_other_answer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.state <> 'pending' OR NEW.fingerprint <> OLD.fingerprint
       OR NEW.idempotency_key <> OLD.idempotency_key OR NEW.txid IS DISTINCT FROM OLD.txid THEN
        RAISE EXCEPTION 'a stored answer is never changed' USING ERRCODE = '23001';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER authorization_requests_final BEFORE UPDATE OR DELETE ON authorization_requests
    FOR EACH ROW EXECUTE FUNCTION refuse_other_answer();

-- ---------------------------------------------------------------------------------------------
-- Roles: the node works as <prefix>_app, its worker too; auditors read as <prefix>_reader. Both are
-- group roles made here without login; bootstrap grants them to the login roles.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'countersign_app') THEN
        CREATE ROLE countersign_app NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'countersign_anchor') THEN
        CREATE ROLE countersign_anchor NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'countersign_reader') THEN
        CREATE ROLE countersign_reader NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- another node's migration in the same cluster made them at this moment
END $$;
GRANT USAGE ON SCHEMA public TO countersign_app, countersign_anchor, countersign_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO countersign_app, countersign_anchor;
GRANT SELECT ON accounts, transactions, transfers, postings, original_states, merchants, terminals,
    pair_counters, log_leaves, log_nodes, batches, batch_totals, anchor_submissions, chain_binding
    TO countersign_reader;
GRANT INSERT ON accounts, transactions, transfers, original_states, cards, card_events, merchants,
    terminals, pair_counters, authorization_requests, tombstones, reversal_queue, feed_cursors
    TO countersign_app;
GRANT USAGE ON SEQUENCE retrieval_references TO countersign_app;
GRANT UPDATE (balance, held, version, overdraft_limit) ON accounts TO countersign_app;
GRANT UPDATE (refunded, reversed) ON original_states TO countersign_app;
GRANT UPDATE (status, pin_tries_left, pin_lookup, pin_key_version, version) ON cards TO countersign_app;
GRANT UPDATE (status, name) ON merchants TO countersign_app;
GRANT UPDATE (status, last_seq) ON terminals TO countersign_app;
GRANT UPDATE (last_seq) ON pair_counters TO countersign_app;
GRANT UPDATE (state, answer) ON authorization_requests TO countersign_app;
GRANT UPDATE (attempts, next_attempt_ms, done_ms) ON reversal_queue TO countersign_app;
GRANT UPDATE (last_log_index) ON feed_cursors TO countersign_app;
GRANT INSERT ON log_leaves, log_nodes, batches, batch_totals, anchor_submissions, chain_binding
    TO countersign_anchor;
GRANT UPDATE (balance) ON accounts TO countersign_anchor;
GRANT UPDATE (state, nonce, tx_hash, raw_tx, submitted_at, broadcasts, block_number, block_hash,
              gas_used, anchored_at)
    ON anchor_submissions TO countersign_anchor;
