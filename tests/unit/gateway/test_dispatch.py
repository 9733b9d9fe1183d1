"""Batching towards the node, and what a terminal is told when the node isn't there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from gateway.iso8583.spec import Suite
from gateway.metrics import Metrics
from gateway.pos.dispatch import Dispatcher, NodeNotReached, NodeUndecided, Waiting
from gateway.pos.framing import Header
from gateway.pos.response_codes import Refusal
from gateway.pos.session import Address
from nodes.authorization.model import Kind, Outcome, TerminalAnswer, TerminalRequest

Result = TerminalAnswer | Refusal | None
ADDRESS = Address(Header(bytes(5), Suite.SM, 0), "0200", {}, None, b"")


def request(stan: int) -> TerminalRequest:
    return TerminalRequest(
        terminal_id="POS00001",
        merchant_id="HARBOR000000001",
        business_date="2026-11-22",
        batch="000001",
        stan=f"{stan:06d}",
        kind=Kind.PURCHASE,
        fingerprint=bytes(32),
        amount=100,
        currency="CNY",
        pan="6223001000012340",
        entry_mode="012",
        local_time="2026-11-22T16:00:00",
        deadline_ms=0,
    )


def answer(item: TerminalRequest) -> TerminalAnswer:
    return TerminalAnswer(outcome=Outcome.APPROVED, rrn=item.stan.zfill(12), currency="CNY")


class Node:
    """A node in memory: each call runs `behave`, which answers or raises; calls are recorded."""

    def __init__(self, behave: Callable[[list[TerminalRequest]], Awaitable[None]]) -> None:
        self.behave = behave
        self.batches: list[list[str]] = []

    async def terminal_requests(
        self, requests: Sequence[TerminalRequest], timeout_s: float
    ) -> list[TerminalAnswer]:
        self.batches.append([item.stan for item in requests])
        try:
            async with asyncio.timeout(timeout_s):
                await self.behave(list(requests))
        except TimeoutError:
            raise NodeUndecided from None
        return [answer(item) for item in requests]


class Desk:
    """Submits requests and collects what becomes of them."""

    def __init__(self, node: Node, **limits: float) -> None:
        options = {"max_batch": 4, "in_flight": 2, "max_waiting": 100, "max_wait_s": 5.0, **limits}
        self.metrics = Metrics()
        self.dispatcher = Dispatcher(node, self.metrics, **options)  # type: ignore[arg-type]
        self.results: dict[int, Result] = {}
        self.refused: list[int] = []
        self.news = asyncio.Event()

    def submit(self, stan: int, deadline_s: float = 5.0) -> None:
        now = asyncio.get_running_loop().time()
        item = Waiting(request(stan), ADDRESS, now, now + deadline_s, self._done)
        if not self.dispatcher.submit(item):
            self.refused.append(stan)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.results) < count:
                self.news.clear()
                await self.news.wait()

    def _done(self, item: Waiting, result: Result) -> None:
        stan = int(item.request.stan)
        assert stan not in self.results
        self.results[stan] = result
        self.news.set()


async def _at_once(_: list[TerminalRequest]) -> None:
    return None


def approved(results: dict[int, Result]) -> bool:
    return all(
        isinstance(result, TerminalAnswer) and int(result.rrn) == stan
        for stan, result in results.items()
    )


def test_what_waits_goes_out_together_and_two_calls_at_a_time() -> None:
    async def scenario() -> None:
        gate, running, most = asyncio.Event(), 0, 0

        async def behave(_: list[TerminalRequest]) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await gate.wait()
            running -= 1

        node = Node(behave)
        desk = Desk(node)
        desk.submit(1)
        await asyncio.sleep(0.01)
        desk.submit(2)
        await asyncio.sleep(0.03)
        for stan in range(3, 13):
            desk.submit(stan)
        await asyncio.sleep(0.03)
        assert [len(batch) for batch in node.batches] == [1, 1]  # idle: a batch of one, at once
        gate.set()
        await desk.until(12)
        assert [len(batch) for batch in node.batches] == [1, 1, 4, 4, 2]
        assert most == 2
        assert approved(desk.results)
        assert [stan for batch in node.batches for stan in batch] == [
            f"{stan:06d}" for stan in range(1, 13)
        ]

    asyncio.run(scenario())


def test_what_arrives_in_one_turn_of_the_loop_is_one_batch() -> None:
    async def scenario() -> None:
        node = Node(_at_once)
        desk = Desk(node)
        for stan in range(4):
            desk.submit(stan)
        await desk.until(4)
        assert len(node.batches) == 1

    asyncio.run(scenario())


def test_beside_a_call_under_way_a_few_wait_for_company_but_not_for_its_end() -> None:
    async def scenario() -> None:
        gate, second = asyncio.Event(), asyncio.Event()

        async def behave(requests: list[TerminalRequest]) -> None:
            if requests[0].stan == "000002":
                second.set()
            await gate.wait()

        node = Node(behave)
        desk = Desk(node)
        desk.submit(1)
        await asyncio.sleep(0.01)
        desk.submit(2)
        for _ in range(3):
            await asyncio.sleep(0)
        assert node.batches == [["000001"]]  # not at once, as it would before an idle node
        desk.submit(3)
        async with asyncio.timeout(5):
            await second.wait()
        assert node.batches[1] == ["000002", "000003"]  # though the first has not come back
        gate.set()
        await desk.until(3)
        assert approved(desk.results)

    asyncio.run(scenario())


def test_as_many_as_a_call_carries_wait_for_nobody() -> None:
    async def scenario() -> None:
        gate = asyncio.Event()

        async def behave(_: list[TerminalRequest]) -> None:
            await gate.wait()

        node = Node(behave)
        desk = Desk(node)
        desk.submit(1)
        await asyncio.sleep(0.01)
        for stan in range(2, 6):
            desk.submit(stan)
        for _ in range(3):
            await asyncio.sleep(0)
        assert [len(batch) for batch in node.batches] == [1, 4]
        gate.set()
        await desk.until(5)

    asyncio.run(scenario())


def test_a_node_that_was_never_reached_is_told_at_once() -> None:
    async def scenario() -> None:
        async def behave(_: list[TerminalRequest]) -> None:
            raise NodeNotReached

        desk = Desk(Node(behave))
        desk.submit(1)
        desk.submit(2)
        await asyncio.sleep(0.05)
        assert desk.results == {1: Refusal.NODE_UNAVAILABLE, 2: Refusal.NODE_UNAVAILABLE}

    asyncio.run(scenario())


def test_an_undecided_batch_is_asked_again_until_it_is_decided() -> None:
    async def scenario() -> None:
        calls = 0

        async def behave(_: list[TerminalRequest]) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise NodeUndecided
            if calls == 2:
                raise NodeNotReached  # the node is being restarted: still undecided

        node = Node(behave)
        desk = Desk(node)
        desk.submit(1)
        desk.submit(2)
        await desk.until(2)
        assert node.batches == [["000001", "000002"]] * 3
        assert approved(desk.results)

    asyncio.run(scenario())


def test_undecided_at_the_deadline_means_silence() -> None:
    async def scenario() -> None:
        async def behave(_: list[TerminalRequest]) -> None:
            raise NodeUndecided

        desk = Desk(Node(behave))
        desk.submit(1, deadline_s=0.15)
        desk.submit(2, deadline_s=0.6)
        await desk.until(1)
        assert desk.results == {1: None}  # each at its own deadline
        await desk.until(2)
        assert desk.results == {1: None, 2: None}

    asyncio.run(scenario())


def test_a_node_that_hangs_is_waited_for_until_the_deadline_only() -> None:
    async def scenario() -> None:
        async def behave(_: list[TerminalRequest]) -> None:
            await asyncio.sleep(60)

        desk = Desk(Node(behave))
        started = asyncio.get_running_loop().time()
        desk.submit(1, deadline_s=0.2)
        await desk.until(1)
        assert desk.results == {1: None}
        assert asyncio.get_running_loop().time() - started < 1

    asyncio.run(scenario())


@pytest.mark.parametrize("failure", [NodeUndecided, NodeNotReached])
def test_one_request_that_the_node_stumbles_over_costs_the_others_nothing(
    failure: type[NodeUndecided] | type[NodeNotReached],
) -> None:
    async def scenario() -> None:
        async def behave(requests: list[TerminalRequest]) -> None:
            if any(item.stan == "000003" for item in requests):
                raise failure(divide=True)

        desk = Desk(Node(behave))
        for stan in (1, 2, 3, 4):
            desk.submit(stan, deadline_s=0.5)
        await desk.until(4)
        expected = None if failure is NodeUndecided else Refusal.NODE_UNAVAILABLE
        assert desk.results.pop(3) == expected
        assert approved(desk.results)

    asyncio.run(scenario())


def test_too_many_waiting_are_refused_at_once_and_too_long_waiting_soon() -> None:
    async def scenario() -> None:
        gate = asyncio.Event()

        async def behave(_: list[TerminalRequest]) -> None:
            await gate.wait()

        desk = Desk(Node(behave), max_batch=1, in_flight=1, max_waiting=3, max_wait_s=0.2)
        desk.submit(1)
        await asyncio.sleep(0.01)
        for stan in range(2, 7):
            desk.submit(stan)
        assert desk.refused == [5, 6]
        assert desk.dispatcher.waiting == 3
        await asyncio.sleep(0.4)
        assert desk.results == dict.fromkeys((2, 3, 4), Refusal.OVERLOADED)
        gate.set()
        await desk.until(4)
        assert isinstance(desk.results[1], TerminalAnswer)
        desk.submit(7)  # and it goes on
        await desk.until(5)
        assert isinstance(desk.results[7], TerminalAnswer)

    asyncio.run(scenario())


def test_a_wrong_number_of_answers_tells_nobody_anything_wrong() -> None:
    async def scenario() -> None:
        class Short(Node):
            async def terminal_requests(
                self, requests: Sequence[TerminalRequest], timeout_s: float
            ) -> list[TerminalAnswer]:
                return [answer(requests[0])] * (len(requests) + 1)

        desk = Desk(Short(_at_once))
        desk.submit(1, deadline_s=0.2)
        desk.submit(2, deadline_s=0.2)
        await desk.until(2)
        assert desk.results == {1: None, 2: None}
        desk.dispatcher._link = Node(_at_once)
        desk.submit(3)
        await desk.until(3)

    asyncio.run(scenario())


def test_closing_refuses_what_waits_and_silences_what_is_in_flight() -> None:
    async def scenario() -> None:
        async def behave(_: list[TerminalRequest]) -> None:
            await asyncio.sleep(60)

        desk = Desk(Node(behave), max_batch=1, in_flight=1)
        desk.submit(1)
        await asyncio.sleep(0.01)
        desk.submit(2)
        await desk.dispatcher.close()
        assert desk.results == {1: None, 2: Refusal.OVERLOADED}
        desk.submit(3)
        assert desk.refused == [3]

    asyncio.run(scenario())


def test_the_first_answers_leave_while_the_last_are_sealed() -> None:
    async def scenario() -> None:
        desk = Desk(Node(_at_once), max_batch=64)
        turns = list[int]()

        def look() -> None:
            turns.append(len(desk.results))
            if len(desk.results) < 64:
                asyncio.get_running_loop().call_soon(look)

        for stan in range(1, 65):
            desk.submit(stan)
        look()
        await desk.until(64)
        assert {16, 32, 48} <= set(turns), "the loop had its turn after each part"
        assert approved(desk.results)

    asyncio.run(scenario())
