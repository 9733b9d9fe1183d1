"""Publishing on a real chain: one anchor a batch, whatever breaks on the way."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from nodes.anchoring import queries
from nodes.anchoring.model import AnchorState
from nodes.anchoring.operations import (
    LogFenced,
    bind_chain,
    check_head,
    confirm,
    publish,
)
from nodes.anchoring.operations.publishing import MAX_IN_FLIGHT
from nodes.anchoring.store import transaction
from nodes.authorization.model import Outcome
from nodes.chain.errors import ChainUnavailable
from tests.conftest import NodeDatabase
from tests.factories.chain import ChainFixture, start_chain
from tests.factories.evidence import LogMember, make_member
from tests.factories.ledger import LedgerFactory
from tests.factories.network import ACQUIRER, Network


def batches_with_rows(member: LogMember, *counts: int) -> LedgerFactory:
    factory = LedgerFactory(member.database.engine, "acquirer")
    for count in counts:
        factory.add(count)
        assert member.seal() is not None
    return factory


def states(member: LogMember) -> list[str]:
    with transaction(member.database.engine) as connection:
        rows = connection.execute(
            "SELECT coalesce(a.state, 'SEALED') FROM batches LEFT JOIN anchor_submissions AS a"
            " USING (seq) ORDER BY seq"
        ).fetchall()
    return [row[0] for row in rows]


def anchors(member: LogMember) -> list[tuple[int, int, bytes]]:
    events = member.context.registry.anchors_since(0, member_id=member.member_id)
    return [(event.seq, event.size, event.root) for event in events]


def sealed(member: LogMember) -> list[tuple[int, int, bytes]]:
    with transaction(member.database.engine) as connection:
        return [(b.seq, b.size, b.root) for b in queries.batches(connection, 1, 100)]


def test_each_batch_is_anchored_once(member: LogMember) -> None:
    batches_with_rows(member, 3, 1, 5)
    assert publish(member.context) == 3
    assert states(member) == ["SUBMITTED"] * 3
    assert confirm(member.context) == 3
    assert states(member) == ["ANCHORED"] * 3
    assert anchors(member) == sealed(member)
    assert (publish(member.context), confirm(member.context)) == (0, 0)
    assert len(anchors(member)) == 3


def test_the_record_of_an_anchor_is_the_chains(member: LogMember) -> None:
    batches_with_rows(member, 4)
    member.settle()
    anchor = member.context.registry.anchor(member.member_id, 1)
    assert anchor is not None
    with transaction(member.database.engine) as connection:
        sent = queries.submission(connection, 1)
        status = queries.log_status(connection)
        assert queries.latest_checkpoint(connection) == queries.batches(connection, 1, 1)[0].note
    assert sent is not None
    assert sent.state is AnchorState.ANCHORED
    assert (sent.block_number, sent.block_hash, sent.tx_hash) == (
        anchor.block_number,
        anchor.block_hash,
        anchor.tx_hash,
    )
    assert (status.anchored_seq, status.anchored_size, status.oldest_unanchored) == (1, 4, None)


def test_a_crash_before_the_broadcast_sends_the_stored_bytes(member: LogMember) -> None:
    batches_with_rows(member, 2)

    class Crash(Exception):
        pass

    class Client:
        """The member's client, which dies at the moment of sending."""

        def __init__(self, real: object) -> None:
            self._real = real

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

        def send_raw(self, raw: bytes) -> bytes:
            raise Crash

    with pytest.raises(Crash):
        publish(replace(member.context, client=Client(member.context.client)))  # type: ignore[arg-type]
    with transaction(member.database.engine) as connection:
        stored = queries.submission(connection, 1)
    assert stored is not None
    assert anchors(member) == []
    assert publish(member.context) == 1
    with transaction(member.database.engine) as connection:
        again = queries.submission(connection, 1)
    assert again is not None
    assert again.raw == stored.raw
    assert confirm(member.context) == 1
    assert len(anchors(member)) == 1


def test_a_crash_after_the_broadcast_doubles_nothing(member: LogMember) -> None:
    batches_with_rows(member, 2, 2)
    publish(member.context)
    for _ in range(3):
        assert publish(member.context) == 0
    assert confirm(member.context) == 2
    assert len(anchors(member)) == 2


def test_a_nonce_taken_by_another_transaction_is_replaced(member: LogMember) -> None:
    batches_with_rows(member, 2, 2)
    publish_without_sending(member)
    context = member.context
    stranger = context.registry.build_anchor_tx(
        sender=context.signer.address,
        nonce=context.client.nonce(context.signer.address),
        seq=9,
        size=9,
        prev_root=bytes(32),
        root=bytes(32),
        proof=[],
    )
    raw, tx_hash = context.signer.sign_transaction(stranger)
    context.client.send_raw(raw)
    context.client.wait_for_receipt(tx_hash)
    assert member.settle() == 2
    assert anchors(member) == sealed(member)


def test_a_reverted_anchor_is_signed_anew(member: LogMember) -> None:
    """The recent block hash of a stored transaction may be unknown when it arrives at last."""
    batches_with_rows(member, 2)
    context = member.context
    with transaction(member.database.engine) as connection:
        batch = queries.batch(connection, 1)
        assert batch is not None
        raw, tx_hash = context.signer.sign_transaction(
            context.registry.build_anchor_tx(
                sender=context.signer.address,
                nonce=context.client.nonce(context.signer.address),
                seq=1,
                size=batch.size,
                prev_root=batch.prev_root,
                root=batch.root,
                proof=batch.consistency,
                recent_block_hash=b"\x01" * 32,
            )
        )
        connection.execute(
            "INSERT INTO anchor_submissions (seq, state, nonce, tx_hash, raw_tx, submitted_at)"
            " VALUES (1, 'SUBMITTED', %s, %s, %s, now())",
            (context.client.nonce(context.signer.address), tx_hash, raw),
        )
    assert member.settle() == 1
    assert anchors(member) == sealed(member)


def test_a_backlog_drains_in_order(member: LogMember) -> None:
    batches_with_rows(member, *[1] * 40)
    assert publish(member.context, max_in_flight=16) == 16
    assert publish(member.context, max_in_flight=16) == 16
    assert member.settle() == 40
    assert anchors(member) == sealed(member)


def test_an_older_database_is_fenced(member: LogMember) -> None:
    batches_with_rows(member, 2, 2)
    member.settle()
    with psycopg.connect(member.database.admin_dsn, autocommit=True) as owner:
        owner.execute("SET session_replication_role = replica")
        for table in ("anchor_submissions", "batch_totals", "batches"):
            owner.execute(f"DELETE FROM {table} WHERE seq = 2")
    for step in (check_head, publish):
        with pytest.raises(LogFenced) as fenced:
            step(member.context)
        assert fenced.value.reason == "CHAIN_AHEAD"


def test_a_rewritten_database_is_fenced(member: LogMember) -> None:
    batches_with_rows(member, 2)
    member.settle()
    with psycopg.connect(member.database.admin_dsn, autocommit=True) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE batches SET root = sha256('another history')")
    with pytest.raises(LogFenced) as fenced:
        publish(member.context)
    assert fenced.value.reason == "LOG_FORKED"


def test_the_chain_of_the_first_start_is_remembered(member: LogMember) -> None:
    registry = member.chain.member_registry
    bind_chain(member.context, registry)
    bind_chain(member.context, registry)
    with pytest.raises(LogFenced) as other_member:
        bind_chain(
            replace(member.context, identity=replace(member.context.identity, member_id="other")),
            registry,
        )
    assert other_member.value.reason == "OTHER_CHAIN"
    with pytest.raises(LogFenced):
        bind_chain(
            replace(member.context, identity=replace(member.context.identity, chain_id=1)), registry
        )
    nowhere = replace(member.context.identity, anchor_registry="0x" + "11" * 20)
    with pytest.raises(LogFenced):
        bind_chain(replace(member.context, identity=nowhere), registry)


@pytest.fixture
def own_chain(tmp_path: Path) -> Iterator[ChainFixture]:
    chain = start_chain(tmp_path)
    yield chain
    chain.stop()


def test_with_the_chain_down_sealing_goes_on_and_drains_afterwards(
    database: NodeDatabase, own_chain: ChainFixture
) -> None:
    member = make_member(database, own_chain, ("acquirer",))
    factory = batches_with_rows(member, 2)
    assert publish(member.context) == 1
    process = own_chain.process
    assert process is not None
    process.kill()
    for _ in range(3):
        factory.add(2)
        assert member.seal() is not None
        with pytest.raises(ChainUnavailable):
            publish(member.context)
        with pytest.raises(ChainUnavailable):
            confirm(member.context)
    process.start()
    assert member.settle() == 4
    assert anchors(member) == sealed(member)


def test_with_the_chain_down_every_purchase_is_approved_and_every_batch_anchored_once(
    database: NodeDatabase, second_database: NodeDatabase, own_chain: ChainFixture
) -> None:
    """More batches wait in the end than may be on their way at once."""
    member = make_member(database, own_chain, ("acquirer",), member_id=ACQUIRER)
    trade = Network(second_database, database)
    card = trade.card(100_000)
    process = own_chain.process
    assert process is not None
    try:
        process.kill()
        for _ in range(MAX_IN_FLIGHT + 4):
            answers = trade.send(*(trade.request(card, 10) for _ in range(25)))
            assert {answer.outcome for answer in answers} == {Outcome.APPROVED}
            assert member.seal() is not None
            with pytest.raises(ChainUnavailable):
                publish(member.context)
        process.start()
        assert member.settle() == MAX_IN_FLIGHT + 4
        assert anchors(member) == sealed(member)
        assert anchors(member)[-1][1] == 25 * (MAX_IN_FLIGHT + 4)
        assert trade.balance(card) == 100_000 - 250 * (MAX_IN_FLIGHT + 4)
    finally:
        trade.close()


def test_a_chain_that_lost_blocks_gets_the_anchors_again(
    database: NodeDatabase, own_chain: ChainFixture, tmp_path: Path
) -> None:
    member = make_member(database, own_chain, ("acquirer",))
    process = own_chain.process
    assert process is not None
    factory = batches_with_rows(member, 2)
    assert member.settle() == 1
    process.stop()
    shutil.copytree(process.directory, tmp_path.with_name(tmp_path.name + "-copy"))
    process.start()
    factory.add(3)
    assert member.anchor_all() == 1
    process.stop()
    shutil.rmtree(process.directory)
    shutil.move(tmp_path.with_name(tmp_path.name + "-copy"), process.directory)
    process.start()
    assert [seq for seq, *_ in anchors(member)] == [1]
    assert member.settle() == 1
    assert anchors(member) == sealed(member)
    assert states(member) == ["ANCHORED", "ANCHORED"]


def publish_without_sending(member: LogMember) -> None:
    """Leave the submissions as a crash between commit and broadcast does."""

    class Silent:
        def __init__(self, real: object) -> None:
            self._real = real

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

        def send_raw(self, raw: bytes) -> bytes:
            return b""

    publish(replace(member.context, client=Silent(member.context.client)))  # type: ignore[arg-type]


def test_a_nonce_that_the_chain_forgot_is_filled(
    database: NodeDatabase, own_chain: ChainFixture, tmp_path: Path
) -> None:
    """An anchor reverted and was signed anew under the next nonce; then the chain lost both. The
    first is in nobody's hands any more, and without its nonce the second could never be mined."""
    member = make_member(database, own_chain, ("acquirer",))
    process = own_chain.process
    assert process is not None
    factory = batches_with_rows(member, 2)
    assert member.settle() == 1
    process.stop()
    copy = tmp_path.with_name(tmp_path.name + "-copy")
    shutil.copytree(process.directory, copy)
    process.start()
    factory.add(3)
    assert member.seal() is not None
    context = member.context
    nonce = context.client.nonce(context.signer.address)
    reverting = context.registry.build_anchor_tx(
        sender=context.signer.address,
        nonce=nonce,
        seq=9,
        size=9,
        prev_root=bytes(32),
        root=bytes(32),
        proof=[],
    )
    raw, tx_hash = context.signer.sign_transaction(reverting)
    context.client.send_raw(raw)
    context.client.wait_for_receipt(tx_hash)
    for rows in (1, 1):
        factory.add(rows)
        assert member.seal() is not None
    assert member.settle() == 3
    process.stop()
    shutil.rmtree(process.directory)
    shutil.move(copy, process.directory)
    process.start()
    assert context.client.nonce(context.signer.address) == nonce
    assert member.settle() == 3
    assert anchors(member) == sealed(member)
    assert states(member) == ["ANCHORED"] * 4


def test_a_nonce_that_a_close_holds_is_left_to_it(member: LogMember) -> None:
    """The close's transaction is lost and its own job will send it again: anchors wait above it.
    Once that job has given it up, nobody holds the nonce, and an anchor fills it."""
    context = member.context
    nonce = context.client.nonce(context.signer.address)
    with transaction(member.database.engine) as connection:
        connection.execute(
            "INSERT INTO chain_outbox (purpose, subject, state, nonce, tx_hash, raw_tx,"
            " submitted_at) VALUES ('close-commit', 'a day', 'SUBMITTED', %s, %s, '', now())",
            (nonce, bytes(32)),
        )
    batches_with_rows(member, 2, 1)
    assert member.settle() == 0
    with transaction(member.database.engine) as connection:
        held = [queries.submission(connection, seq) for seq in (1, 2)]
    assert [entry.nonce for entry in held if entry] == [nonce + 1, nonce + 2]
    assert (publish(context), anchors(member)) == (0, [])
    with transaction(member.database.engine) as connection:
        connection.execute("UPDATE chain_outbox SET state = 'FAILED'")
    assert member.settle() == 2
    assert anchors(member) == sealed(member)
