-- Overdue promises that their holders brought, to be taken to the chain. Nothing of them opens the transaction.
CREATE TABLE claim_orders (
    claim_id        bytea  PRIMARY KEY CHECK (octet_length(claim_id) = 32),
    member_id       text   NOT NULL,
    txid            bytea  NOT NULL CHECK (octet_length(txid) = 32),
    commitment      bytea  NOT NULL CHECK (octet_length(commitment) = 32),
    merge_deadline  bigint NOT NULL,   -- Unix seconds, as all of this
    signature       bytea  NOT NULL CHECK (octet_length(signature) = 65),
    state           text   NOT NULL CHECK (state IN ('queued', 'claimed', 'answered', 'proven', 'refused')),
    answer_by       bigint,
    reason          text,
    asked_at        timestamptz NOT NULL
);
CREATE INDEX claim_orders_open ON claim_orders (asked_at) WHERE state IN ('queued', 'claimed');
GRANT SELECT ON claim_orders TO countersign_app, countersign_anchor, countersign_reader;
GRANT INSERT ON claim_orders TO countersign_app;
GRANT UPDATE (state, answer_by, reason) ON claim_orders TO countersign_app;
