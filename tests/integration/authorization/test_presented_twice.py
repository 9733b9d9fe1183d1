"""Codes, counters and Quick Pay under concurrency: two node processes on one issuer's database."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Iterator

import pytest

from nodes.authorization.model import AuthorizationRequest, Kind, Outcome
from nodes.cards.codes import IssuedCode, issue_code
from nodes.cards.model import CardForm, IssuedCard, Making
from nodes.crypto.emv import TRANSPORT_KEY, open_personalization
from nodes.emv.qr import decode_consumer
from nodes.reconciliation.invariants import check_invariants
from sandbox.cards.chip import ChipCard, Purchase
from tests.conftest import NodeDatabase
from tests.factories.issuing import BIN, IssuingHouse, approved
from tests.factories.network import EMV_KEYS

ROUNDS = 12
CHIP = Making(CardForm.CHIP)


@pytest.fixture
def house(database: NodeDatabase) -> Iterator[IssuingHouse]:
    made = IssuingHouse(database)
    yield made
    made.close()
    assert check_invariants(database.engine) == []


def plastic(card: IssuedCard) -> ChipCard:
    assert card.personalization is not None
    return ChipCard.personalized(
        open_personalization(EMV_KEYS[TRANSPORT_KEY], card.personalization)
    )


def tap(house: IssuingHouse, card: IssuedCard, chip: ChipCard, amount: int) -> AuthorizationRequest:
    """A contactless purchase without a PIN."""
    icc = chip.first_cryptogram(Purchase(amount, "156", "260921"))
    return house.request(Kind.PURCHASE, amount, card, entry_mode="072", icc=icc)


def test_one_code_shown_at_two_tills_at_once_pays_once(house: IssuingHouse) -> None:
    async def scene() -> None:
        one, two = house.engine(), house.engine()
        for _ in range(ROUNDS):
            card = house.card(1_000)
            made = issue_code(
                house.database.engine,
                house.vault,
                card_token=card.card_token,
                bins=[BIN],
                now_ms=house.clock.now_ms(),
            )
            assert isinstance(made, IssuedCode)
            code = decode_consumer(made.payload)
            asked = [
                house.request(Kind.PURCHASE, 100, entry_mode="032", pan=code.number)
                for _ in range(6)
            ]
            answers = await asyncio.gather(
                *(engine.submit([r]) for engine, r in zip([one, two] * 3, asked, strict=True))
            )
            tally = Tally(answer[0].outcome for answer in answers)
            assert tally == {Outcome.APPROVED: 1, Outcome.CODE_NOT_VALID: 5}
            assert house.account(card).balance == 900

    asyncio.run(scene())


def test_quick_pay_over_two_processes_stays_within_its_sum_and_count(house: IssuingHouse) -> None:
    async def scene() -> None:
        one, two = house.engine(), house.engine()
        for turn in range(ROUNDS):
            card = house.card(1_000_000, making=CHIP)
            chip = plastic(card)
            # Each tap has its own counter; the order in which they arrive isn't the card's, so a
            # later one may overtake. What was approved is within the limits all the same.
            amount = 30_000 if turn % 2 else 1_000
            asked = [tap(house, card, chip, amount) for _ in range(8)]
            answers = await asyncio.gather(
                *(engine.submit([r]) for engine, r in zip([one, two] * 4, asked, strict=True))
            )
            outcomes = [answer[0].outcome for answer in answers]
            assert set(outcomes) <= {
                Outcome.APPROVED,
                Outcome.CVM_REQUIRED,
                Outcome.CRYPTOGRAM_WRONG,
            }
            assert 1 <= approved(outcomes) <= (3 if turn % 2 else 5)
            spent = 1_000_000 - house.account(card).balance
            assert spent == approved(outcomes) * amount
            counter = house.account(card).counters[f"quick:{_card_id(house, card)}"]
            assert (counter.amount, counter.count) == (spent, approved(outcomes))
            # And one after another the limit is reached exactly.
            while approved([(await one.submit([tap(house, card, chip, amount)]))[0].outcome]):
                pass
            total = 1_000_000 - house.account(card).balance
            assert total == (90_000 if turn % 2 else 5_000)

    asyncio.run(scene())


def test_one_cryptogram_at_two_processes_is_taken_once(house: IssuingHouse) -> None:
    async def scene() -> None:
        one, two = house.engine(), house.engine()
        for _ in range(ROUNDS):
            card = house.card(10_000, making=CHIP)
            first = tap(house, card, plastic(card), 100)
            again = house.request(Kind.PURCHASE, 100, card, entry_mode="072", icc=first.icc)
            answers = await asyncio.gather(one.submit([first]), two.submit([again]))
            outcomes = {answer[0].outcome for answer in answers}
            assert outcomes == {Outcome.APPROVED, Outcome.CRYPTOGRAM_WRONG}
            assert sum(answer[0].icc is not None for answer in answers) == 1

    asyncio.run(scene())


def test_what_chips_said_is_kept_with_the_decision(house: IssuingHouse) -> None:
    async def scene() -> None:
        engine = house.engine()
        card = house.card(10_000, making=CHIP)
        chip = plastic(card)
        good = tap(house, card, chip, 100)
        forged = tap(house, card, chip, 200)
        assert forged.icc is not None
        bad = house.request(
            Kind.PURCHASE,
            200,
            card,
            entry_mode="072",
            icc=forged.icc[:3] + b"12345678" + forged.icc[11:],
        )
        answers = await engine.submit([good, bad])
        assert [a.outcome for a in answers] == [Outcome.APPROVED, Outcome.CRYPTOGRAM_WRONG]
        with house.database.owner_engine.connect() as connection:
            rows = connection.exec_driver_sql(
                "SELECT atc, genuine, answer FROM chip_records ORDER BY atc"
            ).all()
        assert [(row.atc, row.genuine) for row in rows] == [(1, True), (2, False)]
        assert bytes(rows[0].answer) == answers[0].icc
        assert rows[1].answer is None

    asyncio.run(scene())


def _card_id(house: IssuingHouse, card: IssuedCard) -> int:
    return next(iter(house.account(card).cards))
