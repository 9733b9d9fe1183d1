"""check_invariants: silent on real traffic, and it finds two planted violations an invariant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from nodes.anchoring.model import LogIdentity
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.operations import seal
from nodes.authorization.model import Kind, Outcome
from nodes.reconciliation.invariants import check_invariants, violations
from tests.conftest import Cluster, NodeDatabase
from tests.factories.network import ACQUIRER, ISSUER, Network
from tests.factories.tampering import unguarded


@dataclass
class Books:
    issuer: NodeDatabase
    acquirer: NodeDatabase


@pytest.fixture(scope="module")
def books(cluster: Cluster) -> Iterator[Books]:
    """A short business day of an issuer and an acquirer, sealed twice, with rows still unsealed."""
    made = Books(cluster.new_database(), cluster.new_database())
    network = Network(made.issuer, made.acquirer)
    card, poor = network.card(500_000), network.card(100)
    purchase = network.request(card, 2_500)
    assert network.one(purchase).outcome is Outcome.APPROVED
    _seal(network, made)
    assert network.one(purchase).outcome is Outcome.APPROVED, "a retry"
    assert network.one(network.request(card, 100, pin="000000")).outcome is Outcome.PIN_WRONG
    assert network.one(network.request(poor, 200)).outcome is Outcome.INSUFFICIENT_FUNDS
    assert network.one(network.request(card, 0, Kind.BALANCE_INQUIRY)).outcome is Outcome.APPROVED
    reversed_one = network.request(card, 700)
    network.one(reversed_one)
    assert network.one(network.reversal_of(reversed_one)).outcome is Outcome.APPROVED
    sold = network.request(card, 900)
    answer = network.one(sold)
    refund = network.request(card, 400, Kind.REFUND, rrn=answer.rrn)
    assert network.one(refund).outcome is Outcome.APPROVED
    _seal(network, made)
    network.send(*[network.request(card, 10 + n) for n in range(8)])
    network.close()
    yield made
    cluster.drop(made.issuer)
    cluster.drop(made.acquirer)


def _seal(network: Network, made: Books) -> None:
    for member, database in ((ISSUER, made.issuer), (ACQUIRER, made.acquirer)):
        identity = LogIdentity(member, 1, "0x" + "ab" * 20)
        assert seal(database.engine, identity, NoteSigner(b"n" * 32), network.clock)


def test_real_traffic_breaks_nothing(books: Books) -> None:
    for database in (books.issuer, books.acquirer):
        assert check_invariants(database.owner_engine) == []
        assert check_invariants(database.engine) == []


def test_rows_that_wait_too_long_are_told(books: Books) -> None:
    found = check_invariants(books.issuer.owner_engine, max_unsealed_s=0.0)
    assert {violation.invariant for violation in found} == {12}
    assert check_invariants(books.issuer.owner_engine, max_unsealed_s=3_600) == []


_APPROVED = "kind = 'purchase' AND outcome = 'approved'"
_A_PURCHASE = f"(SELECT max(transaction_id) FROM transactions WHERE {_APPROVED})"
_A_DECLINE = "(SELECT min(transaction_id) FROM transactions WHERE outcome <> 'approved')"
_A_CARD = "(SELECT max(account_id) FROM accounts WHERE kind = 'cardholder')"
_COPY = (
    "INSERT INTO transactions SELECT (jsonb_populate_record(t, {change})).* FROM transactions AS t"
    " WHERE transaction_id = {row}"
)
_OTHER = "jsonb_build_object('transaction_id', 900, 'txid', '\\x' || repeat('ab', 32)"

PLANTED: list[tuple[int, str, str]] = [
    (1, "issuer", f"UPDATE transfers SET amount = -amount WHERE transaction_id = {_A_PURCHASE}"),
    (1, "issuer", "UPDATE transfers SET currency = 'USD' WHERE line = 1"),
    (1, "acquirer", f"DELETE FROM transfers WHERE transaction_id = {_A_PURCHASE}"),
    (1, "acquirer", "UPDATE transfers SET credit_account = debit_account"),
    (2, "issuer", f"UPDATE accounts SET balance = balance + 1 WHERE account_id = {_A_CARD}"),
    (2, "acquirer", "UPDATE accounts SET balance = balance - 5 WHERE kind = 'settlement'"),
    (2, "issuer", "UPDATE transactions SET amount = amount + 7 WHERE kind = 'load'"),
    (3, "issuer", f"UPDATE accounts SET balance = 0 WHERE account_id <> {_A_CARD}"),
    (3, "issuer", "UPDATE transfers SET balance_after = balance_after + 1"
     " WHERE transaction_id = (SELECT max(transaction_id) FROM transfers)"),
    (3, "acquirer", "UPDATE accounts SET balance = balance + 1 WHERE kind = 'merchant'"),
    (4, "issuer", f"UPDATE accounts SET held = balance + 1 WHERE account_id = {_A_CARD}"),
    (4, "issuer", "UPDATE transfers SET amount = 999999999 WHERE balance_after IS NOT NULL"
     f" AND transaction_id = {_A_PURCHASE}"),
    (5, "issuer", "ALTER TABLE transactions DROP CONSTRAINT transactions_txid_side_key;"
     + _COPY.format(change="'{\"transaction_id\": 900, \"pair_seq\": 900}'::jsonb",
                    row=_A_PURCHASE)),
    (5, "acquirer", _COPY.format(change=_OTHER + ", 'pair_seq', 900)", row=_A_PURCHASE)),
    (5, "issuer", "UPDATE authorization_requests SET fingerprint = 'short'"),
    (6, "issuer", f"DELETE FROM transactions WHERE transaction_id = {_A_PURCHASE}"),
    (6, "acquirer", f"UPDATE transactions SET txid = sha256('x')"
     f" WHERE transaction_id = {_A_PURCHASE}"),
    (7, "issuer", _COPY.format(change=_OTHER + ", 'pair_seq', 900, 'stan', '987654')",
                               row=_A_PURCHASE)),
    (7, "acquirer", "DELETE FROM authorization_requests WHERE txid = (SELECT txid FROM transactions"
     f" WHERE transaction_id = {_A_PURCHASE})"),
    (8, "issuer", "UPDATE authorization_requests SET answer = convert_to(replace("
     "convert_from(answer, 'UTF8'), 'insufficient_funds', 'card_blocked'), 'UTF8')"),
    (8, "issuer", "UPDATE authorization_requests SET answer = NULL WHERE txid = (SELECT txid"
     f" FROM transactions WHERE transaction_id = {_A_DECLINE})"),
    (8, "acquirer", "UPDATE authorization_requests SET state = 'tombstone'"),
    (11, "issuer", f"DELETE FROM transactions WHERE transaction_id = {_A_DECLINE}"),
    (11, "issuer", "UPDATE pair_counters SET last_seq = last_seq + 1"),
    (11, "acquirer", f"UPDATE transactions SET pair_seq = pair_seq + 100"
     f" WHERE transaction_id = {_A_PURCHASE}"),
    (11, "acquirer", "DELETE FROM log_leaves WHERE log_index = 1"),
    (12, "issuer", "UPDATE log_leaves SET batch_seq = 9 WHERE log_index = 1"),
    (12, "issuer", "DELETE FROM log_leaves WHERE log_index = 3"),
    (12, "acquirer", f"UPDATE transactions SET xact = '3' WHERE transaction_id = {_A_PURCHASE}"),
    (13, "issuer", "UPDATE batch_totals SET approved_amount = approved_amount + 1 WHERE seq = 2"),
    (13, "acquirer", "UPDATE batches SET leaf_count = leaf_count + 1 WHERE seq = 1"),
    (14, "issuer", "UPDATE log_leaves SET leaf = set_byte(leaf, 9, 1) WHERE log_index = 2"),
    (14, "acquirer", "UPDATE batches SET root = sha256('x') WHERE seq = 2"),
    (15, "issuer", "UPDATE batches SET prev_root = sha256('x') WHERE seq = 2"),
    (15, "acquirer", "INSERT INTO anchor_submissions (seq, state, nonce, tx_hash, raw_tx,"
     " submitted_at, block_number) VALUES (2, 'ANCHORED', 0, sha256('t'), 'raw', now(), 5)"),
    (15, "acquirer", "INSERT INTO anchor_submissions (seq, state, nonce, tx_hash, raw_tx,"
     " submitted_at) SELECT seq, 'SUBMITTED', seq, sha256('t'), 'raw', now() FROM batches"),
    (18, "issuer", "ALTER TABLE transactions DISABLE TRIGGER transactions_unchanging"),
    (18, "acquirer", "DROP TRIGGER transfers_untruncated ON transfers"),
    (18, "issuer", "GRANT UPDATE (amount) ON transactions TO countersign_app"),
    (18, "acquirer", "GRANT DELETE ON log_leaves TO countersign_anchor"),
    (18, "issuer", "ALTER TABLE authorization_requests DISABLE TRIGGER ALL"),
]  # fmt: skip


@pytest.mark.parametrize(("invariant", "side", "statement"), PLANTED)
def test_a_planted_violation_is_found(
    books: Books, invariant: int, side: str, statement: str
) -> None:
    database = books.issuer if side == "issuer" else books.acquirer
    with unguarded(database) as owner:
        for part in statement.split(";"):
            assert owner.execute(part).rowcount != 0, "the violation was not planted"
        found = violations(owner)
    assert invariant in {violation.invariant for violation in found}


def test_each_invariant_has_two_planted_violations() -> None:
    numbers = [number for number, *_ in PLANTED]
    for number in (1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 18):
        assert numbers.count(number) >= 2


def test_an_unreadable_answer_is_a_violation_not_a_crash(books: Books) -> None:
    with unguarded(books.issuer) as owner:
        owner.execute("UPDATE authorization_requests SET answer = '\\xff00'")
        found = violations(owner)
    assert {6, 8} <= {violation.invariant for violation in found}


def test_a_violation_reads_like_a_sentence(books: Books) -> None:
    with unguarded(books.issuer) as owner:
        owner.execute("UPDATE pair_counters SET last_seq = 99")
        assert str(violations(owner)[0]).startswith(
            "invariant 11, an issuer's numbers of a pair have no gap: meridian and aurora:"
        )


def test_an_auditor_without_the_right_to_read_is_told_so(books: Books) -> None:
    with psycopg.connect(books.issuer.reader_dsn) as reader, pytest.raises(psycopg.Error):
        violations(reader)
