"""The merchant's feed: an acquirer's sealed rows become the merchant's own record and log."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
import pytest

from nodes import ids
from nodes.anchoring import feed_queries, queries
from nodes.anchoring.model import FeedItem
from nodes.anchoring.operations import FeedRefused, record_feed
from nodes.anchoring.store import transaction
from nodes.clock import FixedClock
from nodes.crypto.commitment import SharedFacts, shared_commitment, shared_field_leaves
from tests.conftest import NodeDatabase
from tests.factories.chain import ChainFixture
from tests.factories.evidence import LogMember, make_member
from tests.factories.ledger import ACQUIRER, ISSUER, MERCHANT_ID, START_MS, LedgerFactory

CLOCK = FixedClock(START_MS)


@pytest.fixture
def acquirer(member: LogMember) -> LogMember:
    """Ten sealed rows of Harbor's and the merchant's registration."""
    factory = LedgerFactory(member.database.engine, "acquirer")
    with psycopg.connect(member.database.dsn) as connection:
        connection.execute(
            "INSERT INTO merchants SELECT %s, 'Harbor Stores', '5411', 'CN', 'CNY', 'harbor',"
            " account_id, 'active' FROM accounts WHERE kind = 'merchant'",
            (MERCHANT_ID,),
        )
    factory.add(10)
    member.seal()
    return member


def read_feed(member: LogMember, after: int = -1, limit: int = 100) -> list[FeedItem]:
    with transaction(member.database.engine) as connection:
        return feed_queries.feed(connection, "harbor", after, limit)


def test_the_feed_has_all_but_the_card(acquirer: LogMember) -> None:
    items = read_feed(acquirer)
    assert [item.log_index for item in items] == list(range(10))
    assert [item.log_index for item in read_feed(acquirer, 3, 4)] == [4, 5, 6, 7]
    with transaction(acquirer.database.engine) as connection:
        rows = {
            row.values["txid"]: row
            for row in queries.rows_by_txid(connection, [item.txid for item in items])
        }
        assert feed_queries.feed(connection, "someone-else", -1, 100) == []
    encoded = msgspec.json.encode(items)
    for item in items:
        values = rows[item.txid].values
        for secret in ("card_token", "salt_pii", "salt_private"):
            assert msgspec.json.encode(values[secret])[1:-1] not in encoded
        assert str(values["pan_masked"]).encode() not in encoded
    assert msgspec.json.decode(encoded, type=list[FeedItem]) == items


def test_the_merchant_keeps_its_own_record_with_the_same_c(
    acquirer: LogMember, second_database: NodeDatabase, log_chain: ChainFixture
) -> None:
    items = read_feed(acquirer)
    merchant = make_member(second_database, log_chain, ("merchant",))
    assert record_feed(second_database.engine, ACQUIRER, items[:6], CLOCK) == 6
    assert record_feed(second_database.engine, ACQUIRER, items, CLOCK) == 4
    assert record_feed(second_database.engine, ACQUIRER, items, CLOCK) == 0
    assert merchant.anchor_all() == 1
    with transaction(second_database.engine) as connection:
        assert feed_queries.feed_cursor(connection, ACQUIRER) == 9
        known = feed_queries.commitments(connection, "merchant", [item.txid for item in items])
    assert known == {item.txid: item.commitment for item in items}
    assert _merchant_balance(second_database) == _merchant_balance(acquirer.database) != 0


def _merchant_balance(database: NodeDatabase) -> int:
    with psycopg.connect(database.dsn) as connection:
        row = connection.execute(
            "SELECT sum(amount)::bigint FROM postings JOIN accounts USING (account_id)"
            " WHERE kind = 'merchant'"
        ).fetchone()
    assert row is not None
    return int(row[0])


LIES: list[tuple[str, dict[str, Any]]] = [
    ("amount", {"amount": 1}),
    ("outcome", {"outcome": "system_error"}),
    ("time", {"transmitted_ms": 1}),
    ("salt", {"salt_fin": bytes(32)}),
    ("token leaf", {"card_token_leaf": bytes(32)}),
    ("commitment", {"commitment": bytes(32)}),
    ("original", {"original_txid": b"x" * 32}),
    ("merchant", {"merchant_id": "SOMEBODY0000001"}),
    ("unknown outcome", {"outcome": "splendid"}),
    ("issuer", {"issuer": "borealis"}),
    ("no member", {"issuer": "?"}),
    ("acquirer", {"acquirer": "borealis"}),
    ("reference", {"network_ref": bytes(16)}),
    ("lengths", {"network_ref": b""}),
    ("date", {"business_date": "2026-02-30"}),
    ("negative", {"pair_seq": -1}),
    ("currency", {"currency": "XXX"}),
    ("not ASCII", {"merchant_id": "港"}),
]


@pytest.mark.parametrize(("lie", "change"), LIES, ids=[lie for lie, _ in LIES])
def test_an_entry_that_does_not_hold_is_refused_and_those_before_it_kept(
    acquirer: LogMember, second_database: NodeDatabase, lie: str, change: dict[str, Any]
) -> None:
    items = read_feed(acquirer)[:4]
    lying = [*items[:2], msgspec.structs.replace(items[2], **change), items[3]]
    for _ in range(2):
        with pytest.raises(FeedRefused) as refused:
            record_feed(second_database.engine, ACQUIRER, lying, CLOCK)
        assert refused.value.log_index == 2
        with transaction(second_database.engine) as connection:
            assert feed_queries.feed_cursor(connection, ACQUIRER) == 1
    assert record_feed(second_database.engine, ACQUIRER, items, CLOCK) == 2


def test_an_entry_out_of_order_is_refused(
    acquirer: LogMember, second_database: NodeDatabase
) -> None:
    items = read_feed(acquirer)
    with pytest.raises(FeedRefused):
        record_feed(second_database.engine, ACQUIRER, [items[1], items[0]], CLOCK)


def entry(index: int, kind: str, amount: int, original: bytes | None = None) -> FeedItem:
    """An approved transaction as an acquirer would send it."""
    network_ref = index.to_bytes(16, "big")
    txid = ids.txid(ACQUIRER, ISSUER, network_ref)
    words = {"purchase": 1, "refund": 3, "reversal": 4, "authorization": 6, "capture": 8}
    words |= {"void": 9, "advice": 10}
    facts = SharedFacts(
        amount, b"CNY", words[kind], START_MS, MERCHANT_ID.encode(), 0, original or b"", b"t" * 16
    )
    salt = b"s" * 32
    return FeedItem(
        log_index=index, txid=txid, network_ref=network_ref, acquirer=ACQUIRER, issuer=ISSUER,
        kind=kind, outcome="approved", amount=amount, currency="CNY", approval_code="000001",
        merchant_id=MERCHANT_ID, merchant_name="Harbor", mcc="5411", country="CN",
        terminal_id="T0000001", terminal_seq=index, pair_seq=index + 1,
        business_date="2026-09-22", batch="000001", stan=f"{index:06d}", rrn=f"{index:012d}",
        entry_mode="051", original_txid=original, transmitted_ms=START_MS,
        decided_ms=START_MS + 1, salt_fin=salt,
        card_token_leaf=shared_field_leaves(txid, facts, salt, salt)[7],
        commitment=shared_commitment(txid, facts, salt, salt),
    )  # fmt: skip


@pytest.mark.parametrize("page", [1, 2, 10])
@pytest.mark.parametrize("reversal_first", [False, True])
@pytest.mark.parametrize("kind", ["purchase", "refund"])
def test_a_reversal_undoes_its_original_in_whichever_order(
    database: NodeDatabase, page: int, reversal_first: bool, kind: str
) -> None:
    first, second = (5, 4) if reversal_first else (4, 5)
    original = entry(first, kind, 700)
    reversal = entry(second, "reversal", 700, original.txid)
    items = [entry(1, "purchase", 10_000), original, reversal]
    items.sort(key=lambda item: item.log_index)
    for start in range(0, 3, page):
        record_feed(database.engine, ACQUIRER, items[start : start + page], CLOCK)
    assert _merchant_balance(database) == 10_000


def test_a_second_reversal_or_another_content_is_refused(database: NodeDatabase) -> None:
    original = entry(1, "purchase", 700)
    record_feed(
        database.engine, ACQUIRER, [original, entry(2, "reversal", 700, original.txid)], CLOCK
    )
    with pytest.raises(FeedRefused, match="reversed before"):
        record_feed(database.engine, ACQUIRER, [entry(3, "reversal", 700, original.txid)], CLOCK)
    other = msgspec.structs.replace(entry(1, "purchase", 800), log_index=3)
    with pytest.raises(FeedRefused, match="another commitment"):
        record_feed(database.engine, ACQUIRER, [other], CLOCK)
    assert _merchant_balance(database) == 0


@pytest.mark.parametrize("kind", ["purchase", "capture", "advice", "refund"])
@pytest.mark.parametrize("undoing", ["reversal", "void"])
def test_parts_of_an_original_are_undone_till_nothing_is_left(
    database: NodeDatabase, kind: str, undoing: str
) -> None:
    original = entry(2, kind, 700)
    items = [entry(1, "purchase", 10_000), original, entry(3, undoing, 300, original.txid)]
    record_feed(database.engine, ACQUIRER, items, CLOCK)
    assert _merchant_balance(database) == (9_600 if kind == "refund" else 10_400)
    record_feed(database.engine, ACQUIRER, [entry(4, undoing, 400, original.txid)], CLOCK)
    assert _merchant_balance(database) == 10_000
    with pytest.raises(FeedRefused, match="reversed before"):
        record_feed(database.engine, ACQUIRER, [entry(5, undoing, 1, original.txid)], CLOCK)


def test_an_authorization_moves_nothing_and_its_void_neither(database: NodeDatabase) -> None:
    held = entry(1, "authorization", 700)
    items = [held, entry(2, "capture", 200, held.txid), entry(3, "void", 500, held.txid)]
    assert record_feed(database.engine, ACQUIRER, items, CLOCK) == 3
    assert _merchant_balance(database) == 200
