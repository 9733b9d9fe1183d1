"""Batch close over real bytes and real nodes: equal, different, uploaded, adjusted, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from nodes.authorization.operations.forwarding import (
    request_of,
    settle_reversals,
    take_reversals,
)
from nodes.authorization.services import CurrencyTotals
from nodes.authorization.store.batches import roll_lines
from nodes.reconciliation.invariants import check_invariants
from tests.conftest import Cluster
from tests.integration.api.running import TwoNodes, two_nodes
from tests.integration.gateway.fronting import (
    close_batch,
    closing,
    front,
    plastic,
    top_up,
    upload_of,
)
from tests.integration.gateway.running import play


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[TwoNodes]:
    with two_nodes(cluster) as both:
        yield both


def totals(
    debits: int, debit_amount: int, credits: int = 0, credit_amount: int = 0
) -> CurrencyTotals:
    return CurrencyTotals("CNY", debits, debit_amount, credits, credit_amount)


def deliver_reversals(nodes: TwoNodes) -> int:
    """What the acquirer's worker does with its queue."""
    network = nodes.network
    acquirer = network.make_acquirer()
    with psycopg.connect(network.acquirer_db.dsn, autocommit=True) as connection:
        connection.execute("UPDATE reversal_queue SET next_attempt_ms = 0 WHERE done_ms IS NULL")
        rows = take_reversals(connection, acquirer)
        # Another process of the issuer: the one that is served has its own event loop.
        issuer = network.new_issuer()
        answers = asyncio.run(issuer.authorize([request_of(row) for row in rows]))
        issuer.close()
        return settle_reversals(connection, acquirer, list(zip(rows, answers, strict=True)))


def rows(nodes: TwoNodes, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(nodes.network.acquirer_db.dsn, autocommit=True) as connection:
        return connection.execute(statement).fetchall()


def sound(nodes: TwoNodes) -> None:
    assert check_invariants(nodes.network.acquirer_db.owner_engine) == []
    assert check_invariants(nodes.network.issuer_db.owner_engine) == []


def test_equal_totals_close_the_batch_and_the_next_number_comes(nodes: TwoNodes) -> None:
    card = nodes.network.card(50_000)

    async def scenario() -> None:
        async with front(nodes) as (_, [pos]):
            bought = await pos.purchase(plastic(card), 2_500, "123456")
            assert bought.approved
            gone = await pos.purchase(plastic(card), 700, "123456")
            assert (await pos.reversal(gone)).approved
            half = await pos.purchase(plastic(card), 900, "123456")
            assert (await pos.reversal(half, 400)).approved
            assert (await pos.refund(plastic(card), 300, bought.rrn)).approved
            assert (await top_up(pos, plastic(card), 1_000)).approved
            held = await pos.authorize(plastic(card), 4_000, "123456")
            assert (await pos.complete(plastic(card), 3_500, held.rrn)).approved
            voided = await pos.purchase(plastic(card), 50, "123456")
            assert (await pos.void(plastic(card), 50, voided.rrn)).approved
            right = totals(4, 2_500 + 500 + 3_500 + 50, 3, 300 + 1_000 + 50)
            first = closing(pos, right)
            closed = await pos.exchange(first)
            assert (closed.mti, closed.code) == ("0510", "00")
            following = f"{int(pos.batch) + 1:06d}"
            assert closed.fields[60] == following
            # The same bytes, a repeat by its own MTI, and a second close: all are answered alike.
            assert (await pos.resend(closed)).response == closed.response
            first.mti = "0501"
            assert (await pos.exchange(first)).fields == closed.fields
            again = await close_batch(pos, right)
            assert (again.code, again.fields[60]) == ("00", following)
            assert (await close_batch(pos, totals(1, 1))).code == "95"
            other = closing(pos, totals(9, 9))
            other.text[11] = closed.fields[11]
            assert (await pos.exchange(other)).code == "94"
            pos.batch = following
            assert (await pos.purchase(plastic(card), 10, "123456")).approved
            told = await close_batch(pos, totals(1, 10))
            assert told.code == "00", told.fields

    play(scenario)
    sound(nodes)
    assert nodes.network.balance(card) == 50_000 - 2_500 - 500 + 300 + 1_000 - 3_500 - 10


def test_a_difference_is_uploaded_item_by_item_and_adjusted_once(nodes: TwoNodes) -> None:
    network = nodes.network
    card = network.card(50_000)

    async def scenario() -> None:
        async with front(nodes) as (_, [pos]):
            both = await pos.purchase(plastic(card), 1_000, "123456")
            unknown = await pos.purchase(plastic(card), 700, "123456")  # the terminal lost it
            less = await pos.purchase(plastic(card), 500, "123456")  # it says 450
            more = await pos.purchase(plastic(card), 600, "123456")  # it says 650
            assert {r.code for r in (both, unknown, less, more)} == {"00"}
            back = await pos.refund(plastic(card), 100, both.rrn)
            lost = pos.request("0220", "000000", plastic(card), 250)  # never arrived
            declined = pos.request("0200", "000000", plastic(card), 99_999_00, "123456")
            assert (await pos.exchange(declined)).code == "51"
            assert (await pos.exchange(upload_of(both, pos))).code == "12", "nobody asked for it"
            right = totals(4, 1_000 + 450 + 650 + 250, 1, 100)
            differs = await close_batch(pos, right)
            assert (differs.mti, differs.code) == ("0510", "95")
            assert differs.fields[63] == "CNY000004000000002800000001000000000100"
            uploads = [
                upload_of(both, pos),
                upload_of(less, pos, 450),
                upload_of(more, pos, 650),
                upload_of(back, pos),
            ]
            frames = [pos.seal(message) for message in [*uploads, upload_of(lost, pos)]]
            assert (await close_batch(pos, right)).code == "95", "nothing is uploaded yet"
            for frame in frames:
                first = await pos.send_frame(frame)
                assert (first.mti, first.code) == ("0330", "00")
                assert (await pos.send_frame(frame)).response == first.response
            assert (await pos.exchange(upload_of(both, pos, 999))).code == "94"
            closed = await close_batch(pos, right)
            assert closed.code == "00", closed.fields
            assert (await close_batch(pos, right)).code == "00"
            # The advice that was lost comes after all: it is the one that stands.
            assert (await pos.exchange(lost)).code == "00"

    play(scenario)
    deliver_reversals(nodes)
    assert network.balance(card) == 50_000 - 1_000 - 450 - 650 + 100 - 250
    found = rows(
        nodes,
        "SELECT finding, action, amount, booked, adjusted FROM batch_findings WHERE close_id ="
        " (SELECT max(close_id) FROM batch_findings) ORDER BY finding_id",
    )
    assert found == [
        ("equal", "none", 1_000, 1_000, 0),
        ("amount", "reversed", 450, 500, 50),
        ("amount", "posted", 650, 600, 50),
        ("equal", "none", 100, 100, 0),
        ("missing_here", "posted", 250, 0, 250),
        ("missing_there", "reversed", 0, 700, 700),
    ]
    events = rows(nodes, "SELECT action FROM events WHERE action LIKE 'batch%' ORDER BY event_id")
    assert ("batch_close.added",) in events
    assert ("batch.reversed",) in events
    sound(nodes)


def test_closes_are_listed_and_rolled_up_lines_say_the_same(nodes: TwoNodes) -> None:
    card = nodes.network.card(5_000)

    async def scenario() -> None:
        async with front(nodes) as (_, [pos]):
            assert (await pos.purchase(plastic(card), 10, "123456")).approved
            with psycopg.connect(nodes.network.acquirer_db.dsn, autocommit=True) as connection:
                while roll_lines(connection):
                    pass
            assert (await pos.purchase(plastic(card), 20, "123456")).approved
            assert (await close_batch(pos, totals(2, 30))).code == "00"
            with psycopg.connect(nodes.network.acquirer_db.dsn, autocommit=True) as connection:
                while roll_lines(connection):
                    pass
            assert (await close_batch(pos, totals(2, 30))).code == "00"

    play(scenario)
    with nodes.acquirer.http("reader") as http:
        listed = http.get("/v1/batch-closes").json()["items"]
        assert listed[0]["outcome"] == "equal"
        assert listed[0]["transactions"] == 2
        adjusted = next(one for one in listed if one["outcome"] == "differs")
        path = f"/v1/batch-closes/{adjusted['close_id']}/findings"
        items = http.get(path).json()["items"]
        first = http.get(path, params={"limit": 1}).json()
        assert first["items"] == items[:1]
        assert (first["next"] is None) is (len(items) <= 1)
    sound(nodes)
