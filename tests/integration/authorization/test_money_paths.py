"""The money paths over both institutions' real databases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import psycopg
import pytest

from nodes import ids
from nodes.authorization.model import AuthorizationRequest, Kind, Outcome
from nodes.authorization.operations.forwarding import (
    GRACE_MS,
    recover_pending,
    request_of,
    settle_reversals,
    take_reversals,
)
from nodes.crypto.pan import luhn_digit
from tests.conftest import NodeDatabase
from tests.factories.network import ACQUIRER, ISSUER, MERCHANT, TERMINAL, Network


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database)
    yield made
    made.close()


def rows(database: NodeDatabase, query: str, *parameters: object) -> list[tuple[object, ...]]:
    with psycopg.connect(database.owner_dsn) as connection:
        return connection.execute(query, parameters).fetchall()


def in_both_books(network: Network) -> list[tuple[bytes, bytes, int, str]]:
    """Every numbered transaction as (txid, C, pair_seq, outcome), equal on both sides."""
    query = (
        "SELECT txid, commitment, pair_seq, outcome FROM transactions"
        " WHERE side = %s AND kind <> 'load' AND pair_seq > 0 ORDER BY pair_seq"
    )
    issuer = rows(network.issuer_db, query, "issuer")
    acquirer = rows(network.acquirer_db, query, "acquirer")
    assert issuer == acquirer
    assert [row[2] for row in issuer] == list(range(1, len(issuer) + 1))
    return issuer  # type: ignore[return-value]


def forward_reversals(network: Network) -> int:
    """What the worker does: send what is queued, record the answers."""
    issuer = network.link.issuer
    assert issuer is not None
    with psycopg.connect(network.acquirer_db.dsn, autocommit=True) as connection:
        acquirer = network.make_acquirer()
        taken = take_reversals(connection, acquirer)
        if not taken:
            return 0
        answers = asyncio.run(issuer.authorize([request_of(row) for row in taken]))
        return settle_reversals(connection, acquirer, list(zip(taken, answers, strict=True)))


def test_a_purchase_stands_in_both_books_under_one_txid_and_commitment(network: Network) -> None:
    card = network.card(10_000)
    answer = network.one(network.request(card, 2_500))
    assert answer.outcome is Outcome.APPROVED
    assert answer.approval_code is not None
    assert len(answer.rrn) == 12
    assert network.balance(card) == 7_500
    [(txid, commitment, _, outcome)] = in_both_books(network)
    assert (txid, outcome) == (answer.txid, "approved")
    assert len(commitment) == 32
    entries = rows(
        network.acquirer_db,
        "SELECT a.kind, a.owner, p.amount FROM postings p JOIN accounts a USING (account_id)"
        " ORDER BY p.amount",
    )
    assert entries == [("settlement", ISSUER, -2_500), ("merchant", MERCHANT, 2_500)]


def test_a_repeat_gets_the_stored_answer_and_posts_nothing(network: Network) -> None:
    card = network.card(10_000)
    request = network.request(card, 2_500)
    first = network.one(request)
    again = network.one(request)
    assert msgspec.json.encode(first) == msgspec.json.encode(again)
    assert network.balance(card) == 7_500
    assert len(in_both_books(network)) == 1


def test_the_same_key_with_other_content_is_refused(network: Network) -> None:
    card = network.card(10_000)
    request = network.request(card, 2_500)
    network.one(request)
    other = msgspec.structs.replace(request, amount=2_600, fingerprint=bytes(32))
    assert network.one(other).outcome is Outcome.KEY_REUSED
    assert network.balance(card) == 7_500


def test_one_batch_decides_in_order_and_never_overdraws(network: Network) -> None:
    card = network.card(1_000)
    answers = network.send(*(network.request(card, 400) for _ in range(4)))
    outcomes = [answer.outcome for answer in answers]
    assert outcomes == [Outcome.APPROVED] * 2 + [Outcome.INSUFFICIENT_FUNDS] * 2
    assert network.balance(card) == 200
    assert len(in_both_books(network)) == 4


def test_two_processes_of_one_acquirer_cannot_overdraw_a_card_between_them(
    network: Network,
) -> None:
    card = network.card(1_000)
    second = network.new_acquirer()
    second_issuer = network.new_issuer()

    async def both() -> list[Outcome]:
        calls = []
        for number in range(40):
            acquirer = network.acquirer if number % 2 else second
            calls.append(acquirer.accept([network.request(card, 100)]))
        return [answers[0].outcome for answers in await asyncio.gather(*calls)]

    outcomes = asyncio.run(both())
    second.close()
    second_issuer.close()
    assert outcomes.count(Outcome.APPROVED) == 10
    assert outcomes.count(Outcome.INSUFFICIENT_FUNDS) == 30
    assert network.balance(card) == 0
    assert len(in_both_books(network)) == 40


def test_two_issuer_processes_share_one_sequence_without_gaps(network: Network) -> None:
    cards = [network.card(10_000) for _ in range(4)]
    first, second = network.link.issuer, network.new_issuer()
    assert first is not None

    async def many() -> None:
        for turn in range(5):
            network.link.issuer = first if turn % 2 else second
            calls = [
                network.acquirer.accept([network.request(card, 10), network.request(card, 20)])
                for card in cards
            ]
            await asyncio.gather(*calls)

    asyncio.run(many())
    network.link.issuer = first
    second.close()
    assert len(in_both_books(network)) == 40
    assert [network.balance(card) for card in cards] == [10_000 - 150] * 4


def test_the_pin_is_tried_three_times_and_a_right_one_resets(network: Network) -> None:
    card = network.card(10_000)
    outcomes = []
    for pin in ("000000", "111111", "123456", "000000", "111111", "222222", "123456"):
        outcomes.append(network.one(network.request(card, 100, pin=pin)).outcome)
    wrong = [Outcome.PIN_WRONG] * 2
    assert outcomes == [
        *wrong,
        Outcome.APPROVED,
        *wrong,
        Outcome.PIN_WRONG,
        Outcome.PIN_TRIES_EXCEEDED,
    ]
    assert network.balance(card) == 9_900


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"amount": 0}, Outcome.AMOUNT_INVALID),
        ({"amount": 10**12}, Outcome.AMOUNT_INVALID),
        ({"currency": "USD"}, Outcome.CURRENCY_NOT_PERMITTED),
        ({"currency": "XXX"}, Outcome.AMOUNT_INVALID),
        ({"pan": "4" * 16}, Outcome.CARD_NUMBER_INVALID),
        ({"pan": "411111111111111" + luhn_digit("411111111111111")}, Outcome.ISSUER_UNKNOWN),
        ({"pan": "622300109999999" + luhn_digit("622300109999999")}, Outcome.CARD_UNKNOWN),
        ({"terminal_id": "T9999999"}, Outcome.TERMINAL_NOT_PERMITTED),
        ({"merchant_id": "MERIDIAN0000009"}, Outcome.MERCHANT_NOT_PERMITTED),
        ({"expiry": "3001"}, Outcome.CARD_EXPIRED),
        ({"pin": None}, Outcome.PIN_REQUIRED),
        ({"business_date": "2026-13-40"}, Outcome.MALFORMED),
        ({"local_time": "2026\x00"}, Outcome.MALFORMED),
        ({"amount": 10_001}, Outcome.INSUFFICIENT_FUNDS),
    ],
)
def test_what_is_wrong_is_named_and_moves_nothing(
    network: Network, changes: dict[str, object], outcome: Outcome
) -> None:
    card = network.card(10_000)
    changed = dict(changes)
    if changed.get("pan"):
        changed["pin"] = None
    request = network.request(card, 100, **{k: v for k, v in changed.items() if k == "pin"})
    request = msgspec.structs.replace(request, **{k: v for k, v in changed.items() if k != "pin"})
    assert network.one(request).outcome is outcome
    assert network.one(request).outcome is outcome
    assert network.balance(card) == 10_000


def test_a_reversal_undoes_the_purchase_in_both_books(network: Network) -> None:
    card = network.card(10_000)
    request = network.request(card, 2_500)
    network.one(request)
    reversal = network.reversal_of(request)
    assert network.one(reversal).outcome is Outcome.APPROVED
    assert network.one(reversal).outcome is Outcome.APPROVED
    assert network.balance(card) == 10_000
    assert len(in_both_books(network)) == 2
    query = "SELECT coalesce(sum(amount), 0)::bigint FROM postings GROUP BY account_id"
    assert {row[0] for row in rows(network.acquirer_db, query)} == {0}


def test_a_reversal_that_comes_first_bars_its_original(network: Network) -> None:
    card = network.card(10_000)
    request = network.request(card, 2_500)
    assert network.one(network.reversal_of(request)).outcome is Outcome.APPROVED
    assert network.one(request).outcome is Outcome.REVERSED_BEFORE_ARRIVAL
    assert network.balance(card) == 10_000


def test_a_purchase_and_its_reversal_may_come_in_one_batch(network: Network) -> None:
    card = network.card(10_000)
    request = network.request(card, 2_500)
    answers = network.send(request, network.reversal_of(request))
    assert answers[1].outcome is Outcome.APPROVED
    forward_reversals(network)
    assert network.balance(card) == 10_000
    in_both_books(network)


def test_a_reversal_over_its_original_is_refused(network: Network) -> None:
    card = network.card(10_000)
    request = network.request(card, 2_500)
    network.one(request)
    refused = network.one(network.reversal_of(request, amount=2_501))
    assert refused.outcome is Outcome.OVER_ORIGINAL_AMOUNT
    assert network.balance(card) == 7_500


def test_a_partial_reversal_gives_its_part_back_in_both_books(network: Network) -> None:
    card = network.card(10_000)
    request = network.request(card, 2_500)
    network.one(request)
    assert network.one(network.reversal_of(request, amount=500)).outcome is Outcome.APPROVED
    assert network.balance(card) == 8_000
    in_both_books(network)
    [(kept,)] = rows(
        network.acquirer_db,
        "SELECT sum(p.amount) FROM postings p JOIN accounts a USING (account_id)"
        " WHERE a.kind = 'merchant'",
    )
    assert kept == 2_000


def test_refunds_never_exceed_the_purchase(network: Network) -> None:
    card = network.card(10_000)
    bought = network.one(network.request(card, 2_500))
    refunds = [
        network.request(card, amount, Kind.REFUND, rrn=bought.rrn) for amount in (1_500, 1_500)
    ]
    outcomes = {answer.outcome for answer in network.send(*refunds)}
    assert outcomes == {Outcome.APPROVED, Outcome.OVER_ORIGINAL_AMOUNT}
    assert network.balance(card) == 9_000
    assert network.one(network.request(card, 1_000, Kind.REFUND, rrn=bought.rrn)).outcome is (
        Outcome.APPROVED
    )
    assert network.balance(card) == 10_000
    in_both_books(network)


def test_concurrent_refunds_of_one_purchase_give_back_once(network: Network) -> None:
    card = network.card(10_000)
    bought = network.one(network.request(card, 2_500))
    second = network.new_acquirer()

    async def race() -> list[Outcome]:
        calls = [
            acquirer.accept([network.request(card, 2_000, Kind.REFUND, rrn=bought.rrn)])
            for acquirer in (network.acquirer, second) * 4
        ]
        return [answers[0].outcome for answers in await asyncio.gather(*calls)]

    outcomes = asyncio.run(race())
    second.close()
    assert outcomes.count(Outcome.APPROVED) == 1
    assert network.balance(card) == 9_500


def test_a_refund_of_a_reversed_or_unknown_purchase_is_refused(network: Network) -> None:
    card = network.card(10_000)
    request = network.request(card, 2_500)
    bought = network.one(request)
    network.one(network.reversal_of(request))
    again = network.request(card, 100, Kind.REFUND, rrn=bought.rrn)
    assert network.one(again).outcome is Outcome.ALREADY_REVERSED
    stray = network.request(card, 100, Kind.REFUND, rrn="999999999999")
    assert network.one(stray).outcome is Outcome.ORIGINAL_NOT_FOUND
    assert network.balance(card) == 10_000


def test_a_balance_inquiry_tells_ledger_and_available(network: Network) -> None:
    card = network.card(10_000)
    answer = network.one(network.request(card, 0, Kind.BALANCE_INQUIRY))
    assert (answer.outcome, answer.ledger, answer.available) == (Outcome.APPROVED, 10_000, 10_000)


def test_an_issuer_that_is_away_is_answered_for_and_reversed(network: Network) -> None:
    card = network.card(10_000)
    network.link.down = True
    request = network.request(card, 2_500)
    assert network.one(request).outcome is Outcome.ISSUER_UNAVAILABLE
    network.link.down = False
    assert network.one(request).outcome is Outcome.ISSUER_UNAVAILABLE
    assert forward_reversals(network) == 1
    assert network.balance(card) == 10_000
    in_both_books(network)
    seqs = rows(network.acquirer_db, "SELECT terminal_seq FROM transactions ORDER BY 1")
    assert [row[0] for row in seqs] == [1, 2]


def test_an_approval_whose_answer_was_lost_is_taken_back(network: Network) -> None:
    card = network.card(10_000)
    network.link.lose_answer = True
    request = network.request(card, 2_500)
    assert network.one(request).outcome is Outcome.ISSUER_UNAVAILABLE
    assert network.balance(card) == 7_500
    network.link.lose_answer = False
    # The terminal's own reversal and the queue's are one.
    assert network.one(network.reversal_of(request)).outcome is Outcome.APPROVED
    assert forward_reversals(network) == 1
    assert forward_reversals(network) == 0
    assert network.balance(card) == 10_000
    books = in_both_books(network)
    assert [outcome for *_, outcome in books] == ["approved", "approved"]


def test_an_approval_after_the_deadline_reverses_by_itself(network: Network) -> None:
    card = network.card(10_000)
    issuer = network.link.issuer
    assert issuer is not None

    class Slow:
        async def authorize(self, _: str, requests, deadline_ms: int):  # type: ignore[no-untyped-def]
            answers = await issuer.authorize(requests)
            network.clock.advance(20_000)
            return answers

    network.acquirer._link = Slow()
    assert network.one(network.request(card, 2_500)).outcome is Outcome.ISSUER_UNAVAILABLE
    assert forward_reversals(network) == 1
    assert network.balance(card) == 10_000
    assert len(in_both_books(network)) == 2


def test_a_late_request_is_not_decided(network: Network) -> None:
    card = network.card(10_000)
    request = network.request(card, 2_500, deadline_ms=network.clock.now_ms() - 1)
    assert network.one(request).outcome is Outcome.DEADLINE_PASSED
    assert network.balance(card) == 10_000


def test_what_a_crash_left_open_is_reversed(network: Network) -> None:
    card = network.card(10_000)
    request = network.request(card, 2_500)
    acquirer = network.make_acquirer()
    issuer = network.link.issuer
    assert issuer is not None
    from nodes.authorization.operations.accepting import open_batch
    from nodes.authorization.operations.pending import Forward

    with psycopg.connect(network.acquirer_db.dsn, autocommit=True) as connection:
        [opened] = open_batch(connection, acquirer, [request])
        assert isinstance(opened, Forward)
        asyncio.run(issuer.authorize([opened.request]))
        assert network.balance(card) == 7_500
        assert recover_pending(connection, acquirer) == 0
        network.clock.advance(15_000 + GRACE_MS + 1)
        assert recover_pending(connection, acquirer) == 1
        assert recover_pending(connection, acquirer) == 0
    assert network.one(request).outcome is Outcome.ISSUER_UNAVAILABLE
    assert forward_reversals(network) == 1
    assert network.balance(card) == 10_000
    assert len(in_both_books(network)) == 2


def test_a_repeat_after_a_crash_is_sent_once_more_under_its_txid(network: Network) -> None:
    card = network.card(10_000)
    request = network.request(card, 2_500)
    from nodes.authorization.operations.accepting import open_batch
    from nodes.authorization.operations.pending import Forward

    with psycopg.connect(network.acquirer_db.dsn, autocommit=True) as connection:
        [opened] = open_batch(connection, network.make_acquirer(), [request])
    assert isinstance(opened, Forward)
    issuer = network.link.issuer
    assert issuer is not None
    asyncio.run(issuer.authorize([opened.request]))
    answer = network.one(request)
    assert (answer.outcome, answer.txid) == (Outcome.APPROVED, opened.request.txid)
    assert network.balance(card) == 7_500
    assert len(in_both_books(network)) == 1


def test_no_card_number_and_no_pin_block_is_kept(network: Network) -> None:
    card = network.card(10_000)
    request = network.request(card, 2_500)
    network.one(request)
    assert request.pin_block is not None
    for database in (network.issuer_db, network.acquirer_db):
        for (table,) in rows(
            database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ):
            text = repr(rows(database, f"SELECT t::text FROM {table} t"))
            assert card.pan not in text
            assert card.pan.encode().hex() not in text
            assert request.pin_block.hex() not in text
    assert card.pan not in repr(request) + repr(card)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE transactions SET amount = 1",
        "DELETE FROM transfers",
        "TRUNCATE transactions CASCADE",
        "UPDATE account_versions SET balance = 1",
        "DELETE FROM account_versions",
        "INSERT INTO account_versions (account_id, version, line, purse_account, at_ms, balance,"
        " held, state) SELECT account_id, version + 1, 0, purse_account, at_ms, 1, 2, state"
        " FROM account_versions ORDER BY version DESC LIMIT 1",
        "INSERT INTO account_versions (account_id, version, line, purse_account, at_ms, balance,"
        " held, state) SELECT account_id, version + 2, 0, purse_account, at_ms, 1, 0, state"
        " FROM account_versions ORDER BY version DESC LIMIT 1",
        "INSERT INTO account_versions (account_id, version, line, purse_account, at_ms, balance,"
        " held, state) SELECT account_id, version, 0, purse_account, at_ms, 1, 0, state"
        " FROM account_versions ORDER BY version DESC LIMIT 1",
        "UPDATE authorization_requests SET answer = 'x'",
    ],
)
def test_the_database_itself_refuses(network: Network, statement: str) -> None:
    card = network.card(10_000)
    network.one(network.request(card, 2_500))
    for dsn in (network.issuer_db.owner_dsn, network.issuer_db.dsn):
        with psycopg.connect(dsn) as connection, pytest.raises(psycopg.Error):
            connection.execute(statement)


def stranger(network: Network, original: bytes, kind: Kind, amount: int) -> AuthorizationRequest:
    """What another acquirer of the network might ask about a transaction that isn't its own."""
    reference = ids.new_network_ref()
    return AuthorizationRequest(
        txid=ids.txid("nimbus", ISSUER, reference),
        network_ref=reference,
        acquirer="nimbus",
        issuer=ISSUER,
        kind=kind,
        amount=amount,
        currency="CNY",
        pan=None,
        entry_mode="051",
        merchant_id=MERCHANT,
        merchant_name="Harbor Stores",
        mcc="5411",
        country="CN",
        terminal_id=TERMINAL,
        terminal_seq=1,
        business_date="2026-09-21",
        batch="000001",
        stan=f"{next(network.stans):06d}",
        rrn="000000000001",
        transmitted_ms=network.clock.now_ms(),
        local_time="2026-09-21T12:00:00",
        salt_fin=bytes(32),
        salt_pii=bytes(32),
        original_txid=original,
        deadline_ms=network.clock.now_ms() + 15_000,
    )


@pytest.mark.parametrize("kind", [Kind.REVERSAL, Kind.REFUND])
def test_another_acquirer_can_neither_undo_a_transaction_nor_learn_of_it(
    network: Network, kind: Kind
) -> None:
    card = network.card(10_000)
    bought = network.one(network.request(card, 2_500))
    issuer = network.link.issuer
    assert issuer is not None
    assert bought.txid is not None
    [answer] = asyncio.run(issuer.authorize([stranger(network, bought.txid, kind, 2_500)]))
    assert answer.outcome is Outcome.ORIGINAL_MISMATCH
    assert (answer.card_token, answer.original, answer.available) == (None, None, None)
    assert network.balance(card) == 7_500
    assert network.one(network.request(card, 100)).outcome is Outcome.APPROVED


def test_a_load_is_no_acquirers_to_reverse(network: Network) -> None:
    card = network.card(10_000)
    [(loaded,)] = rows(network.issuer_db, "SELECT txid FROM transactions WHERE kind = 'load'")
    assert isinstance(loaded, bytes)
    issuer = network.link.issuer
    assert issuer is not None
    request = stranger(network, loaded, Kind.REVERSAL, 10_000)
    [answer] = asyncio.run(issuer.authorize([request]))
    assert answer.outcome is Outcome.ORIGINAL_MISMATCH
    assert network.balance(card) == 10_000


def test_names_are_those_of_the_network(network: Network) -> None:
    card = network.card(10_000)
    network.one(network.request(card, 2_500))
    row = rows(
        network.issuer_db,
        "SELECT acquirer, issuer, terminal_id, terminal_seq FROM transactions"
        " WHERE kind = 'purchase'",
    )
    assert row == [(ACQUIRER, ISSUER, TERMINAL, 1)]
