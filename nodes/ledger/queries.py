"""Reads of the ledger: transactions, transfers, accounts, volume. Nothing here writes.

Rows come as plain mappings of column names; amounts are minor units, bytes stay bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    and_,
    cast,
    func,
    or_,
    select,
    text,
)

from nodes.ledger.tables import (
    account_versions,
    accounts,
    card_accounts,
    transactions,
    transfers,
)

Row = Mapping[str, Any]

#: What a transaction is shown with; salts and network_ref stay inside.
_SHOWN = tuple(transactions.c)


@dataclass(frozen=True, slots=True)
class TransactionFilter:
    """Which transactions; None means any. Times bound decided_ms: from <= t < to."""

    kind: str | None = None
    outcome: str | None = None
    side: str | None = None
    merchant_id: str | None = None
    terminal_id: str | None = None
    rrn: str | None = None
    txid: bytes | None = None
    card_token: bytes | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    min_amount: int | None = None
    max_amount: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL conditions on `transactions`."""
        c = transactions.c
        equal = {
            c.kind: self.kind,
            c.outcome: self.outcome,
            c.side: self.side,
            c.merchant_id: self.merchant_id,
            c.terminal_id: self.terminal_id,
            c.rrn: self.rrn,
            c.txid: self.txid,
            c.card_token: self.card_token,
        }
        found: list[ColumnElement[bool]] = [
            column == value for column, value in equal.items() if value is not None
        ]
        if self.from_ms is not None:
            found.append(c.decided_ms >= self.from_ms)
        if self.to_ms is not None:
            found.append(c.decided_ms < self.to_ms)
        if self.min_amount is not None:
            found.append(c.amount >= self.min_amount)
        if self.max_amount is not None:
            found.append(c.amount <= self.max_amount)
        return found


def find_transactions(
    connection: Connection, wanted: TransactionFilter, *, limit: int, before: int | None = None
) -> list[Row]:
    """The newest first; `before`: the transaction_id of the last row of the page before."""
    if wanted.card_token is not None:
        of_card = select(card_accounts.c.account_id).where(
            card_accounts.c.card_token == wanted.card_token
        )
        account_id = connection.execute(of_card).scalar()
        if account_id is not None:
            return _of_account(connection, wanted, account_id, limit, before)
    query = select(*_SHOWN).where(*wanted.conditions())
    if before is not None:
        query = query.where(transactions.c.transaction_id < before)
    return _rows(connection, query.order_by(transactions.c.transaction_id.desc()).limit(limit))


def _of_account(
    connection: Connection,
    wanted: TransactionFilter,
    account_id: int,
    limit: int,
    before: int | None,
) -> list[Row]:
    """A card's transactions by its account's versions, because cards have no index of their own.

    An on-us one has two sides: the acquirer's is found by the issuer's txid.
    """
    c, v, own = transactions.c, account_versions.c, transactions.alias("own")
    query = (
        select(*_SHOWN)
        .select_from(account_versions)
        .join(own, own.c.transaction_id == v.transaction_id)
        .join(transactions, c.txid == own.c.txid)
        .where(v.account_id == account_id, v.line == 0, *wanted.conditions())
    )
    if before is not None:
        txid = select(c.txid).where(c.transaction_id == before).scalar_subquery()
        version = connection.execute(
            select(c.account_version).where(c.txid == txid, c.account_version.is_not(None))
        ).scalar()
        if version is None:
            return []
        # Two nodes may give ids in another order than versions: a page goes on by both.
        query = query.where(
            v.version <= version, or_(v.version < version, c.transaction_id < before)
        )
    return _rows(connection, query.order_by(v.version.desc(), c.transaction_id.desc()).limit(limit))


def transactions_by_txid(connection: Connection, txid: bytes) -> list[Row]:
    """The sides of one transaction that are in these books (an on-us one has two)."""
    return _rows(connection, select(*_SHOWN).where(transactions.c.txid == txid))


def transactions_by_id(connection: Connection, numbers: Sequence[int]) -> dict[int, Row]:
    """Transactions by transaction_id."""
    rows = _rows(connection, select(*_SHOWN).where(transactions.c.transaction_id.in_(numbers)))
    return {row["transaction_id"]: row for row in rows}


def related_transactions(
    connection: Connection, txid: bytes, original_txid: bytes | None, side: str
) -> list[Row]:
    """The original of a transaction, and what was done to either of them, oldest first."""
    c = transactions.c
    roots = [txid] if original_txid is None else [txid, original_txid]
    query = (
        select(*_SHOWN)
        .where(c.side == side, c.txid != txid, or_(c.txid.in_(roots), c.original_txid.in_(roots)))
        .order_by(c.transaction_id)
        .limit(100)
    )
    return _rows(connection, query)


def transfers_of(connection: Connection, transaction_id: int) -> list[Row]:
    """A transaction's transfers with both accounts, by line."""
    debit, credit = accounts.alias("debit"), accounts.alias("credit")
    query = (
        select(
            transfers.c.line,
            transfers.c.amount,
            transfers.c.currency,
            transfers.c.balance_after,
            debit.c.account_id.label("debit_id"),
            debit.c.kind.label("debit_kind"),
            debit.c.owner.label("debit_owner"),
            credit.c.account_id.label("credit_id"),
            credit.c.kind.label("credit_kind"),
            credit.c.owner.label("credit_owner"),
        )
        .join(debit, debit.c.account_id == transfers.c.debit_account)
        .join(credit, credit.c.account_id == transfers.c.credit_account)
        .where(transfers.c.transaction_id == transaction_id)
        .order_by(transfers.c.line)
    )
    return _rows(connection, query)


# -- what is new, in the order in which it can't be missed


def newest_position(connection: Connection) -> tuple[int, int]:
    """Where a reader of new transactions begins: nothing committed yet lies behind it."""
    row = connection.execute(
        text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1")
    ).scalar_one()
    return int(row), (1 << 63) - 1


def transactions_after(
    connection: Connection, position: tuple[int, int], *, limit: int
) -> list[tuple[tuple[int, int], Row]]:
    """Committed transactions after (xact, transaction_id), each once, in that order.

    Only those below the horizon of running transactions: none can still appear before them.
    """
    found = connection.execute(
        text(
            "SELECT xact::text::bigint, transaction_id FROM transactions"
            " WHERE (xact, transaction_id) > (CAST(:xact AS text)::xid8, :number)"
            " AND xact < pg_snapshot_xmin(pg_current_snapshot())"
            " ORDER BY xact, transaction_id LIMIT :limit"
        ),
        {"xact": str(position[0]), "number": position[1], "limit": limit},
    ).all()
    rows = transactions_by_id(connection, [number for _, number in found])
    return [((xact, number), rows[number]) for xact, number in found]


# -- accounts


def find_accounts(
    connection: Connection,
    *,
    limit: int,
    after: int = 0,
    kind: str | None = None,
    owner: str | None = None,
) -> list[Row]:
    """Accounts by account_id. `balance` is as of the last sealing: add `unsealed_movements`."""
    query = select(*accounts.c).where(accounts.c.account_id > after)
    if kind is not None:
        query = query.where(accounts.c.kind == kind)
    if owner is not None:
        query = query.where(accounts.c.owner == owner)
    return _rows(connection, query.order_by(accounts.c.account_id).limit(limit))


def unsealed_movements(
    connection: Connection, account_ids: Sequence[int], sealed: tuple[int, int]
) -> dict[int, int]:
    """What transactions after the sealing's position (xact, transaction_id) moved, by account."""
    found = connection.execute(
        text(
            "SELECT p.account_id, sum(p.amount)::bigint FROM transactions t"
            " JOIN postings p USING (transaction_id)"
            " WHERE (t.xact, t.transaction_id) > (CAST(:xact AS text)::xid8, :number)"
            " AND p.account_id = ANY(:accounts) GROUP BY p.account_id"
        ),
        {"xact": str(sealed[0]), "number": sealed[1], "accounts": list(account_ids)},
    )
    return dict(found.all())


def account_kinds(connection: Connection) -> list[Row]:
    """How many accounts there are and what they held at the last sealing, by kind and currency."""
    query = select(
        accounts.c.kind,
        accounts.c.currency,
        func.count().label("count"),
        cast(func.sum(accounts.c.balance), BigInteger).label("balance"),
    ).group_by(accounts.c.kind, accounts.c.currency)
    return _rows(connection, query.order_by(accounts.c.kind, accounts.c.currency))


def unsealed_by_kind(connection: Connection, sealed: tuple[int, int]) -> dict[tuple[str, str], int]:
    """What transactions after the sealing's position moved, by kind and currency of account."""
    found = connection.execute(
        text(
            "SELECT a.kind, a.currency, sum(p.amount)::bigint FROM transactions t"
            " JOIN postings p USING (transaction_id) JOIN accounts a ON a.account_id = p.account_id"
            " WHERE (t.xact, t.transaction_id) > (CAST(:xact AS text)::xid8, :number)"
            " GROUP BY a.kind, a.currency"
        ),
        {"xact": str(sealed[0]), "number": sealed[1]},
    )
    return {(kind, currency): amount for kind, currency, amount in found}


# -- volume


#: How far recorded_at may be out of the order of transaction_id (a long transaction, a clock).
_DISORDER = timedelta(minutes=5)


def first_id_since(connection: Connection, moment: datetime) -> int:
    """A transaction_id below which nothing was recorded at or after `moment`.

    Found by bisection of the primary key, because recorded_at has no index: an index would cost
    every authorization, this costs some 20 short look-ups a page.
    """
    c = transactions.c
    low, high = 0, connection.execute(select(func.max(c.transaction_id))).scalar() or 0
    probe = select(c.transaction_id, c.recorded_at).order_by(c.transaction_id).limit(1)
    bound = moment - _DISORDER
    while low < high:
        middle = (low + high) // 2
        found = connection.execute(probe.where(c.transaction_id >= middle)).first()
        if found is None or found.recorded_at >= bound:
            high = middle
        else:
            low = found.transaction_id + 1
    return low


def volume_by_minute(
    connection: Connection, since: datetime, side: str, currency: str
) -> list[Row]:
    """Approved and declined counts and the approved purchases' sum, of each minute with any."""
    c = transactions.c
    minute = func.date_trunc("minute", c.recorded_at).label("minute")
    return _rows(
        connection,
        _tally(minute, currency)
        .where(*_period(connection, since, side))
        .group_by(minute)
        .order_by(minute),
    )


def totals_since(connection: Connection, since: datetime, side: str, currency: str) -> Row:
    """The same, of the whole time since."""
    return _rows(connection, _tally(None, currency).where(*_period(connection, since, side)))[0]


def declines_since(connection: Connection, since: datetime, side: str) -> dict[str, int]:
    """Declined requests by outcome."""
    c = transactions.c
    query = (
        select(c.outcome, func.count())
        .where(c.outcome != "approved", *_period(connection, since, side))
        .group_by(c.outcome)
        .order_by(func.count().desc(), c.outcome)
    )
    return dict(connection.execute(query).all())


def main_currency(connection: Connection, since: datetime, side: str) -> str | None:
    """The currency of most transactions since; None if there are none."""
    c = transactions.c
    query = (
        select(c.currency)
        .where(*_period(connection, since, side))
        .group_by(c.currency)
        .order_by(func.count().desc())
        .limit(1)
    )
    return connection.execute(query).scalar()


def _period(connection: Connection, since: datetime, side: str) -> list[ColumnElement[bool]]:
    c = transactions.c
    return [
        c.transaction_id >= first_id_since(connection, since),
        c.recorded_at >= since,
        c.side == side,
    ]


def _tally(label: Any, currency: str) -> Select[Any]:
    c = transactions.c
    approved = c.outcome == "approved"
    paid = and_(approved, c.kind == "purchase", c.currency == currency)
    columns = [
        func.count().filter(approved).label("approved"),
        func.count().filter(~approved).label("declined"),
        cast(func.coalesce(func.sum(c.amount).filter(paid), 0), BigInteger).label("amount"),
    ]
    return select(*([] if label is None else [label]), *columns)


def _rows(connection: Connection, query: Select[Any]) -> list[Row]:
    return [dict(row) for row in connection.execute(query).mappings()]
