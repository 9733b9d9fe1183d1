"""What the two prototypes of ADR 8 work on: the node's real schema, a million rows, two functions.

Both write the same rows into `transactions`, `transfers` and `authorization_requests`. Design (a)
keeps an account as a row of `balances` that is locked and updated; design (b) appends to
`account_versions`. Commitments, PIN checks and the encoding of answers cost the same in both and
are left out: the columns carry bytes of the right width.
"""

from __future__ import annotations

import msgspec
import psycopg

from nodes.authorization.state import Account, CardStanding, Counter, Purse

CARDS = 2_000
SETTLEMENT = 1
PAIR = ("meridian", "aurora")
START_BALANCE = 1_000_000_000_000
WINDOW_LIMIT = 10**15
RULE = "daily"
NOW_MS = 1_780_000_000_000

#: What a request brings into `transactions`, by type; transaction_id first.
TRANSACTION_COLUMNS = {
    "transaction_id": "bigint",
    "txid": "bytea",
    "side": "text",
    "network_ref": "bytea",
    "acquirer": "text",
    "issuer": "text",
    "kind": "text",
    "outcome": "text",
    "amount": "bigint",
    "currency": "text",
    "approval_code": "text",
    "merchant_id": "text",
    "merchant_name": "text",
    "mcc": "text",
    "country": "text",
    "terminal_id": "text",
    "terminal_seq": "bigint",
    "pair_seq": "bigint",
    "business_date": "date",
    "batch": "text",
    "stan": "text",
    "rrn": "text",
    "entry_mode": "text",
    "pan_masked": "text",
    "card_token": "bytea",
    "account_id": "bigint",
    "account_version": "bigint",
    "original_txid": "bytea",
    "transmitted_ms": "bigint",
    "decided_ms": "bigint",
    "salt_fin": "bytea",
    "salt_pii": "bytea",
    "card_token_leaf": "bytea",
    "salt_private": "bytea",
    "commitment": "bytea",
}
TRANSFER_COLUMNS = {
    "transaction_id": "bigint",
    "line": "smallint",
    "debit_account": "bigint",
    "credit_account": "bigint",
    "amount": "bigint",
    "currency": "text",
    "balance_after": "bigint",
}
REQUEST_COLUMNS = {
    "idempotency_key": "bytea",
    "side": "text",
    "business_date": "date",
    "fingerprint": "bytea",
    "txid": "bytea",
    "answer": "bytea",
    "deadline_ms": "bigint",
}
VERSION_COLUMNS = {
    "account_id": "bigint",
    "version": "bigint",
    "line": "smallint",
    "purse_account": "bigint",
    "transaction_id": "bigint",
    "at_ms": "bigint",
    "balance": "bigint",
    "held": "bigint",
    "overdraft_limit": "bigint",
    "state": "bytea",
    "detail": "bytea",
}
#: What only the decision knows; in design (a) the database fills these in.
_DECIDED = ("outcome", "pair_seq", "account_id", "account_version", "decided_ms")
#: What the client of design (a) sends a request, in this order.
SENT_COLUMNS = {
    **{name: kind for name, kind in TRANSACTION_COLUMNS.items() if name not in _DECIDED},
    "idempotency_key": "bytea",
    "fingerprint": "bytea",
    "answer": "bytea",
    "deadline_ms": "bigint",
}

_BALANCES = """
CREATE TABLE balances (
    account_id bigint PRIMARY KEY, card_token bytea NOT NULL UNIQUE, status text NOT NULL,
    balance bigint NOT NULL, held bigint NOT NULL DEFAULT 0,
    overdraft_limit bigint NOT NULL DEFAULT 0,
    window_period bigint NOT NULL, window_amount bigint NOT NULL, window_count bigint NOT NULL,
    version bigint NOT NULL, CHECK (balance - held >= -overdraft_limit)
) WITH (fillfactor = 50);
"""
#: An account's history: design (b) has it in account_versions.
_HISTORY = "CREATE INDEX transactions_by_account ON transactions (account_id, transaction_id)"


def decide_function() -> str:
    """Design (a): lock in one statement, decide and write in the next, all set-based.

    A card that pays twice in a batch is decided on running sums; they count what is declined as if
    it had been spent, which a product couldn't leave so: there, such accounts go through a loop.
    """
    arguments = ", ".join(f"p_{name} {kind}[]" for name, kind in SENT_COLUMNS.items())
    arrays = ", ".join(f"p_{name}" for name in SENT_COLUMNS)
    names = ", ".join(SENT_COLUMNS)
    filled = {
        "outcome": "CASE WHEN d.approved THEN 'approved' ELSE 'insufficient_funds' END",
        "pair_seq": "first_seq + d.n",
        "account_id": "d.account_id",
        "account_version": "d.version + d.place",
        "decided_ms": "now_ms",
    }
    values = ", ".join(filled.get(name, f"d.{name}") for name in TRANSACTION_COLUMNS)
    return f"""
CREATE FUNCTION decide_in_database(now_ms bigint, the_period bigint, the_limit bigint, {arguments})
RETURNS TABLE (place_in_batch bigint, is_approved boolean, balance_then bigint)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    first_seq bigint;
    locked integer;
    written integer;
BEGIN
    PERFORM FROM authorization_requests WHERE idempotency_key = ANY(p_idempotency_key)
        AND side = 'issuer';
    IF FOUND THEN RAISE EXCEPTION 'a repeat' USING ERRCODE = '23505'; END IF;
    PERFORM FROM balances WHERE card_token = ANY(p_card_token) ORDER BY account_id
        FOR NO KEY UPDATE;
    GET DIAGNOSTICS locked = ROW_COUNT;
    UPDATE pair_counters SET last_seq = last_seq + cardinality(p_txid)
        WHERE acquirer = '{PAIR[0]}' AND issuer = '{PAIR[1]}'
        RETURNING last_seq - cardinality(p_txid) INTO first_seq;
    RETURN QUERY WITH input AS (
        SELECT * FROM unnest({arrays}) WITH ORDINALITY AS i ({names}, n)
    ), summed AS (
        SELECT i.*, b.account_id, b.version, b.balance, b.held, b.overdraft_limit, b.status,
            CASE WHEN b.window_period = the_period THEN b.window_amount ELSE 0 END AS counted,
            sum(i.amount) OVER earlier AS spent, row_number() OVER earlier AS place
        FROM input AS i JOIN balances AS b USING (card_token)
        WINDOW earlier AS (PARTITION BY b.account_id ORDER BY i.n)
    ), d AS MATERIALIZED (
        SELECT s.*, s.status = 'active' AND s.balance - s.held + s.overdraft_limit >= s.spent
            AND s.counted + s.spent <= the_limit AS approved FROM summed AS s
    ), t AS (
        INSERT INTO transactions ({", ".join(TRANSACTION_COLUMNS)}) SELECT {values} FROM d
    ), f AS (
        INSERT INTO transfers ({", ".join(TRANSFER_COLUMNS)})
        SELECT d.transaction_id, 1, d.account_id, {SETTLEMENT}, d.amount, d.currency,
            d.balance - d.spent FROM d WHERE d.approved
    ), q AS (
        INSERT INTO authorization_requests ({", ".join(REQUEST_COLUMNS)})
        SELECT d.idempotency_key, 'issuer', d.business_date, d.fingerprint, d.txid, d.answer,
            d.deadline_ms FROM d
    ), u AS (
        UPDATE balances AS b SET balance = b.balance - g.spent, window_period = the_period,
            window_amount = g.counted + g.spent, window_count = b.window_count + g.uses,
            version = b.version + g.uses
        FROM (SELECT account_id, sum(amount)::bigint AS spent, max(counted) AS counted,
            count(*) AS uses FROM d WHERE approved GROUP BY account_id) AS g
        WHERE b.account_id = g.account_id RETURNING b.account_id
    ) SELECT d.n, d.approved, (d.balance - d.spent)::bigint FROM d;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF locked = 0 OR written <> cardinality(p_txid) THEN RAISE EXCEPTION 'a row is missing'; END IF;
END $$;
"""


def snapshot(account_id: int, version: int, balance: int) -> Account:
    """A card account as the engine keeps it: one purse, one card, one window."""
    return Account(
        account_id=account_id,
        version=version,
        currency="CNY",
        purses=(Purse(account_id, "main", balance),),
        cards={account_id: CardStanding("active")},
        counters={RULE: Counter(20_000, 0, 0)},
    )


def fill(connection: psycopg.Connection[tuple[object, ...]], design: str, rows: int) -> None:
    """Accounts, and `rows` earlier transactions of them, in one transaction of set-based SQL."""
    first, each = SETTLEMENT + 1, -(-rows // CARDS)
    state = msgspec.msgpack.encode(snapshot(first, each, START_BALANCE))
    connection.execute(_BALANCES)
    # The designs were compared before there were shards: their rows are all in one.
    connection.execute(
        "ALTER TABLE transactions ALTER COLUMN shard SET DEFAULT 0;"
        "ALTER TABLE transfers ALTER COLUMN shard SET DEFAULT 0"
    )
    connection.execute(decide_function())
    if design == "database":
        connection.execute(_HISTORY)
    connection.execute("SET LOCAL synchronous_commit = off")
    connection.execute(
        "INSERT INTO accounts (kind, owner, currency, opened_at) SELECT CASE n WHEN 0 THEN"
        " 'settlement' ELSE 'cardholder' END, n::text, 'CNY', now() FROM generate_series(0, %s) n",
        (CARDS,),
    )
    connection.execute("INSERT INTO pair_counters VALUES (%s, %s, %s)", (*PAIR, rows))
    connection.execute(
        "INSERT INTO balances SELECT a, substr(sha256(int8send(a)), 1, 16), 'active', %s, 0, 0,"
        " 20000, 0, 0, %s FROM generate_series(%s::bigint, %s) AS a",
        (START_BALANCE, each, first, first + CARDS - 1),
    )
    connection.execute(
        f"INSERT INTO transactions ({', '.join(TRANSACTION_COLUMNS)})"
        " SELECT n, sha256(int8send(n)), 'issuer', substr(sha256(int8send(-n)), 1, 16), %s, %s,"
        " 'purchase', 'approved', 100, 'CNY', '123456', 'LOAD00000000001', 'Load', '5411', 'CN',"
        " 'T' || lpad((n %% 128)::text, 7, '0'), n / 128 + 1, n, DATE '2026-01-01', '000001',"
        " lpad((n %% 1000000)::text, 6, '0'), lpad(n::text, 12, '0'), '021', '622300******1234',"
        " substr(sha256(int8send(n %% %s + %s)), 1, 16), n %% %s + %s, n / %s + 1, NULL, %s, %s,"
        " sha256(int8send(n * 3)), sha256(int8send(n * 5)), NULL, sha256(int8send(n * 7)),"
        " sha256(int8send(n * 11)) FROM generate_series(1::bigint, %s) AS n",
        (*PAIR, CARDS, first, CARDS, first, CARDS, NOW_MS, NOW_MS, rows),
    )
    connection.execute(
        "INSERT INTO transfers SELECT n, 1, n %% %s + %s, %s, 100, 'CNY', %s"
        " FROM generate_series(1::bigint, %s) AS n",
        (CARDS, first, SETTLEMENT, START_BALANCE, rows),
    )
    connection.execute(
        f"INSERT INTO authorization_requests ({', '.join(REQUEST_COLUMNS)})"
        " SELECT sha256(int8send(n * 13)), 'issuer', DATE '2026-01-01', sha256(int8send(n * 17)),"
        " sha256(int8send(n)), convert_to(repeat('x', 330), 'UTF8'), %s"
        " FROM generate_series(1::bigint, %s) AS n",
        (NOW_MS, rows),
    )
    connection.execute(
        "INSERT INTO account_versions SELECT a, v, 0, a, (v - 1) * %s + a, %s, %s, 0, 0, %b, NULL"
        " FROM generate_series(%s::bigint, %s) AS a, generate_series(1::bigint, %s) AS v",
        (CARDS, NOW_MS, START_BALANCE, state, first, first + CARDS - 1, each),
    )
