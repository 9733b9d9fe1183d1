"""What the chain keeps on disk: one SQLite file, one durable commit a block.

State (trie nodes and code, by hash) is only ever added to, so every block's state stays readable.
Logs are rows of their own with indexes, so that eth_getLogs doesn't walk through blocks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth.db.atomic import AtomicDBWriteBatch
from eth.db.backends.base import BaseAtomicDB
from lru import LRU

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (
    number INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, header BLOB NOT NULL,
    size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS transactions (
    hash BLOB PRIMARY KEY, block_number INTEGER NOT NULL, position INTEGER NOT NULL,
    raw BLOB NOT NULL, sender BLOB NOT NULL, status INTEGER NOT NULL, gas_used INTEGER NOT NULL,
    cumulative_gas INTEGER NOT NULL, contract BLOB) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS transactions_of_block ON transactions (block_number, position);
CREATE TABLE IF NOT EXISTS logs (
    block_number INTEGER NOT NULL, log_index INTEGER NOT NULL, tx_hash BLOB NOT NULL,
    position INTEGER NOT NULL, address BLOB NOT NULL, topic0 BLOB, topic1 BLOB, topic2 BLOB,
    topic3 BLOB, data BLOB NOT NULL, PRIMARY KEY (block_number, log_index)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS logs_of_address ON logs (address, topic0, block_number);
CREATE INDEX IF NOT EXISTS logs_of_topics ON logs (topic0, topic1, block_number);
"""
_FORMAT = 1
_TOPICS = 4
_CACHED_NODES = 20_000


@dataclass(frozen=True, slots=True)
class LogRow:
    """One event; `log_index` counts within the block, `position` is its transaction's there."""

    block_number: int
    log_index: int
    tx_hash: bytes
    position: int
    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class TransactionRow:
    """A sealed transaction and what became of it."""

    hash: bytes
    block_number: int
    position: int
    raw: bytes
    sender: bytes
    status: int
    gas_used: int
    cumulative_gas: int
    contract: bytes | None


@dataclass(frozen=True, slots=True)
class BlockRow:
    """A block's encoded header; `size` is the length of the encoded block."""

    number: int
    hash: bytes
    header: bytes
    size: int


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which logs are wanted: an empty tuple of addresses means any, and so does an empty tuple of
    alternatives at a topic's place."""

    first_block: int
    last_block: int
    addresses: tuple[bytes, ...] = ()
    topics: tuple[tuple[bytes, ...], ...] = ()


class StateStore(BaseAtomicDB):  # type: ignore[misc]
    """py-evm's key-value database. Writes wait in memory until the block's commit takes them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._waiting: dict[bytes, bytes] = {}
        self._cache: Any = LRU(_CACHED_NODES)

    def __getitem__(self, key: bytes) -> bytes:
        found = self._find(key)
        if found is None:
            raise KeyError(key)
        return found

    def _find(self, key: bytes) -> bytes | None:
        value: bytes | None = self._waiting.get(key)
        if value is None:
            value = self._cache.get(key)
        if value is None:
            row = self._connection.execute(
                "SELECT value FROM state WHERE key = ?", (key,)
            ).fetchone()
            if row is not None:
                value = self._cache[key] = row[0]
        return value

    def _exists(self, key: bytes) -> bool:
        return self._find(key) is not None

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._waiting[key] = value

    def __delitem__(self, key: bytes) -> None:
        raise RuntimeError("state is never deleted")

    @contextmanager
    def atomic_batch(self) -> Iterator[Any]:
        with AtomicDBWriteBatch._commit_unless_raises(self) as batch:
            yield batch

    def waiting(self) -> list[tuple[bytes, bytes]]:
        """The writes since the last `settle` or `discard`."""
        return list(self._waiting.items())

    def settle(self) -> None:
        """The waiting writes are on disk now."""
        for key, value in self._waiting.items():
            self._cache[key] = value
        self._waiting.clear()

    def discard(self) -> None:
        """Forgets the waiting writes."""
        self._waiting.clear()


class ChainStore:
    """The chain's file. For one thread at a time; a second process is kept out."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=0.5
        )
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        try:
            run("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            self._connection.close()
            raise ValueError(f"{path} can't be opened, is another chain running on it?") from error
        # A block that a receipt was given for survives power loss, too.
        run("PRAGMA synchronous = FULL")
        (version,) = run("PRAGMA user_version").fetchone()
        if version not in (0, _FORMAT):
            raise ValueError(f"{path} has format {version}, this program knows {_FORMAT}")
        self._connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_FORMAT}; COMMIT;"
        )
        self.state = StateStore(self._connection)

    def close(self) -> None:
        self._connection.close()

    # -- writing

    def commit(
        self,
        block: BlockRow,
        transactions: Sequence[TransactionRow] = (),
        logs: Sequence[LogRow] = (),
    ) -> None:
        """Makes a block durable, with all state that was written since the last commit. On an
        error nothing of it is."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR IGNORE INTO state VALUES (?, ?)", self.state.waiting()
            )
            connection.execute(
                "INSERT INTO blocks VALUES (?, ?, ?, ?)",
                (block.number, block.hash, block.header, block.size),
            )
            connection.executemany(
                "INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        t.hash,
                        t.block_number,
                        t.position,
                        t.raw,
                        t.sender,
                        t.status,
                        t.gas_used,
                        t.cumulative_gas,
                        t.contract,
                    )
                    for t in transactions
                ],
            )
            connection.executemany(
                "INSERT INTO logs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_log_values, logs)
            )
            connection.execute("COMMIT")
        except BaseException:
            self.state.discard()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.state.settle()

    # -- reading

    def head(self) -> BlockRow | None:
        """The newest block; None in a new file."""
        return self._block("ORDER BY number DESC LIMIT 1", ())

    def block(self, number: int) -> BlockRow | None:
        return self._block("WHERE number = ?", (number,))

    def block_by_hash(self, block_hash: bytes) -> BlockRow | None:
        return self._block("WHERE hash = ?", (block_hash,))

    def _block(self, clause: str, values: tuple[object, ...]) -> BlockRow | None:
        row = self._connection.execute(
            f"SELECT number, hash, header, size FROM blocks {clause}", values
        ).fetchone()
        return None if row is None else BlockRow(*row)

    def hashes_before(self, number: int, count: int) -> list[bytes]:
        """The hashes of up to `count` blocks below `number`, the nearest first."""
        rows = self._connection.execute(
            "SELECT hash FROM blocks WHERE number < ? AND number >= ? ORDER BY number DESC",
            (number, number - count),
        )
        return [row[0] for row in rows]

    def transaction(self, tx_hash: bytes) -> TransactionRow | None:
        row = self._connection.execute(
            "SELECT * FROM transactions WHERE hash = ?", (tx_hash,)
        ).fetchone()
        return None if row is None else TransactionRow(*row)

    def transactions(self, block_number: int) -> list[TransactionRow]:
        """A block's transactions in their order."""
        rows = self._connection.execute(
            "SELECT * FROM transactions WHERE block_number = ? ORDER BY position", (block_number,)
        )
        return [TransactionRow(*row) for row in rows]

    def logs_of(self, block_number: int, position: int) -> list[LogRow]:
        """The logs of one transaction."""
        rows = self._connection.execute(
            "SELECT * FROM logs WHERE block_number = ? AND position = ? ORDER BY log_index",
            (block_number, position),
        )
        return [_log_row(row) for row in rows]

    def logs(self, wanted: LogFilter, limit: int) -> list[LogRow]:
        """The logs that a filter asks for, in the chain's order, at most `limit`."""
        clauses = ["block_number BETWEEN ? AND ?"]
        values: list[object] = [wanted.first_block, wanted.last_block]
        columns = ["address", *(f"topic{place}" for place in range(_TOPICS))]
        for column, choices in zip(columns, (wanted.addresses, *wanted.topics), strict=False):
            if choices:
                clauses.append(f"{column} IN ({', '.join('?' * len(choices))})")
                values += choices
        if wanted.topics:
            # An empty place still asks that the log has a topic there.
            clauses.append(f"topic{len(wanted.topics) - 1} IS NOT NULL")
        rows = self._connection.execute(
            f"SELECT * FROM logs WHERE {' AND '.join(clauses)}"
            " ORDER BY block_number, log_index LIMIT ?",
            (*values, limit),
        )
        return [_log_row(row) for row in rows]


def _log_values(log: LogRow) -> tuple[object, ...]:
    topics = [*log.topics, *[None] * (_TOPICS - len(log.topics))]
    head = (log.block_number, log.log_index, log.tx_hash, log.position, log.address)
    return (*head, *topics, log.data)


def _log_row(row: tuple[Any, ...]) -> LogRow:
    topics = tuple(topic for topic in row[5:9] if topic is not None)
    block_number, log_index, tx_hash, position, address = row[:5]
    return LogRow(block_number, log_index, tx_hash, position, address, topics, row[9])
