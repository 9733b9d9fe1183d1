"""Edits of single cells, and rows put in, taken out and exchanged, in a member's books.

Each function draws and does one such deed, and says what has to be found.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from sandbox.campaigns.books import Books, Deed, altered, inserted, missing, pick
from sandbox.campaigns.cells import other_value
from sandbox.campaigns.ledger_history import ends_alone

#: The tables that the log binds, with their keys, how often each is chosen, and what an anchored
#: member's word about them is. Of anchor_submissions only what repeats the chain's word counts.
KEYS: Mapping[str, tuple[str, ...]] = {
    "transactions": ("transaction_id",),
    "transfers": ("transaction_id", "line"),
    "events": ("event_id",),
    "log_leaves": ("log_index",),
    "log_nodes": ("level", "node_index"),
    "batches": ("seq",),
    "batch_totals": ("seq", "currency"),
    "anchor_submissions": ("seq",),
}
_WEIGHTS = (10, 5, 5, 4, 2, 3, 1, 1)
_FREE_COLUMNS = {
    "anchor_submissions": frozenset(
        ("state", "nonce", "raw_tx", "submitted_at", "broadcasts", "gas_used", "anchored_at")
    )
}


def name_of(key: Mapping[str, Any]) -> str:
    """A row's name as findings have it."""
    return ", ".join(f"{column}={value}" for column, value in key.items())


def _table(books: Books, source: random.Random, tables: tuple[str, ...] = tuple(KEYS)) -> str:
    there = [t for t in tables if books.rows(f"SELECT 1 FROM {t} LIMIT 1")]
    return source.choices(there, [_WEIGHTS[list(KEYS).index(t)] for t in there])[0]


def edit_cell(books: Books, source: random.Random) -> Deed:
    """One cell of one row gets another value."""
    table = _table(books, source)
    key = pick(source, books.keys(table, KEYS[table]))
    columns = books.columns(table)
    column = pick(source, [c for c in columns if c not in _FREE_COLUMNS.get(table, ())])
    before = books.record(table, key)
    old = before[column]
    new = other_value(source, columns[column], old)
    if column in KEYS[table]:
        return _renumber(books, source, table, key, column)
    books.update(table, key, {column: new})
    what = f"{table} ({name_of(key)}), column {column}: {old!r} -> {new!r}"
    return Deed(what, frozenset({altered(table, name_of(key), column)}))


def _renumber(
    books: Books, source: random.Random, table: str, key: Mapping[str, Any], column: str
) -> Deed:
    """A row gets another primary key."""
    taken = {tuple(k.values()) for k in books.keys(table, KEYS[table])}
    while True:
        kind = books.columns(table)[column]
        new = dict(key)
        new[column] = (
            "".join(source.choice("ABCXYZ") for _ in range(3))
            if kind == "bpchar"
            else source.choice([1, 20, 500]) * source.randrange(1, 60)
        )
        if tuple(new.values()) not in taken:
            break
    books.update(table, key, {column: new[column]})
    what = f"{table} ({name_of(key)}) renumbered: {name_of(new)}"
    old_name, new_name = name_of(key), name_of(new)
    if table in ("transactions", "transfers"):
        return Deed(what, frozenset({altered(table, new_name, column)}))
    rows = frozenset({(table, old_name), (table, new_name)})
    if table == "batches":
        # The number that lacks is the one that is anchored, its totals hang on it.
        totals = {
            ("batch_totals", name_of(k))
            for k in books.keys("batch_totals", KEYS["batch_totals"])
            if k["seq"] in (key["seq"], new["seq"])
        }
        sent = {("anchor_submissions", old_name), ("anchor_submissions", new_name)}
        return Deed(what, frozenset({missing(table, old_name)}), rows | totals | sent)
    if table == "anchor_submissions":
        return Deed(what, frozenset({altered(table, new_name, "state")}), rows)
    return Deed(what, frozenset({missing(table, old_name)}), rows)


def insert_row(books: Books, source: random.Random) -> Deed:
    """A row is put in that nobody recorded."""
    table = _table(books, source)
    return _INSERTS[table](books, source)


def _insert_transaction(books: Books, source: random.Random) -> Deed:
    key = pick(source, books.keys("transactions", ("transaction_id",)))
    record = books.record("transactions", key)
    [(newest,)] = books.rows("SELECT max(transaction_id) FROM transactions")
    record["transaction_id"] = newest + source.randrange(1, 1000)
    record["txid"] = source.randbytes(32)
    record["pair_seq"] = source.randrange(1, 10_000)
    row = name_of({"transaction_id": record["transaction_id"]})
    [(last,)] = books.rows("SELECT max(xact)::text FROM transactions")
    # After the last one sealed in a transaction of PostgreSQL's, more of it may come.
    way = "now" if record["xact"] == last else source.choice(["old", "future", "now"])
    if way == "future":
        record["xact"] = str(source.randrange(10**9, 10**12))
    elif way == "now":
        [(record["xact"],)] = books.rows("SELECT pg_current_xact_id()::text")
    books.insert("transactions", record)
    # A copy's C doesn't follow from its txid: sealing would refuse it, the check says so.
    name = (
        altered("transactions", row, "commitment")
        if way == "now"
        else inserted("transactions", row)
    )
    return Deed(f"a copy of {name_of(key)} as {row}, xact {way}", frozenset({name}))


def _insert_transfer(books: Books, source: random.Random) -> Deed:
    record = books.record("transfers", pick(source, books.keys("transfers", KEYS["transfers"])))
    [(newest,)] = books.rows("SELECT max(transaction_id) FROM transactions")
    if source.random() < 0.5:
        record["transaction_id"] = newest + source.randrange(1, 500)
    else:
        numbers = books.keys("transactions", ("transaction_id",))
        record["transaction_id"] = pick(source, numbers)["transaction_id"]
    record["line"] = source.randrange(5, 100)
    record["amount"] = record["amount"] + source.randrange(1, 100)
    books.insert("transfers", record)
    row = name_of({"transaction_id": record["transaction_id"], "line": record["line"]})
    return Deed(f"a transfer ({row})", frozenset({inserted("transfers", row)}))


def _insert_event(books: Books, source: random.Random) -> Deed:
    keys = books.keys("events", ("event_id",))
    record = books.record("events", pick(source, keys))
    record["event_id"] = keys[-1]["event_id"] + source.randrange(1, 500)
    record["detail"] += "x"
    # Older than the last one that is sealed: what comes after it may still wait for its batch.
    [(last,)] = books.rows(
        "SELECT max(e.xact::text::bigint) FROM events AS e"
        " JOIN log_leaves AS l ON l.transaction_id = -e.event_id"
    )
    record["xact"] = str(last - source.randrange(1, 100))
    books.insert("events", record)
    row = name_of({"event_id": record["event_id"]})
    return Deed(f"an event ({row})", frozenset({inserted("events", row)}))


def _insert_leaf(books: Books, source: random.Random) -> Deed:
    record = books.record("log_leaves", pick(source, books.keys("log_leaves", ("log_index",))))
    [(size,)] = books.rows("SELECT max(log_index) + 1 FROM log_leaves")
    record["log_index"] = source.choice(
        [-source.randrange(1, 9), size, size + source.randrange(99)]
    )
    books.insert("log_leaves", record)
    row = name_of({"log_index": record["log_index"]})
    return Deed(f"a leaf ({row})", frozenset({inserted("log_leaves", row)}))


def _insert_node(books: Books, source: random.Random) -> Deed:
    taken = {tuple(key.values()) for key in books.keys("log_nodes", KEYS["log_nodes"])}
    while (place := (source.randrange(1, 12), source.randrange(0, 400))) in taken:
        continue
    record = dict(zip(KEYS["log_nodes"], place, strict=True))
    books.insert("log_nodes", record | {"hash": source.randbytes(32)})
    row = name_of(record)
    return Deed(f"a node ({row})", frozenset({inserted("log_nodes", row)}))


def _insert_batch(books: Books, source: random.Random) -> Deed:
    keys = books.keys("batches", ("seq",))
    record = books.record("batches", pick(source, keys))
    record["seq"] = keys[-1]["seq"] + source.randrange(1, 50)
    books.insert("batches", record)
    row = name_of({"seq": record["seq"]})
    # A batch that follows the last one is named by what in it doesn't follow.
    column = "first_index" if record["seq"] == keys[-1]["seq"] + 1 else "seq"
    return Deed(f"a batch ({row})", frozenset({altered("batches", row, column)}))


def _insert_totals(books: Books, source: random.Random) -> Deed:
    key = pick(source, books.keys("batch_totals", KEYS["batch_totals"]))
    record = books.record("batch_totals", key)
    if source.random() < 0.5:
        record["currency"] = source.choice(["EUR", "USD", "JPY"])
    else:
        record["seq"] = 1_000 + source.randrange(1_000)
    books.insert("batch_totals", record)
    row = name_of({"seq": record["seq"], "currency": record["currency"]})
    return Deed(f"totals ({row})", frozenset({inserted("batch_totals", row)}))


def _insert_submission(books: Books, source: random.Random) -> Deed:
    record = books.record(
        "anchor_submissions", pick(source, books.keys("anchor_submissions", ("seq",)))
    )
    record["seq"] = 1_000 + source.randrange(1_000)
    books.insert("anchor_submissions", record)
    row = name_of({"seq": record["seq"]})
    return Deed(
        f"an anchor's record ({row})", frozenset({altered("anchor_submissions", row, "state")})
    )


_INSERTS: Mapping[str, Callable[[Books, random.Random], Deed]] = {
    "transactions": _insert_transaction,
    "transfers": _insert_transfer,
    "events": _insert_event,
    "log_leaves": _insert_leaf,
    "log_nodes": _insert_node,
    "batches": _insert_batch,
    "batch_totals": _insert_totals,
    "anchor_submissions": _insert_submission,
}


def delete_row(books: Books, source: random.Random) -> Deed:
    """A row is taken out."""
    table = _table(books, source)
    key = pick(source, books.keys(table, KEYS[table]))
    row = name_of(key)
    rows: set[tuple[str, str]] = set()
    if table == "transactions":
        # With the transaction its transfers hang in the air.
        rows = {
            ("transfers", name_of(k))
            for k in books.keys("transfers", KEYS["transfers"])
            if k["transaction_id"] == key["transaction_id"]
        }
    elif table == "batches":
        rows = {
            ("batch_totals", name_of(k))
            for k in books.keys("batch_totals", KEYS["batch_totals"])
            if k["seq"] == key["seq"]
        }
    books.delete(table, key)
    return Deed(f"{table} ({row}) deleted", frozenset({missing(table, row)}), frozenset(rows))


def swap_rows(books: Books, source: random.Random) -> Deed:
    """Two rows of a table exchange cells, or places."""
    table = _table(
        books, source, ("transactions", "transfers", "events", "log_leaves", "log_nodes")
    )
    for _ in range(50):
        keys = books.keys(table, KEYS[table])
        if len(keys) < 2:
            table = "transactions"
            continue
        one, other = source.sample(keys, 2)
        mine, theirs = books.record(table, one), books.record(table, other)
        free = [c for c in mine if c not in KEYS[table] and mine[c] != theirs[c]]
        if not free:
            continue
        if table == "log_leaves":
            # The whole leaf changes its place.
            chosen = free
        else:
            chosen = source.sample(free, source.randrange(1, len(free) + 1))
        return _swap(books, table, (one, other), (mine, theirs), chosen)
    raise AssertionError("no two rows of a table differ")


def _swap(
    books: Books,
    table: str,
    keys: tuple[Mapping[str, Any], Mapping[str, Any]],
    records: tuple[Mapping[str, Any], Mapping[str, Any]],
    columns: list[str],
) -> Deed:
    for key, record in zip(keys, reversed(records), strict=True):
        books.update(table, key, {column: record[column] for column in columns})
    names = [name_of(key) for key in keys]
    what = f"{table} ({names[0]}) and ({names[1]}) exchanged {', '.join(columns)}"
    touched = frozenset((table, name) for name in names)
    told = _told(table, columns)
    rows: set[tuple[str, str]] = set()
    if table == "log_leaves":
        # Leaf and hash went together: what gives them away is the node above, over a pair.
        # A leaf that ended its batch without a sibling is given away by the batch's root.
        rows = {(table, f"log_index={key['log_index'] ^ 1}") for key in keys}
        batches = {("batches", f"seq={record['batch_seq']}") for record in records}
        sizes = dict(books.rows("SELECT seq, size FROM batches"))
        alone = {
            (table, name_of(key))
            for key, record in zip(keys, records, strict=True)
            if ends_alone(key["log_index"], sizes[record["batch_seq"]])
        }
        if alone:
            blurred = {
                record["batch_seq"]
                for key, record in zip(keys, records, strict=True)
                if (table, name_of(key)) in alone
            }
            clear = {
                (table, name_of(key))
                for key, record in zip(keys, records, strict=True)
                if record["batch_seq"] not in blurred
            }
            given_away = {("batches", f"seq={seq}") for seq in blurred}
            return Deed(
                what,
                frozenset(),
                frozenset(rows | batches | touched),
                frozenset(clear | given_away),
            )
    elif "txid" in columns:
        numbers = [key["transaction_id"] for key in keys]
        rows = {
            ("transfers", name_of(k))
            for k in books.keys("transfers", KEYS["transfers"])
            if k["transaction_id"] in numbers
        }
    must = frozenset(altered(table, name, column) for name in names for column in told)
    return Deed(what, must, frozenset(rows), touched)


#: The columns whose leaf hashes are salted by salt_fin and that P doesn't repeat.
_UNDER_SALT_FIN = frozenset(
    ("amount", "currency", "kind", "transmitted_ms", "merchant_id", "outcome", "original_txid")
)
#: The columns of which nothing but what salt_pii makes of them is in the log.
_UNDER_SALT_PII = frozenset(("card_token", "pan_masked"))


def _told(table: str, columns: list[str]) -> list[str]:
    """Which of the exchanged cells have to be named: not those under a salt that went with them,
    and none where the row's identity went, too (then the row may be named by its new number)."""
    if table == "log_leaves" or "txid" in columns:
        return []
    if "salt_private" in columns:
        return ["salt_private"]
    if table == "transactions" and "account_id" in columns:
        # The shard is the account's: with it, it is where it belongs.
        columns = [column for column in columns if column != "shard"]
    if "salt_pii" in columns:
        columns = [column for column in columns if column not in _UNDER_SALT_PII]
    if "salt_fin" in columns and table == "transactions":
        return [column for column in columns if column not in _UNDER_SALT_FIN]
    return columns
