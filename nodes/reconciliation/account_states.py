"""Holds, debts, offline reserves (10, 2, 19): the snapshots of accounts, which SQL can't read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from nodes.anchoring.store import Connection
from nodes.authorization.state import Account

_HELD = "held is the sum of the open holds"
_ONCE = "a hold ends once"
_KEPT = "a version's snapshot is what its columns say"
_OWED = "what cardholders owe is in the receivable account"
_DISPUTED = "what is disputed is a part of what is owed, or a dispute of the holder is open"
_RESERVED = "what cards may spend offline is in the offline_reserved account"
_PAGE = 2_000
_ACCOUNT = msgspec.msgpack.Decoder(Account)

#: Every version of the accounts that ever held something.
_STREAMS = (
    "SELECT v.account_id, v.version, v.balance, v.held, v.state, t.txid, t.kind"
    " FROM account_versions AS v LEFT JOIN transactions AS t USING (transaction_id)"
    " WHERE v.line = 0 AND v.account_id IN (SELECT account_id FROM account_versions"
    " WHERE held <> 0) ORDER BY v.account_id, v.version"
)
#: The last version of each account, with the last line of each further purse.
_LAST = (
    "SELECT v.account_id, v.version, v.balance, v.held, v.state, array(SELECT DISTINCT ON (line)"
    " ARRAY[p.purse_account, p.balance, p.held] FROM account_versions AS p"
    " WHERE p.account_id = v.account_id AND p.line > 0 ORDER BY line, p.version DESC)"
    " FROM (SELECT account_id, max(version) AS version FROM account_versions"
    " WHERE line = 0 GROUP BY 1) AS newest JOIN account_versions AS v"
    " USING (account_id, version) WHERE v.line = 0"
)
_OPEN = "a dispute is open as long as something of its payment is disputed"
_DISPUTES = "SELECT txid, account_id, amount FROM disputes WHERE closed_at IS NULL"
_POSTED = (
    "SELECT a.currency, sum(p.amount)::bigint FROM accounts AS a JOIN postings AS p"
    " USING (account_id) WHERE a.kind = %s GROUP BY 1"
)


def broken_states(connection: Connection) -> Iterator[tuple[int, str, str]]:
    """(invariant, what it says, which account) for each violation."""
    yield from _last_versions(connection)
    yield from _streams(connection)


def _rows(connection: Connection, name: str, statement: str) -> Iterator[Any]:
    """Row by row: a million snapshots don't fit in memory."""
    with connection.cursor(name=name, binary=True) as cursor:
        cursor.itersize = _PAGE
        cursor.execute(statement)
        yield from cursor


def _last_versions(connection: Connection) -> Iterator[tuple[int, str, str]]:
    owed: dict[str, int] = defaultdict(int)
    reserved: dict[str, int] = defaultdict(int)
    disputed = {
        txid: (account_id, amount) for txid, account_id, amount in connection.execute(_DISPUTES)
    }
    waiting = set(disputed)
    for account_id, version, balance, held, state, lines in _rows(connection, "last", _LAST):
        where = f"account {account_id}, version {version}"
        account = _read(state)
        if account is None:
            yield 10, _KEPT, f"{where}: unreadable"
            continue
        owed[account.currency] += account.receivable
        reserved[account.currency] += sum(account.offline.values())
        if any(amount <= 0 for amount in account.offline.values()):
            yield 19, _RESERVED, f"{where}: less than nothing"
        if not _disputes_fit(account, disputed):
            yield 2, _DISPUTED, where
        waiting -= {one.txid for one in account.disputed if one.paid}
        columns = {number: (purse, kept) for number, purse, kept in lines}
        columns[account_id] = (balance, held)
        for purse in account.purses:
            if (purse.balance, purse.held) != columns.get(purse.account_id, (0, 0)):
                yield 10, _KEPT, f"{where}, purse {purse.account_id}"
        if (account.account_id, account.version) != (account_id, version):
            yield 10, _KEPT, f"{where}: it is of another"
        if not _holds_sum(account):
            yield 10, _HELD, where
    for txid in sorted(waiting):
        yield 2, _OPEN, f"account {disputed[txid][0]}, payment {txid.hex()}"
    posted = dict(connection.execute(_POSTED, ("offline_reserved",)).fetchall())
    for currency in sorted({*reserved, *posted}):
        if reserved[currency] != posted.get(currency, 0):
            detail = f"{currency}: {reserved[currency]} reserved, {posted.get(currency, 0)} posted"
            yield 19, _RESERVED, detail
    posted = {c: -n for c, n in connection.execute(_POSTED, ("receivable",)).fetchall()}
    for currency in sorted({*owed, *posted}):
        if owed[currency] != posted.get(currency, 0):
            detail = f"{currency}: {owed[currency]} owed, {posted.get(currency, 0)} posted"
            yield 2, _OWED, detail


def _streams(connection: Connection) -> Iterator[tuple[int, str, str]]:
    current, open_holds, ended = 0, set[bytes](), set[bytes]()
    for row in _rows(connection, "streams", _STREAMS):
        account_id, version, balance, held, state, txid, kind = row
        if account_id != current:
            current, open_holds, ended = account_id, set(), set()
        where = f"account {account_id}, version {version}"
        account = _read(state)
        if account is None:
            yield 10, _KEPT, f"{where}: unreadable"
            continue
        main = account.purses[0]
        if (main.balance, main.held) != (balance, held):
            yield 10, _KEPT, where
        if not _holds_sum(account):
            yield 10, _HELD, where
        now = {hold.txid for hold in account.holds}
        for new in now - open_holds:
            if new in ended:
                yield 10, _ONCE, f"{where}: {new.hex()} is held again"
            elif (txid, kind) != (new, "authorization"):
                yield 10, _ONCE, f"{where}: no authorization {new.hex()}"
        ended |= open_holds - now
        open_holds = now


def _disputes_fit(account: Account, opened: Mapping[bytes, tuple[int, int]]) -> bool:
    """Whether each payment is disputed once: for what is owed, or as people opened it."""
    if len({one.txid for one in account.disputed}) != len(account.disputed):
        return False
    for one in account.disputed:
        account_id, most = opened.get(one.txid, (0, 0)) if one.paid else (0, account.receivable)
        if not 0 < one.amount <= most or (one.paid and account_id != account.account_id):
            return False
    owed = sum(one.amount for one in account.disputed if not one.paid)
    return owed <= account.receivable


def _holds_sum(account: Account) -> bool:
    """Whether each purse's held is the sum of the parts that open holds have in it."""
    held: dict[int, int] = defaultdict(int)
    for hold in account.holds:
        if not hold.parts:
            return False
        for purse, amount in hold.parts:
            if amount <= 0:
                return False
            held[purse] += amount
    return all(purse.held == held.pop(purse.account_id, 0) for purse in account.purses) and not held


def _read(state: bytes | None) -> Account | None:
    try:
        return _ACCOUNT.decode(state or b"")
    except msgspec.MsgspecError:
        return None
