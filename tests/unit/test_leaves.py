"""Money, identifiers and time."""

from __future__ import annotations

import hashlib

import pytest

from nodes import clock, ids
from nodes.money import CURRENCIES, Money, from_numeric, numeric_code


def test_money_prints_in_its_currency() -> None:
    assert str(Money(123_456, "CNY")) == "1,234.56 CNY"
    assert str(Money(-5, "USD")) == "-0.05 USD"
    assert str(Money(1_500, "JPY")) == "1,500 JPY"
    with pytest.raises(ValueError, match="XXX"):
        Money(1, "XXX")


def test_numeric_codes_go_both_ways() -> None:
    assert all(from_numeric(numeric_code(alpha)) == alpha for alpha in CURRENCIES)
    assert from_numeric("000") is None


def test_a_txid_depends_on_both_members_and_the_reference() -> None:
    reference = bytes(range(16))
    txid = ids.txid("meridian", "aurora", reference)
    words = b"meridian".ljust(32, b"\0") + b"aurora".ljust(32, b"\0")
    assert txid == hashlib.sha256(b"countersign/txid/1" + words + reference).digest()
    assert (
        len(
            {
                txid,
                ids.txid("aurora", "meridian", reference),
                ids.txid("meridian", "aurora", bytes(16)),
            }
        )
        == 3
    )
    with pytest.raises(ValueError, match="16 bytes"):
        ids.txid("meridian", "aurora", b"short")


@pytest.mark.parametrize("name", ["", "A", "a", "aurora bank", "aurora\n", "x" * 32, "1st"])
def test_what_is_no_member_id_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="member"):
        ids.member_word(name)


def test_a_members_word_reads_back() -> None:
    assert ids.member_from_word(ids.member_word("aurora")) == "aurora"
    with pytest.raises(ValueError, match="member"):
        ids.member_from_word(b"au\0ora".ljust(32, b"\0"))


def test_an_idempotency_key_keeps_its_parts_apart() -> None:
    keys = {
        ids.idempotency_key("m", "T1", "2026-01-01", "1", "11", "request"),
        ids.idempotency_key("m", "T1", "2026-01-01", "11", "1", "request"),
        ids.idempotency_key("m", "T1", "2026-01-01", "1", "11", "reversal"),
    }
    assert len(keys) == 3
    with pytest.raises(ValueError, match="separator"):
        ids.idempotency_key("m", "T\x1f1", "2026-01-01", "1", "1", "request")


def test_time_stamps_go_both_ways_and_naive_ones_are_refused() -> None:
    moment = clock.to_datetime(1_790_000_000_123)
    assert clock.to_ms(moment) == 1_790_000_000_123
    with pytest.raises(ValueError, match="naive"):
        clock.to_ms(moment.replace(tzinfo=None))
