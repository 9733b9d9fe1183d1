"""Every way to present a card, from a terminal's bytes to the issuer's ledger: two real nodes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.iso8583.codec import Message
from gateway.receipts.model import Language, Wanted, content_of
from gateway.receipts.rendering import Form, render
from nodes.cards.model import CardForm, IssuedCard, Making
from nodes.crypto.emv import TRANSPORT_KEY, open_personalization
from nodes.emv import tlv
from nodes.money import numeric_code
from sandbox.cards.chip import CardRefuses, ChipCard, Completion, Purchase
from sandbox.cards.wallet import Wallet, track2_of_code
from sandbox.terminal import PURCHASE, Card, Reply, Terminal
from tests.conftest import Cluster
from tests.factories.network import EMV_KEYS
from tests.integration.api.running import TwoNodes, two_nodes
from tests.integration.gateway.running import play
from tests.integration.gateway.test_real_nodes import front

CHIP = Making(CardForm.CHIP)


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[TwoNodes]:
    with two_nodes(cluster) as both:
        yield both


def personalized(card: IssuedCard) -> ChipCard:
    """The plastic of an issued chip card."""
    assert card.personalization is not None
    return ChipCard.personalized(
        open_personalization(EMV_KEYS[TRANSPORT_KEY], card.personalization)
    )


def today() -> str:
    """YYMMDD of the simulated shops."""
    return f"{datetime.now(UTC) + timedelta(hours=8):%y%m%d}"


def asked(chip: ChipCard, amount: int, *, cvm: str = "none") -> bytes:
    """A first cryptogram for an amount in yuan's cents, today."""
    return chip.first_cryptogram(Purchase(amount, numeric_code("CNY"), today(), cvm))


def message(
    pos: Terminal,
    chip: ChipCard,
    amount: int,
    mode: str,
    *,
    icc: bytes | None = None,
    pin: str | None = None,
    track2: str | None = None,
) -> Message:
    """A purchase as the terminal sends it; `mode`: the first two digits of DE22."""
    card = Card(chip.pan, chip.expiry, chip.service_code)
    made = pos.request("0200", PURCHASE, card, amount, pin)
    made.text[22] = f"{mode}{1 if pin else 2}"
    if track2 is not None:
        made.text[35] = track2
    if icc is not None:
        made.text[23] = f"0{chip.psn}"
        made.binary[55] = icc
    return made


async def insert(
    pos: Terminal, chip: ChipCard, amount: int, pin: str | None = None, *, mode: str = "05"
) -> Reply:
    """The chip is read, the issuer asked, and the card hears the answer."""
    icc = asked(chip, amount, cvm="pin" if pin else "none")
    track2 = chip.track2
    return await pos.exchange(message(pos, chip, amount, mode, icc=icc, pin=pin, track2=track2))


@pytest.mark.parametrize("profile", ["des-common", "des-emv2000", "sm4"])
def test_a_chip_and_its_issuer_know_each_other(nodes: TwoNodes, profile: str) -> None:
    making = Making(CardForm.CHIP, profile, "B")
    issued = nodes.network.card(10_000, making=making)
    chip = personalized(issued)

    async def scenario() -> None:
        async with front(nodes) as pos:
            reply = await insert(pos, chip, 2_500, "123456")
            assert (reply.code, reply.authentic) == ("00", True)
            done = chip.complete(reply.binary[55], approved=True)
            assert done.outcome is Completion.APPROVED
            assert nodes.network.balance(issued) == 7_500
            # A repeat is the stored answer, ARPC and all; nothing moves.
            assert (await pos.resend(reply)).response == reply.response
            # An answer that somebody has changed is not the issuer's.
            second = await insert(pos, chip, 100, "123456")
            forged = bytearray(second.binary[55])
            forged[3] ^= 1
            assert chip.complete(bytes(forged), approved=True).outcome is Completion.NOT_AUTHENTIC
            # Declined for funds: the card hears that from its issuer, too.
            third = await insert(pos, chip, 9_999, "123456")
            assert third.code == "51"
            assert chip.complete(third.binary[55], approved=True).outcome is Completion.DECLINED
            assert third.binary[55][:2].hex() == "910a"

    play(scenario)


def test_a_receipt_of_the_books_tells_what_the_chip_said(nodes: TwoNodes) -> None:
    issued = nodes.network.card(10_000, making=CHIP)
    chip = personalized(issued)
    plain = nodes.network.card(10_000)

    async def scenario() -> None:
        async with front(nodes) as pos:
            icc = asked(chip, 300, cvm="signature")
            made = message(pos, chip, 300, "07", icc=icc, track2=chip.track2)
            tapped = await pos.exchange(made)
            entered = await insert(pos, chip, 400, "123456")
            keyed = await pos.purchase(Card(plain.pan, plain.expiry), 500, "123456")
            said = [_receipt(nodes, reply) for reply in (tapped, entered, keyed)]
            assert [one["cvm"] for one in said] == ["signature", "pin", None]
            assert said[0]["chip"] == {
                "aid": "a000000333010101",
                "label": "",
                "kind": "ARQC",
                "cryptogram": icc[3:11].hex(),
                "atc": 1,
            }
            assert (said[1]["chip"]["atc"], said[2]["chip"]) == (2, None)
            assert {one["offline"] for one in said} == {False}
            printed = render(content_of(said[0]), Wanted(language=Language.ENGLISH), Form.TEXT)
            for part in ("A000000333010101", icc[3:11].hex().upper(), "ARQC"):
                assert part in printed.decode()
            assert chip.pan not in printed.decode()

    play(scenario)


def test_a_top_up_by_chip_is_checked_like_a_payment(nodes: TwoNodes) -> None:
    issued = nodes.network.card(1_000, making=CHIP)
    chip = personalized(issued)

    async def scenario() -> None:
        async with front(nodes) as pos:

            async def told(icc: bytes) -> Reply:
                made = message(pos, chip, 500, "05", icc=icc, track2=chip.track2)
                made.text[3] = "210000"
                return await pos.exchange(made)

            good = asked(chip, 500)
            forged = good[:3] + bytes((good[3] ^ 1,)) + good[4:]
            assert (await told(forged)).code == "88"
            paid_in = await told(good)
            assert paid_in.code == "00"
            assert chip.complete(paid_in.binary[55], approved=True).outcome is Completion.APPROVED
            assert (await told(good)).code == "88"  # its counter is used
            assert nodes.network.balance(issued) == 1_500

    play(scenario)


def _receipt(nodes: TwoNodes, reply: Reply) -> dict[str, Any]:
    """What the acquirer's node says for the receipt of an answer."""
    with nodes.acquirer.http("operator") as api:
        page = api.get("/v1/transactions", params={"rrn": reply.rrn}).json()
        [txid] = [item["txid"] for item in page["items"] if item["side"] == "acquirer"]
        said: dict[str, Any] = api.post(f"/v1/transactions/{txid}/receipt", json={}).json()
    return said


def test_bad_chip_data_is_declined_and_nothing_moves(nodes: TwoNodes) -> None:
    issued, other = (nodes.network.card(10_000, making=CHIP) for _ in range(2))
    chip, stranger = personalized(issued), personalized(other)

    async def scenario() -> None:
        async with front(nodes) as pos:

            async def told(icc: bytes | None, amount: int = 500, mode: str = "05") -> str:
                made = message(pos, chip, amount, mode, icc=icc, pin="123456", track2=chip.track2)
                return (await pos.exchange(made)).code

            first = asked(chip, 500, cvm="pin")
            assert await told(first) == "00"
            assert await told(first) == "88"  # the same cryptogram again
            assert await told(asked(stranger, 500)) == "88"
            assert await told(asked(chip, 501)) == "30"  # of another amount
            assert await told(b"\x9f\x26\x08cut") == "30"
            assert await told(tlv.encode(tlv.decode(asked(chip, 500))[1:])) == "30"
            assert await told(None) == "30"  # a chip that says nothing
            assert await told(asked(chip, 500), mode="02") == "30"  # and not by the stripe
            altered = bytearray(asked(chip, 500))
            altered[altered.index(bytes.fromhex("9f3704")) + 3] ^= 1
            assert await told(bytes(altered)) == "88"
            # The chip's own counter has gone on meanwhile, and its next cryptogram is taken.
            assert await told(asked(chip, 500)) == "00"
            clone = personalized(issued)
            assert await told(asked(clone, 500)) == "88"  # its counter is behind
            assert nodes.network.balance(issued) == 9_000
            why = _last_reason(nodes, issued)
            assert (why["code"], why["values"]["atc"]) == ("cryptogram_wrong", 1)

    play(scenario)


def _last_reason(nodes: TwoNodes, card: IssuedCard) -> dict[str, Any]:
    """Why the last request of a card was declined, as the issuer's API says it."""
    with nodes.issuer.http() as api:
        items = api.get("/v1/transactions", params={"card_token": card.card_token.hex()}).json()
        detail = api.get(f"/v1/transactions/{items['items'][0]['txid']}").json()
    reason: dict[str, Any] = detail["decision"]["reason"]
    return reason


def test_a_lost_card_is_blocked_by_a_script_and_orders_wait_for_the_card(nodes: TwoNodes) -> None:
    issued = nodes.network.card(10_000, making=CHIP)
    chip = personalized(issued)
    path = f"/v1/cards/{issued.card_token.hex()}"

    async def scenario() -> None:
        async with front(nodes) as pos:
            with nodes.issuer.http() as api:
                body = {"script": "reset_offline", "reason": "limits changed"}
                queued = api.post(f"{path}/scripts", json=body)
                assert queued.status_code == 201, queued.text
                assert queued.json() == {"number": 1, "waiting": ["reset_offline"]}
                reply = await insert(pos, chip, 100, "123456")
                assert chip.complete(reply.binary[55], approved=True).scripts_done == 1
                # The card's word that it has done it goes with its next request; then it is over.
                reply = await insert(pos, chip, 100, "123456")
                assert [e.tag for e in tlv.decode(reply.binary[55])] == ["91"]
                chip.complete(reply.binary[55], approved=True)

                lost = api.post(f"{path}/status", json={"status": "lost", "reason": "called"})
                assert lost.status_code == 200, lost.text
            reply = await insert(pos, chip, 100, "123456")
            assert reply.code == "41"
            # A declined card is told so by its issuer: it stops.
            done = chip.complete(reply.binary[55], approved=False)
            assert (done.outcome, done.scripts_done) == (Completion.DECLINED, 1)
            with pytest.raises(CardRefuses):
                asked(chip, 100)

    play(scenario)


def test_the_stripe_of_a_chip_card(nodes: TwoNodes) -> None:
    issued = nodes.network.card(300_000, making=CHIP)
    chip = personalized(issued)

    async def scenario() -> None:
        async with front(nodes) as pos:

            async def swiped(mode: str, track2: str, amount: int = 100) -> str:
                made = message(pos, chip, amount, mode, pin="123456", track2=track2)
                return (await pos.exchange(made)).code

            assert await swiped("02", chip.stripe) == "57"  # its chip was not tried
            assert await swiped("80", chip.stripe) == "00"
            # A stripe made of what the chip shows has the wrong CVV.
            if chip.chip_data != chip.stripe_data:
                assert await swiped("80", chip.track2) == "82"
            head, service = chip.stripe.rsplit(chip.service_code, 1)
            assert await swiped("80", f"{head}120{service}") == "82"  # "no chip", says the copy
            assert await swiped("80", f"{chip.pan}D{chip.expiry}{chip.service_code}") == "82"
            assert await swiped("80", chip.stripe, 50_001) == "57"
            assert _last_reason(nodes, issued)["values"] == {
                "amount": 50_001,
                "limit": 50_000,
                "why": "the amount",
            }
            assert await swiped("80", chip.stripe) == "00"
            assert await swiped("80", chip.stripe) == "00"
            assert await swiped("80", chip.stripe) == "57"  # three since the chip was read
            assert (await insert(pos, chip, 100, "123456")).code == "00"
            assert await swiped("80", chip.stripe) == "00"

    play(scenario)


def test_quick_pay_ends_with_the_pin(nodes: TwoNodes) -> None:
    issued = nodes.network.card(900_000, making=CHIP)
    chip = personalized(issued)

    async def scenario() -> None:
        async with front(nodes) as pos:

            async def tapped(amount: int, pin: str | None = None) -> Reply:
                reply = await insert(pos, chip, amount, pin, mode="07")
                chip.complete(reply.binary[55], approved=True)
                return reply

            assert (await tapped(30_001)).code == "70"
            for _ in range(3):
                assert (await tapped(30_000)).code == "00"
            reply = await tapped(10_001)
            assert reply.code == "70"  # 100,000 since the last PIN
            assert _last_reason(nodes, issued)["values"] == {
                "amount": 10_001,
                "why": "the sum",
                "limit": 100_000,
                "used": 90_000,
            }
            undone = await tapped(10_000)
            assert undone.code == "00"
            assert (await pos.reversal(undone)).code == "00"  # its share comes back
            assert (await tapped(5_000)).code == "00"
            assert (await tapped(5_000)).code == "00"
            assert (await tapped(1)).code == "70"  # five since the last PIN
            assert (await tapped(1, "654321")).code == "55"
            assert (await tapped(1)).code == "70"
            assert (await tapped(1, "123456")).code == "00"
            assert (await tapped(30_000)).code == "00"

    play(scenario)


def test_a_code_is_good_once_and_for_a_minute(nodes: TwoNodes) -> None:
    issued = nodes.network.card(10_000, service_code="201")

    async def scenario() -> None:
        async with front(nodes) as pos:

            async def scanned(payload: str, mode: str = "03") -> str:
                track2 = track2_of_code(payload)
                pan, _, rest = track2.partition("D")
                made = pos.request("0200", PURCHASE, Card(pan, rest[:4]), 400)
                made.text[22], made.text[35] = f"{mode}2", track2
                return (await pos.exchange(made)).code

            with nodes.issuer.http() as api:
                wallet = Wallet(api, issued.card_token.hex())
                first, second, third = (wallet.show_code() for _ in range(3))
                assert len({first, second, third}) == 3
                assert await scanned(second) == "00"
                assert await scanned(second) == "14"  # used
                assert await scanned(first) == "14"  # issued before one that was used
                assert await scanned(third, "01") == "14"  # keyed in like a card number
                assert await scanned(third) == "00"
                card = Card(issued.pan, "4912")
                made = pos.request("0200", PURCHASE, card, 400)
                made.text[22] = "032"
                assert (await pos.exchange(made)).code == "14"  # a card number is no code
                late = wallet.show_code()
                _expire(nodes)
                assert await scanned(late) == "14"
            assert nodes.network.balance(issued) == 9_200

    play(scenario)


def _expire(nodes: TwoNodes) -> None:
    """All codes, as they are a minute later."""
    with nodes.network.issuer_db.owner_engine.begin() as connection:
        connection.exec_driver_sql("UPDATE consumer_codes SET expires_ms = expires_ms - 60000")


def test_a_virtual_card_is_for_the_network_alone(nodes: TwoNodes) -> None:
    making = Making(CardForm.VIRTUAL)
    issued = nodes.network.card(10_000, pin=None, service_code="101", making=making)
    assert issued.cvv2 is not None

    async def scenario() -> None:
        async with front(nodes) as pos:
            card = Card(issued.pan, "4912", "101")
            keyed = pos.request("0200", PURCHASE, card, 100)
            assert (await pos.exchange(keyed)).code == "57"
            swiped = pos.request("0200", PURCHASE, card, 100, track2=True)
            assert (await pos.exchange(swiped)).code == "57"
            online = pos.request("0200", PURCHASE, card, 100, condition="59")
            assert (await pos.exchange(online)).code == "82"  # without its CVV2
            assert nodes.network.balance(issued) == 10_000

    play(scenario)


def test_what_the_message_says_of_the_entry_must_be_so(nodes: TwoNodes) -> None:
    issued = nodes.network.card(10_000)
    chip = personalized(nodes.network.card(0, making=CHIP))

    async def scenario() -> None:
        async with front(nodes) as pos:
            card = Card(issued.pan, "4912")
            for mode in ("002", "062", "992"):
                made = pos.request("0200", PURCHASE, card, 100, "123456")
                made.text[22] = mode
                assert (await pos.exchange(made)).code == "30"
            made = pos.request("0200", PURCHASE, card, 100, "123456")
            made.text[22] = "022"
            assert (await pos.exchange(made)).code == "30"  # a stripe without its track
            made = pos.request("0200", PURCHASE, card, 100, "123456")
            made.binary[55] = asked(chip, 100)
            assert (await pos.exchange(made)).code == "30"  # keyed in, and a chip speaks
            made.text[22], made.text[11] = "052", pos.next_stan()
            assert (await pos.exchange(made)).code == "30"  # this card has no chip

    play(scenario)
