"""What the network is compared with: PostgreSQL's own TPC-B, and a plain transfer in SQL."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from sandbox.postgres import EmbeddedPostgres

CLIENTS = 32
TPCB_SCALE = 20
TPCB_DATABASE = "tpcb"
TRANSFER_DATABASE = "plain_transfer"
#: Accounts of the plain transfer: so many that it has no hot row.
TRANSFER_ACCOUNTS = 1_000_000

#: Double entry as anybody would write it first: lock the two accounts in order, check, insert a
#: transfer and two entries with running balances, update both.
_TRANSFER = """
CREATE TABLE accounts (
    account_id bigint PRIMARY KEY, balance bigint NOT NULL, CHECK (balance >= 0));
CREATE TABLE transfers (
    transfer_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    debit_account bigint NOT NULL REFERENCES accounts,
    credit_account bigint NOT NULL REFERENCES accounts,
    amount bigint NOT NULL CHECK (amount > 0),
    made_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE entries (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transfer_id bigint NOT NULL REFERENCES transfers,
    account_id bigint NOT NULL REFERENCES accounts,
    amount bigint NOT NULL,
    balance_after bigint NOT NULL);
CREATE INDEX entries_by_account ON entries (account_id, entry_id);
CREATE FUNCTION transfer(payer bigint, payee bigint, amount bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    payer_balance bigint;
    payee_balance bigint;
    number bigint;
BEGIN
    IF payer = payee THEN
        RETURN NULL;
    ELSIF payer < payee THEN
        SELECT balance INTO STRICT payer_balance FROM accounts WHERE account_id = payer FOR UPDATE;
        SELECT balance INTO STRICT payee_balance FROM accounts WHERE account_id = payee FOR UPDATE;
    ELSE
        SELECT balance INTO STRICT payee_balance FROM accounts WHERE account_id = payee FOR UPDATE;
        SELECT balance INTO STRICT payer_balance FROM accounts WHERE account_id = payer FOR UPDATE;
    END IF;
    IF payer_balance < transfer.amount THEN
        RETURN NULL;
    END IF;
    INSERT INTO transfers (debit_account, credit_account, amount)
        VALUES (payer, payee, transfer.amount) RETURNING transfer_id INTO number;
    INSERT INTO entries (transfer_id, account_id, amount, balance_after)
        VALUES (number, payer, -transfer.amount, payer_balance - transfer.amount),
               (number, payee, transfer.amount, payee_balance + transfer.amount);
    UPDATE accounts SET balance = payer_balance - transfer.amount WHERE account_id = payer;
    UPDATE accounts SET balance = payee_balance + transfer.amount WHERE account_id = payee;
    RETURN number;
END $$;
"""
_TRANSFER_SCRIPT = f"""\\set payer random(1, {TRANSFER_ACCOUNTS})
\\set payee random(1, {TRANSFER_ACCOUNTS})
\\set amount random(1, 1000)
SELECT transfer(:payer, :payee, :amount);
"""


class YardstickError(RuntimeError):
    """A yardstick could not be run; the text says why."""


@dataclass(frozen=True)
class Measured:
    """A yardstick's run: transactions a second, and median latency where it was asked for."""

    per_second: float
    p50_ms: float = 0.0


class Yardsticks:
    """pgbench of the server's own wheel against the server that the network uses."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres

    def prepare_tpcb(self) -> None:
        """pgbench's own tables, at the scale of record."""
        if self._create(TPCB_DATABASE):
            self._pgbench(TPCB_DATABASE, "--initialize", "--quiet", f"--scale={TPCB_SCALE}")

    def prepare_transfer(self) -> None:
        """The second yardstick's tables, function and accounts."""
        if not self._create(TRANSFER_DATABASE):
            return
        dsn = self._postgres.superuser_dsn(TRANSFER_DATABASE)
        with psycopg.connect(dsn, autocommit=True) as connection:
            with connection.transaction():
                connection.execute(_TRANSFER)
                connection.execute(
                    "INSERT INTO accounts SELECT n, 1000000000 FROM generate_series(1, %s) AS n",
                    (TRANSFER_ACCOUNTS,),
                )
            connection.execute("VACUUM ANALYZE")

    def tpcb(self, seconds: float) -> Measured:
        """PostgreSQL's TPC-B-like script."""
        return self._measure(TPCB_DATABASE, seconds, CLIENTS)

    def tpcb_one_client(self, seconds: float) -> Measured:
        """The same for one client, with the median of the single transactions' times."""
        with TemporaryDirectory() as directory:
            prefix = f"{directory}/times"
            options = ("--log", f"--log-prefix={prefix}")
            measured = self._measure(TPCB_DATABASE, seconds, 1, *options)
            times = [
                int(line.split()[2])
                for path in Path(directory).iterdir()
                for line in path.read_text().splitlines()
            ]
        return Measured(measured.per_second, statistics.median(times) / 1000)

    def transfer(self, seconds: float) -> Measured:
        """The plain transfer, over many accounts."""
        with TemporaryDirectory() as directory:
            script = Path(directory) / "transfer.sql"
            script.write_text(_TRANSFER_SCRIPT)
            return self._measure(TRANSFER_DATABASE, seconds, CLIENTS, f"--file={script}")

    def _measure(self, database: str, seconds: float, clients: int, *options: str) -> Measured:
        said = self._pgbench(
            database,
            f"--client={clients}",
            f"--jobs={min(os.cpu_count() or 1, 4, clients)}",
            f"--time={max(1, round(seconds))}",
            "--protocol=prepared",
            "--no-vacuum",
            *options,
        )
        return read_pgbench(said)

    def _create(self, database: str) -> bool:
        """Make a database; False if it is there."""
        with psycopg.connect(self._postgres.superuser_dsn(), autocommit=True) as connection:
            there = connection.execute("SELECT FROM pg_database WHERE datname = %s", (database,))
            if there.fetchone() is not None:
                return False
            connection.execute(f"CREATE DATABASE {database}")
            return True

    def _pgbench(self, database: str, *options: str) -> str:
        postgres = self._postgres
        path, environment = postgres.binary("pgbench")
        server = (f"--host={postgres.host}", f"--port={postgres.port}", "--username=postgres")
        done = subprocess.run(
            [path, *options, *server, database],
            env=environment | {"PGPASSWORD": postgres.password},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise YardstickError(f"pgbench failed: {done.stderr.strip()[-500:]}")
        return done.stdout


def read_pgbench(said: str) -> Measured:
    """The figures in what pgbench printed. YardstickError if they lack or transactions failed."""
    rate = re.search(r"^tps = ([0-9.]+)", said, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: (\d+)", said, re.MULTILINE)
    if rate is None or (failed is not None and failed[1] != "0"):
        raise YardstickError(f"pgbench said: {said[-500:]}")
    return Measured(float(rate[1]))
