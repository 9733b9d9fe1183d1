"""SQL that reads what stands in the books of a day: a close's items, and what is wrong with them.

psycopg connections within a transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from nodes.authorization.model import ACQUIRERS_KINDS
from nodes.clearing.model import ITEM_SIZE, Close, DayItems, DayKey, Item, Party
from nodes.clearing.rules.closing import Correction, SaltedItem, corrected
from nodes.ledger.store import first_id_at

Connection = psycopg.Connection[Any]
Row = dict[str, Any]

#: Gaps of a close that are named: whoever loses more has lost a log, not transactions.
MAX_GAPS = 100_000
KINDS = sorted(kind.value for kind in ACQUIRERS_KINDS)
#: rules.closing.effect, in SQL. The original is looked up for what undoes one.
EFFECT = """CASE WHEN t.outcome <> 'approved' THEN 0
    WHEN t.kind IN ('purchase', 'capture', 'advice') THEN t.amount
    WHEN t.kind IN ('refund', 'top_up') THEN -t.amount
    WHEN t.kind IN ('reversal', 'void') THEN coalesce((SELECT
        CASE WHEN o.outcome <> 'approved' THEN 0
        WHEN o.kind IN ('purchase', 'capture', 'advice') THEN -t.amount
        WHEN o.kind IN ('refund', 'top_up') THEN t.amount ELSE 0 END
        FROM transactions AS o WHERE o.txid = t.original_txid AND o.side = t.side), 0)
    ELSE 0 END"""
_OF_DAY = (
    "t.side = %(side)s AND t.acquirer = %(acquirer)s AND t.issuer = %(issuer)s"
    " AND t.currency = %(currency)s AND t.business_date = %(day)s AND t.pair_seq > 0"
    " AND t.kind = ANY(%(kinds)s) AND t.xact < %(horizon)s::text::xid8"
)


def horizon(connection: Connection) -> int:
    """Every transaction below it has ended: what it wrote is seen, or never will be."""
    row = connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").fetchone()
    return int(row[0]) if row else 0


def _day(key: DayKey, party: Party, below: int) -> dict[str, Any]:
    return {
        "side": party,
        "acquirer": key.acquirer,
        "issuer": key.issuer,
        "currency": key.currency,
        "day": key.business_date,
        "kinds": KINDS,
        "horizon": str(below),
    }


def _packed(connection: Connection, key: DayKey, party: Party, below: int, *, salts: bool) -> bytes:
    """A day's items in order, 72 bytes each, or 104 with salt_fin.

    Sorted as one value each, which PostgreSQL does twice as fast as by two columns. One field holds
    1 GiB: ten million transactions of a pair, currency and date.
    """
    parts = "txid || commitment || int8send(effect)" + (" || salt_fin" if salts else "")
    with connection.cursor(binary=True) as cursor:
        cursor.execute("SET LOCAL work_mem = '256MB'")
        row = cursor.execute(
            f"SELECT string_agg(item, ''::bytea) FROM (SELECT {parts} AS item"
            f" FROM (SELECT t.txid, t.commitment, t.salt_fin, ({EFFECT})::bigint AS effect"
            f" FROM transactions AS t WHERE {_OF_DAY}) AS found ORDER BY item) AS sorted",
            _day(key, party, below),
        ).fetchone()
        cursor.execute("RESET work_mem")
    return bytes(row[0]) if row and row[0] is not None else b""


def kept_items(connection: Connection, close: Close) -> DayItems:
    """The items of a close as they were kept when it was made; read anew where they are gone."""
    with connection.cursor(binary=True) as cursor:
        parts = cursor.execute(
            "SELECT items FROM close_items WHERE close_id = %s ORDER BY part", (close.close_id,)
        ).fetchall()
    blob = b"".join(part for (part,) in parts)
    if len(blob) == close.totals.count * ITEM_SIZE:
        return DayItems(blob)
    return day_items(connection, close)


def day_items(connection: Connection, close: Close) -> DayItems:
    """The items of a close as its rows have them now, corrections of earlier revisions applied."""
    items = DayItems(_packed(connection, close.key, close.party, close.horizon, salts=False))
    corrections = corrections_before(connection, close.key, close.revision)
    if not corrections:
        return items
    salted = corrected((SaltedItem(item, b"") for item in items), corrections)
    return DayItems.of(entry.item for entry in salted)


def salted_items(
    connection: Connection, key: DayKey, party: Party, below: int, revision: int
) -> tuple[DayItems, list[bytes]]:
    """The same of a close that is being made, with salt_fin of each item."""
    packed = _packed(connection, key, party, below, salts=True)
    starts = range(0, len(packed), ITEM_SIZE + 32)
    items = DayItems(b"".join([packed[at : at + ITEM_SIZE] for at in starts]))
    salts = [packed[at + ITEM_SIZE : at + ITEM_SIZE + 32] for at in starts]
    corrections = corrections_before(connection, key, revision)
    if not corrections:
        return items, salts
    entries = corrected(map(SaltedItem, items, salts), corrections)
    return DayItems.of(entry.item for entry in entries), [entry.salt_fin for entry in entries]


def corrections_before(connection: Connection, key: DayKey, revision: int) -> list[Correction]:
    """What correcting entries made of this close before a revision."""
    rows = connection.execute(
        "SELECT removed_txid, removed_c, removed_effect, added_txid, added_c, added_effect,"
        " added_salt FROM close_corrections JOIN closes USING (close_id)"
        " WHERE (acquirer, issuer, currency, business_date) = (%s, %s, %s, %s) AND revision < %s"
        " ORDER BY revision, break_ref",
        (*_key(key), revision),
    ).fetchall()
    return [
        Correction(
            Item(*row[:3]) if row[0] is not None else None,
            SaltedItem(Item(*row[3:6]), row[6]) if row[3] is not None else None,
        )
        for row in rows
    ]


def is_written(connection: Connection, key: DayKey, party: Party, since_ms: int) -> bool:
    """Whether a row of this day was numbered since a moment: its terminals are still at it."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM transactions AS t WHERE t.transaction_id >= %(since)s"
        " AND t.side = %(side)s AND t.acquirer = %(acquirer)s AND t.issuer = %(issuer)s"
        " AND t.currency = %(currency)s AND t.business_date = %(day)s AND t.pair_seq > 0)",
        _day(key, party, 0) | {"since": first_id_at(since_ms)},
    ).fetchone()
    return bool(row and row[0])


def newest_pair_seq(connection: Connection, key: DayKey, party: Party, below: int) -> int:
    """The largest pair number of a day's rows; 0 without any."""
    row = connection.execute(
        f"SELECT max(t.pair_seq) FROM transactions AS t WHERE {_OF_DAY}", _day(key, party, below)
    ).fetchone()
    return int(row[0] or 0) if row else 0


def checked_pair_seq(connection: Connection, key: DayKey) -> int:
    """Up to where closes of the pair have looked for gaps; 0 before the first."""
    row = connection.execute(
        "SELECT max(last_pair_seq) FROM closes WHERE (acquirer, issuer) = (%s, %s)",
        (key.acquirer, key.issuer),
    ).fetchone()
    return int(row[0] or 0) if row else 0


def gaps(connection: Connection, close: Close) -> list[int]:
    """Pair numbers that the close's range lacks, at most MAX_GAPS."""
    pair = (close.key.acquirer, close.key.issuer, close.party)
    after, last = close.after_pair_seq, close.last_pair_seq
    if after == last:
        return []
    row = connection.execute(
        "SELECT count(*) FROM transactions WHERE (acquirer, issuer, side) = (%s, %s, %s)"
        " AND pair_seq > %s AND pair_seq <= %s",
        (*pair, after, last),
    ).fetchone()
    if row and row[0] == last - after:
        return []
    found = connection.execute(
        "SELECT before + 1, pair_seq - 1 FROM (SELECT pair_seq, lag(pair_seq, 1, %s::bigint)"
        " OVER (ORDER BY pair_seq) AS before FROM transactions"
        " WHERE (acquirer, issuer, side) = (%s, %s, %s) AND pair_seq > %s AND pair_seq <= %s)"
        " AS steps WHERE pair_seq > before + 1 ORDER BY 1 LIMIT %s",
        (after, *pair, after, last, MAX_GAPS),
    ).fetchall()
    numbers: list[int] = []
    for first, end in found:
        numbers += range(first, min(end, first + MAX_GAPS - len(numbers) - 1) + 1)
        if len(numbers) >= MAX_GAPS:
            break
    return numbers


def numbered(
    connection: Connection, key: DayKey, party: Party, numbers: Sequence[int]
) -> dict[int, bytes]:
    """The txids under these numbers of the pair."""
    rows = connection.execute(
        "SELECT pair_seq, txid FROM transactions WHERE (acquirer, issuer, side) = (%s, %s, %s)"
        " AND pair_seq = ANY(%s) AND pair_seq > 0",
        (key.acquirer, key.issuer, party, list(numbers)),
    ).fetchall()
    return dict(rows)


def find_duplicates(
    connection: Connection, key: DayKey, party: Party, below: int
) -> dict[bytes, bytes]:
    """Approved transactions of one terminal's message that came after another: by the first's txid.

    As invariant 5 tells messages apart (docs/invariants.md).
    """
    message = "t.terminal_id, t.batch, t.stan, t.kind = 'reversal'"
    approved = f"{_OF_DAY} AND t.outcome = 'approved' AND t.terminal_id <> ''"
    rows = connection.execute(
        "SELECT array_agg(t.txid ORDER BY t.pair_seq) FROM transactions AS t"
        f" WHERE {approved} AND ({message}) IN (SELECT {message} FROM transactions AS t"
        f" WHERE {approved} GROUP BY {message} HAVING count(*) > 1) GROUP BY {message}",
        _day(key, party, below),
    ).fetchall()
    return {later: txids[0] for (txids,) in rows for later in txids[1:]}


def duplicates(connection: Connection, close: Close) -> dict[bytes, bytes]:
    """The same, as it was found when the close was made."""
    rows = connection.execute(
        "SELECT txid, first_txid FROM close_duplicates WHERE close_id = %s", (close.close_id,)
    ).fetchall()
    return dict(rows)


def unsigned(connection: Connection, close: Close) -> list[bytes]:
    """Transactions of a close that the acquirer recorded without the issuer's valid signature."""
    rows = connection.execute(
        "SELECT t.txid FROM unsigned_answers AS u JOIN transactions AS t USING (txid)"
        f" WHERE {_OF_DAY} ORDER BY t.txid",
        _day(close.key, close.party, close.horizon),
    ).fetchall()
    return [row[0] for row in rows]


def rows_of(connection: Connection, key: DayKey, party: Party, txids: Sequence[bytes]) -> list[Row]:
    """This pair's transactions by txid, with what C commits to and their effect."""
    with connection.cursor(row_factory=dict_row, binary=True) as cursor:
        return cursor.execute(
            "SELECT t.txid, t.commitment, t.amount, t.currency, t.kind, t.outcome,"
            " t.transmitted_ms, t.merchant_id, t.original_txid, t.salt_fin, t.salt_pii,"
            " t.card_token,"
            f" t.card_token_leaf, ({EFFECT})::bigint AS effect, t.business_date, t.pair_seq"
            " FROM transactions AS t WHERE t.txid = ANY(%(txids)s) AND t.side = %(side)s"
            " AND t.acquirer = %(acquirer)s AND t.issuer = %(issuer)s AND t.pair_seq > 0",
            {
                "txids": list(txids),
                "side": party,
                "acquirer": key.acquirer,
                "issuer": key.issuer,
            },
        ).fetchall()


def _key(key: DayKey) -> tuple[object, ...]:
    return key.acquirer, key.issuer, key.currency, key.business_date
