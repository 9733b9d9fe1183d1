"""What an owner does to a member's history as a whole: cut it, set it back, write it anew."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nodes.anchoring import queries, rules
from nodes.anchoring.checkpoint import Checkpoint
from nodes.anchoring.leaf import decode_leaf
from sandbox.campaigns.books import Books, Deed, missing
from sandbox.campaigns.thief import consistency_path, interior, merkle_root, node_rows

_LOG_TABLES = ("anchor_submissions", "batch_totals", "batches")


@dataclass(frozen=True)
class _Sealed:
    """A batch as stored."""

    seq: int
    first: int
    size: int


def _batches(books: Books) -> list[_Sealed]:
    rows = books.rows("SELECT seq, first_index, size FROM batches ORDER BY seq")
    return [_Sealed(*row) for row in rows]


def _drop_batches(books: Books, after: int) -> None:
    for table in _LOG_TABLES:
        books.do(f"DELETE FROM {table} WHERE seq > %s", (after,))


def _cut_log(books: Books, size: int) -> None:
    books.do("DELETE FROM log_leaves WHERE log_index >= %s", (size,))
    books.do(
        "DELETE FROM log_nodes WHERE (node_index::numeric + 1) * power(2::numeric, level::numeric)"
        " > %s",
        (size,),
    )


def _drop_rows(books: Books, without_leaf: bool = True) -> None:
    """Take out the rows whose leaves are gone, with their transfers, and their events."""
    books.do(
        "DELETE FROM transactions AS t WHERE NOT EXISTS (SELECT FROM log_leaves AS l"
        " WHERE l.transaction_id = t.transaction_id)"
    )
    books.do(
        "DELETE FROM transfers AS f WHERE NOT EXISTS (SELECT FROM transactions AS t"
        " WHERE t.transaction_id = f.transaction_id)"
    )
    books.do(
        "DELETE FROM events AS e WHERE NOT EXISTS (SELECT FROM log_leaves AS l"
        " WHERE l.transaction_id = -e.event_id)"
    )


def cut_tail(books: Books, source: random.Random) -> Deed:
    """The newest batches and all that they hold are taken out, without a seam."""
    batches = _batches(books)
    kept = source.randrange(len(batches))
    after = batches[kept - 1].seq if kept else 0
    size = batches[kept - 1].size if kept else 0
    _drop_batches(books, after)
    _cut_log(books, size)
    _drop_rows(books)
    lost = [batch.seq for batch in batches[kept:]]
    return Deed(
        f"cut after batch {after} ({size} leaves)",
        frozenset(missing("batches", f"seq={seq}") for seq in lost),
    )


def restore_backup(books: Books, source: random.Random) -> Deed:
    """The database as it was at an earlier moment: what was under way then is under way again.

    Rows that had been recorded and not sealed are there; of the newest batches that had been sealed
    some were sent and not confirmed.
    """
    batches = _batches(books)
    kept = source.randrange(len(batches))
    after = batches[kept - 1].seq if kept else 0
    size = batches[kept - 1].size if kept else 0
    waiting = source.randrange(batches[kept].size - batches[kept].first + 1)
    numbers = books.rows(
        "SELECT transaction_id FROM log_leaves WHERE log_index >= %s AND log_index < %s",
        (size, size + waiting),
    )
    _drop_batches(books, after)
    books.do(
        "CREATE TEMPORARY TABLE still_there ON COMMIT DROP AS SELECT unnest(%s::bigint[]) AS n",
        ([number for (number,) in numbers],),
    )
    _cut_log(books, size)
    for table, number in (("transactions", "t.transaction_id"), ("events", "-t.event_id")):
        books.do(
            f"DELETE FROM {table} AS t WHERE NOT EXISTS (SELECT FROM log_leaves AS l"
            f" WHERE l.transaction_id = {number}) AND NOT EXISTS (SELECT FROM still_there"
            f" WHERE n = {number})"
        )
    books.do(
        "DELETE FROM transfers AS f WHERE NOT EXISTS (SELECT FROM transactions AS t"
        " WHERE t.transaction_id = f.transaction_id)"
    )
    books.do("DROP TABLE still_there")
    unconfirmed = source.randrange(min(3, kept) + 1)
    books.do(
        "UPDATE anchor_submissions SET state = 'SUBMITTED', block_number = NULL, block_hash = NULL,"
        " gas_used = NULL, anchored_at = NULL WHERE seq > %s",
        (after - unconfirmed,),
    )
    lost = [batch.seq for batch in batches[kept:]]
    return Deed(
        f"set back to batch {after}, {waiting} rows waiting, {unconfirmed} anchors unconfirmed",
        frozenset(missing("batches", f"seq={seq}") for seq in lost),
    )


def rewrite(books: Books, source: random.Random) -> Deed:
    """Amounts are changed and every hash that follows is made anew, up to one of four depths.

    leaves: the rows' leaves with their hashes. nodes: the tree over them, too. roots: batches with
    roots, proofs and checkpoints signed by the member's own key. totals: their sums as well.
    """
    depth = source.choice(["leaves", "nodes", "roots", "totals"])
    leaves = books.rows(
        "SELECT log_index, transaction_id FROM log_leaves WHERE leaf_kind <= 3 ORDER BY log_index"
    )
    chosen = sorted(source.sample(leaves, 1 if depth == "leaves" else source.randrange(1, 4)))
    for index, number in chosen:
        _rewrite_row(books, source, index, number)
    batches = _batches(books)
    hit = [next(b.seq for b in batches if index < b.size) for index, _ in chosen]
    what = f"rewritten up to {depth}: leaves {[index for index, _ in chosen]}, batches {hit}"
    if depth == "leaves":
        [(index, _)] = chosen
        return _of_a_leaf(what, index, next(b for b in batches if index < b.size))
    hashes = [
        bytes(h) for (h,) in books.rows("SELECT leaf_hash FROM log_leaves ORDER BY log_index")
    ]
    nodes = node_rows(hashes)
    for level, place, node in nodes:
        books.do(
            "UPDATE log_nodes SET hash = %s WHERE level = %s AND node_index = %s AND hash <> %s",
            (node, level, place, node),
        )
    if depth in ("roots", "totals"):
        _rewrite_batches(books, batches, hashes)
    if depth == "totals":
        _rewrite_totals(books)
    later = frozenset(batch.seq for batch in batches if batch.seq > min(hit))
    rows: set[tuple[str, str]] = set()
    for seq in [min(hit), *later]:
        rows |= _batch_rows(seq)
    rows |= {
        ("batch_totals", f"seq={seq}, currency={currency}")
        for seq, currency in books.rows("SELECT seq, currency FROM batch_totals")
        if seq >= min(hit)
    }
    first = frozenset({("batches", f"seq={min(hit)}", None, "altered")})
    return Deed(what, first, frozenset(rows), frozenset(), later)


def _batch_rows(seq: int) -> frozenset[tuple[str, str]]:
    return frozenset({("batches", f"seq={seq}")})


def _of_a_leaf(what: str, index: int, batch: _Sealed) -> Deed:
    """What gives a leaf away that was rewritten with its hash: the node over it and its sibling.
    Where the batch ends with it there is none yet, and the root gives the batch away."""
    own = frozenset({("batches", f"seq={batch.seq}")})
    if ends_alone(index, batch.size):
        return Deed(what, frozenset(), touched=own)
    pair = frozenset(("log_leaves", f"log_index={place}") for place in (index, index ^ 1))
    totals = frozenset({("batch_totals", f"seq={batch.seq}, currency=CNY")})
    return Deed(what, frozenset(), own | totals, pair)


def ends_alone(index: int, size: int) -> bool:
    """Whether a batch ends with this leaf before it has a sibling."""
    return index == size - 1 and index % 2 == 0


def _rewrite_row(books: Books, source: random.Random, index: int, number: int) -> None:
    """Another amount, and C, leaf and its hash made anew with the network's own code."""
    [(raw,)] = books.rows("SELECT leaf FROM log_leaves WHERE log_index = %s", (index,))
    books.do(
        "UPDATE transactions SET amount = amount + %s WHERE transaction_id = %s",
        (source.randrange(1, 10_000), number),
    )
    row = queries.rows_by_id(books.connection, [number])[number]
    fields = [field or b"" for field in rules.shared_fields(row, decode_leaf(bytes(raw)).txid)]
    books.do(
        "UPDATE transactions SET commitment = %s WHERE transaction_id = %s",
        (merkle_root(fields), number),
    )
    evidence = rules.row_evidence(
        books.member_id, queries.rows_by_id(books.connection, [number])[number]
    )
    books.do(
        "UPDATE log_leaves SET leaf = %s, leaf_hash = %s, shared_leaves = %s, private_copy = %s"
        " WHERE log_index = %s",
        (
            evidence.encoded,
            evidence.leaf_hash,
            evidence.shared_leaves,
            evidence.private_copy,
            index,
        ),
    )


def _rewrite_batches(books: Books, batches: Sequence[_Sealed], hashes: list[bytes]) -> None:
    origin, before, previous = str(books.origin), 0, merkle_root([])
    for batch in batches:
        root = merkle_root(hashes[: batch.size])
        text = Checkpoint(books.origin, batch.size, root).text()
        proof = b"".join(consistency_path(before, hashes[: batch.size])) if before else b""
        values: dict[str, Any] = {
            "root": root,
            "prev_root": previous,
            "checkpoint": books.signer.sign(origin, text).encode(),
            "consistency": proof,
        }
        if interior(books.record("batches", {"seq": batch.seq}), values):
            books.update("batches", {"seq": batch.seq}, values)
        before, previous = batch.size, root


def _rewrite_totals(books: Books) -> None:
    books.do(
        "UPDATE batch_totals AS b SET approved_count = n.approved, approved_amount = n.amount,"
        " declined_count = n.declined FROM (SELECT l.batch_seq, t.currency,"
        " count(*) FILTER (WHERE t.outcome = 'approved') AS approved,"
        " coalesce(sum(t.amount) FILTER (WHERE t.outcome = 'approved'), 0) AS amount,"
        " count(*) FILTER (WHERE t.outcome <> 'approved') AS declined FROM log_leaves AS l"
        " JOIN transactions AS t USING (transaction_id) GROUP BY 1, 2) AS n"
        " WHERE b.seq = n.batch_seq AND b.currency = n.currency"
    )
