"""The acquirer's books alone: open batches, one answer a key, reversals, crashes, kinds."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import msgspec
import psycopg
import pytest

from nodes.authorization.model import (
    AuthorizationAnswer,
    Kind,
    Outcome,
    TerminalAnswer,
    TerminalRequest,
)
from nodes.authorization.operations.accepting import open_batch, read_opening
from nodes.authorization.operations.forwarding import (
    GRACE_MS,
    recover_pending,
    request_of,
    settle_reversals,
    take_reversals,
)
from nodes.authorization.operations.pending import (
    Closing,
    Forward,
    decode_pending,
    encode_pending,
)
from nodes.authorization.operations.recording import (
    close_batch,
    open_settlement_accounts,
    record_closings,
)
from nodes.db.writes import Writes, execute
from tests.conftest import NodeDatabase
from tests.factories.acquirer_books import NOW_MS, PAN, TERMINALS, Books


@pytest.fixture
def books(database: NodeDatabase) -> Iterator[Books]:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        yield Books(database, connection)


# --- open batches --------------------------------------------------------------------------------


def test_a_batch_is_noted_as_open_until_its_last_answer(books: Books) -> None:
    opened = books.open(*(books.request(100) for _ in range(3)))
    forwards = [one for one in opened if isinstance(one, Forward)]
    assert len(forwards) == 3
    [(deadline_ms, count)] = books.rows("SELECT deadline_ms, cardinality(keys) FROM open_batches")
    assert (deadline_ms, count) == (NOW_MS + 15_000, 3)
    first, *rest = [Closing(f, books.answer(f.pending)) for f in forwards]
    books.close(first)
    assert books.open_batches() == 1
    books.close(*rest)
    assert books.open_batches() == 0
    assert books.transactions() == [("purchase", "approved", 100)] * 3


def test_a_batch_closed_by_two_threads_at_once_is_forgotten_with_the_next_commit(
    books: Books,
) -> None:
    first, second = books.open(books.request(100), books.request(200))
    assert isinstance(first, Forward)
    assert isinstance(second, Forward)
    other = books.new_acquirer()
    closings = [Closing(f, books.answer(f.pending)) for f in (first, second)]
    open_settlement_accounts(books.connection, other, [first.pending], NOW_MS)
    with books.connect() as connection:
        with connection.transaction():
            late = record_closings(connection, other, closings[1:], NOW_MS, look=False)
            late.write(connection)
            books.close(closings[0])
        late.committed()
        assert books.open_batches() == 1
        third = books.forward(books.request(300))
        close_batch(connection, other, [Closing(third, books.answer(third.pending))])
    assert books.open_batches() == 0


def test_what_is_refused_here_waits_for_nobody(books: Books) -> None:
    answer = books.refusal(books.request(100, terminal_id=TERMINALS[0], currency="USD"))
    assert answer.outcome is Outcome.CURRENCY_NOT_PERMITTED
    assert books.open_batches() == 0
    assert books.terminal_seqs() == []


# --- exactly one answer a key --------------------------------------------------------------------


def test_a_repeat_in_flight_gets_the_answer_that_was_first(books: Books) -> None:
    request = books.request(100)
    first, again = books.forward(request), books.forward(request)
    assert again.request.txid == first.request.txid
    assert again.open_batch is None
    answer = books.answer(first.pending)
    [told] = books.close(Closing(again, answer))
    assert books.close(Closing(first, answer)) == [told]
    assert books.close(Closing(first, None)) == [told]
    assert books.refusal(request) == told
    assert books.open_batches() == 0
    assert books.merchant_balance() == 100


def test_two_answers_to_one_key_in_one_batch_are_one(books: Books) -> None:
    request = books.request(100)
    first, again = books.forward(request), books.forward(request)
    told = books.close(Closing(first, None), Closing(again, books.answer(first.pending)))
    assert [answer.outcome for answer in told] == [Outcome.ISSUER_UNAVAILABLE] * 2
    assert books.transactions() == []


def test_two_processes_close_one_request_and_one_answer_stands(books: Books) -> None:
    forward = books.forward(books.request(100))
    answer = books.answer(forward.pending)
    books.close()
    told: list[TerminalAnswer] = []
    start = threading.Barrier(4)

    def close(given: AuthorizationAnswer | None) -> None:
        with books.connect() as connection:
            acquirer = books.new_acquirer()
            start.wait()
            told.extend(close_batch(connection, acquirer, [Closing(forward, given)]))

    threads = [threading.Thread(target=close, args=(given,)) for given in (answer, None) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 4
    assert len({msgspec.json.encode(one) for one in told}) == 1
    recorded = told[0].outcome is Outcome.APPROVED
    assert books.transactions() == ([("purchase", "approved", 100)] if recorded else [])
    [(queued,)] = books.rows("SELECT count(*) FROM reversal_queue")
    assert queued == (0 if recorded else 1)


def test_two_processes_number_one_terminals_requests_without_gap_or_double(books: Books) -> None:
    requests = [books.request(10 + n) for n in range(40)]
    forwards: list[Forward] = []
    start = threading.Barrier(4)

    def send(mine: Sequence[TerminalRequest]) -> None:
        with books.connect() as connection:
            acquirer = books.new_acquirer()
            start.wait()
            for place in range(0, len(mine), 5):
                opened = open_batch(connection, acquirer, mine[place : place + 5])
                forwards.extend(one for one in opened if isinstance(one, Forward))

    # Every request is sent by two of them: the second finds the first one's row.
    halves = (requests[:20], requests[20:], requests[:20], requests[20:])
    threads = [threading.Thread(target=send, args=(mine,)) for mine in halves]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(forwards) == 80
    assert sorted({f.request.terminal_seq for f in forwards}) == list(range(1, 41))
    assert len({f.request.txid for f in forwards}) == 40
    assert len({f.request.rrn for f in forwards}) == 40


def test_the_same_key_with_other_content_is_refused_while_it_waits(books: Books) -> None:
    request = books.request(100)
    books.forward(request)
    other = msgspec.structs.replace(request, amount=101, fingerprint=bytes(32))
    assert books.refusal(other).outcome is Outcome.KEY_REUSED


def test_what_is_kept_of_a_request_comes_back_as_it_was(books: Books) -> None:
    forward = books.forward(
        books.request(100, channel="ecommerce", partial_ok=True, final=True, expiry="4912")
    )
    assert decode_pending(encode_pending(forward.pending)) == forward.pending
    [kept] = [row[0] for row in books.rows("SELECT request FROM authorization_requests")]
    assert decode_pending(kept) == forward.pending
    assert forward.request.pan == PAN
    assert PAN.encode() not in kept


# --- reversals -----------------------------------------------------------------------------------


def test_a_reversal_while_the_answer_is_awaited_wins_over_it(books: Books) -> None:
    request = books.request(100)
    forward = books.forward(request)
    reversal = books.forward(books.reversal_of(request))
    answer = books.answer(forward.pending)
    [told] = books.close(Closing(forward, answer))
    assert told.outcome is Outcome.ISSUER_UNAVAILABLE
    assert books.transactions() == []
    [done] = books.close(Closing(reversal, books.answer(reversal.pending, original=answer)))
    assert done.outcome is Outcome.APPROVED
    assert books.transactions() == [("purchase", "approved", 100), ("reversal", "approved", 100)]
    assert books.merchant_balance() == 0
    assert books.terminal_seqs() == [1, 2]
    assert books.open_batches() == 0


def test_an_unanswered_request_cannot_be_reversed_in_part(books: Books) -> None:
    request = books.request(100)
    books.forward(request)
    refused = books.refusal(books.reversal_of(request, 40))
    assert refused.outcome is Outcome.ORIGINAL_MISMATCH


def test_a_partial_reversal_takes_a_part_back(books: Books) -> None:
    request = books.request(100)
    forward = books.forward(request)
    answer = books.answer(forward.pending)
    books.close(Closing(forward, answer))
    over = books.request(100, stan=request.stan)
    assert books.refusal(books.reversal_of(over, 101)).outcome is Outcome.OVER_ORIGINAL_AMOUNT
    other = books.request(100)
    forward = books.forward(other)
    answer = books.answer(forward.pending)
    books.close(Closing(forward, answer))
    assert books.undo(other, answer, 40).outcome is Outcome.APPROVED
    assert books.merchant_balance() == 160


def test_the_reversal_of_a_partial_approval_takes_back_what_was_approved(books: Books) -> None:
    request = books.request(100, partial_ok=True)
    forward = books.forward(request)
    answer = books.answer(forward.pending, amount=60)
    [told] = books.close(Closing(forward, answer))
    assert (told.outcome, told.amount) == (Outcome.APPROVED, 60)
    assert books.merchant_balance() == 60
    reversal = books.forward(books.reversal_of(request))
    undone = books.answer(reversal.pending, amount=60, original=answer)
    [told] = books.close(Closing(reversal, undone))
    assert told.outcome is Outcome.APPROVED
    assert books.merchant_balance() == 0
    assert books.transactions() == [("purchase", "approved", 60), ("reversal", "approved", 60)]


def test_a_reversal_without_an_answer_is_acknowledged_and_goes_on(books: Books) -> None:
    request = books.request(100)
    forward = books.forward(request)
    answer = books.answer(forward.pending)
    books.close(Closing(forward, answer))
    reversal = books.forward(books.reversal_of(request))
    [told] = books.close(Closing(reversal, None))
    assert told.outcome is Outcome.APPROVED
    assert books.refusal(books.reversal_of(request)) == told
    books.clock.advance(20_000)
    assert books.settle(answer) == 1
    assert books.settle(answer) == 0
    assert books.merchant_balance() == 0


def test_the_queue_and_the_path_may_settle_one_reversal_at_once(books: Books) -> None:
    request = books.request(100)
    forward = books.forward(request)
    answer = books.answer(forward.pending)
    reversal = books.forward(books.reversal_of(request))
    undone = books.answer(reversal.pending, original=answer)
    books.clock.advance(20_000)
    [queued] = take_reversals(books.connection, books.acquirer)
    assert request_of(queued) == reversal.request
    start = threading.Barrier(2)

    def settle() -> None:
        with books.connect() as connection:
            start.wait()
            settle_reversals(connection, books.new_acquirer(), [(queued, undone)])

    worker = threading.Thread(target=settle)
    worker.start()
    start.wait()
    [told] = books.close(Closing(reversal, undone))
    worker.join()
    assert told.outcome is Outcome.APPROVED
    assert books.transactions() == [("purchase", "approved", 100), ("reversal", "approved", 100)]
    assert books.merchant_balance() == 0
    assert books.rows("SELECT count(*) FROM reversal_queue WHERE done_ms IS NULL") == [(0,)]


def test_a_doubtful_answer_to_a_reversal_acknowledges_nothing(books: Books) -> None:
    request = books.request(100)
    forward = books.forward(request)
    answer = books.answer(forward.pending)
    books.close(Closing(forward, answer))
    reversal = books.forward(books.reversal_of(request))
    wrong = msgspec.structs.replace(
        books.answer(reversal.pending, original=answer), commitment=bytes(32)
    )
    [told] = books.close(Closing(reversal, wrong))
    assert told.outcome is Outcome.APPROVED
    assert books.rows("SELECT count(*) FROM reversal_queue WHERE done_ms IS NULL") == [(1,)]
    assert len(books.transactions()) == 1


# --- crashes -------------------------------------------------------------------------------------


def test_recovery_reverses_what_has_no_answer_and_leaves_what_has(books: Books) -> None:
    opened = books.open(*(books.request(100) for _ in range(3)))
    forwards = [one for one in opened if isinstance(one, Forward)]
    books.close(Closing(forwards[0], books.answer(forwards[0].pending)))
    books.clock.advance(15_000 + GRACE_MS)
    assert recover_pending(books.connection, books.acquirer) == 0
    books.clock.advance(1)
    assert recover_pending(books.connection, books.acquirer) == 2
    assert recover_pending(books.connection, books.acquirer) == 0
    assert books.open_batches() == 0
    taken = take_reversals(books.connection, books.acquirer)
    assert {request_of(row).original_txid for row in taken} == {
        f.request.txid for f in forwards[1:]
    }
    # The process wasn't dead but slow: what the recovery answered stands.
    [told] = books.close(Closing(forwards[1], books.answer(forwards[1].pending)))
    assert told.outcome is Outcome.ISSUER_UNAVAILABLE
    assert books.merchant_balance() == 100


def test_two_recoveries_close_a_request_once(books: Books) -> None:
    for _ in range(6):
        books.forward(books.request(100))
    books.clock.advance(15_000 + GRACE_MS + 1)
    closed: list[int] = []
    start = threading.Barrier(3)

    def recover() -> None:
        with books.connect() as connection:
            start.wait()
            closed.append(recover_pending(connection, books.new_acquirer()))

    threads = [threading.Thread(target=recover) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(closed) == 6
    assert books.rows("SELECT count(*) FROM reversal_queue") == [(6,)]
    assert books.open_batches() == 0


def test_a_reversal_left_open_is_acknowledged_and_stays_queued(books: Books) -> None:
    request = books.request(100)
    forward = books.forward(request)
    answer = books.answer(forward.pending)
    books.close(Closing(forward, answer))
    books.forward(books.reversal_of(request))
    books.clock.advance(15_000 + GRACE_MS + 1)
    assert recover_pending(books.connection, books.acquirer) == 1
    assert books.refusal(books.reversal_of(request)).outcome is Outcome.APPROVED
    assert books.settle(answer) == 1
    assert books.merchant_balance() == 0


def test_an_issuer_that_never_saw_a_request_leaves_no_gap_in_the_terminals_numbers(
    books: Books,
) -> None:
    forward = books.forward(books.request(100))
    books.close(Closing(forward, None))
    assert books.settle(None) == 1
    assert books.transactions() == [
        ("purchase", "reversed_before_arrival", 100),
        ("reversal", "approved", 0),
    ]
    assert books.terminal_seqs() == [1, 2]
    assert books.merchant_balance() == 0


# --- kinds ---------------------------------------------------------------------------------------


def test_what_each_kind_pays_the_merchant(books: Books) -> None:
    told = books.approve(books.request(500, Kind.AUTHORIZATION))
    assert books.merchant_balance() == 0
    books.approve(books.request(100, Kind.INCREMENT, rrn=told.rrn))
    assert books.merchant_balance() == 0
    captured = books.approve(books.request(450, Kind.CAPTURE, rrn=told.rrn))
    assert books.merchant_balance() == 450
    books.approve(books.request(50, Kind.REFUND, rrn=captured.rrn))
    assert books.merchant_balance() == 400
    advised = books.approve(books.request(30, Kind.ADVICE))
    assert books.merchant_balance() == 430
    books.approve(books.request(30, Kind.VOID, rrn=advised.rrn))
    assert books.merchant_balance() == 400
    books.approve(books.request(0, Kind.VOID, rrn=told.rrn), amount=150)
    assert books.merchant_balance() == 400
    bought = books.approve(books.request(70))
    books.approve(books.request(0, Kind.VOID, rrn=bought.rrn), amount=70)
    assert books.merchant_balance() == 400
    [(unbalanced,)] = books.rows("SELECT count(*) FROM transfers WHERE amount <= 0")
    assert unbalanced == 0


def test_a_follow_up_goes_out_with_its_originals_txid(books: Books) -> None:
    told = books.approve(books.request(500, Kind.AUTHORIZATION))
    for kind in (Kind.INCREMENT, Kind.CAPTURE, Kind.VOID):
        forward = books.forward(books.request(100, kind, rrn=told.rrn, final=True))
        assert forward.request.original_txid == told.txid
        assert forward.request.rrn != told.rrn
        assert forward.request.final


@pytest.mark.parametrize(
    ("original", "follow_up"),
    [
        (Kind.AUTHORIZATION, Kind.REFUND),
        (Kind.PURCHASE, Kind.CAPTURE),
        (Kind.PURCHASE, Kind.INCREMENT),
        (Kind.CAPTURE, Kind.INCREMENT),
        (Kind.REFUND, Kind.VOID),
    ],
)
def test_a_follow_up_names_only_what_it_can_follow(
    books: Books, original: Kind, follow_up: Kind
) -> None:
    first = books.approve(books.request(100, Kind.AUTHORIZATION))
    bought = books.approve(books.request(100))
    told = {
        Kind.AUTHORIZATION: first,
        Kind.PURCHASE: bought,
        Kind.CAPTURE: books.approve(books.request(100, Kind.CAPTURE, rrn=first.rrn)),
        Kind.REFUND: books.approve(books.request(10, Kind.REFUND, rrn=bought.rrn)),
    }[original]
    refused = books.refusal(books.request(10, follow_up, rrn=told.rrn))
    assert refused.outcome is Outcome.ORIGINAL_NOT_FOUND


def test_a_declined_authorization_cannot_be_captured(books: Books) -> None:
    forward = books.forward(books.request(100, Kind.AUTHORIZATION))
    [told] = books.close(
        Closing(forward, books.answer(forward.pending, Outcome.INSUFFICIENT_FUNDS))
    )
    assert told.outcome is Outcome.INSUFFICIENT_FUNDS
    refused = books.refusal(books.request(100, Kind.CAPTURE, rrn=told.rrn))
    assert refused.outcome is Outcome.ORIGINAL_NOT_FOUND


@pytest.mark.parametrize(
    ("kind", "partial_ok", "amount"),
    [(Kind.PURCHASE, False, 60), (Kind.PURCHASE, True, 101), (Kind.PURCHASE, True, 0)],
)
def test_an_approval_of_an_amount_that_was_not_asked_for_is_refused(
    books: Books, kind: Kind, partial_ok: bool, amount: int
) -> None:
    forward = books.forward(books.request(100, kind, partial_ok=partial_ok))
    [told] = books.close(Closing(forward, books.answer(forward.pending, amount=amount)))
    assert told.outcome is Outcome.SYSTEM_ERROR
    assert books.transactions() == []
    assert books.rows("SELECT count(*) FROM reversal_queue") == [(1,)]


def test_a_void_never_takes_more_from_the_merchant_than_was_paid(books: Books) -> None:
    bought = books.approve(books.request(100))
    forward = books.forward(books.request(0, Kind.VOID, rrn=bought.rrn))
    [told] = books.close(Closing(forward, books.answer(forward.pending, amount=101)))
    assert told.outcome is Outcome.SYSTEM_ERROR
    assert books.merchant_balance() == 100


# --- one commit ----------------------------------------------------------------------------------


def test_both_steps_can_be_one_commit(books: Books) -> None:
    requests = [books.request(100), books.request(200)]
    acquirer = books.acquirer
    with books.connection.transaction():
        opening = read_opening(books.connection, acquirer, requests)
        forwards = [one for one in opening.results if isinstance(one, Forward)]
    open_settlement_accounts(books.connection, acquirer, [f.pending for f in forwards], NOW_MS)
    with books.connection.transaction():
        opening = read_opening(books.connection, acquirer, requests)
        forwards = [one for one in opening.results if isinstance(one, Forward)]
        # The second one's answer isn't there yet.
        closings = [Closing(forwards[0], books.answer(forwards[0].pending))]
        recording = record_closings(books.connection, acquirer, closings, NOW_MS, look=False)
        writes = Writes()
        opening.stage(writes, recording.answers)
        execute(books.connection, writes)
        recording.write(books.connection)
    recording.committed()
    assert books.refusal(requests[0]) == recording.told[0]
    assert books.rows("SELECT count(*) FROM authorization_answers") == [(0,)]
    assert books.rows("SELECT cardinality(keys) FROM open_batches") == [(1,)]
    books.close(Closing(forwards[1], books.answer(forwards[1].pending)))
    assert books.open_batches() == 0
    assert books.terminal_seqs() == [1, 2]
    assert books.merchant_balance() == 300
