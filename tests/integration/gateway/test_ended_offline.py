"""A chip's payment that was asked for online and ended offline, in a terminal's bytes: its TC by
0220 or 0320 before, after and instead of the 0400, and each of them again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import psycopg
import pytest

from gateway.iso8583.codec import Message
from nodes.authorization.operations.forwarding import (
    forwarded_request,
    request_of,
    settle_forwards,
    settle_reversals,
    take_forwards,
    take_reversals,
)
from nodes.cards.model import IssuedCard
from nodes.money import numeric_code
from nodes.reconciliation.invariants import check_invariants
from sandbox.cards.chip import ChipCard, Purchase
from sandbox.terminal import Card, Reply, Terminal
from tests.conftest import Cluster
from tests.integration.api.running import TwoNodes, two_nodes
from tests.integration.gateway.fronting import close_batch, front, plastic, upload_of
from tests.integration.gateway.running import play
from tests.integration.gateway.test_batch_close import rows, totals
from tests.integration.gateway.test_card_entry import CHIP, asked, message, personalized, today


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[TwoNodes]:
    with two_nodes(cluster) as both:
        yield both
        assert check_invariants(both.network.acquirer_db.owner_engine) == []
        assert check_invariants(both.network.issuer_db.owner_engine) == []


def deliver(nodes: TwoNodes) -> None:
    """What the acquirer's worker does with both queues, until they are empty."""
    network = nodes.network
    acquirer, issuer = network.make_acquirer(), network.new_issuer()
    with psycopg.connect(network.acquirer_db.dsn, autocommit=True) as connection:
        for _ in range(4):
            for queue in ("reversal_queue", "forward_queue"):
                connection.execute(f"UPDATE {queue} SET next_attempt_ms = 0 WHERE done_ms IS NULL")
            undo = take_reversals(connection, acquirer)
            asked_again = [request_of(row) for row in undo]
            answers = asyncio.run(issuer.authorize(asked_again))
            settle_reversals(connection, acquirer, list(zip(undo, answers, strict=True)))
            due = take_forwards(connection, acquirer)
            deadline = network.clock.now_ms() + 5_000
            asked_again = [forwarded_request(acquirer, row, deadline) for row in due]
            answers = asyncio.run(issuer.authorize(asked_again))
            settle_forwards(connection, acquirer, list(zip(due, answers, strict=True)))
    issuer.close()
    waiting = "SELECT count(*) FROM {} WHERE done_ms IS NULL"
    assert [rows(nodes, waiting.format(q)) for q in ("reversal_queue", "forward_queue")] == [
        [(0,)], [(0,)],
    ]  # fmt: skip


def ended_offline(
    pos: Terminal, issued: IssuedCard, amount: int
) -> tuple[ChipCard, Message, Message]:
    """The 0200 with the chip's ARQC, and the 0220 with its TC under the same counter."""
    chip = personalized(issued)
    icc = asked(chip, amount, cvm="pin")
    online = message(pos, chip, amount, "05", icc=icc, pin="123456", track2=chip.track2)
    chip.make_offline_key()
    chip.atc -= 1  # the second cryptogram of the same transaction
    tc = chip.approve_offline(Purchase(amount, numeric_code("CNY"), today()))
    card = Card(chip.pan, chip.expiry, chip.service_code)
    advice = pos.request(
        "0220", "000000", card, amount, mode="05", track=chip.track2, chip=(chip.psn, tc)
    )
    return chip, online, advice


#: O: 0200, whose answer is lost; T: 0220; R: 0400.
ORDERS = [
    *(("O", *rest) for rest in sorted(set(itertools.permutations("TTRR")))),
    ("O", "T", "T"), ("T", "O", "R"), ("T", "R", "O"), ("R", "T", "O"), ("T", "R"), ("R", "T"),
]  # fmt: skip


@pytest.mark.parametrize("order", ORDERS, ids="".join)
def test_whatever_comes_first_the_payment_is_posted_once_and_the_queue_is_cleared(
    nodes: TwoNodes, order: tuple[str, ...]
) -> None:
    issued = nodes.network.card(10_000, making=CHIP)

    async def scenario() -> None:
        async with front(nodes) as (_, [pos]):
            _, online, advice = ended_offline(pos, issued, 700)
            frames = {"O": pos.seal(online), "T": pos.seal(advice)}
            frames["R"] = pos.seal(pos.reversal_of(frames["O"]))
            told: dict[str, Reply] = {}
            for late in (False, True):
                if late:
                    await asyncio.to_thread(deliver, nodes)
                for name in order:
                    reply = await pos.send_frame(frames[name])
                    first = told.setdefault(name, reply)
                    assert reply.response == first.response, name
                    assert name == "O" or reply.code == "00", name
            if "O" in order:
                before = order[: order.index("O")]
                assert told["O"].code == ("05" if "R" in before else "88" if before else "00")
            assert {name: reply.mti for name, reply in told.items() if name != "O"} == {
                name: {"T": "0230", "R": "0410"}[name] for name in order if name != "O"
            }
            # What the terminal counts is what the books have.
            assert (await close_batch(pos, totals(1, 700))).code == "00"

    play(scenario)
    assert nodes.network.balance(issued) == 9_300


def test_a_tc_that_a_batch_upload_brings_takes_the_online_payments_place(nodes: TwoNodes) -> None:
    """The 0220 never got through, nor did the reversal: the upload tells of both."""
    issued, other = nodes.network.card(10_000, making=CHIP), nodes.network.card(10_000)

    async def scenario() -> None:
        async with front(nodes) as (_, [pos]):
            _, online, advice = ended_offline(pos, issued, 700)
            assert (await pos.exchange(online)).approved
            lost = pos.request("0200", "000000", plastic(other), 100)
            right = totals(2, 800)
            assert (await close_batch(pos, right)).code == "95"
            told = upload_of(advice, pos)
            told.text[23] = advice.text[23]
            told.binary[55] = advice.binary[55]
            for item in (upload_of(lost, pos), told):
                frame = pos.seal(item)
                first = await pos.send_frame(frame)
                assert (first.mti, first.code) == ("0330", "00")
                assert (await pos.send_frame(frame)).response == first.response
            assert (await close_batch(pos, right)).code == "00"
            await asyncio.to_thread(deliver, nodes)
            # Both come after all: each finds itself dealt with.
            assert (await pos.exchange(advice)).code == "00"
            assert (await pos.exchange(pos.reversal_of(pos.seal(online)))).code == "00"

    play(scenario)
    assert nodes.network.balance(issued) == 9_300
    assert nodes.network.balance(other) == 9_900
    assert rows(
        nodes, "SELECT finding, action, amount FROM batch_findings ORDER BY finding_id"
    ) == [("missing_here", "posted", 100), ("missing_here", "posted", 700)]
