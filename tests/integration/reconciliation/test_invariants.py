"""check_invariants: silent on real traffic, and it finds two planted violations an invariant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import msgspec
import psycopg
import pytest

from nodes.anchoring.model import LogIdentity
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.operations import seal
from nodes.authorization.controls import PurseTerms, Terms
from nodes.authorization.model import Kind, Outcome, TerminalRequest
from nodes.authorization.operations.adjusting import (
    AdjustmentOutcome,
    approve_adjustment,
    propose_adjustment,
)
from nodes.authorization.operations.expiring import expire_holds
from nodes.authorization.operations.own import TransferOutcome, transfer_between_cards
from nodes.cards.model import IssuedCard
from nodes.clock import to_datetime
from nodes.reconciliation.form_statements import FORMS
from nodes.reconciliation.invariants import check_invariants, violations
from nodes.reconciliation.log_statements import ANSWERS, GUARDS, LOG
from nodes.reconciliation.shard_statements import SHARDS
from nodes.reconciliation.statements import MONEY, ONCE, SEQUENCES
from tests.conftest import Cluster, NodeDatabase
from tests.factories.network import ACQUIRER, ISSUER, Network
from tests.factories.tampering import unguarded


@dataclass
class Books:
    issuer: NodeDatabase
    acquirer: NodeDatabase


_WALLET = Terms(
    purses=(PurseTerms("main"), PurseTerms("meals", mccs=("5812",), fallback=("main",))),
    transfers=True,
    partial_approval=True,
    over_capture_percent={"5411": 20},
)


@pytest.fixture(scope="module")
def books(cluster: Cluster) -> Iterator[Books]:
    """A short business day of an issuer and an acquirer with every operation, sealed twice, with
    rows still unsealed."""
    made = Books(cluster.new_database(), cluster.new_database())
    network = Network(made.issuer, made.acquirer)
    with psycopg.connect(made.issuer.dsn) as connection:
        terms = msgspec.json.encode(_WALLET).decode()
        connection.execute("UPDATE products SET terms = %s::jsonb", (terms,))
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
    _holds(network, card)
    _debts(network, poor, card)
    _seal(network, made)
    network.send(*[network.request(card, 10 + n) for n in range(8)])
    network.close()
    yield made
    cluster.drop(made.issuer)
    cluster.drop(made.acquirer)


def _holds(network: Network, card: IssuedCard) -> None:
    """Authorizations: raised, captured in part and over, voided, reversed, expired, still open."""

    def hold(amount: int) -> tuple[TerminalRequest, str]:
        block = network.pin_block("123456", card.pan)
        asked = network.request(card, amount, Kind.AUTHORIZATION, pin_block=block)
        told = network.one(asked)
        assert told.outcome is Outcome.APPROVED
        return asked, told.rrn

    def approve(amount: int, kind: Kind, rrn: str, **changes: object) -> TerminalRequest:
        asked = network.request(card, amount, kind, rrn=rrn, **changes)
        assert network.one(asked).outcome is Outcome.APPROVED, kind
        return asked

    _, raised = hold(3_000)
    approve(500, Kind.INCREMENT, raised)
    approve(1_000, Kind.CAPTURE, raised)
    capture = approve(2_900, Kind.CAPTURE, raised)
    assert network.one(network.reversal_of(capture)).outcome is Outcome.APPROVED
    _, part = hold(2_000)
    approve(1_500, Kind.CAPTURE, part, final=True)
    _, voided = hold(1_100)
    approve(0, Kind.VOID, voided)
    asked, _ = hold(1_200)
    half = network.reversal_of(asked, amount=500)
    assert network.one(half).outcome is Outcome.APPROVED
    hold(1_300)
    network.clock.advance(8 * 86_400_000)
    assert expire_holds(network.issuer_db.engine, ISSUER, network.clock.now_ms(), "UTC") == 1
    hold(1_400)


def _debts(network: Network, poor: IssuedCard, card: IssuedCard) -> None:
    """Offline advice over what is there, repayment, a transfer, a partial approval, corrections."""
    engine, now = network.issuer_db.engine, to_datetime(network.clock.now_ms())
    assert network.one(network.request(poor, 250, Kind.ADVICE)).outcome is Outcome.APPROVED
    moved = transfer_between_cards(
        engine, ISSUER, from_token=card.card_token, to_token=poor.card_token, amount=400,
        currency="CNY", reference="gift", idempotency_key="gift", now=now,
    )  # fmt: skip
    assert moved.outcome is TransferOutcome.DONE
    assert network.one(network.request(poor, 999, partial_ok=True)).amount == 250
    assert network.one(network.request(poor, 90, Kind.ADVICE)).outcome is Outcome.APPROVED
    for amount in (75, -30):
        made = propose_adjustment(
            engine, ISSUER, account_id=card.account_id, amount=amount, currency="CNY",
            reason="fee", made_by="lin", idempotency_key=f"fee {amount}", now=now,
        )  # fmt: skip
        assert made.adjustment_id is not None
        done = approve_adjustment(
            engine, ISSUER, made.adjustment_id, checked_by="mei",
            idempotency_key=f"ok {amount}", now=now,
        )  # fmt: skip
        assert done.outcome is AdjustmentOutcome.DONE


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
_OTHER = "jsonb_build_object('transaction_id', 990000, 'txid', '\\x' || repeat('ab', 32)"
_LAST = (
    "(account_id, version) IN (SELECT account_id, max(version) FROM account_versions GROUP BY 1)"
)
_A_HOLD = (
    "(SELECT max(account_version) FROM transactions WHERE kind = 'authorization'"
    " AND outcome = 'approved')"
)
#: The state of one version put into another of the same account.
_STATE_OF = (
    "UPDATE account_versions AS v SET state = w.state FROM account_versions AS w"
    " WHERE v.account_id = w.account_id AND v.line = 0 AND w.line = 0 AND v.version = {here}"
    " AND w.version = {there}"
)

PLANTED: list[tuple[int, str, str]] = [
    (1, "issuer", f"UPDATE transfers SET amount = -amount WHERE transaction_id = {_A_PURCHASE}"),
    (1, "issuer", "UPDATE transfers SET currency = 'USD' WHERE line = 1"),
    (1, "acquirer", f"DELETE FROM transfers WHERE transaction_id = {_A_PURCHASE}"),
    (1, "acquirer", "UPDATE transfers SET credit_account = debit_account"),
    (1, "issuer", "INSERT INTO transfers SELECT t.transaction_id, 1, f.debit_account,"
     " f.credit_account, 5, 'CNY', NULL, f.shard FROM transactions AS t, transfers AS f"
     " WHERE t.kind = 'authorization' AND f.transaction_id ="
     f" {_A_PURCHASE} LIMIT 1"),
    (2, "issuer", f"UPDATE accounts SET balance = balance + 1 WHERE account_id = {_A_CARD}"),
    (2, "acquirer", "UPDATE accounts SET balance = balance - 5 WHERE kind = 'settlement'"),
    (2, "issuer", "UPDATE transactions SET amount = amount + 7 WHERE kind = 'load'"),
    (2, "issuer", "UPDATE transfers SET amount = amount + 1 WHERE debit_account ="
     " (SELECT account_id FROM accounts WHERE kind = 'receivable')"),
    (3, "issuer", "UPDATE accounts SET balance = 0 WHERE balance <> 0 AND kind = 'cardholder'"),
    (3, "issuer", "UPDATE transfers SET balance_after = balance_after + 1"
     " WHERE transaction_id = (SELECT max(transaction_id) FROM transfers)"),
    (3, "issuer", "UPDATE transfers SET balance_after = NULL"
     f" WHERE transaction_id = {_A_PURCHASE}"),
    (3, "acquirer", "UPDATE accounts SET balance = balance + 1 WHERE kind = 'merchant'"),
    (3, "issuer", f"UPDATE account_versions SET balance = balance + 1 WHERE {_LAST}"),
    (3, "issuer", "DELETE FROM account_versions WHERE version = 2"),
    (3, "issuer", f"UPDATE account_versions SET version = version + 1 WHERE {_LAST}"),
    (3, "issuer", "UPDATE transactions SET account_version = account_version + 1"
     f" WHERE transaction_id = {_A_DECLINE}"),
    (4, "issuer", f"UPDATE account_versions SET held = balance + 1 WHERE {_LAST}"),
    (4, "issuer", "UPDATE account_versions SET balance = -1 WHERE version = 2"),
    (4, "issuer", "UPDATE transfers SET balance_after = -3 WHERE balance_after IS NOT NULL"
     f" AND transaction_id = {_A_PURCHASE}"),
    (5, "issuer", "ALTER TABLE transactions DROP CONSTRAINT transactions_txid_side_key;"
     + _COPY.format(change="'{\"transaction_id\": 990000, \"pair_seq\": 900}'::jsonb",
                    row=_A_PURCHASE)),
    (5, "acquirer", _COPY.format(change=_OTHER + ", 'pair_seq', 900)", row=_A_PURCHASE)),
    (5, "issuer", "UPDATE authorization_requests SET fingerprint = 'short'"),
    (5, "acquirer", "INSERT INTO authorization_answers SELECT sha256(idempotency_key),"
     " business_date, answer FROM authorization_answers LIMIT 1"),
    (5, "issuer", "ALTER TABLE transactions DROP CONSTRAINT transactions_pkey CASCADE;"
     + _COPY.format(change="jsonb_build_object('txid', '\\x' || repeat('ab', 32),"
                    " 'pair_seq', 900)", row=_A_PURCHASE)),
    (5, "issuer", "UPDATE transactions SET shard = shard + 1 WHERE transaction_id ="
     f" {_A_PURCHASE}"),
    (5, "acquirer", "UPDATE transfers SET shard = shard + 1 WHERE transaction_id ="
     f" {_A_PURCHASE}"),
    (5, "issuer", "UPDATE payment_progress SET shard = shard + 1"),
    (6, "issuer", f"DELETE FROM transactions WHERE transaction_id = {_A_PURCHASE}"),
    (6, "acquirer", f"UPDATE transactions SET txid = sha256('x')"
     f" WHERE transaction_id = {_A_PURCHASE}"),
    (7, "issuer", _COPY.format(change=_OTHER + ", 'pair_seq', 900, 'stan', '987654')",
                               row=_A_PURCHASE)),
    (7, "issuer", "UPDATE adjustments SET txid = sha256('x');"
     "UPDATE authorization_requests SET txid = NULL WHERE txid IN (SELECT txid FROM transactions"
     " WHERE kind = 'adjustment')"),
    (7, "acquirer", "DELETE FROM authorization_requests WHERE txid = (SELECT txid FROM transactions"
     f" WHERE transaction_id = {_A_PURCHASE})"),
    (8, "issuer", "UPDATE authorization_requests SET answer = convert_to(replace("
     "convert_from(answer, 'UTF8'), 'insufficient_funds', 'card_blocked'), 'UTF8')"),
    (8, "issuer", "UPDATE authorization_requests SET answer = NULL WHERE txid = (SELECT txid"
     f" FROM transactions WHERE transaction_id = {_A_DECLINE})"),
    (8, "acquirer", "DELETE FROM authorization_answers"),
    (8, "acquirer", "UPDATE authorization_answers SET answer = convert_to(replace("
     "convert_from(answer, 'UTF8'), 'insufficient_funds', 'approved'), 'UTF8')"),
    (9, "issuer", "UPDATE payment_progress SET refunded = refunded + 1 WHERE refunded > 0"),
    (9, "issuer", "UPDATE payment_progress SET captured = 0"),
    (9, "issuer", "DELETE FROM payment_progress"),
    (9, "acquirer", "UPDATE transfers SET amount = amount - 1 WHERE transaction_id ="
     " (SELECT min(transaction_id) FROM transactions WHERE kind = 'reversal')"),
    (10, "issuer", "UPDATE account_versions SET held = held + 1"
     f" WHERE line = 0 AND version = {_A_HOLD}"),
    (10, "issuer", f"UPDATE account_versions SET state = '\\xc1' WHERE {_LAST} AND line = 0"),
    # What a later version no longer held is held again.
    (10, "issuer", _STATE_OF.format(here=f"{_A_HOLD} + 1", there="17")),
    (10, "issuer", "UPDATE transactions SET txid = sha256(txid) WHERE kind = 'authorization'"
     f" AND account_version = {_A_HOLD}"),
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
    (18, "issuer", "ALTER TABLE ONLY authorization_requests_else DISABLE TRIGGER ALL"),
    (18, "issuer", "ALTER TABLE account_versions DISABLE TRIGGER account_versions_in_order"),
    (18, "acquirer", "GRANT TRUNCATE ON authorization_answers_else TO countersign_app"),
    (22, "acquirer", "UPDATE answer_checks SET next_xact = '1';DELETE FROM answer_signatures"),
    (22, "acquirer", "INSERT INTO unsigned_answers (txid, why)"
     " VALUES (sha256('x'), 'no signature')"),
    (23, "issuer", f"UPDATE transactions SET kind = 'gift' WHERE transaction_id = {_A_DECLINE}"),
    (23, "acquirer", "UPDATE transactions SET salt_pii = substr(salt_pii, 2)"
     f" WHERE transaction_id = {_A_PURCHASE}"),
    (23, "issuer", "UPDATE authorization_requests SET idempotency_key = 'short' WHERE txid ="
     f" (SELECT txid FROM transactions WHERE transaction_id = {_A_PURCHASE})"),
    (23, "acquirer", "UPDATE authorization_answers SET idempotency_key = 'short' WHERE"
     " idempotency_key = (SELECT min(idempotency_key) FROM authorization_answers)"),
]  # fmt: skip


@pytest.fixture(scope="module")
def plant(books: Books) -> Callable[[str, str], set[tuple[int, str]]]:
    """Plants a violation, once, and gives the (invariant, rule) that are found broken."""

    @cache
    def found_by(side: str, statement: str) -> set[tuple[int, str]]:
        database = books.issuer if side == "issuer" else books.acquirer
        with unguarded(database) as owner:
            for part in statement.split(";"):
                assert owner.execute(part).rowcount != 0, "the violation was not planted"
            return {(one.invariant, one.rule) for one in violations(owner)}

    return found_by


@pytest.mark.parametrize(("invariant", "side", "statement"), PLANTED)
def test_a_planted_violation_is_found(
    plant: Callable[[str, str], set[tuple[int, str]]], invariant: int, side: str, statement: str
) -> None:
    assert invariant in {number for number, _ in plant(side, statement)}


def test_each_rule_of_the_checker_finds_something(
    plant: Callable[[str, str], set[tuple[int, str]]],
) -> None:
    """A rule that no planted violation breaks may be one that can't fail."""
    found = set().union(*(plant(side, statement) for _, side, statement in PLANTED))
    groups = (*MONEY, *ONCE, *SEQUENCES, *LOG, *ANSWERS, *GUARDS, *SHARDS, *FORMS)
    rules = {(number, rule) for number, rule, _ in groups}
    assert rules - found == set()


def test_each_invariant_has_two_planted_violations() -> None:
    numbers = [number for number, *_ in PLANTED]
    for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 18, 22, 23):
        assert numbers.count(number) >= 2


def test_an_unreadable_answer_is_a_violation_not_a_crash(books: Books) -> None:
    with unguarded(books.issuer) as owner:
        owner.execute("UPDATE authorization_requests SET answer = '\\xff00'")
        found = violations(owner)
    assert 8 in {violation.invariant for violation in found}
    with unguarded(books.issuer) as owner:
        owner.execute("UPDATE authorization_requests SET answer = '\\xff00', txid = sha256(txid)")
        found = violations(owner)
    assert 6 in {violation.invariant for violation in found}


def test_a_violation_reads_like_a_sentence(books: Books) -> None:
    with unguarded(books.issuer) as owner:
        owner.execute("UPDATE pair_counters SET last_seq = 99")
        assert str(violations(owner)[0]).startswith(
            "invariant 11, an issuer's numbers of a pair have no gap: meridian and aurora:"
        )


def test_an_auditor_without_the_right_to_read_is_told_so(books: Books) -> None:
    with psycopg.connect(books.issuer.reader_dsn) as reader, pytest.raises(psycopg.Error):
        violations(reader)
