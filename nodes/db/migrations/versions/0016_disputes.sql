-- What holders dispute of what they have paid. What is still disputed stands in the account's versions: refunds
-- are decided on it. Here is who said what, and when.

CREATE TABLE disputes (
    dispute_id     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    txid           bytea       NOT NULL CHECK (octet_length(txid) = 32),
    account_id     bigint      NOT NULL,
    amount         bigint      NOT NULL CHECK (amount > 0),
    currency       text        NOT NULL,
    reason         text        NOT NULL,
    opened_by      text        NOT NULL,
    opened_at      timestamptz NOT NULL,
    closed_by      text,
    closed_at      timestamptz,
    closing_reason text,
    CHECK ((closed_by IS NULL) = (closed_at IS NULL) AND (closed_by IS NULL) = (closing_reason IS NULL))
);
CREATE UNIQUE INDEX disputes_open ON disputes (txid) WHERE closed_at IS NULL;
CREATE INDEX disputes_of_account ON disputes (account_id);
CREATE TRIGGER disputes_are_events AFTER INSERT OR UPDATE ON disputes
    FOR EACH ROW EXECUTE FUNCTION note_row('audit', 'dispute', 'dispute_id');
GRANT SELECT ON disputes TO countersign_app, countersign_anchor, countersign_reader;
GRANT INSERT ON disputes TO countersign_app;
GRANT UPDATE (closed_by, closed_at, closing_reason) ON disputes TO countersign_app;
