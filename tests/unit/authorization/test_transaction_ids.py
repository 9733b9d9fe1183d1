"""Ids of transactions: unique and in the order of time, from memory."""

from __future__ import annotations

import time

from nodes.ledger.store import TransactionIds


def test_ids_ascend_within_a_call_and_from_call_to_call() -> None:
    ids = TransactionIds(7)
    taken = [number for count in (1, 300, 2) for number in ids.take(count)]
    assert taken == sorted(set(taken))


def test_a_later_millisecond_gives_larger_ids_whoever_takes_them() -> None:
    early = TransactionIds(65_535).take(50)[-1]
    time.sleep(0.002)
    assert TransactionIds(1).take(1)[0] > early


def test_two_writers_have_no_id_in_common_at_the_same_moment() -> None:
    writers = [TransactionIds(number) for number in (1, 2, 3, 65_535)]
    taken = [number for _ in range(200) for writer in writers for number in writer.take(20)]
    assert len(set(taken)) == len(taken)


def test_ids_fit_a_bigint() -> None:
    assert 0 < TransactionIds(65_535).take(1)[0] < 2**63
