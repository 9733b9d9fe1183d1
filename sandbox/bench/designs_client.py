"""The client of the two prototypes, a process: `python -m sandbox.bench.designs_client`.

Reads an order as JSON, drives two connections with batches of 256 and writes what it found. One
process with two threads, as a node works: requests of an account go to one of the two connections
(`lanes`), or wherever there is room, as they come from two nodes of one institution.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import date
from hashlib import sha256
from random import Random
from typing import Any, TypedDict

import msgspec
import psycopg

from nodes.authorization.state import Account, Counter
from nodes.db.copy import copy_columns
from sandbox.bench.cpu import CpuClock
from sandbox.bench.designs_schema import (
    CARDS,
    NOW_MS,
    PAIR,
    REQUEST_COLUMNS,
    RULE,
    SENT_COLUMNS,
    SETTLEMENT,
    TRANSACTION_COLUMNS,
    TRANSFER_COLUMNS,
    VERSION_COLUMNS,
    WINDOW_LIMIT,
)
from sandbox.bench.zipf import Zipf

_DAY = date(2026, 1, 2)
_PERIOD = 20_000
_CALL = (
    "SELECT * FROM decide_in_database(%s, %s, %s, "
    + ", ".join(f"%b::{kind}[]" for kind in SENT_COLUMNS.values())
    + ")"
)
_LAST_VERSIONS = (
    "SELECT a, v.version, v.state, v.balance FROM unnest(%b::bigint[]) AS a CROSS JOIN LATERAL"
    " (SELECT version, state, balance FROM account_versions WHERE account_id = a AND line = 0"
    " ORDER BY version DESC LIMIT 1) AS v"
)
#: After a lost batch this many batches take a lock a card first: two processes that decide on the
#: same cards would else take turns in losing.
_LOCKED_BATCHES = 64


class Order(TypedDict):
    """What to run. `design`: database or node. `first`: the first free transaction id."""

    dsn: str
    postmaster: int
    design: str
    lanes: bool
    seconds: float
    batch: int
    prepared: int
    first: int
    seed: int


class Found(TypedDict):
    """What a run found; CPU in seconds."""

    transactions: int
    seconds: float
    client_cpu: float
    postgres_cpu: float
    conflicts: int


class Request(msgspec.Struct, frozen=True):
    """A prepared request: `account_id` stands for the card look-up; `sent` as SENT_COLUMNS."""

    account_id: int
    amount: int
    sent: tuple[Any, ...]


Batch = list[Request]


def prepared(order: Order) -> tuple[list[Batch], list[Batch]]:
    """Batches for each of the two connections."""
    random, zipf = Random(order["seed"]), Zipf(CARDS)
    lanes: tuple[Batch, Batch] = ([], [])
    for number in range(order["first"], order["first"] + order["prepared"]):
        rank = zipf.draw(random)
        lane = rank if order["lanes"] else number
        lanes[lane % 2].append(_request(number, SETTLEMENT + 1 + rank))
    size = order["batch"]
    first, second = (
        [lane[start : start + size] for start in range(0, len(lane) - size + 1, size)]
        for lane in lanes
    )
    return first, second


def _request(number: int, account_id: int) -> Request:
    token = sha256(account_id.to_bytes(8, "big")).digest()[:16]
    hashes = [sha256(b"%d/%d" % (number, part)).digest() for part in range(7)]
    amount = 100 + number % 1000
    values: dict[str, Any] = {
        "transaction_id": number,
        "txid": hashes[0],
        "side": "issuer",
        "network_ref": hashes[1][:16],
        "acquirer": PAIR[0],
        "issuer": PAIR[1],
        "kind": "purchase",
        "amount": amount,
        "currency": "CNY",
        "approval_code": f"{number % 1_000_000:06d}",
        "merchant_id": "LOAD00000000001",
        "merchant_name": "Load",
        "mcc": "5411",
        "country": "CN",
        "terminal_id": f"T{number % 128:07d}",
        "terminal_seq": number,
        "business_date": _DAY,
        "batch": "000002",
        "stan": f"{number % 1_000_000:06d}",
        "rrn": f"{number:012d}",
        "entry_mode": "021",
        "pan_masked": "622300******1234",
        "card_token": token,
        "original_txid": None,
        "transmitted_ms": NOW_MS,
        "salt_fin": hashes[2],
        "salt_pii": hashes[3],
        "card_token_leaf": None,
        "salt_private": hashes[4],
        "commitment": hashes[5],
        "idempotency_key": hashes[6],
        "fingerprint": hashes[5],
        "answer": b"x" * 330,
        "deadline_ms": NOW_MS + 15_000,
    }
    return Request(account_id, amount, tuple(values[name] for name in SENT_COLUMNS))


class InDatabase:
    """Design (a): one call a batch; the database decides over locked rows."""

    conflicts = 0

    def run(self, connection: psycopg.Connection[Any], batch: Batch) -> None:
        """Decide and commit a batch."""
        columns = [list(column) for column in zip(*(r.sent for r in batch), strict=True)]
        answers = connection.execute(
            _CALL, (NOW_MS, _PERIOD, WINDOW_LIMIT, *columns), prepare=True
        ).fetchall()
        if len(answers) != len(batch) or not all(answer[1] for answer in answers):
            raise RuntimeError("not everything was approved")


class InNode:
    """Design (b): decide on cached snapshots, append under constraints, again if it was stale."""

    def __init__(self) -> None:
        self.conflicts = 0
        self._cache: dict[int, Account] = {}
        self._locked_batches = 0

    def run(self, connection: psycopg.Connection[Any], batch: Batch) -> None:
        """Decide and commit a batch."""
        keys = [request.sent[_KEY] for request in batch]
        repeated = connection.execute(
            "SELECT idempotency_key, answer FROM authorization_requests"
            " WHERE idempotency_key = ANY(%b) AND side = 'issuer'",
            (keys,),
            prepare=True,
        ).fetchall()
        if repeated:
            raise RuntimeError("a repeat")
        accounts = sorted({request.account_id for request in batch})
        while True:
            try:
                with connection.transaction():
                    if self._locked_batches:
                        self._lock(connection, accounts)
                    self._load(connection, accounts)
                    decided = self._decide(batch)
                    self._write(connection, batch, decided)
            except (psycopg.errors.UniqueViolation, psycopg.errors.SerializationFailure):
                self.conflicts += 1
                self._locked_batches = _LOCKED_BATCHES
                self._forget(accounts)
                continue
            for account in decided:
                self._cache[account.account_id] = account
            return

    def _lock(self, connection: psycopg.Connection[Any], accounts: Sequence[int]) -> None:
        self._locked_batches -= 1
        connection.execute(
            "SELECT pg_advisory_xact_lock(a) FROM unnest(%b::bigint[]) AS a",
            (accounts,),
            prepare=True,
        )
        self._forget(accounts)

    def _forget(self, accounts: Sequence[int]) -> None:
        for number in accounts:
            self._cache.pop(number, None)

    def _load(self, connection: psycopg.Connection[Any], wanted: Sequence[int]) -> None:
        missing = [number for number in wanted if number not in self._cache]
        if missing:
            rows = connection.execute(_LAST_VERSIONS, (missing,), prepare=True).fetchall()
            for account_id, version, state, balance in rows:
                account = msgspec.msgpack.decode(state, type=Account)
                purse = msgspec.structs.replace(
                    account.purses[0], account_id=account_id, balance=balance
                )
                self._cache[account_id] = msgspec.structs.replace(
                    account, account_id=account_id, version=version, purses=(purse,)
                )

    def _decide(self, batch: Batch) -> list[Account]:
        """The next version of its account for each request, in order; all must be approved."""
        working: dict[int, Account] = {}
        decided = []
        for request in batch:
            account = working.get(request.account_id) or self._cache[request.account_id]
            purse = account.purses[0]
            (standing,) = account.cards.values()
            counter = account.counters[RULE]
            if counter.period != _PERIOD:
                counter = Counter(_PERIOD)
            if (
                standing.status != "active"
                or account.status != "open"
                or request.amount > purse.available
                or counter.amount + request.amount > WINDOW_LIMIT
            ):
                raise RuntimeError("not everything was approved")
            account = msgspec.structs.replace(
                account,
                version=account.version + 1,
                purses=(msgspec.structs.replace(purse, balance=purse.balance - request.amount),),
                counters={
                    RULE: Counter(_PERIOD, counter.amount + request.amount, counter.count + 1)
                },
            )
            working[account.account_id] = account
            decided.append(account)
        return decided

    def _write(
        self, connection: psycopg.Connection[Any], batch: Batch, decided: Sequence[Account]
    ) -> None:
        count = len(batch)
        sent: dict[str, Sequence[Any]] = dict(
            zip(SENT_COLUMNS, zip(*(r.sent for r in batch), strict=True), strict=True)
        )
        accounts = [account.account_id for account in decided]
        versions = [account.version for account in decided]
        balances = [account.purses[0].balance for account in decided]
        zeros, moments = [0] * count, [NOW_MS] * count
        known: dict[str, Sequence[Any]] = {
            **sent,
            "account_id": accounts,
            "version": versions,
            "account_version": versions,
            "purse_account": accounts,
            "at_ms": moments,
            "decided_ms": moments,
            "balance": balances,
            "balance_after": balances,
            "held": zeros,
            "overdraft_limit": zeros,
            "state": [msgspec.msgpack.encode(account) for account in decided],
            "detail": [None] * count,
            "outcome": ["approved"] * count,
            "debit_account": accounts,
            "credit_account": [SETTLEMENT] * count,
        }
        _copy(connection, "account_versions", VERSION_COLUMNS, known | {"line": zeros})
        _copy(connection, "transfers", TRANSFER_COLUMNS, known | {"line": [1] * count})
        _copy(connection, "authorization_requests", REQUEST_COLUMNS, known)
        # The counter's row last: all transactions of the pair wait for it.
        row = connection.execute(
            "UPDATE pair_counters SET last_seq = last_seq + %s WHERE acquirer = %s AND issuer = %s"
            " RETURNING last_seq",
            (count, *PAIR),
            prepare=True,
        ).fetchone()
        if row is None:
            raise RuntimeError("no counter of the pair")
        known["pair_seq"] = range(row[0] - count + 1, row[0] + 1)
        _copy(connection, "transactions", TRANSACTION_COLUMNS, known)


def _copy(
    connection: psycopg.Connection[Any],
    table: str,
    types: Mapping[str, str],
    columns: Mapping[str, Sequence[Any]],
) -> None:
    copy_columns(connection, table, types, [columns[name] for name in types])


_KEY = list(SENT_COLUMNS).index("idempotency_key")


def run(order: Order) -> Found:
    """Drive the two connections for the time of the order; RuntimeError if anything failed."""
    queues = prepared(order)
    shared = InDatabase() if order["design"] == "database" else InNode()
    # Without lanes each connection has a memory of its own, as two processes have.
    second = shared if order["lanes"] else type(shared)()
    designs = (shared, second)
    connections = [
        psycopg.connect(order["dsn"], autocommit=True, prepare_threshold=0) for _ in queues
    ]
    for connection, design, queue in zip(connections, designs, queues, strict=True):
        connection.execute("SET plan_cache_mode = force_generic_plan")
        design.run(connection, queue.pop())
    done, failures = [0, 0], list[Exception]()
    clock = CpuClock({"client": [os.getpid()]}, {"postgres": order["postmaster"]})
    began = time.perf_counter()
    clock.start()
    end = began + order["seconds"]

    def work(place: int) -> None:
        try:
            while time.perf_counter() < end:
                batch = queues[place].pop()
                designs[place].run(connections[place], batch)
                done[place] += len(batch)
        except Exception as error:  # noqa: BLE001 - raised again where the threads are joined
            failures.append(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took, cpu = time.perf_counter() - began, clock.stop()
    for connection in connections:
        connection.close()
    if failures:
        raise failures[0]
    conflicts = sum(design.conflicts for design in set(designs))
    return Found(
        transactions=sum(done),
        seconds=took,
        client_cpu=cpu["client"],
        postgres_cpu=cpu["postgres"],
        conflicts=conflicts,
    )


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)
