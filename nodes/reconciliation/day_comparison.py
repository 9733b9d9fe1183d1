"""Comparing a judged close with the other institution's, and opening what comes out as cases.

The acquirer's node does so by itself, for a Broken close as for a Confirmed one: gaps, repeated
messages and unsigned answers may stand in both books alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import structlog
from sqlalchemy import Engine

from nodes.clearing import queries, store
from nodes.clearing.model import Break, Close, CloseStage
from nodes.clearing.operations.cases import open_cases
from nodes.clearing.operations.closing import ClosingTerms
from nodes.clock import Clock, to_datetime
from nodes.db.engine import transaction
from nodes.reconciliation.classification import classify
from nodes.reconciliation.comparing import (
    ComparisonFailed,
    Differences,
    Subject,
    find_differences,
    gather,
)
from nodes.reconciliation.day_books import CloseBooks
from nodes.reconciliation.protocol import Answer, Question, decode_answer, encode

log = structlog.get_logger(__name__)


@dataclass
class CountedExchange:
    """The way to the other node, with what went over it (bodies, bytes)."""

    send: Callable[[bytes], bytes]
    sent: int = 0
    received: int = 0
    rounds: int = 0

    def __call__(self, question: Question) -> Answer:
        asked = encode(question)
        told = self.send(asked)
        self.sent += len(asked)
        self.received += len(told)
        self.rounds += 1
        return decode_answer(told)


def compare(
    books: CloseBooks,
    exchange: CountedExchange,
    *,
    alike: bool,
    other_root: bytes | None,
    now_ms: int,
    late_ms: int,
) -> list[Break]:
    """Every break of a close. `alike`: the chain has confirmed it, the lists needn't be compared.

    ComparisonFailed if the other node's list isn't the one whose root it has revealed.
    """
    unexplained = False
    subject = Subject(books.close.key, books.close.revision)
    if alike:
        differences = Differences([], [], books.close.close_root)
    else:
        # Both sides load their items at the same time: the first question says nothing else.
        with ThreadPoolExecutor(max_workers=1) as pool:
            loading = pool.submit(lambda: books.index)
            exchange(subject.question())
            index = loading.result()
        differences = find_differences(index, subject, exchange)
        if other_root is not None and differences.their_root != other_root:
            raise ComparisonFailed("the other party's list is not the one that it has revealed")
        if not differences.only_mine and not differences.only_theirs:
            # Equal lists, and yet other totals: then a salt is another, which C contradicts.
            subject = replace(subject, salted=True)
            differences = find_differences(books.salted_index, subject, exchange)
            unexplained = not (differences.only_mine or differences.only_theirs)
    evidence = gather(differences, books, subject, exchange)
    return classify(evidence, now_ms=now_ms, late_ms=late_ms, unexplained_totals=unexplained)


def compare_close(
    engine: Engine,
    member_id: str,
    close: Close,
    stage: CloseStage,
    exchange: CountedExchange,
    clock: Clock,
    terms: ClosingTerms,
) -> int:
    """Compare a close once, and open its cases; how many breaks there are."""
    started = time.perf_counter()
    with transaction(engine) as connection:
        other_root = queries.revealed_root(connection, close.close_id)
    found = compare(
        CloseBooks(engine, close),
        exchange,
        alike=stage is CloseStage.CONFIRMED,
        other_root=other_root,
        now_ms=clock.now_ms(),
        late_ms=int(terms.late_s * 1000),
    )
    now = to_datetime(clock.now_ms())
    with transaction(engine) as connection:
        store.lock(connection, "comparing", wait=True)
        if queries.is_compared(connection, close.close_id):
            return 0
        open_cases(connection, close, found, member=member_id, now=now, case_s=terms.case_s)
        store.insert_comparison(
            connection,
            close.close_id,
            breaks=len(found),
            rounds=exchange.rounds,
            sent=exchange.sent,
            received=exchange.received,
            milliseconds=round((time.perf_counter() - started) * 1000),
            at=now,
        )
    level = log.warning if found or stage is CloseStage.BROKEN else log.info
    level(
        "close_compared",
        close=str(close.key),
        revision=close.revision,
        breaks=len(found),
        sent=exchange.sent,
        received=exchange.received,
    )
    return len(found)
