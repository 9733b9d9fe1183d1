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
    kind            text    NOT NULL CHECK (kind IN ('cardholder', 'funding', 'settlement', 'merchant',
                                                     'receivable', 'adjustment')),
    owner           text    NOT NULL,  -- account reference, member id or merchant id
    currency        char(3) NOT NULL,
    -- Rolled up when the log is sealed: no purchase waits for a shared row. The current balance is
    -- this and what is not sealed yet; of a cardholder's account, that of its last version.
    balance         bigint  NOT NULL DEFAULT 0,
    opened_at       timestamptz NOT NULL,
    UNIQUE (kind, owner, currency)
);

-- One append-only stream of versions an account (ADR 8). A decision is made on version n and
-- recorded as version n + 1: of two that were made on the same version one loses the insert and is
-- made again. Everything that a decision depends on is in the stream. `state` is the whole account
-- (nodes/authorization/state.py) in line 0; the other lines are its further purses.
CREATE TABLE account_versions (
    account_id      bigint   NOT NULL,   -- of the card account, whose main purse is line 0
    version         bigint   NOT NULL CHECK (version > 0),
    line            smallint NOT NULL,
    purse_account   bigint   NOT NULL,   -- the purse's own ledger account
    transaction_id  bigint,              -- NULL: no payment, but a change by people (card_events)
    at_ms           bigint   NOT NULL,
    balance         bigint   NOT NULL,
    held            bigint   NOT NULL CHECK (held >= 0),
    overdraft_limit bigint   NOT NULL DEFAULT 0 CHECK (overdraft_limit >= 0),
    state           bytea,               -- msgpack of Account, line 0 only
    detail          bytea,               -- msgpack of Detail, line 0 only
    PRIMARY KEY (account_id, version, line),
    CONSTRAINT no_overdraft CHECK (balance - held >= -overdraft_limit),  -- 4
    CHECK ((line = 0) = (state IS NOT NULL))
);

-- Versions have no gap: what is appended stands on the version before it. One check a batch.
CREATE FUNCTION require_previous_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    lost record;
BEGIN
    SELECT n.account_id, n.version INTO lost FROM added AS n
        WHERE n.line = 0 AND n.version > 1 AND NOT EXISTS (SELECT FROM account_versions AS p
            WHERE p.account_id = n.account_id AND p.version = n.version - 1 AND p.line = 0) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'account %: version % has no predecessor', lost.account_id, lost.version
            USING ERRCODE = '40001';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER account_versions_in_order AFTER INSERT ON account_versions
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION require_previous_version();

-- Ids are taken a thousand at a time: a batch knows them before it writes.
CREATE SEQUENCE transaction_ids INCREMENT BY 1000;

CREATE TABLE transactions (
    transaction_id  bigint PRIMARY KEY,
    txid            bytea   NOT NULL CHECK (octet_length(txid) = 32),
    side            text    NOT NULL CHECK (side IN ('issuer', 'acquirer', 'merchant')),
    network_ref     bytea   NOT NULL CHECK (octet_length(network_ref) = 16),
    acquirer        text    NOT NULL,
    issuer          text    NOT NULL,
    kind            text    NOT NULL CHECK (kind IN ('purchase', 'balance_inquiry', 'refund', 'reversal',
                        'load', 'authorization', 'increment', 'capture', 'void', 'advice', 'expiry',
                        'adjustment', 'transfer')),
    outcome         text    NOT NULL,
    amount          bigint  NOT NULL CHECK (amount >= 0),  -- approved; as requested where declined
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
    account_id      bigint,            -- the card account, in the issuer's books
    account_version bigint,            -- its version by this transaction
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
-- Few indexes: each costs every authorization. A card's history goes by account_versions.
CREATE INDEX transactions_to_seal ON transactions (xact, transaction_id);
CREATE INDEX transactions_by_original ON transactions (original_txid) WHERE original_txid IS NOT NULL;
CREATE UNIQUE INDEX transactions_pair_seq ON transactions (acquirer, issuer, side, pair_seq)
    WHERE pair_seq > 0;  -- 11

CREATE INDEX transactions_by_rrn ON transactions (rrn, merchant_id)
    WHERE side = 'acquirer' AND outcome = 'approved'
    AND kind IN ('purchase', 'authorization', 'capture', 'advice');
CREATE SEQUENCE retrieval_references MAXVALUE 999999999999 CYCLE;  -- DE37, n12

-- One row moves an amount from one account to another, so the postings of a transaction sum to
-- zero in each currency by construction (1); that both accounts are of the currency is checked
-- once a batch, not by three foreign keys a row.
CREATE TABLE transfers (
    transaction_id  bigint   NOT NULL,
    line            smallint NOT NULL CHECK (line > 0),
    debit_account   bigint   NOT NULL,
    credit_account  bigint   NOT NULL,
    amount          bigint   NOT NULL CHECK (amount > 0),
    currency        char(3)  NOT NULL,
    -- The purse's balance after this transfer, where one of the two is a cardholder's (3, 4).
    balance_after   bigint,
    PRIMARY KEY (transaction_id, line),
    CHECK (debit_account <> credit_account)
);
CREATE FUNCTION require_one_currency() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong bigint;
BEGIN
    SELECT n.transaction_id INTO wrong FROM added AS n
        LEFT JOIN accounts AS d ON d.account_id = n.debit_account
        LEFT JOIN accounts AS c ON c.account_id = n.credit_account
        WHERE d.currency IS DISTINCT FROM n.currency OR c.currency IS DISTINCT FROM n.currency LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transaction %: a transfer between accounts of other currencies', wrong
            USING ERRCODE = '23514';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER transfers_of_one_currency AFTER INSERT ON transfers
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION require_one_currency();

-- A credit raises, a debit lowers a balance (the ledger's accounts are liabilities).
CREATE VIEW postings AS
    SELECT transaction_id, line, debit_account AS account_id, -amount AS amount, currency FROM transfers
    UNION ALL
    SELECT transaction_id, line, credit_account, amount, currency FROM transfers;

-- What later transactions did to an earlier one, a row a change; the highest version holds. Its
-- account's stream guards it: each change is also a version of the account (10).
CREATE TABLE payment_progress (
    txid            bytea  NOT NULL CHECK (octet_length(txid) = 32),
    version         bigint NOT NULL,   -- of the account
    authorized      bigint NOT NULL CHECK (authorized >= 0),
    captured        bigint NOT NULL CHECK (captured >= 0),
    refunded        bigint NOT NULL CHECK (refunded >= 0),
    reversed        bigint NOT NULL CHECK (reversed >= 0),
    ended           boolean NOT NULL,
    PRIMARY KEY (txid, version),
    CHECK (refunded + reversed <= greatest(authorized, captured))  -- 9
);

-- When holds end, a row an authorization: where the sweep finds accounts at which nothing else
-- happens. Only a hint, taken away once swept; the holds themselves are in the accounts' versions.
CREATE TABLE hold_deadlines (
    expires_ms      bigint NOT NULL,
    account_id      bigint NOT NULL
);
CREATE INDEX hold_deadlines_due ON hold_deadlines (expires_ms);

-- What products allow, and the rules that limit spending (nodes/authorization/controls.py, as JSON).
CREATE TABLE products (
    product_id      text PRIMARY KEY CHECK (length(product_id) BETWEEN 1 AND 40),
    name            text  NOT NULL,
    terms           jsonb NOT NULL,
    created_at      timestamptz NOT NULL
);
CREATE TABLE spend_rules (
    rule_id         text PRIMARY KEY CHECK (length(rule_id) BETWEEN 1 AND 40),
    scope           text  NOT NULL CHECK (scope IN ('product', 'account', 'card')),
    subject         text  NOT NULL,   -- product id, account id, or card token in hex
    definition      jsonb NOT NULL,   -- controls.Rule
    created_by      text  NOT NULL,
    created_at      timestamptz NOT NULL,
    ended_by        text,
    effective_from_ms bigint NOT NULL,
    effective_to_ms bigint
);
CREATE INDEX spend_rules_by_subject ON spend_rules (scope, subject);

-- A correction by hand: whoever makes it isn't who approves it.
CREATE TABLE adjustments (
    adjustment_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id      bigint NOT NULL REFERENCES accounts,
    amount          bigint NOT NULL CHECK (amount <> 0),   -- positive: to the cardholder
    currency        char(3) NOT NULL,
    reason          text   NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    made_by         text   NOT NULL,
    made_at         timestamptz NOT NULL,
    state           text   NOT NULL DEFAULT 'proposed' CHECK (state IN ('proposed', 'posted', 'rejected')),
    checked_by      text,
    checked_at      timestamptz,
    txid            bytea,
    CHECK (checked_by IS NULL OR checked_by <> made_by),
    CHECK ((state = 'proposed') = (checked_by IS NULL)),
    CHECK ((state = 'posted') = (txid IS NOT NULL))
);

INSERT INTO products (product_id, name, terms, created_at)
    VALUES ('standard', 'Standard reloadable card', '{}', '2026-01-01T00:00:00Z');

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
    -- For lists and filters; what decides is the standing in the account's last version.
    status          text   NOT NULL CHECK (status IN ('inactive', 'active', 'blocked', 'lost', 'stolen', 'cancelled')),
    pin_lookup      bytea  CHECK (octet_length(pin_lookup) = 32),  -- keyed HMAC of card token and PIN
    pin_key_version smallint NOT NULL DEFAULT 1,
    product_id      text   NOT NULL DEFAULT 'standard' REFERENCES products,
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
-- Partitioned by business date, which is part of the key: indexes stay small, old days are cheap.
-- The issuer stores a request with its answer. The acquirer stores it before the issuer is asked,
-- and the answer beside it (authorization_answers): nothing is updated. A row with neither request
-- nor answer is a bar: its reversal came first.
CREATE TABLE authorization_requests (
    idempotency_key bytea  NOT NULL CHECK (octet_length(idempotency_key) = 32),
    side            text   NOT NULL CHECK (side IN ('issuer', 'acquirer')),
    business_date   date   NOT NULL,
    fingerprint     bytea  NOT NULL CHECK (octet_length(fingerprint) = 32),
    txid            bytea  CHECK (octet_length(txid) = 32),
    issuer          text,
    request         bytea,             -- what a repeat or a reversal needs; no PAN, no PIN block
    answer          bytea,             -- the exact answer
    deadline_ms     bigint NOT NULL,
    PRIMARY KEY (idempotency_key, side, business_date)
) PARTITION BY RANGE (business_date);
CREATE TABLE authorization_answers (
    idempotency_key bytea  NOT NULL CHECK (octet_length(idempotency_key) = 32),
    business_date   date   NOT NULL,
    answer          bytea  NOT NULL,
    PRIMARY KEY (idempotency_key, business_date)
) PARTITION BY RANGE (business_date);
CREATE TABLE authorization_requests_else PARTITION OF authorization_requests DEFAULT;
CREATE TABLE authorization_answers_else PARTITION OF authorization_answers DEFAULT;
-- The acquirer's batches whose requests haven't all got their answers yet: what a crash leaves.
CREATE TABLE open_batches (
    open_batch_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deadline_ms     bigint  NOT NULL,  -- the last of its requests
    keys            bytea[] NOT NULL,
    dates           date[]  NOT NULL
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
    transaction_id  bigint NOT NULL UNIQUE,  -- 12
    txid            bytea  NOT NULL,
    leaf            bytea  NOT NULL CHECK (octet_length(leaf) = 320),
    leaf_hash       bytea  NOT NULL CHECK (octet_length(leaf_hash) = 32),
    -- The field leaf hashes of C (8) and P, 32 bytes each: by them a changed column is named.
    shared_leaves   bytea  NOT NULL CHECK (octet_length(shared_leaves) = 256),
    private_leaves  bytea  NOT NULL CHECK (octet_length(private_leaves) % 32 = 0)
);

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
    FOREACH t IN ARRAY ARRAY['transactions', 'transfers', 'account_versions', 'payment_progress',
                             'authorization_requests', 'authorization_answers', 'card_events',
                             'log_leaves', 'log_nodes', 'batches', 'batch_totals',
                             'chain_binding'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()',
                       t || '_unchanging', t);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
                       t || '_untruncated', t);
    END LOOP;
END $$;

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
GRANT SELECT ON accounts, account_versions, transactions, transfers, postings, payment_progress,
    products, spend_rules, adjustments, merchants, terminals,
    pair_counters, log_leaves, log_nodes, batches, batch_totals, anchor_submissions, chain_binding
    TO countersign_reader;
GRANT INSERT ON accounts, account_versions, transactions, transfers, payment_progress, products,
    spend_rules, adjustments, cards, card_events, merchants, terminals, pair_counters,
    authorization_requests, authorization_answers, open_batches, reversal_queue,
    feed_cursors, hold_deadlines TO countersign_app;
GRANT DELETE ON open_batches, hold_deadlines TO countersign_app;
GRANT USAGE ON SEQUENCE retrieval_references, transaction_ids TO countersign_app;
GRANT UPDATE (name, terms) ON products TO countersign_app;
GRANT UPDATE (ended_by, effective_to_ms) ON spend_rules TO countersign_app;
GRANT UPDATE (state, checked_by, checked_at, txid) ON adjustments TO countersign_app;
GRANT UPDATE (status, pin_lookup, pin_key_version, version, product_id) ON cards TO countersign_app;
GRANT UPDATE (status, name) ON merchants TO countersign_app;
GRANT UPDATE (status, last_seq) ON terminals TO countersign_app;
GRANT UPDATE (last_seq) ON pair_counters TO countersign_app;
GRANT UPDATE (attempts, next_attempt_ms, done_ms) ON reversal_queue TO countersign_app;
GRANT UPDATE (last_log_index) ON feed_cursors TO countersign_app;
GRANT INSERT ON log_leaves, log_nodes, batches, batch_totals, anchor_submissions, chain_binding
    TO countersign_anchor;
GRANT UPDATE (balance) ON accounts TO countersign_anchor;
GRANT UPDATE (state, nonce, tx_hash, raw_tx, submitted_at, broadcasts, block_number, block_hash,
              gas_used, anchored_at)
    ON anchor_submissions TO countersign_anchor;
