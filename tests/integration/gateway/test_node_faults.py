"""What a terminal hears when its acquirer's node is down, slow, restarted, or not itself."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import Any

import pytest

from gateway.iso8583.codec import decode
from nodes.authorization.model import TerminalRequest
from sandbox.terminal import PURCHASE, NoAnswer
from tests.factories.pos import CARD, PIN
from tests.integration.gateway.running import play, running


def test_a_node_that_is_down_is_told_at_once() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            await run.node.stop()
            started = asyncio.get_running_loop().time()
            reply = await pos.purchase(CARD, 1250, PIN)
            assert reply.code == "96"
            assert reply.authentic
            assert asyncio.get_running_loop().time() - started < 1.5
            # Nothing happened, so the same message may be sent again when the node is back.
            await run.node.start(run.node.port)
            again = await pos.resend(reply)
            assert again.approved
            assert len(run.node.requests) == 1

    play(scenario)


@pytest.mark.parametrize("status", [401, 429, 503])
def test_a_node_that_refuses_to_work_is_told_at_once(status: int) -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            run.node.faults = [status]
            assert (await pos.purchase(CARD, 1250, PIN)).code == "96"
            assert run.node.requests == []
            assert (await pos.purchase(CARD, 1250, PIN)).approved

    play(scenario)


@pytest.mark.parametrize("fault", ["reset", "lost", "unsigned", 500])
def test_an_unknown_outcome_is_asked_for_again(fault: Any) -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            run.node.faults = [fault, fault]
            reply = await pos.purchase(CARD, 1250, PIN)
            assert reply.approved
            assert len(run.node.batches) == 3
            assert len({request.stan for request in run.node.requests}) == 1

    play(scenario)


def test_a_node_restarted_amid_a_call_still_answers_what_it_decided() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            run.node.faults = [5.0]
            buying = asyncio.create_task(pos.purchase(CARD, 1250, PIN))
            while not run.node.requests:  # noqa: ASYNC110 (a test polls)
                await asyncio.sleep(0.01)
            await run.node.stop()
            await asyncio.sleep(0.4)
            assert not buying.done()  # neither 96 nor an invented answer meanwhile
            await run.node.start(run.node.port)
            reply = await buying
            assert reply.approved
            assert len(run.node.requests) == 2
            assert run.node.requests[0].fingerprint == run.node.requests[1].fingerprint

    play(scenario)


def test_an_answer_after_the_deadline_is_never_sent() -> None:
    async def scenario() -> None:
        async with running(deadline_ms=300) as run, run.terminal(timeout_s=1.0) as pos:
            run.node.faults = [0.6]
            frame = pos.seal(pos.request("0200", PURCHASE, CARD, 1250, PIN))
            with pytest.raises(NoAnswer):
                await pos.send_frame(frame)
            assert await run.metric("unanswered_requests_total", reason="undecided") == 1
            assert await run.metric("answers_total", code="00", mti="0210") == 0
            # What the terminal does then: it reverses, over the same connection.
            reply = await pos.reversal(frame)
            assert (reply.mti, reply.code) == ("0410", "00")
            assert run.node.requests[-1].stan == run.node.requests[0].stan

    play(scenario)


def test_a_decision_that_comes_back_late_is_dropped_and_counted() -> None:
    """The node's answer arrives for a batch whose earlier member's deadline is over."""

    async def scenario() -> None:
        async with running(deadline_ms=400, in_flight=1) as run:
            async with run.terminal() as first, run.terminal("POS00002") as second:
                run.node.faults = [0.39, 0.2]  # the second call brings its answer after 590 ms
                early = first.seal(first.request("0200", PURCHASE, CARD, 1, PIN))
                late = second.seal(second.request("0200", PURCHASE, CARD, 2, PIN))
                await first.send(early)
                await asyncio.sleep(0.05)
                await second.send(late)
                second.timeout_s = 0.9
                with pytest.raises(NoAnswer):
                    await second.receive(late)
                silent = await run.metric("unanswered_requests_total", reason="undecided")
                silent += await run.metric("unanswered_requests_total", reason="late")
                assert silent >= 1
                assert (await second.echo()).approved

    play(scenario)


def test_an_answer_that_the_node_did_not_sign_is_no_answer() -> None:
    async def scenario() -> None:
        async with running(deadline_ms=500) as run, run.terminal(timeout_s=1.0) as pos:
            run.node.faults = ["unsigned"] * 50
            with pytest.raises(NoAnswer):
                await pos.purchase(CARD, 1250, PIN)
            assert "signature_missing" in run.log.getvalue()

    play(scenario)


def test_overload_is_answered_within_half_a_second() -> None:
    async def scenario() -> None:
        async with running(max_batch=1, in_flight=1) as run:
            async with run.terminal() as busy, run.terminal("POS00002") as waiting:
                run.node.faults = [1.2]
                buying = asyncio.create_task(busy.purchase(CARD, 1250, PIN))
                await asyncio.sleep(0.1)
                started = asyncio.get_running_loop().time()
                reply = await waiting.purchase(CARD, 1250, PIN)
                assert reply.code == "96"
                assert 0.4 < asyncio.get_running_loop().time() - started < 1.1
                assert (await buying).approved
                assert len(run.node.requests) == 1

    play(scenario)


def test_a_full_queue_is_answered_at_once() -> None:
    async def scenario() -> None:
        async with running(max_batch=1, in_flight=1, max_waiting=2) as run:
            async with run.terminal() as pos:
                run.node.faults = [0.3]
                frames = [pos.seal(pos.request("0200", PURCHASE, CARD, 100)) for _ in range(6)]
                await pos.send(b"".join(frames))
                codes = [await _code(pos) for _ in frames]
                assert sorted(codes) == ["00", "00", "96", "96", "96", "96"]
                assert codes[:4] == ["96"] * 4

    play(scenario)


async def _code(pos: Any) -> str:
    prefix = await pos._reader.readexactly(2)
    return decode((await pos._reader.readexactly(int.from_bytes(prefix, "big")))[11:]).text[39]


def test_a_terminal_that_hung_up_costs_nothing() -> None:
    async def scenario() -> None:
        async with running() as run:
            run.node.faults = [0.5]
            pos = run.terminal()
            await pos.connect()
            frame = pos.seal(pos.request("0200", PURCHASE, CARD, 1250, PIN))
            await pos.send(frame)
            await asyncio.sleep(0.05)
            assert pos._writer is not None
            # Reset, not closed: a power cut, not a good-bye.
            linger = struct.pack("ii", 1, 0)
            with socket.socket(fileno=os.dup(pos._writer.get_extra_info("socket").fileno())) as raw:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            pos._writer.transport.abort()
            await asyncio.sleep(0.8)
            assert await run.metric("unanswered_requests_total", reason="gone") == 1
            # It comes back, asks again, and gets what was decided.
            async with run.terminal() as again:
                assert (await again.resend(frame)).approved

    play(scenario)


def test_a_terminal_that_only_closed_its_sending_side_gets_its_answer() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            run.node.faults = [0.2]
            frame = pos.seal(pos.request("0200", PURCHASE, CARD, 1250, PIN))
            await pos.send(frame)
            assert pos._writer is not None
            pos._writer.write_eof()
            assert (await pos.receive(frame)).approved
            with pytest.raises(NoAnswer):
                await pos.receive(frame)

    play(scenario)


def test_a_peer_that_takes_no_answers_is_not_read_any_further() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal("POS00002") as honest:
            _, writer = await run.raw()
            pos = run.terminal()
            echo = pos.seal(pos._management("990001"))
            writer.transport.pause_reading()  # type: ignore[attr-defined]

            async def flood() -> None:
                for _ in range(400):
                    writer.write(echo * 1000)
                    async with asyncio.timeout(2):
                        await writer.drain()

            with pytest.raises(TimeoutError):
                await flood()
            taken = await run.metric("frames_total")
            await asyncio.sleep(0.2)
            assert await run.metric("frames_total") == taken < 400_000
            assert (await honest.echo()).approved
            writer.transport.abort()

    play(scenario)


def test_a_burst_of_one_connection_does_not_hold_up_the_others() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal("POS00002") as honest:
            assert (await honest.echo()).approved
            _, writer = await run.raw()
            pos = run.terminal()
            writer.write(pos.seal(pos._management("990001")) * 1000)
            await asyncio.sleep(0.005)
            assert (await honest.echo()).approved
            answered = run.gateway.metrics.answers.counts["0810", "00"]
            assert answered < 900, "the burst was worked off first"
            writer.transport.abort()

    play(scenario)


def test_slow_and_silent_connections_do_not_hold_up_the_honest_ones() -> None:
    async def scenario() -> None:
        async with running(frame_timeout_s=0.5) as run, run.terminal() as honest:
            connections = [await run.raw() for _ in range(200)]
            for _, writer in connections:
                writer.write(b"\x00")
            for _ in range(20):
                assert (await honest.purchase(CARD, 100)).approved
            await asyncio.sleep(0.8)
            assert await run.metric("closed_connections_total", reason="frame_slow") == 200
            assert await run.metric("connections") == 1

    play(scenario)


def test_one_batch_serves_many_terminals() -> None:
    async def scenario() -> None:
        async with running(in_flight=1) as run:
            names = ["POS00001", "POS00002", "POS00003"]
            terminals = [run.terminal(name) for name in names]
            run.node.faults = [0.4]
            first = asyncio.create_task(terminals[0].purchase(CARD, 1))
            await asyncio.sleep(0.05)
            rest = await asyncio.gather(*(pos.purchase(CARD, 2) for pos in terminals[1:]))
            assert (await first).approved
            assert all(reply.approved for reply in rest)
            assert run.node.batches == [1, 2]
            for pos in terminals:
                await pos.close()

    play(scenario)


def test_what_the_node_hears_is_what_the_terminals_said() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            for amount in (1, 99, 10_000_000_000):
                await pos.purchase(CARD, amount)
            heard: list[TerminalRequest] = run.node.requests
            assert [request.amount for request in heard] == [1, 99, 10_000_000_000]
            assert {request.currency for request in heard} == {"CNY"}
            assert len({request.fingerprint for request in heard}) == 3

    play(scenario)
