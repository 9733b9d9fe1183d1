"""The benchmark's made-up history: it stands in the books as the node's own purchases do."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from nodes.anchoring.model import LogIdentity
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.operations import seal
from nodes.authorization.model import Outcome
from nodes.authorization.store.answers import share_of
from nodes.clock import SystemClock
from nodes.crypto.answer_signature import AnswerSigner, verify_answer
from nodes.reconciliation.answer_check import check_answers
from nodes.reconciliation.findings import Report
from nodes.reconciliation.invariants import check_invariants
from sandbox.bench import preload
from sandbox.bench.history import AMOUNT, History
from tests.conftest import NodeDatabase
from tests.factories.network import ACQUIRER, ISSUER, MERCHANT, Network

ROWS = 150
SEED = secrets.token_bytes(32)


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database)
    made.issuer_signer = AnswerSigner(SEED)
    made.link.issuer = made.new_issuer()
    yield made
    made.close()


def _seal(member_id: str, database: NodeDatabase) -> LogIdentity:
    identity = LogIdentity(member_id, 1, "0x" + "ab" * 20)
    while seal(database.engine, identity, NoteSigner(bytes(32)), SystemClock()):
        pass
    return identity


def test_a_history_holds_all_invariants_its_answers_are_signed_and_payments_go_on(
    network: Network,
) -> None:
    card = network.card(10_000 + ROWS * AMOUNT)
    assert network.one(network.request(card, 50)).outcome is Outcome.APPROVED
    history = History(
        acquirer=ACQUIRER,
        issuer=ISSUER,
        count=ROWS,
        seed="a history",
        terminals=preload.terminals_of(network.acquirer_db.admin_dsn, MERCHANT),
        cards=preload.cards_of(network.issuer_db.admin_dsn),
        today=datetime.now(UTC).date(),
    )
    sides = {"issuer": (ISSUER, network.issuer_db), "acquirer": (ACQUIRER, network.acquirer_db)}
    for side, (member_id, database) in sides.items():
        identity = _seal(member_id, database)
        told: list[int] = []
        books = preload.Books(database.admin_dsn, side, identity, bytes(32), SEED)
        preload.write_history(books, history, told.append)
        assert sum(told) == ROWS
        assert check_invariants(database.engine) == []

    with psycopg.connect(network.acquirer_db.admin_dsn) as connection:
        report = Report()
        check_answers(connection, lambda _: [network.issuer_signer.public_key], report)
        assert report.findings == []
        newest = connection.execute(
            "SELECT txid FROM transactions ORDER BY pair_seq DESC LIMIT 1"
        ).fetchone()
        assert newest is not None
        row = share_of(connection, newest[0])
    assert row is not None
    assert row.pair_seq == ROWS + 1
    key = network.issuer_signer.public_key
    assert verify_answer(key, row.txid, row.commitment, row.pair_seq, row.share)

    network.link.issuer = network.new_issuer()
    network.acquirer = network.new_acquirer()
    assert network.one(network.request(card, 9_950)).outcome is Outcome.APPROVED
    declined = network.one(network.request(card, 1))
    assert declined.outcome is Outcome.INSUFFICIENT_FUNDS
    for member_id, database in sides.values():
        _seal(member_id, database)
        assert check_invariants(database.engine) == []
