"""Offline payments, batches, store-and-forward: what must hold, and planted violations."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import msgspec
import psycopg
import pytest

from nodes.authorization.model import Kind, Outcome, TerminalRequest
from nodes.authorization.operations.adjusting import (
    AdjustmentOutcome,
    approve_adjustment,
    propose_adjustment,
)
from nodes.authorization.operations.forwarding import (
    forwarded_request,
    settle_forwards,
    take_forwards,
)
from nodes.authorization.services import (
    CurrencyTotals,
    Service,
    ServiceAnswer,
    ServiceOutcome,
    ServiceRequest,
)
from nodes.authorization.state import Account, Disputed
from nodes.authorization.store import accounts
from nodes.cards.model import CardForm, Making
from nodes.crypto.emv import TRANSPORT_KEY, open_personalization
from nodes.reconciliation.invariants import check_invariants, violations
from nodes.reconciliation.offline_statements import OFFLINE
from sandbox.cards.chip import ChipCard, Purchase
from tests.conftest import Cluster, NodeDatabase
from tests.factories.network import EMV_KEYS, ISSUER, MERCHANT, TERMINAL, Network
from tests.factories.offline import OfflineCard, new_chain
from tests.factories.tampering import unguarded


@dataclass
class Books:
    issuer: NodeDatabase
    acquirer: NodeDatabase


@pytest.fixture(scope="module")
def books(cluster: Cluster) -> Iterator[Books]:
    """Reserves, offline payments, advices that waited, batches closed equal and after an upload."""
    made = Books(cluster.new_database(), cluster.new_database())
    network = Network(made.issuer, made.acquirer)
    cards = [OfflineCard(network.card(50_000), network) for _ in range(2)]
    chain = new_chain(3)
    for card in cards:
        card.reserve(10_000)
        for amount in (100, 200):
            advice = card.advice(card.record(chain, amount), amount, batch="000007")
            assert network.one(advice).outcome is Outcome.APPROVED
    cards[0].reserve(-4_000)
    copied = cards[0].advice(cards[0].record(chain, 5, atc=1), 5, batch="000010")
    assert network.one(copied).outcome is Outcome.APPROVED
    _decided(network, cards[0], copied)
    _chips(network)
    assert close_batch(network, "000007", "000900", 4, 600).outcome is ServiceOutcome.DONE
    network.link.down = True
    waiting = network.request(cards[0].card, 300, Kind.ADVICE, batch="000008")
    assert network.one(waiting).outcome is Outcome.APPROVED
    # Counted in a close while it waits, and not again when it is recorded.
    soon = network.request(cards[0].card, 70, Kind.ADVICE, batch="000009")
    assert network.one(soon).outcome is Outcome.APPROVED
    assert close_batch(network, "000009", "000910", 1, 70).outcome is ServiceOutcome.DONE
    network.link.down = False
    _deliver(network)
    assert close_batch(network, "000009", "000911", 1, 70).outcome is ServiceOutcome.DONE
    kept, lost = (network.request(cards[1].card, n, batch="000008") for n in (40, 50))
    assert [a.outcome for a in network.send(kept, lost)] == [Outcome.APPROVED] * 2
    missing = network.request(cards[1].card, 60, batch="000008")
    assert close_batch(network, "000008", "000901", 3, 400).outcome is ServiceOutcome.DIFFERS
    for item in (waiting, kept, missing):
        assert upload_item(network, item).outcome is ServiceOutcome.DONE
    assert close_batch(network, "000008", "000902", 3, 400).outcome is ServiceOutcome.DONE
    network.link.down = True
    network.one(network.request(cards[0].card, 11, Kind.ADVICE))
    network.close()
    yield made
    cluster.drop(made.issuer)
    cluster.drop(made.acquirer)


def _decided(network: Network, card: OfflineCard, copied: TerminalRequest) -> None:
    """Of the copy's 5 the issuer bears 2, the holder 2; 1 stays disputed."""
    engine, account_id = network.issuer_db.engine, card.card.account_id
    with psycopg.connect(network.issuer_db.dsn) as connection:
        [one] = accounts.holders(connection, [account_id], {})[account_id].account.disputed
    assert one.amount == copied.amount
    for number, amount in enumerate((2, -2)):
        made = propose_adjustment(
            engine, ISSUER, account_id=account_id, amount=amount, currency="CNY",
            reason="copied card", made_by="maker", idempotency_key=f"made {number}",
            now=card.now, disputed=one.txid,
        )  # fmt: skip
        done = approve_adjustment(
            engine, ISSUER, made.adjustment_id or 0, checked_by="checker",
            idempotency_key=f"checked {number}", now=card.now,
        )  # fmt: skip
        assert done.outcome is AdjustmentOutcome.DONE


def _chips(network: Network) -> None:
    """Two chips of one card have paid under one counter, no record with either; and a third has
    paid online."""
    card = network.card(1_000, making=Making(CardForm.CHIP))
    assert card.personalization is not None
    made = open_personalization(EMV_KEYS[TRANSPORT_KEY], card.personalization)
    for amount in (13, 17):
        chip = ChipCard.personalized(made)
        chip.make_offline_key()
        icc = chip.approve_offline(Purchase(amount, "156", "260921"))
        advice = network.request(
            card, amount, Kind.ADVICE, entry_mode="052", icc=icc, batch="000011"
        )
        assert network.one(advice).outcome is Outcome.APPROVED
    chip.atc = 7
    icc = chip.first_cryptogram(Purchase(19, "156", "260921"))
    online = network.request(card, 19, entry_mode="051", icc=icc, batch="000011")
    assert network.one(online).outcome is Outcome.APPROVED


def _deliver(network: Network) -> None:
    network.clock.advance(60_000)
    acquirer = network.make_acquirer()
    assert network.link.issuer is not None
    with psycopg.connect(network.acquirer_db.dsn, autocommit=True) as connection:
        rows = take_forwards(connection, acquirer)
        deadline = network.clock.now_ms() + 5_000
        asked = [forwarded_request(acquirer, row, deadline) for row in rows]
        answers = asyncio.run(network.link.issuer.authorize(asked))
        assert settle_forwards(connection, acquirer, list(zip(rows, answers, strict=True))) == 2


def _serve(
    network: Network, service: Service, batch: str, stan: str, **more: object
) -> ServiceAnswer:
    content = repr((service, batch, stan, sorted(more.items(), key=str))).encode()
    request = ServiceRequest(
        service=service, terminal_id=TERMINAL, merchant_id=MERCHANT, business_date="2026-09-21",
        batch=batch, stan=stan, fingerprint=hashlib.sha256(content).digest(),
        deadline_ms=network.clock.now_ms() + 15_000, **more,  # type: ignore[arg-type]
    )  # fmt: skip
    [answer] = asyncio.run(network.acquirer.serve([request]))
    return answer


def close_batch(network: Network, batch: str, stan: str, count: int, amount: int) -> ServiceAnswer:
    """A 0500 with so many debits, of this sum."""
    totals = (CurrencyTotals("CNY", count, amount),)
    return _serve(network, Service.BATCH_CLOSE, batch, stan, totals=totals)


def upload_item(network: Network, item: TerminalRequest) -> ServiceAnswer:
    """The 0320 of a transaction."""
    return _serve(network, Service.BATCH_UPLOAD, item.batch, item.stan, item=item)


def test_the_day_breaks_nothing(books: Books) -> None:
    for database in (books.issuer, books.acquirer):
        assert check_invariants(database.owner_engine) == []


_ADVICE = "(SELECT min(transaction_id) FROM transactions WHERE kind = 'advice')"
PLANTED: list[tuple[int, str, str]] = [
    (19, "issuer", "UPDATE offline_records SET amount = amount + 1"),
    (19, "issuer", "DROP INDEX offline_records_by_counter; UPDATE offline_records SET atc = 1"),
    (19, "issuer", "UPDATE transactions SET outcome = 'offline_clone' WHERE transaction_id ="
     f" {_ADVICE}"),
    (19, "issuer", "UPDATE transfers SET amount = amount + 5 WHERE credit_account = (SELECT"
     " account_id FROM accounts WHERE kind = 'offline_reserved')"),
    (19, "issuer", "UPDATE offline_clones SET amount = amount + 1"),
    (19, "issuer", "UPDATE offline_clones SET txid = sha256('x')"),
    (19, "issuer", "DELETE FROM offline_alarms WHERE kind = 'clone'"),
    (19, "issuer", "UPDATE transfers SET debit_account = (SELECT account_id FROM accounts"
     " WHERE kind = 'offline_reserved') WHERE amount = 5"),
    (19, "issuer", "UPDATE offline_alarms SET kind = 'cap' WHERE txid = (SELECT txid"
     " FROM transactions WHERE amount = 17)"),
    (19, "issuer", "UPDATE chip_records SET cryptogram = 'DOUBLED!', covered = 'the same'"),
    (19, "issuer", "UPDATE transfers SET debit_account = (SELECT account_id FROM accounts"
     " WHERE kind = 'offline_reserved') WHERE amount = 17"),
    (19, "issuer", "UPDATE chip_records SET atc = 8 WHERE txid = (SELECT txid FROM transactions"
     " WHERE amount = 13); UPDATE chip_records SET atc = 8 WHERE txid = (SELECT txid"
     " FROM transactions WHERE amount = 19)"),
    (19, "issuer", "UPDATE card_offline_keys SET card_token = (SELECT card_token"
     " FROM transactions WHERE amount = 19); DROP INDEX offline_records_by_counter;"
     " UPDATE offline_records SET atc = 8 WHERE amount = 200; UPDATE chip_records SET atc = 8"
     " WHERE txid = (SELECT txid FROM transactions WHERE amount = 19)"),
    (1, "issuer", "UPDATE adjustments SET disputed = NULL WHERE amount < 0"),
    (1, "issuer", "UPDATE adjustments SET amount = -1 WHERE amount < 0"),
    (1, "issuer", "UPDATE transactions SET amount = amount - 1 WHERE kind = 'reserve'"),
    (1, "issuer", "UPDATE transactions SET kind = 'reserve' WHERE kind = 'release'"),
    (2, "issuer", "DELETE FROM transfers WHERE debit_account = (SELECT account_id FROM accounts"
     " WHERE kind = 'offline_reserved')"),
    (20, "acquirer", "UPDATE terminal_batch_lines SET batch = '000009' WHERE batch = '000007'"),
    (20, "acquirer", "UPDATE terminal_batch_lines SET close_id = (SELECT max(close_id)"
     " FROM batch_closes) WHERE batch = '000007'"),
    (20, "acquirer", "UPDATE batch_closes SET reported = '[]' WHERE outcome = 'adjusted'"),
    (20, "acquirer", "UPDATE batch_closes SET booked = '[]' WHERE outcome = 'equal'"),
    (20, "acquirer", "UPDATE batch_findings SET adjusted = adjusted + 1 WHERE action = 'posted'"),
    (20, "acquirer", "DELETE FROM reversal_queue"),
    (21, "acquirer", "UPDATE forward_queue SET outcome = 'card_unknown' WHERE outcome ="
     " 'approved'"),
    (21, "acquirer", "UPDATE forward_queue SET done_ms = NULL, outcome = NULL, pan_sealed ="
     " decode(repeat('00', 50), 'hex') WHERE done_ms IS NOT NULL"),
    (21, "acquirer", "INSERT INTO stand_ins VALUES (sha256('x'), sha256('z'), 'aurora',"
     " sha256('y'), 5, 'CNY', 1)"),
    (21, "acquirer", "UPDATE forward_queue SET idempotency_key = sha256('x')"),
    (21, "acquirer", "UPDATE forward_queue SET pan_sealed = NULL WHERE done_ms IS NULL"),
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


def test_each_rule_about_offline_payments_finds_something(
    plant: Callable[[str, str], set[tuple[int, str]]],
) -> None:
    """A rule that no planted violation breaks may be one that can't fail."""
    found = set().union(*(plant(side, statement) for _, side, statement in PLANTED))
    assert {(number, rule) for number, rule, _ in OFFLINE} - found == set()


@pytest.mark.parametrize("disputed", [2, -1, 0])
def test_no_more_is_disputed_than_is_owed(books: Books, disputed: int) -> None:
    with unguarded(books.issuer) as owner:
        place, state = next(
            (row[:2], account)
            for *row, raw in owner.execute(
                "SELECT DISTINCT ON (account_id) account_id, version, state FROM account_versions"
                " WHERE line = 0 ORDER BY account_id, version DESC"
            )
            if (account := msgspec.msgpack.decode(raw, type=Account)).disputed
        )
        assert (state.receivable, [one.amount for one in state.disputed]) == (1, [1])
        other = (Disputed(state.disputed[0].txid, disputed),)
        changed = msgspec.structs.replace(state, disputed=other)
        owner.execute(
            "UPDATE account_versions SET state = %s WHERE account_id = %s AND version = %s"
            " AND line = 0",
            (msgspec.msgpack.encode(changed), *place),
        )
        found = violations(owner)
    assert [one.invariant for one in found] == [2]


def test_each_invariant_has_two_planted_violations() -> None:
    numbers = [number for number, *_ in PLANTED]
    for number in (19, 20, 21):
        assert numbers.count(number) >= 2
