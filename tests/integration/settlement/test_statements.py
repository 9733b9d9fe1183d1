"""Confirmed closes become statements that both institutions sign, on a real chain."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from nodes.chain.deploy import Terms
from nodes.chain.settlements import Verdict, sign_settlement
from nodes.chain.signer import LocalSigner
from nodes.chain.typed_data import signer_of
from nodes.clearing.model import DayKey
from nodes.clearing.operations.closing import salt_of
from nodes.clock import FixedClock
from nodes.db.engine import transaction
from nodes.reconciliation.invariants import check_invariants
from nodes.settlement.model import NewOrder, OrderAction, OrderOutcome, StatementState
from nodes.settlement.operations.settling import settle
from nodes.settlement.operations.signing import propose, statement_of, terms_of
from nodes.settlement.rules import resolution_reason_hash, statement_hash
from tests.integration.clearing.institutions import DAY, KEY, Institution, Pair
from tests.integration.clearing.test_audit import anchor_both
from tests.integration.clearing.test_day_close import PAID
from tests.integration.settlement.conftest import Make
from tests.integration.settlement.statements import (
    as_owner,
    close_id,
    context,
    current,
    ended,
    events,
    in_force,
    on_chain,
    order,
    statements,
    states,
    wait_until,
)

MANUAL: dict[str, Any] = {"settlement": "manual"}


def closed(pair: Pair, count: int = 6) -> None:
    """A day that both have closed alike."""
    pair.both(count, **PAID)
    pair.work()


# --- the good way ------------------------------------------------------------------------------


def test_a_confirmed_day_ends_with_a_statement_that_both_have_signed(pair: Pair) -> None:
    pair.both(40)
    pair.work()
    [mine], [theirs] = statements(pair.acquirer), statements(pair.issuer)
    assert mine.settlement_id == theirs.settlement_id
    assert {mine.state, theirs.state} == {StatementState.CONFIRMED}
    assert (mine.agrees, theirs.agrees) == (True, True)
    assert mine.proposer == KEY.acquirer
    assert on_chain(pair, mine.settlement_id) == "CONFIRMED"
    assert in_force(pair.acquirer) == in_force(pair.issuer) == current(pair) == mine.settlement_id
    # Both compute the numbers of their own rows.
    ours, others = statement_of(mine.close), statement_of(theirs.close)
    assert (ours.net, ours.payer, ours.payee) == (others.net, others.payer, others.payee)
    [(moved,)] = pair.acquirer.rows(
        "SELECT -sum(p.amount)::bigint FROM postings p JOIN accounts a USING (account_id)"
        " WHERE a.kind = 'settlement'"
    )
    assert ours.balance == moved
    assert ours.balance > 0
    assert (ours.payer, ours.payee) == (KEY.issuer, KEY.acquirer)
    # Each side has its own signature, which an outsider can check.
    for one in (pair.acquirer, pair.issuer):
        [(signature,)] = one.rows("SELECT signature FROM settlement_signatures")
        address = pair.chain.operators[one.member_id].address
        assert signer_of(mine.settlement_id, signature) == address
        kept = [found for found in check_invariants(one.database.engine) if found.invariant == 18]
        assert kept == []  # its tables are append-only, like the rest of the record
    assert events(pair.acquirer) == ["prepared", "signature", "proposed", "confirmed"]
    assert events(pair.issuer) == ["proposed", "signature", "confirmed"]


def test_the_statement_is_what_the_books_say_and_nobody_can_read_it_off_the_chain(
    pair: Pair,
) -> None:
    closed(pair)
    [mine] = statements(pair.acquirer)
    with transaction(pair.issuer.database.engine) as connection:
        [theirs] = statements(pair.issuer)
        salt = salt_of(connection, theirs.close)
    assert salt is not None
    drawn = statement_of(mine.close)
    assert statement_hash(drawn, salt) == mine.statement_hash
    other = replace(drawn, totals=replace(drawn.totals, debits=drawn.totals.debits + 1))
    assert statement_hash(other, salt) != mine.statement_hash
    assert statement_hash(drawn, secrets.token_bytes(32)) != mine.statement_hash


def test_each_day_of_a_pair_gets_its_own_statement_with_its_own_number(pair: Pair) -> None:
    before = DayKey(KEY.acquirer, KEY.issuer, "CNY", DAY - timedelta(days=1))
    pair.both(3, **PAID)
    pair.both(2, business_date=before.business_date, **PAID)
    pair.work(30)
    first, second = statements(pair.acquirer, key=before), statements(pair.acquirer)
    assert states(pair.issuer, key=before) == states(pair.issuer) == ["CONFIRMED"]
    assert {first[0].nonce, second[0].nonce} == {0, 1}


def test_a_corrected_close_gets_a_statement_that_supersedes(pair: Pair) -> None:
    closed(pair)
    [first] = statements(pair.acquirer)
    pair.both(2, **PAID)  # rows that came after the close: the next revision
    pair.work(30)
    for one in (pair.acquirer, pair.issuer):
        assert (states(one, 0), states(one, 1)) == (["SUPERSEDED"], ["CONFIRMED"])
    [second] = statements(pair.acquirer, 1)
    assert second.supersedes == first.settlement_id
    assert in_force(pair.issuer) == current(pair) == second.settlement_id
    assert on_chain(pair, first.settlement_id) == "SUPERSEDED"


def test_a_statement_that_nobody_disputes_becomes_final(settling: Make) -> None:
    pair = settling(terms=Terms(dispute_s=3))
    closed(pair)
    [mine] = statements(pair.acquirer)
    assert mine.disputable_until is not None
    wait_until(mine.disputable_until.timestamp())
    pair.work()
    assert states(pair.acquirer) == states(pair.issuer) == ["FINAL"]
    assert on_chain(pair, mine.settlement_id) == "FINAL"


# --- who doesn't sign --------------------------------------------------------------------------


def test_silence_is_no_confirmation(settling: Make) -> None:
    pair = settling(settlement_due_s=3)
    pair.both(4, **PAID)
    for _ in range(8):
        for one in (pair.acquirer, pair.issuer):
            one.jobs.close()
            one.jobs.post()
    # The issuer's worker is away from here on.
    for _ in range(4):
        pair.acquirer.jobs.settle()
    [mine] = statements(pair.acquirer)
    assert mine.state is StatementState.PROPOSED
    assert not mine.has_signed(KEY.issuer)
    wait_until(mine.deadline.timestamp())
    for _ in range(4):
        pair.acquirer.jobs.settle()
    assert states(pair.acquirer) == ["EXPIRED"]
    pair.work()
    assert states(pair.issuer) == ["EXPIRED"]  # it comes too late, and signs nothing
    assert current(pair) is None
    assert pair.issuer.rows("SELECT count(*) FROM settlement_signatures") == [(0,)]
    # Nothing is proposed again by itself; a person may order it.
    outcome, placed = order(
        pair.acquirer, NewOrder(OrderAction.PROPOSE, "key:x", close_id=close_id(pair.acquirer))
    )
    assert outcome is OrderOutcome.DONE
    for one in (pair.acquirer, pair.issuer):
        as_owner(one, "SELECT 1")
    pair.work()
    assert ended(pair.acquirer, placed).refusal is None
    assert states(pair.acquirer) == ["EXPIRED", "CONFIRMED"]


def test_a_statement_that_the_own_books_do_not_lead_to_is_never_signed(settling: Make) -> None:
    pair = settling(**MANUAL)
    closed(pair)
    # The acquirer proposes another amount than its close has.
    acquirer = context(pair.acquirer)
    outcome, number = propose(acquirer, close_id(pair.acquirer))
    assert outcome is OrderOutcome.DONE
    assert number is not None
    forged = secrets.token_bytes(32)
    [honest] = statements(pair.acquirer)
    lie = replace(honest, statement_hash=forged)
    lie_id = acquirer.registry.settlement_id(terms_of(lie))
    signature = sign_settlement(acquirer.signer, lie_id)
    raw, _ = acquirer.signer.sign_transaction(
        acquirer.registry.build_propose_tx(
            sender=acquirer.signer.address,
            nonce=acquirer.client.nonce(acquirer.signer.address),
            terms=terms_of(lie),
            signature=signature,
        )
    )
    assert acquirer.client.wait_for_receipt(acquirer.client.send_raw(raw)).ok
    issuer = replace(context(pair.issuer), automatic=True)
    for _ in range(3):
        settle(issuer)
    [seen] = statements(pair.issuer)
    assert (seen.state, seen.agrees) == (StatementState.PROPOSED, False)
    assert pair.issuer.rows("SELECT count(*) FROM settlement_signatures") == [(0,)]
    outcome, _ = order(
        pair.issuer, NewOrder(OrderAction.COUNTERSIGN, "key:x", settlement_id=lie_id)
    )
    assert outcome is OrderOutcome.BOOKS_DIFFER
    assert on_chain(pair, lie_id) == "PROPOSED"


def test_books_that_were_changed_after_the_close_are_not_signed_for(settling: Make) -> None:
    pair = settling(**MANUAL)
    closed(pair)
    as_owner(
        pair.issuer,
        "UPDATE transactions SET salt_fin = %s WHERE transaction_id ="
        " (SELECT min(transaction_id) FROM transactions)",
        bytes(32),
    )
    settle(replace(context(pair.acquirer), automatic=True))
    for _ in range(3):
        settle(replace(context(pair.issuer), automatic=True))
    [seen] = statements(pair.issuer)
    assert (seen.state, seen.agrees) == (StatementState.PROPOSED, False)


def test_by_hand_both_order_their_part(settling: Make) -> None:
    pair = settling(**MANUAL)
    closed(pair)
    assert states(pair.acquirer) == []
    # The issuer may propose as well as the acquirer.
    outcome, placed = order(
        pair.issuer, NewOrder(OrderAction.PROPOSE, "key:op", close_id=close_id(pair.issuer))
    )
    assert outcome is OrderOutcome.DONE
    pair.work()
    made = ended(pair.issuer, placed)
    assert made.refusal is None
    [mine] = statements(pair.acquirer)
    assert (mine.settlement_id, mine.proposer) == (made.made, KEY.issuer)
    assert mine.state is StatementState.PROPOSED
    own = NewOrder(OrderAction.COUNTERSIGN, "key:op", settlement_id=mine.settlement_id)
    assert order(pair.issuer, own)[0] is OrderOutcome.KEY_REUSED  # the key of the order before
    assert order(pair.issuer, own, "another")[0] is OrderOutcome.NOT_TO_SIGN
    outcome, placed = order(pair.acquirer, own)
    assert outcome is OrderOutcome.DONE
    again, same = order(pair.acquirer, own)
    assert (again, same) == (OrderOutcome.DONE, placed)
    assert order(pair.acquirer, own, "another")[0] is OrderOutcome.ORDER_WAITING
    pair.work()
    assert ended(pair.acquirer, placed).refusal is None
    assert states(pair.acquirer) == states(pair.issuer) == ["CONFIRMED"]
    once_more = NewOrder(OrderAction.PROPOSE, "key:op", close_id=close_id(pair.acquirer))
    assert order(pair.acquirer, once_more, "more")[0] is OrderOutcome.ALREADY_SETTLED


# --- disputes ----------------------------------------------------------------------------------


def arbiters() -> list[LocalSigner]:
    made = [LocalSigner(secrets.token_bytes(32)) for _ in range(3)]
    return sorted(made, key=lambda one: int(one.address, 16))


@pytest.mark.parametrize(
    ("verdict", "after"), [(Verdict.UPHELD, ["RESOLVED"]), (Verdict.ANNULLED, ["SUPERSEDED"])]
)
def test_a_dispute_shows_a_leaf_and_arbiters_resolve_it(
    settling: Make, verdict: Verdict, after: list[str]
) -> None:
    judges = arbiters()
    terms = Terms(arbiters=tuple(one.address for one in judges), arbiter_threshold=2)
    pair = settling(terms=terms)
    closed(pair)
    [mine] = statements(pair.acquirer)
    number = mine.settlement_id
    [(txid,)] = pair.issuer.rows("SELECT min(txid) FROM transactions")
    disputing = NewOrder(
        OrderAction.DISPUTE, "key:x", settlement_id=number, txid=txid, reason="it was given back"
    )
    outcome, placed = order(pair.issuer, disputing, "too-early")
    assert outcome is OrderOutcome.DONE
    pair.issuer.jobs.settle()
    assert ended(pair.issuer, placed).refusal == "evidence_not_anchored"
    anchor_both(pair)
    outcome, placed = order(pair.issuer, disputing)
    assert outcome is OrderOutcome.DONE
    pair.work()
    assert ended(pair.issuer, placed).ended_at is not None
    assert ended(pair.issuer, placed).refusal is None
    assert states(pair.acquirer) == states(pair.issuer) == ["DISPUTED"]
    [(by, shown, whose)] = pair.acquirer.rows(
        "SELECT by_member, txid, leaf_member FROM settlement_steps WHERE state = 'DISPUTED'"
    )
    assert (by, shown, whose) == (KEY.issuer, txid, KEY.issuer)

    registry = context(pair.acquirer).registry
    deadline = int(context(pair.acquirer).now().timestamp()) + 600
    reason = resolution_reason_hash(number, verdict.name, "the receipt shows it")
    digest = registry.resolution_digest(number, verdict, reason, deadline)
    resolving = NewOrder(
        OrderAction.RESOLVE,
        "key:boss",
        settlement_id=number,
        reason="the receipt shows it",
        verdict=verdict.name,
        deadline_s=deadline,
        signatures=(judges[0].sign_digest(digest),),
    )
    outcome, placed = order(pair.acquirer, resolving, "one-is-few")
    pair.acquirer.jobs.settle()
    assert ended(pair.acquirer, placed).refusal == "TooFewSignatures"
    # In whatever order they come.
    both = tuple(one.sign_digest(digest) for one in reversed(judges[1:]))
    outcome, placed = order(pair.acquirer, replace(resolving, signatures=both))
    pair.work()
    assert ended(pair.acquirer, placed).refusal is None
    assert statements(pair.issuer)[0].verdict == verdict.name
    again = NewOrder(OrderAction.PROPOSE, "key:x", close_id=close_id(pair.acquirer))
    outcome, _ = order(pair.acquirer, again, "again")
    if verdict is Verdict.UPHELD:
        assert outcome is OrderOutcome.ALREADY_SETTLED
    else:
        assert outcome is OrderOutcome.DONE
        pair.work()
        assert states(pair.acquirer) == states(pair.issuer) == ["SUPERSEDED", "CONFIRMED"]
    assert states(pair.issuer)[:1] == after


def test_another_pairs_transaction_is_no_evidence(settling: Make) -> None:
    pair = settling()
    closed(pair)
    [mine] = statements(pair.acquirer)
    disputing = NewOrder(
        OrderAction.DISPUTE,
        "key:x",
        settlement_id=mine.settlement_id,
        txid=secrets.token_bytes(32),
        reason="no such thing",
    )
    _, placed = order(pair.acquirer, disputing)
    pair.work()
    assert ended(pair.acquirer, placed).refusal == "evidence_not_anchored"
    assert states(pair.acquirer) == ["CONFIRMED"]


def test_after_the_time_for_it_nobody_disputes(settling: Make) -> None:
    pair = settling(terms=Terms(dispute_s=2))
    closed(pair)
    [mine] = statements(pair.acquirer)
    assert mine.disputable_until is not None
    wait_until(mine.disputable_until.timestamp())
    disputing = NewOrder(
        OrderAction.DISPUTE, "key:x", settlement_id=mine.settlement_id, txid=bytes(32), reason="x"
    )
    assert order(pair.acquirer, disputing)[0] is OrderOutcome.NOT_DISPUTABLE


# --- two at once, and crashes ------------------------------------------------------------------


def both_propose(pair: Pair, *, alike: bool) -> list[bytes]:
    """Both prepare and sign a statement before either has sent anything."""
    made = []
    moment = context(pair.acquirer).clock.now_ms()
    for place, one in enumerate((pair.acquirer, pair.issuer)):
        ours = replace(context(one), due_s=600 if alike else 600 + place, clock=FixedClock(moment))
        outcome, number = propose(ours, close_id(one))
        assert outcome is OrderOutcome.DONE
        assert number is not None
        made.append(number)
        one.jobs._settlement = replace(context(one), automatic=True)
    return made


def test_both_propose_at_the_same_time_and_one_statement_is_left(settling: Make) -> None:
    pair = settling(**MANUAL)
    closed(pair)
    mine, theirs = both_propose(pair, alike=False)
    assert mine != theirs
    pair.work()
    assert states(pair.acquirer) == ["CONFIRMED"]
    assert states(pair.issuer) == ["LAPSED", "CONFIRMED"]
    assert in_force(pair.acquirer) == in_force(pair.issuer) == current(pair) == mine


def test_both_propose_the_very_same_statement_and_it_is_confirmed(settling: Make) -> None:
    """Its terms don't name who proposes: who comes second signs what is there."""
    pair = settling(**MANUAL)
    closed(pair)
    mine, theirs = both_propose(pair, alike=True)
    assert mine == theirs
    pair.work()
    for one in (pair.acquirer, pair.issuer):
        [found] = statements(one)
        assert (found.state, found.proposer) == (StatementState.CONFIRMED, KEY.acquirer)


class Crash(Exception):
    """The process ends here."""


class DyingClient:
    """A client that dies before, or after, its nth transaction has gone out."""

    def __init__(self, real: Any, *, sends: bool) -> None:
        self._real = real
        self._sends = sends

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def send_raw(self, raw: bytes) -> bytes:
        if self._sends:
            self._real.send_raw(raw)
        raise Crash


def die_at_sending(one: Institution, *, sends: bool) -> None:
    dying: Any = DyingClient(context(one).client, sends=sends)
    mortal = replace(context(one), client=dying, automatic=True)
    for _ in range(4):
        try:
            settle(mortal)
        except Crash:
            return
    raise AssertionError("nothing was sent")


@pytest.mark.parametrize("sends", [False, True])
def test_a_crash_around_each_broadcast_leads_to_one_statement(settling: Make, sends: bool) -> None:
    pair = settling(**MANUAL)
    closed(pair)
    die_at_sending(pair.acquirer, sends=sends)
    for _ in range(3):
        pair.acquirer.jobs.settle()
    assert states(pair.acquirer) == ["PROPOSED"]
    die_at_sending(pair.issuer, sends=sends)
    pair.work()
    for one, purpose in ((pair.acquirer, "propose"), (pair.issuer, "confirm")):
        assert states(one) == ["CONFIRMED"]
        assert one.rows(
            "SELECT purpose, state FROM chain_outbox WHERE purpose LIKE 'settlement-%'"
        ) == [(f"settlement-{purpose}", "DONE")]


def test_a_crash_between_signing_and_sending_sends_the_same_signature(settling: Make) -> None:
    pair = settling(**MANUAL)
    closed(pair)
    assert propose(context(pair.acquirer), close_id(pair.acquirer))[0] is OrderOutcome.DONE
    kept = pair.acquirer.rows("SELECT signature FROM settlement_signatures")
    pair.work()
    [mine] = statements(pair.acquirer)
    assert mine.state is StatementState.PROPOSED
    assert pair.acquirer.rows("SELECT signature FROM settlement_signatures") == kept


def test_reading_the_chain_again_changes_nothing(pair: Pair) -> None:
    """As after a restore of the scan's place."""
    closed(pair)
    before = pair.acquirer.rows("SELECT settlement_id, step, state FROM settlement_steps")
    as_owner(pair.acquirer, "UPDATE settlement_scan SET next_block = 0")
    pair.work()
    assert pair.acquirer.rows("SELECT settlement_id, step, state FROM settlement_steps") == before


#: What the tables refuse, whoever tries, and why.
REFUSED = [
    ("UPDATE settlements SET nonce = 9", "append-only"),
    ("DELETE FROM settlement_steps", "append-only"),
    ("TRUNCATE settlement_signatures CASCADE", "append-only"),
    (
        "INSERT INTO settlement_steps (settlement_id, step, state, at, block_number)"
        " SELECT settlement_id, step + 1, 'RESOLVED', now(), 1 FROM settlement_steps"
        " ORDER BY step DESC LIMIT 1",
        "does not follow",
    ),
    (
        "INSERT INTO settlement_steps (settlement_id, step, state, at)"
        " SELECT settlement_id, 7, 'LAPSED', now() FROM settlement_steps LIMIT 1",
        "does not follow",
    ),
    (
        "INSERT INTO settlements_in_force SELECT 'x', 'y', 'CNY', '2026-01-01', settlement_id"
        " FROM settlements",
        "duplicate key",
    ),
]


def test_the_database_refuses_what_cannot_be(pair: Pair) -> None:
    closed(pair)
    for statement, why in REFUSED:
        with (
            psycopg.connect(pair.acquirer.database.owner_dsn) as connection,
            pytest.raises(psycopg.Error, match=why),
        ):
            connection.execute(statement)
