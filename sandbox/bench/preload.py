"""A history for a node's books: a million purchases as the node itself would have recorded them.

One real purchase that went through the network is the pattern. Each made-up one has numbers,
salts, commitments, answers and log leaves of its own, computed by the node's functions; every
table is written by COPY, several chunks at a time, each chunk one batch of the log. What differs
from a history that grew: cards and terminals take turns, every amount is the same, `xact` is one
number for all rows, and triggers are off while it is written. check_invariants looks at the result.
The services of the member must not run meanwhile.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import psycopg.rows

from nodes.anchoring import queries, store
from nodes.anchoring.checkpoint import Checkpoint, Totals
from nodes.anchoring.model import ROW_COLUMNS, Batch, LogIdentity, Position
from nodes.anchoring.note import NoteSigner
from nodes.authorization.operations.pending import decode_pending
from nodes.authorization.state import Account, Detail
from nodes.authorization.store.requests import make_days
from nodes.crypto.answer_signature import AnswerSigner, sign_answers
from nodes.crypto.merkle import EMPTY_ROOT
from nodes.db.copy import copy_rows
from sandbox.bench.history import (
    AMOUNT,
    CHUNK,
    DAYS,
    Chunk,
    History,
    HistoryCard,
    HistoryTerminal,
    Maker,
    Plot,
    PreloadError,
)

Connection = psycopg.Connection[Any]

_TRANSACTIONS = {
    **dict.fromkeys(ROW_COLUMNS, "text"),
    **dict.fromkeys(
        (
            *("txid", "network_ref", "card_token", "original_txid", "salt_fin", "salt_pii"),
            *("card_token_leaf", "salt_private", "commitment"),
        ),
        "bytea",
    ),
    **dict.fromkeys(
        (
            *("transaction_id", "amount", "terminal_seq", "pair_seq", "account_id"),
            *("account_version", "transmitted_ms", "decided_ms", "recorded_at", "xact"),
        ),
        "bigint",
    ),
    "business_date": "date",
}
_TRANSFERS = {
    "transaction_id": "bigint",
    "line": "smallint",
    "debit_account": "bigint",
    "credit_account": "bigint",
    "amount": "bigint",
    "currency": "text",
    "balance_after": "bigint",
    "shard": "bigint",
}
_VERSIONS = {
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
_REQUESTS = {
    "idempotency_key": "bytea",
    "side": "text",
    "business_date": "date",
    "fingerprint": "bytea",
    "txid": "bytea",
    "issuer": "text",
    "request": "bytea",
    "answer": "bytea",
    "deadline_ms": "bigint",
}
_ANSWERS = {"idempotency_key": "bytea", "business_date": "date", "answer": "bytea"}
_LEAVES = {
    "log_index": "bigint",
    "batch_seq": "bigint",
    "leaf_kind": "smallint",
    "transaction_id": "bigint",
    "txid": "bytea",
    "leaf": "bytea",
    "leaf_hash": "bytea",
    "shared_leaves": "bytea",
    "private_copy": "bytea",
}


#: What an issuer signs of an answer.
_ANSWERED = ("txid", "commitment", "pair_seq")
#: Answers that the issuer of a history signed at once: about a call of the node API.
_SIGNED = 64


@dataclass(frozen=True)
class Books:
    """Whose books, as which side; `dsn`: a superuser's.

    `issuer_seed`: of the message key with which the issuer signed its answers.
    """

    dsn: str
    side: str
    identity: LogIdentity
    note_seed: bytes = field(repr=False)
    issuer_seed: bytes = field(repr=False)


def write_history(
    books: Books, history: History, told: Callable[[int], None] = lambda _: None
) -> None:
    """Put a history into a member's books, sealed. `told`: how many rows came to stand.

    There must be an approved purchase of the pair, and nothing unsealed.
    """
    with psycopg.connect(books.dsn, autocommit=True) as connection:
        plot = _plot(connection, books, history)
        # As if the node had been up all the time.
        make_days(connection, history.today - timedelta(days=DAYS), history.today)
        newest = queries.last_batch(connection)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=context) as pool:
            starts = range(0, history.count, CHUNK)
            seeds = [books.issuer_seed] * len(starts)
            written = pool.map(_write_chunk, [plot] * len(starts), seeds, starts)
            for start, hashes in zip(starts, written, strict=True):
                newest = _seal_chunk(connection, books, plot, start, hashes, newest)
                told(len(hashes))
        _finish(connection, plot)


def vacuum(dsn: str) -> None:
    """Statistics, visibility map and dirty pages as they are in a database that has been up."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


# -- what the history goes on from


def _plot(connection: Connection, books: Books, history: History) -> Plot:
    pair, member_id = (history.acquirer, history.issuer), books.identity.member_id
    unsealed = _one(
        connection,
        "SELECT count(*) FROM transactions AS t WHERE NOT EXISTS (SELECT FROM log_leaves AS l"
        " WHERE l.transaction_id = t.transaction_id)",
    )
    if unsealed:
        raise PreloadError(f"{unsealed} rows of {member_id} are not sealed yet")
    pattern = _row(
        connection,
        "SELECT * FROM transactions WHERE side = %s AND acquirer = %s AND issuer = %s"
        " AND kind = 'purchase' AND outcome = 'approved' ORDER BY transaction_id DESC LIMIT 1",
        (books.side, *pair),
    )
    transfer = _row(
        connection,
        "SELECT * FROM transfers WHERE transaction_id = %s AND line = 1",
        (pattern["transaction_id"],),
    )
    stored = _row(
        connection,
        "SELECT r.request, r.answer, a.answer AS late_answer FROM authorization_requests AS r"
        " LEFT JOIN authorization_answers AS a USING (idempotency_key, business_date)"
        " WHERE r.txid = %s AND r.side = %s",
        (pattern["txid"], books.side),
    )
    detail, uses = _detail(connection, pattern) if books.side == "issuer" else (Detail(), 0)
    newest = queries.last_batch(connection)
    return Plot(
        history=history,
        dsn=books.dsn,
        member_id=member_id,
        side=books.side,
        pattern=pattern,
        request=decode_pending(stored["request"]) if stored["request"] else None,
        answer=stored["answer"],
        late_answer=stored["late_answer"] if books.side == "acquirer" else None,
        detail=detail,
        uses=uses,
        debit=transfer["debit_account"],
        credit=transfer["credit_account"],
        first_id=_take_ids(connection, history.count),
        first_pair_seq=1
        + _one(
            connection,
            "SELECT coalesce(max(pair_seq), 0) FROM transactions WHERE side = %s"
            " AND acquirer = %s AND issuer = %s",
            (books.side, *pair),
        ),
        first_leaf=newest.size if newest else 0,
        first_batch=newest.seq + 1 if newest else 1,
        xact=int(_one(connection, "SELECT pg_current_xact_id()::text")),
    )


def _detail(connection: Connection, pattern: Mapping[str, Any]) -> tuple[Detail, int]:
    """What is kept beside a purchase's version, and how many uses it counted."""
    states = connection.execute(
        "SELECT state, detail FROM account_versions WHERE account_id = %s AND line = 0"
        " AND version IN (%s, %s) ORDER BY version DESC",
        (
            pattern["account_id"],
            pattern["account_version"],
            pattern["account_version"] - 1,
        ),
    ).fetchall()
    after, before = (msgspec.msgpack.decode(state, type=Account) for state, _ in states)
    uses = sum(card.uses for card in after.cards.values())
    uses -= sum(card.uses for card in before.cards.values())
    raw = states[0][1]
    return msgspec.msgpack.decode(raw, type=Detail) if raw else Detail(), uses


def terminals_of(dsn: str, merchant_prefix: str) -> tuple[HistoryTerminal, ...]:
    """An acquirer's terminals at the merchants whose numbers begin so."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT t.terminal_id, t.merchant_id, m.name, m.mcc, m.country, m.account_id,"
            " t.last_seq FROM terminals AS t JOIN merchants AS m USING (merchant_id)"
            " WHERE starts_with(t.merchant_id, %s) ORDER BY t.terminal_id",
            (merchant_prefix,),
        ).fetchall()
    return tuple(HistoryTerminal(*row) for row in rows)


def cards_of(dsn: str) -> tuple[HistoryCard, ...]:
    """An issuer's cards with their accounts, which have a version."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT c.card_token, c.pan_masked, v.state FROM cards AS c CROSS JOIN LATERAL"
            " (SELECT state FROM account_versions AS v WHERE v.account_id = c.account_id"
            " AND line = 0 ORDER BY version DESC LIMIT 1) AS v ORDER BY c.card_id"
        ).fetchall()
    return tuple(
        HistoryCard(token, masked, msgspec.msgpack.decode(state, type=Account))
        for token, masked, state in rows
    )


def _take_ids(connection: Connection, count: int) -> int:
    first: int = _one(connection, "SELECT nextval('transaction_ids')")
    step: int = _one(
        connection, "SELECT increment_by FROM pg_sequences WHERE sequencename = 'transaction_ids'"
    )
    blocks = -(-count // step)
    connection.execute("SELECT setval('transaction_ids', %s)", (first + (blocks - 1) * step,))
    return first


# -- a chunk, in a process of its own


def _write_chunk(plot: Plot, issuer_seed: bytes, start: int) -> list[bytes]:
    """Write the rows from `start` on; the hashes of their log leaves."""
    chunk = Chunk([], [], [], [], [], [])
    maker = Maker(plot)
    for number in range(start, min(start + CHUNK, plot.history.count)):
        maker.add(number, chunk)
    with psycopg.connect(plot.dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET synchronous_commit = off")
        types = {name: _TRANSACTIONS[name] for name in ROW_COLUMNS} | {"shard": "bigint"}
        copy_rows(connection, "transactions", types, chunk.transactions)
        copy_rows(connection, "transfers", _TRANSFERS, chunk.transfers)
        copy_rows(connection, "account_versions", _VERSIONS, chunk.versions)
        copy_rows(connection, "authorization_requests", _REQUESTS, chunk.requests)
        copy_rows(connection, "authorization_answers", _ANSWERS, chunk.answers)
        copy_rows(connection, "log_leaves", _LEAVES, chunk.leaves)
        if plot.side == "acquirer":
            _keep_signatures(connection, AnswerSigner(issuer_seed), plot.xact, chunk)
    return [leaf[6] for leaf in chunk.leaves]


def _keep_signatures(connection: Connection, signer: AnswerSigner, xact: int, chunk: Chunk) -> None:
    """What the issuer signed of its answers, a call's answers a row."""
    columns = [ROW_COLUMNS.index(name) for name in ("transaction_id", *_ANSWERED)]
    answers = [[row[column] for column in columns] for row in chunk.transactions]
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO answer_signatures (first_id, transaction_ids, shares, xact)"
            " VALUES (%s, %s, %s, %s::text::xid8)",
            [
                (
                    call[0][0],
                    [number for number, *_ in call],
                    sign_answers(signer, [(txid, c, pair_seq) for _, txid, c, pair_seq in call]),
                    str(xact),
                )
                for call in (
                    answers[start : start + _SIGNED] for start in range(0, len(answers), _SIGNED)
                )
            ],
        )


# -- after a chunk, and after all of them


def _seal_chunk(
    connection: Connection,
    books: Books,
    plot: Plot,
    start: int,
    hashes: list[bytes],
    newest: Batch | None,
) -> Batch:
    """The chunk's leaves stand; add the tree's nodes and the signed batch."""
    edge = queries.frontier(connection, newest.size if newest else 0)
    nodes = edge.extend(hashes)
    root, origin = edge.root(), books.identity.origin
    note = NoteSigner(books.note_seed).sign(str(origin), Checkpoint(origin, edge.size, root).text())
    last = plot.first_id + start + len(hashes) - 1
    batch = Batch(
        seq=plot.first_batch + start // CHUNK,
        first_index=edge.size - len(hashes),
        size=edge.size,
        prev_root=newest.root if newest else EMPTY_ROOT,
        root=root,
        note=note.encode(),
        consistency=(),
        position=Position(plot.xact, last),
        sealed_us=round(datetime.now(UTC).timestamp() * 1_000_000),
        totals=(Totals(plot.pattern["currency"], len(hashes), AMOUNT * len(hashes), 0),),
    )
    with connection.transaction():
        store.insert_nodes(connection, nodes)
        if newest is not None:
            proof = queries.consistency_proof(connection, newest.size, batch.size)
            batch = replace(batch, consistency=tuple(proof))
        store.insert_batch(connection, batch)
    return batch


def _finish(connection: Connection, plot: Plot) -> None:
    """Balances rolled up, counters where the history leaves them."""
    history = plot.history
    end = plot.first_id + history.count - 1
    with connection.transaction():
        connection.execute(
            "UPDATE accounts SET balance = balance + moved.amount FROM (SELECT account_id,"
            " sum(amount)::bigint AS amount FROM postings WHERE transaction_id BETWEEN %s AND %s"
            " GROUP BY account_id) AS moved WHERE accounts.account_id = moved.account_id",
            (plot.first_id, end),
        )
        if plot.side == "issuer":
            connection.execute(
                "UPDATE pair_counters SET last_seq = last_seq + %s"
                " WHERE acquirer = %s AND issuer = %s",
                (history.count, history.acquirer, history.issuer),
            )
            return
        turns = [
            (history.count - place + len(history.terminals) - 1) // len(history.terminals)
            for place in range(len(history.terminals))
        ]
        connection.execute(
            "UPDATE terminals SET last_seq = last_seq + turns FROM unnest(%s::text[], %s::bigint[])"
            " AS t (name, turns) WHERE terminal_id = t.name",
            ([terminal.terminal_id for terminal in history.terminals], turns),
        )
        # The node has looked at them long ago; left to it, it would in the first measurement.
        connection.execute(
            "UPDATE answer_checks SET next_xact = greatest(next_xact, %s::text::xid8)",
            (str(plot.xact + 1),),
        )


def _one(connection: Connection, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
    row = connection.execute(statement, parameters).fetchone()
    if row is None:
        raise PreloadError(f"nothing found: {statement}")
    return row[0]


def _row(connection: Connection, statement: str, parameters: tuple[Any, ...]) -> dict[str, Any]:
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        row = cursor.execute(statement, parameters).fetchone()
    if row is None:
        raise PreloadError(f"no pattern for the history: {statement}")
    return row
