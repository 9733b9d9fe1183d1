"""A payment that ended offline where acquirer and issuer are one institution: one commit has both
sides, and the queue leads back into the house."""

from __future__ import annotations

import asyncio
import itertools
import secrets

import msgspec
import psycopg
import pytest

from nodes.acquiring.model import Merchant
from nodes.acquiring.operations import register_merchant, register_terminal
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations.accepting import Acquirer
from nodes.authorization.operations.deciding import Issuer
from nodes.authorization.operations.forwarding import (
    forwarded_request,
    request_of,
    settle_forwards,
    settle_reversals,
    take_forwards,
    take_reversals,
)
from nodes.authorization.operations.own import load_card
from nodes.authorization.service import Authorizer
from nodes.cards.model import CardForm, IssuedCard, Making
from nodes.cards.operations import issue_card
from nodes.clock import FixedClock, to_datetime
from nodes.crypto.answer_signature import AnswerSigner
from nodes.crypto.emv import SoftwareEmvHsm
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.pan import PanVault
from nodes.reconciliation.invariants import check_invariants
from sandbox.cards.chip import Purchase
from tests.conftest import NodeDatabase
from tests.factories.network import (
    BIN,
    EMV_KEYS,
    GATEWAY_ZONE,
    MERCHANT,
    NOW_MS,
    TERMINAL,
    DirectLink,
)
from tests.integration.authorization.test_offline_chip import TODAY, plastic
from tests.integration.authorization.test_on_us import MEMBER, House


def deliver(database: NodeDatabase, house: House, acquirer: Acquirer) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        for _ in range(3):
            house.clock.advance(120_000)
            undo = take_reversals(connection, acquirer)
            answers = asyncio.run(house.node.authorize([request_of(row) for row in undo]))
            settle_reversals(connection, acquirer, list(zip(undo, answers, strict=True)))
            due = take_forwards(connection, acquirer)
            until = house.clock.now_ms() + 5_000
            asked = [forwarded_request(acquirer, row, until) for row in due]
            answers = asyncio.run(house.node.authorize(asked))
            settle_forwards(connection, acquirer, list(zip(due, answers, strict=True)))
        assert take_reversals(connection, acquirer) == []
        assert take_forwards(connection, acquirer) == []


@pytest.mark.parametrize("order", sorted(set(itertools.permutations("OTR"))), ids="".join)
def test_in_every_order_it_is_posted_once(database: NodeDatabase, order: tuple[str, ...]) -> None:
    clock = FixedClock(NOW_MS)
    now = to_datetime(NOW_MS)
    vault, forward_vault = (
        PanVault(secrets.token_bytes(32), secrets.token_bytes(32)) for _ in range(2)
    )
    hsm, emv = (
        SoftwareHsm({"zone:gateway": GATEWAY_ZONE, "pin_lookup": bytes(32)}),
        SoftwareEmvHsm(EMV_KEYS),
    )
    card = issue_card(
        database.engine, vault, hsm, bins=[BIN], currency="CNY", expiry="4912",
        service_code="220", pin="123456", actor="test", now=now, making=Making(CardForm.CHIP),
        emv=emv,
    )  # fmt: skip
    assert isinstance(card, IssuedCard)
    load_card(
        database.engine, MEMBER, card_token=card.card_token, amount=10_000, currency="CNY",
        reference="first load", idempotency_key="first-load", now=now,
    )  # fmt: skip
    shop = Merchant(MERCHANT, "Harbor Stores", "5411", "CN", "CNY")
    register_merchant(database.engine, shop, now=now)
    register_terminal(database.engine, TERMINAL, MERCHANT)
    acquirer = Acquirer(MEMBER, hsm, clock, lambda _: MEMBER, vault=forward_vault)
    node = Authorizer(
        database.dsn,
        MEMBER,
        DirectLink(down=True),  # nothing may leave the house
        make_issuer=lambda: Issuer(MEMBER, vault, hsm, clock, AnswerSigner(bytes(32)), emv),
        make_acquirer=lambda: Acquirer(MEMBER, hsm, clock, lambda _: MEMBER, vault=forward_vault),
    )
    house = House(node, card, hsm, clock)
    chip, paid = plastic(card), Purchase(700, "156", TODAY)
    online = msgspec.structs.replace(
        house.request(Kind.PURCHASE, "000001", "123456", 700), icc=chip.first_cryptogram(paid)
    )
    advice = msgspec.structs.replace(
        house.request(Kind.ADVICE, "000002", None, 700), icc=chip.approve_unanswered(paid)
    )
    undo = msgspec.structs.replace(
        online, kind=Kind.REVERSAL, pin_block=None, icc=None, fingerprint=bytes(32)
    )
    messages = {"O": online, "T": advice, "R": undo}
    told = {name: asyncio.run(node.accept([messages[name]]))[0] for name in order}
    assert {told[name].outcome for name in "TR"} == {Outcome.APPROVED}
    deliver(database, house, acquirer)
    assert [asyncio.run(node.accept([messages[name]]))[0] for name in order] == [*told.values()]
    with database.engine.connect() as connection:
        balance = connection.exec_driver_sql(
            "SELECT balance FROM account_versions WHERE account_id = %s AND line = 0"
            " ORDER BY version DESC LIMIT 1",
            (card.account_id,),
        ).scalar_one()
    assert balance == 9_300
    node.close()
    assert check_invariants(database.owner_engine) == []
