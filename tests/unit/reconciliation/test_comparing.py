"""Two books of a day: exactly the planted breaks are found and named, whatever they are."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.clearing.model import Break, BreakKind, DayItems, Item
from nodes.clearing.rules.closing import close_root
from nodes.reconciliation.classification import classify
from nodes.reconciliation.comparing import (
    ComparisonFailed,
    Responder,
    find_differences,
    gather,
)
from nodes.reconciliation.protocol import (
    Answer,
    Listing,
    MessageRefused,
    Question,
    Split,
    decode_question,
    encode,
)
from nodes.reconciliation.ranges import RangeIndex
from tests.unit.reconciliation.books import KEY, LATE_MS, NOW_MS, Day, make_day, sound

#: What a day may have together: salts are compared only where the lists are alike.
TOGETHER = tuple(kind for kind in BreakKind if kind is not BreakKind.TOTALS_MISMATCH)
COUNTS = st.fixed_dictionaries({kind: st.integers(0, 4) for kind in TOGETHER})


def compare(day: Day, exchange: Callable[[Question], Answer] | None = None) -> list[Break]:
    way = exchange or day.wire()
    index = RangeIndex(day.acquirer.items())
    differences = find_differences(index, day.subject, way)
    evidence = gather(differences, day.acquirer, day.subject, way)
    return classify(evidence, now_ms=NOW_MS, late_ms=LATE_MS)


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 1 << 32), clean=st.integers(0, 400), counts=COUNTS)
def test_the_planted_breaks_are_found_and_none_more(
    seed: int, clean: int, counts: dict[BreakKind, int]
) -> None:
    day = make_day(seed, clean, counts)
    found = compare(day)
    assert {entry.name for entry in found} == day.planted
    assert len(found) == len(day.planted)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1 << 32), clean=st.integers(0, 300))
def test_equal_days_have_no_breaks(seed: int, clean: int) -> None:
    assert compare(make_day(seed, clean, {})) == []


def test_days_that_have_nothing_in_common_are_told_apart_item_by_item() -> None:
    mine, theirs = make_day(1, 300, {}), make_day(2, 200, {})
    day = Day(mine.acquirer, theirs.issuer, set())
    kinds = [entry.kind for entry in compare(day)]
    assert kinds.count(BreakKind.MISSING_AT_ISSUER) == 301
    assert kinds.count(BreakKind.MISSING_AT_ACQUIRER) == 201
    assert len(kinds) == 502


def test_a_party_without_any_item_lacks_all_of_them() -> None:
    day = make_day(3, 40, {})
    day.issuer.rows.clear()
    assert [entry.kind for entry in compare(day)] == [BreakKind.MISSING_AT_ISSUER] * 41


def test_few_breaks_in_a_large_day_cost_few_bytes_and_rounds() -> None:
    day = make_day(4, 20_000, dict.fromkeys(TOGETHER, 2))
    wire = day.wire()
    assert {entry.name for entry in compare(day, wire)} == day.planted
    # All items would be 1,440,000 bytes.
    assert wire.sent + wire.received < 70_000
    assert wire.calls <= 10


def test_an_effect_that_contradicts_its_commitment_is_found_though_c_is_alike() -> None:
    day = make_day(5, 50, {})
    row = next(row for row in day.issuer.rows if row.effect > 0)
    changed = msgspec.structs.replace(row, amount=row.amount + 1, effect=row.effect + 1)
    day.issuer.rows[day.issuer.rows.index(row)] = changed
    [found] = compare(day)
    assert found.name == ("FIELD_MISMATCH", row.txid, ("amount",), None)


def test_another_salt_alone_is_a_mismatch_of_the_commitment() -> None:
    day = make_day(6, 20, {})
    row = day.issuer.rows[3]
    day.issuer.rows[3] = sound(msgspec.structs.replace(row, salt_fin=bytes(32)))
    [found] = compare(day)
    assert found.name == ("FIELD_MISMATCH", row.txid, ("commitment",), None)


def test_a_gap_that_a_missing_transaction_explains_is_not_named_twice() -> None:
    day = make_day(7, 30, {BreakKind.MISSING_AT_ACQUIRER: 1, BreakKind.SEQ_GAP: 1})
    assert sorted(entry.kind for entry in compare(day)) == ["MISSING_AT_ACQUIRER", "SEQ_GAP"]


def test_late_becomes_missing_when_its_time_is_over() -> None:
    day = make_day(8, 10, {BreakKind.LATE: 1})
    [late] = compare(day)
    assert late.kind is BreakKind.LATE
    assert late.due_ms == NOW_MS + LATE_MS // 2
    index = RangeIndex(day.acquirer.items())
    wire = day.wire()
    evidence = gather(find_differences(index, day.subject, wire), day.acquirer, day.subject, wire)
    [missing] = classify(evidence, now_ms=late.due_ms, late_ms=LATE_MS)
    assert missing.kind.value.startswith("MISSING")


def test_items_whose_txids_begin_alike_are_told_apart() -> None:
    """Ranges end at 64 bits: whoever grinds network references gains nothing."""
    source = random.Random(9)
    items = [Item(b"\x11" * 8 + source.randbytes(24), source.randbytes(32), 1) for _ in range(60)]
    mine, theirs = DayItems.of(items[:50]), DayItems.of(items[10:])
    day = make_day(9, 0, {})
    responder = Responder(RangeIndex(theirs), close_root(theirs), day.issuer)
    found = find_differences(RangeIndex(mine), day.subject, responder.answer)
    assert set(found.only_mine) == set(items[:10])
    assert set(found.only_theirs) == set(items[50:])


class Liar:
    """An issuer's node that changes its answers."""

    def __init__(self, day: Day, change: Callable[[Answer], Answer]) -> None:
        self.wire = day.wire()
        self.change = change

    def __call__(self, question: Question) -> Answer:
        return self.change(self.wire(question))


def _without_extra(answer: Answer) -> Answer:
    listings = [msgspec.structs.replace(entry, extra=b"") for entry in answer.listings]
    return msgspec.structs.replace(answer, listings=listings)


def _with_other_salt(answer: Answer) -> Answer:
    held = [
        None if entry is None else msgspec.structs.replace(entry, salt_fin=b"s" * 32)
        for entry in answer.held
    ]
    return msgspec.structs.replace(answer, held=held)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_without_extra, "do not lead to the other party's close root"),
        (_with_other_salt, "does not lead to its field leaves"),
        (lambda a: msgspec.structs.replace(a, splits=a.splits[:-1], listings=[]), "one answer"),
        (lambda a: msgspec.structs.replace(a, held=a.held[:-1]), "one answer a broken"),
        (lambda a: msgspec.structs.replace(a, findings=None), "findings are not there"),
        (lambda a: msgspec.structs.replace(a, leaves=[b"x" for _ in a.leaves]), "eight field"),
    ],
)
def test_answers_that_contradict_the_posted_root_lead_to_nothing(
    change: Callable[[Answer], Answer], why: str
) -> None:
    day = make_day(10, 100, {BreakKind.MISSING_AT_ACQUIRER: 3, BreakKind.FIELD_MISMATCH: 3})
    with pytest.raises(ComparisonFailed, match=why):
        compare(day, Liar(day, change))


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"splits": [Split(0, 0, 12, b"")]}, "2 to 2048"),
        ({"splits": [Split(0, 0, 1, bytes(16))]}, "no fingerprint"),
        ({"splits": [Split(0, 0, 1, bytes(17))]}, "full length"),
        ({"splits": [Split(5, 2, 1, bytes(32))]}, "64 bits"),
        ({"listings": [Listing(-1, 3, b"")]}, "64 bits"),
        ({"wanted": [b"short"]}, "32 bytes"),
        ({"numbers": [0]}, "positive"),
        ({"business_date": 20261301}, "business date"),
        ({"version": 2}, "version"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_by_name(
    parts: dict[str, object], why: str
) -> None:
    day = make_day(11, 10, {})
    question = msgspec.structs.replace(day.subject.question(), **parts)
    responder = day.wire().responder

    def answered() -> None:
        read = decode_question(encode(question))
        assert read.key() == KEY
        responder.answer(read)

    with pytest.raises(MessageRefused, match=why):
        answered()


def test_more_gaps_than_one_message_asks_for_are_all_told_apart() -> None:
    counts = {BreakKind.SEQ_GAP: 700, BreakKind.MISSING_AT_ACQUIRER: 700}
    day = make_day(13, 100, counts)
    assert {entry.name for entry in compare(day)} == day.planted
