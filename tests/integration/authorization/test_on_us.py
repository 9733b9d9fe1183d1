"""One institution is acquirer and issuer at once: both sides of a transaction in one database."""

from __future__ import annotations

import asyncio
import hashlib
import secrets

import msgspec
import psycopg
import pytest

from nodes.acquiring.model import Merchant
from nodes.acquiring.operations import register_merchant, register_terminal
from nodes.authorization.model import Kind, Outcome, TerminalAnswer, TerminalRequest
from nodes.authorization.operations.accepting import Acquirer
from nodes.authorization.operations.deciding import Issuer
from nodes.authorization.operations.own import load_card
from nodes.authorization.service import Authorizer
from nodes.cards.model import IssuedCard
from nodes.cards.operations import issue_card
from nodes.clock import FixedClock, to_datetime
from nodes.crypto.answer_signature import AnswerSigner
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.pan import PanVault
from tests.conftest import NodeDatabase
from tests.factories.network import BIN, GATEWAY_ZONE, MERCHANT, NOW_MS, TERMINAL, DirectLink

MEMBER = "aurora"


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW_MS)


def test_both_sides_stand_in_one_database_and_a_reversal_clears_both(
    database: NodeDatabase, clock: FixedClock
) -> None:
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

    def request(kind: Kind, stan: str, pin: str | None) -> TerminalRequest:
        return TerminalRequest(
            terminal_id=TERMINAL,
            merchant_id=MERCHANT,
            business_date="2026-09-21",
            batch="000001",
            stan=stan,
            kind=kind,
            amount=2_500,
            currency="CNY",
            pan=card.pan,
            fingerprint=hashlib.sha256(f"{kind}{stan}".encode()).digest(),
            entry_mode="051",
            local_time="2026-09-21T12:00:00",
            deadline_ms=clock.now_ms() + 15_000,
            pin_block=hsm.seal_pin("zone:gateway", pin, card.pan) if pin else None,
        )

    def send(*requests: TerminalRequest) -> list[TerminalAnswer]:
        return asyncio.run(node.accept(requests))

    purchase = request(Kind.PURCHASE, "000001", "123456")
    [approved] = send(purchase)
    assert approved.outcome is Outcome.APPROVED
    assert msgspec.json.encode(send(purchase)[0]) == msgspec.json.encode(approved)
    assert send(request(Kind.PURCHASE, "000002", "654321"))[0].outcome is Outcome.PIN_WRONG
    assert send(request(Kind.REVERSAL, "000001", None))[0].outcome is Outcome.APPROVED
    node.close()

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
