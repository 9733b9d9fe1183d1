-- What a batch appends goes to the server as one array of rows a table, and the whole commit as one
-- pipeline (nodes/db/writes.py): one round trip instead of ten. The types name the columns that are
-- sent; what else a table has comes from its defaults.

CREATE TYPE transactions_row AS (
    transaction_id bigint, txid bytea, side text, network_ref bytea, acquirer text, issuer text,
    kind text, outcome text, amount bigint, currency text, approval_code text, merchant_id text,
    merchant_name text, mcc text, country text, terminal_id text, terminal_seq bigint, pair_seq bigint,
    business_date date, batch text, stan text, rrn text, entry_mode text, pan_masked text,
    card_token bytea, account_id bigint, account_version bigint, original_txid bytea,
    transmitted_ms bigint, decided_ms bigint, salt_fin bytea, salt_pii bytea, card_token_leaf bytea,
    salt_private bytea, commitment bytea
);
CREATE TYPE transfers_row AS (
    transaction_id bigint, line smallint, debit_account bigint, credit_account bigint, amount bigint,
    currency text, balance_after bigint
);
CREATE TYPE account_versions_row AS (
    account_id bigint, version bigint, line smallint, purse_account bigint, transaction_id bigint,
    at_ms bigint, balance bigint, held bigint, overdraft_limit bigint, state bytea, detail bytea
);
CREATE TYPE hold_deadlines_row AS (expires_ms bigint, account_id bigint);
CREATE TYPE payment_progress_row AS (
    txid bytea, version bigint, authorized bigint, captured bigint, refunded bigint, reversed bigint,
    ended boolean
);
CREATE TYPE authorization_requests_row AS (
    idempotency_key bytea, business_date date, fingerprint bytea, txid bytea, issuer text,
    request bytea, answer bytea, deadline_ms bigint, side text
);
CREATE TYPE authorization_answers_row AS (idempotency_key bytea, business_date date, answer bytea);

-- Numbers are given out from memory. Who finds that others have gone on meanwhile is refused, like
-- one whose version of an account is taken: it reads anew, and decides again.
CREATE FUNCTION advance_pair(acquirer_id text, issuer_id text, expected bigint, count bigint)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pair_counters SET last_seq = expected + count
        WHERE acquirer = acquirer_id AND issuer = issuer_id AND last_seq = expected;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the numbers of % and % are not at %', acquirer_id, issuer_id, expected
            USING ERRCODE = '40001';
    END IF;
END $$;

-- As advance_pair, for terminals; with `in_use` they and their merchants must be active still. In the order of their ids, so that no two
-- wait for each other.
CREATE FUNCTION advance_terminals(ids text[], expected bigint[], reached bigint[], in_use boolean)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    moved bigint;
BEGIN
    PERFORM FROM terminals WHERE terminal_id = ANY(ids) ORDER BY terminal_id FOR NO KEY UPDATE;
    UPDATE terminals AS t SET last_seq = n.reached
        FROM unnest(ids, expected, reached) AS n (terminal_id, expected, reached), merchants AS m
        WHERE t.terminal_id = n.terminal_id AND t.last_seq = n.expected AND m.merchant_id = t.merchant_id
        AND (NOT in_use OR (t.status = 'active' AND m.status = 'active'));
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> cardinality(ids) THEN
        RAISE EXCEPTION '% of % terminals are not as they were', cardinality(ids) - moved, cardinality(ids)
            USING ERRCODE = '40001';
    END IF;
END $$;


-- A note of open requests has a number before it is written: ids are in stock in each process.
ALTER TABLE open_batches ALTER COLUMN open_batch_id DROP IDENTITY;
