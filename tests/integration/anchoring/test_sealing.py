"""Sealing: each committed row once, in an order that no late commit can break."""

from __future__ import annotations

import itertools

import psycopg
import pytest

from nodes.anchoring import queries
from nodes.anchoring.checkpoint import parse_checkpoint
from nodes.anchoring.model import AnchorState
from nodes.anchoring.note import parse_note, signature_holds
from nodes.anchoring.operations import LogDamaged
from nodes.anchoring.rules import RowUnsound
from nodes.anchoring.store import transaction
from nodes.crypto import merkle
from tests.factories.evidence import LogMember
from tests.factories.ledger import LedgerFactory


def test_rows_become_leaves_with_a_signed_checkpoint(member: LogMember) -> None:
    records = LedgerFactory(member.database.engine, "acquirer").add(21)
    batch = member.seal()
    assert batch is not None
    assert (batch.seq, batch.first_index, batch.size, batch.leaf_count) == (1, 0, 21, 21)
    with transaction(member.database.engine) as connection:
        entries = queries.log_entries(connection, 0, 21)
        assert queries.batch(connection, 1) == batch
    assert [index for index, *_ in entries] == list(range(21))
    assert merkle.root_of([merkle.leaf_hash(leaf) for _, leaf, _, _ in entries]) == batch.root
    note = parse_note(batch.note)
    assert signature_holds(note, member.signer.public_key)
    checkpoint = parse_checkpoint(note.text)
    assert (checkpoint.size, checkpoint.root) == (21, batch.root)
    assert checkpoint.origin == member.context.identity.origin
    approved = [r.amount for r in records if r.outcome == "approved"]
    totals = batch.totals[0]
    assert (totals.currency, totals.approved_count, totals.approved_amount) == (
        "CNY",
        len(approved),
        sum(approved),
    )
    assert totals.declined_count == 21 - len(approved)


def test_batches_are_intervals_of_one_log(member: LogMember) -> None:
    factory = LedgerFactory(member.database.engine, "acquirer")
    batches = []
    for count in (3, 1, 8, 20):
        factory.add(count)
        batch = member.seal()
        assert batch is not None
        batches.append(batch)
    assert [batch.size for batch in batches] == [3, 4, 12, 32]
    for old, new in itertools.pairwise(batches):
        assert new.prev_root == old.root
        assert merkle.verify_consistency(old.size, new.size, old.root, new.root, new.consistency)
    with transaction(member.database.engine) as connection:
        hashes = [entry[2] for entry in queries.log_entries(connection, 0, 32)]
        for index, size in [(0, 1), (5, 12), (31, 32), (2, 3), (11, 32)]:
            path = queries.inclusion_proof(connection, index, size)
            root = merkle.root_of(hashes[:size])
            assert merkle.verify_inclusion(index, size, hashes[index], path, root)


def test_a_limit_leaves_the_rest_for_the_next_time(member: LogMember) -> None:
    LedgerFactory(member.database.engine, "acquirer").add(10)
    sizes = [batch.size for batch in iter(lambda: member.seal(limit=4), None) if batch]
    assert sizes == [4, 8, 10]
    assert member.seal() is None


def test_a_row_that_commits_late_is_neither_lost_nor_doubled(member: LogMember) -> None:
    """Ids and transaction numbers are taken before the commit, so they commit out of order."""
    factory = LedgerFactory(member.database.engine, "acquirer")
    with psycopg.connect(member.database.dsn) as slow:
        late = factory.write(slow, 1)[0]
        early = factory.add(2)
        assert member.seal() is None, "a row below the open transaction's must wait for it"
        slow.commit()
    batch = member.seal()
    assert batch is not None
    with transaction(member.database.engine) as connection:
        sealed = [leaf[96:128] for _, leaf, _, _ in queries.log_entries(connection, 0, 10)]
    assert sealed == [late.txid, early[0].txid, early[1].txid]
    assert member.seal() is None


def test_a_transaction_that_rolls_back_leaves_no_gap(member: LogMember) -> None:
    factory = LedgerFactory(member.database.engine, "acquirer")
    with psycopg.connect(member.database.dsn) as broken:
        factory.write(broken, 3)
        broken.rollback()
    factory.add(2)
    batch = member.seal()
    assert batch is not None
    assert batch.size == 2


def test_two_sealers_do_not_meet(member: LogMember) -> None:
    LedgerFactory(member.database.engine, "acquirer").add(5)
    with psycopg.connect(member.database.worker_dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('countersign/seal', 0))")
        assert member.seal() is None
    batch = member.seal()
    assert batch is not None
    assert batch.size == 5


def test_shared_balances_are_rolled_up_with_the_batch(member: LogMember) -> None:
    factory = LedgerFactory(member.database.engine, "acquirer")
    factory.add(30)
    before = _balances(member)
    assert before["cached"] == 0
    member.seal()
    after = _balances(member)
    assert after["cached"] == after["postings"] != 0
    factory.add(5)
    member.seal()
    assert _balances(member)["cached"] == _balances(member)["postings"]


def _balances(member: LogMember) -> dict[str, int]:
    with psycopg.connect(member.database.dsn) as connection:
        row = connection.execute(
            "SELECT sum(balance)::bigint, (SELECT sum(amount)::bigint FROM postings"
            " JOIN accounts USING (account_id) WHERE kind = 'merchant') FROM accounts"
            " WHERE kind = 'merchant'"
        ).fetchone()
    assert row is not None
    return {"cached": row[0], "postings": row[1]}


@pytest.mark.parametrize(
    ("change", "column"),
    [("amount = amount + 1", "commitment"), ("outcome = 'no such'", "outcome")],
)
def test_a_row_changed_before_sealing_gets_no_leaf(
    member: LogMember, change: str, column: str
) -> None:
    record = LedgerFactory(member.database.engine, "acquirer").add(3)[1]
    with psycopg.connect(member.database.admin_dsn, autocommit=True) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute(f"UPDATE transactions SET {change} WHERE txid = %s", (record.txid,))
    with pytest.raises(RowUnsound) as refused:
        member.seal()
    assert refused.value.column == column
    with transaction(member.database.engine) as connection:
        assert queries.log_size(connection) == 0


def test_nothing_is_built_on_a_damaged_tree(member: LogMember) -> None:
    factory = LedgerFactory(member.database.engine, "acquirer")
    factory.add(4)
    member.seal()
    with psycopg.connect(member.database.admin_dsn, autocommit=True) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE log_nodes SET hash = sha256('x') WHERE level = 2")
    factory.add(1)
    with pytest.raises(LogDamaged):
        member.seal()


def test_the_state_of_a_row_is_told_from_unsealed_to_sealed(member: LogMember) -> None:
    LedgerFactory(member.database.engine, "acquirer").add(2)
    with transaction(member.database.engine) as connection:
        rows = queries.rows_by_txid(connection, [])
        assert rows == []
        status = queries.log_status(connection)
        assert (status.size, status.unsealed) == (0, 2)
        assert status.oldest_unsealed is not None
    member.seal()
    with transaction(member.database.engine) as connection:
        status = queries.log_status(connection)
        assert (status.size, status.sealed_seq, status.anchored_seq, status.unsealed) == (
            2,
            1,
            0,
            0,
        )
        entries = queries.log_entries(connection, 0, 2)
        number = connection.execute("SELECT min(transaction_id) FROM transactions").fetchone()
        assert number is not None
        place = queries.log_places(connection, [number[0], -1])
    assert len(entries) == 2
    assert place[number[0]].state is AnchorState.SEALED
    assert place[-1].state is AnchorState.UNSEALED
