"""One institution is acquirer and issuer at once: both sides of a transaction in one database."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import psycopg
import pytest

from nodes.acquiring.model import Merchant
from nodes.acquiring.operations import register_merchant, register_terminal
from nodes.authorization.model import Kind, Outcome, TerminalAnswer, TerminalRequest
from nodes.authorization.operations.accepting import Acquirer
from nodes.authorization.operations.deciding import Issuer
from nodes.authorization.operations.own import load_card
from nodes.authorization.queries import requested_amount
from nodes.authorization.service import Authorizer
from nodes.cards.model import IssuedCard
from nodes.cards.operations import issue_card
from nodes.clock import FixedClock, to_datetime
from nodes.crypto.answer_signature import AnswerSigner
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.pan import PanVault
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import NodeDatabase
from tests.factories.network import BIN, GATEWAY_ZONE, MERCHANT, NOW_MS, TERMINAL, DirectLink

MEMBER = "aurora"


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW_MS)


@dataclass
class House:
    """One institution with a merchant, a terminal and a card, whose funds are 100.00."""

    node: Authorizer
    card: IssuedCard
    hsm: SoftwareHsm
    clock: FixedClock

    def request(
        self,
        kind: Kind,
        stan: str,
        pin: str | None,
        amount: int = 2_500,
        partial_ok: bool = False,
    ) -> TerminalRequest:
        pan = self.card.pan
        return TerminalRequest(
            terminal_id=TERMINAL,
            merchant_id=MERCHANT,
            business_date="2026-09-21",
            batch="000001",
            stan=stan,
            kind=kind,
            amount=amount,
            currency="CNY",
            pan=pan,
            fingerprint=hashlib.sha256(f"{kind}{stan}".encode()).digest(),
            entry_mode="051",
            local_time="2026-09-21T12:00:00",
            deadline_ms=self.clock.now_ms() + 15_000,
            pin_block=self.hsm.seal_pin("zone:gateway", pin, pan) if pin else None,
            partial_ok=partial_ok,
        )

    def send(self, *requests: TerminalRequest) -> list[TerminalAnswer]:
        return asyncio.run(self.node.accept(requests))


@pytest.fixture
def house(database: NodeDatabase, clock: FixedClock) -> Iterator[House]:
    vault = PanVault(secrets.token_bytes(32), secrets.token_bytes(32))
    keys = {"zone:gateway": GATEWAY_ZONE, "pin_lookup": secrets.token_bytes(32)}
    now = to_datetime(clock.now_ms())
    hsm = SoftwareHsm(keys)
    card = issue_card(
        database.engine,
        vault,
        hsm,
        bins=[BIN],
        currency="CNY",
        expiry="4912",
        service_code="220",
        pin="123456",
        actor="test",
        now=now,
    )
    assert isinstance(card, IssuedCard)
    load_card(
        database.engine,
        MEMBER,
        card_token=card.card_token,
        amount=10_000,
        currency="CNY",
        reference="first load",
        idempotency_key="first-load",
        now=now,
    )
    register_merchant(
        database.engine, Merchant(MERCHANT, "Harbor Stores", "5411", "CN", "CNY"), now=now
    )
    register_terminal(database.engine, TERMINAL, MERCHANT)
    node = Authorizer(
        database.dsn,
        MEMBER,
        DirectLink(down=True),  # nothing may leave the house
        make_issuer=lambda: Issuer(
            MEMBER, vault, SoftwareHsm(keys), clock, AnswerSigner(bytes(32))
        ),
        make_acquirer=lambda: Acquirer(MEMBER, SoftwareHsm(keys), clock, lambda _: MEMBER),
    )
    yield House(node, card, hsm, clock)
    node.close()
    assert check_invariants(database.owner_engine) == []


def test_both_sides_stand_in_one_database_and_a_reversal_clears_both(
    database: NodeDatabase, house: House
) -> None:
    request, send = house.request, house.send
    purchase = request(Kind.PURCHASE, "000001", "123456")
    [approved] = send(purchase)
    assert approved.outcome is Outcome.APPROVED
    assert msgspec.json.encode(send(purchase)[0]) == msgspec.json.encode(approved)
    assert send(request(Kind.PURCHASE, "000002", "654321"))[0].outcome is Outcome.PIN_WRONG
    assert send(request(Kind.REVERSAL, "000001", None))[0].outcome is Outcome.APPROVED
    with psycopg.connect(database.owner_dsn) as connection:
        rows = connection.execute(
            "SELECT txid, commitment, pair_seq, kind, outcome FROM transactions"
            " WHERE kind <> 'load' AND side = %s ORDER BY pair_seq",
            ("issuer",),
        ).fetchall()
        mirrored = connection.execute(
            "SELECT txid, commitment, pair_seq, kind, outcome FROM transactions"
            " WHERE side = %s ORDER BY pair_seq",
            ("acquirer",),
        ).fetchall()
        balances = dict(
            connection.execute(
                "SELECT a.kind, sum(p.amount)::bigint FROM postings p"
                " JOIN accounts a USING (account_id) GROUP BY a.kind"
            ).fetchall()
        )
    assert rows == mirrored
    assert [row[2:] for row in rows] == [
        (1, "purchase", "approved"),
        (2, "purchase", "pin_wrong"),
        (3, "reversal", "approved"),
    ]
    assert balances == {"cardholder": 10_000, "funding": -10_000, "settlement": 0, "merchant": 0}


def test_a_partial_approval_leaves_both_books_equal_and_its_receipt_what_was_asked_for(
    database: NodeDatabase, house: House
) -> None:
    with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
        connection.execute("UPDATE products SET terms = '{\"partial_approval\": true}'")
    [whole] = house.send(house.request(Kind.PURCHASE, "000001", "123456", 4_000, True))
    bought = house.request(Kind.PURCHASE, "000002", "123456", 10_000, True)
    [part] = house.send(bought)
    assert [(a.outcome, a.amount) for a in (whole, part)] == [
        (Outcome.APPROVED, 4_000),
        (Outcome.APPROVED, 6_000),
    ]
    [again] = house.send(bought)
    assert msgspec.json.encode(again) == msgspec.json.encode(part)
    with psycopg.connect(database.owner_dsn) as connection:
        books = connection.execute(
            "SELECT side, amount, commitment FROM transactions WHERE txid = %s ORDER BY side",
            (part.txid,),
        ).fetchall()
    assert [row[:2] for row in books] == [("acquirer", 6_000), ("issuer", 6_000)]
    assert books[0][2] == books[1][2]
    assert part.txid is not None
    assert whole.txid is not None
    with database.engine.connect() as reading:
        assert requested_amount(reading, part.txid) == 10_000, "printed, on a duplicate too"
        assert requested_amount(reading, whole.txid) is None
    # The terminal takes back the whole message, by what it asked for.
    [undone] = house.send(house.request(Kind.REVERSAL, "000002", None, 10_000))
    assert undone.outcome is Outcome.APPROVED
    with psycopg.connect(database.owner_dsn) as connection:
        balances = dict(
            connection.execute(
                "SELECT a.kind, sum(p.amount)::bigint FROM postings p"
                " JOIN accounts a USING (account_id) GROUP BY a.kind"
            ).fetchall()
        )
    assert balances == {
        "cardholder": 6_000,
        "funding": -10_000,
        "settlement": 0,
        "merchant": 4_000,
    }
