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

-- The acquirer's: what it approved in an issuer's place while that was away (by contract). card_lookup: the card number
-- under the acquirer's own keyed hash, for the ceilings a card.
CREATE TABLE stand_ins (
    txid        bytea  PRIMARY KEY CHECK (octet_length(txid) = 32),       -- of the advice
    asked_txid  bytea  NOT NULL UNIQUE CHECK (octet_length(asked_txid) = 32), -- of the purchase, reversed
    issuer      text   NOT NULL,
    card_lookup bytea  NOT NULL CHECK (octet_length(card_lookup) = 32),
    amount      bigint NOT NULL CHECK (amount > 0),
    currency    text   NOT NULL,
    at_ms       bigint NOT NULL
);
CREATE INDEX stand_ins_of_card ON stand_ins (card_lookup, at_ms);
CREATE TRIGGER stand_ins_unchanging BEFORE UPDATE OR DELETE ON stand_ins
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER stand_ins_untruncated BEFORE TRUNCATE ON stand_ins
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT ON stand_ins TO countersign_app, countersign_anchor;
GRANT INSERT ON stand_ins TO countersign_app;
