"""The CHECKs of the authorization path's tables: few, and each refuses what it guards against."""

from __future__ import annotations

import psycopg
import pytest

from tests.conftest import NodeDatabase

_VERSION = (
    "INSERT INTO account_versions (account_id, version, line, purse_account, at_ms, balance, held,"
    " overdraft_limit, state) VALUES (1, {version}, {line}, 1, 0, {balance}, {held}, {limit},"
    " {state})"
)
_GOOD_VERSION = {
    "version": "1",
    "line": "0",
    "balance": "5",
    "held": "5",
    "limit": "0",
    "state": "'x'",
}
_TRANSFER = (
    "INSERT INTO transfers (transaction_id, line, debit_account, credit_account, amount, currency,"
    " shard) VALUES (1, {line}, {debit}, {credit}, {amount}, 'CNY', 1)"
)
_GOOD_TRANSFER = {"line": "1", "debit": "(SELECT min(account_id) FROM accounts)", "amount": "1"} | {
    "credit": "(SELECT max(account_id) FROM accounts)"
}
_ACCOUNTS = (
    "INSERT INTO accounts (kind, owner, currency, opened_at) VALUES"
    " ('cardholder', 'a', 'CNY', now()), ('settlement', 'b', 'CNY', now())"
)


def test_each_hot_table_has_one_check_at_most(database: NodeDatabase) -> None:
    """Each costs every commit (ADR 15): a further one is part of one that is there."""
    with psycopg.connect(database.owner_dsn) as connection:
        rows = connection.execute(
            "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'c'"
            " AND conrelid IN ('transactions'::regclass, 'transfers'::regclass,"
            " 'account_versions'::regclass, 'authorization_requests'::regclass,"
            " 'authorization_answers'::regclass) ORDER BY 1"
        ).fetchall()
    assert rows == [
        ("account_versions", "no_overdraft"),
        ("transactions", "no_negative_amount"),
        ("transfers", "moves_money"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"held": "6"},
        {"balance": "-1", "held": "0"},
        {"balance": "-3", "held": "0", "limit": "2"},
        {"held": "-1"},
        {"limit": "-1", "balance": "9"},
        {"version": "0"},
        {"state": "NULL"},
        {"line": "1"},
    ],
)
def test_a_version_without_cover_is_refused(database: NodeDatabase, change: dict[str, str]) -> None:
    with psycopg.connect(database.dsn) as connection:
        with connection.transaction(force_rollback=True):
            connection.execute(_VERSION.format(**_GOOD_VERSION))
        with pytest.raises(psycopg.errors.CheckViolation, match="no_overdraft"):
            connection.execute(_VERSION.format(**_GOOD_VERSION | change))


@pytest.mark.parametrize(
    "change",
    [{"amount": "0"}, {"amount": "-1"}, {"line": "0"}, {"credit": _GOOD_TRANSFER["debit"]}],
)
def test_a_transfer_that_moves_nothing_is_refused(
    database: NodeDatabase, change: dict[str, str]
) -> None:
    with psycopg.connect(database.dsn) as connection:
        connection.execute(_ACCOUNTS)
        with connection.transaction(force_rollback=True):
            connection.execute(_TRANSFER.format(**_GOOD_TRANSFER))
        with pytest.raises(psycopg.errors.CheckViolation, match="moves_money"):
            connection.execute(_TRANSFER.format(**_GOOD_TRANSFER | change))
