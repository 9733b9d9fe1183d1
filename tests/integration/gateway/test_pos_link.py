"""The POS link over real TCP: every row of the answer table that the gateway itself decides.

"No state change" is checked where a state could change: at the node, which must have heard nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from math import ceil

import pytest

from gateway.iso8583.codec import Message, decode
from gateway.pos import dispatch
from gateway.settings import GatewaySettings
from nodes.authorization.model import Kind, Outcome, TerminalAnswer, TerminalRequest
from sandbox.terminal import BALANCE, PURCHASE, NoAnswer, Terminal
from tests.factories.pos import CARD, PIN, Card, luhn, make_hsm, record
from tests.integration.gateway.running import NODE_KEY, Running, document, play, running


def test_a_purchase_goes_to_the_node_and_its_decision_to_the_terminal() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            reply = await pos.purchase(CARD, 1250, PIN)
            assert (reply.mti, reply.code, reply.authentic) == ("0210", "00", True)
            assert reply.fields[38] == "A00001"
            assert reply.rrn == "000000000001"
            (request,) = run.node.requests
            assert (request.kind, request.amount, request.pan) == (Kind.PURCHASE, 1250, CARD.pan)
            assert request.pin_block == make_hsm(record()).seal_pin("zone", PIN, CARD.pan)
            balance = await pos.balance(CARD, PIN)
            assert balance.balances == {"ledger": 50000, "available": 50000}
            refund = await pos.refund(CARD, 1000, reply.rrn)
            assert refund.approved
            assert run.node.requests[-1].rrn == reply.rrn
            reversal = await pos.reversal(reply)
            assert (reversal.mti, reversal.code) == ("0410", "00")
            assert run.node.requests[-1].kind is Kind.REVERSAL
            assert run.node.requests[-1].stan == request.stan
            assert (await pos.echo()).approved

    play(scenario)


def test_an_authorizations_life_over_the_wire() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            held = await pos.authorize(CARD, 20_000, PIN, track2=True)
            raised = await pos.increment(CARD, 5_000, held.rrn, PIN)
            lowered = await pos.reversal(held, 3_000)
            first = await pos.complete(CARD, 12_000, held.rrn, more=True)
            last = await pos.complete(CARD, 10_000, held.rrn)
            void = await pos.void(CARD, 10_000, last.rrn)
            release = await pos.void(CARD, 25_000, held.rrn, authorization=True)
            advice = await pos.advice(CARD, 700)
            replies = [held, raised, lowered, first, last, void, release, advice]
            assert [(reply.mti, reply.code) for reply in replies] == [
                ("0110", "00"),
                ("0110", "00"),
                ("0410", "00"),
                ("0230", "00"),
                ("0230", "00"),
                ("0210", "00"),
                ("0110", "00"),
                ("0230", "00"),
            ]
            assert all(reply.authentic for reply in replies)
            heard = [(r.kind, r.amount, r.rrn, r.final) for r in run.node.requests]
            assert heard == [
                (Kind.AUTHORIZATION, 20_000, None, False),
                (Kind.INCREMENT, 5_000, held.rrn, False),
                (Kind.REVERSAL, 3_000, None, False),
                (Kind.CAPTURE, 12_000, held.rrn, False),
                (Kind.CAPTURE, 10_000, held.rrn, True),
                (Kind.VOID, 10_000, last.rrn, False),
                (Kind.VOID, 25_000, held.rrn, False),
                (Kind.ADVICE, 700, None, False),
            ]
            for reply in replies:  # each is repeated like any other message
                assert (await pos.resend(reply)).response == reply.response

    play(scenario)


def test_a_terminal_that_can_do_with_a_part_is_told_how_much() -> None:
    def half(request: TerminalRequest) -> TerminalAnswer:
        amount = request.amount // 2 if request.partial_ok else 0
        outcome = Outcome.APPROVED if amount else Outcome.INSUFFICIENT_FUNDS
        return TerminalAnswer(outcome=outcome, rrn="0" * 12, currency="CNY", amount=amount)

    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            run.node.decide = half
            part = await pos.purchase(CARD, 1_250, partial_ok=True)
            assert (part.code, part.partial_amount) == ("10", 625)
            assert (await pos.purchase(CARD, 1_250)).code == "51"
            assert (await pos.authorize(CARD, 900, partial_ok=True)).partial_amount == 450
            assert await run.metric("answers_total", mti="0210", code="10") == 1

    play(scenario)


def test_after_sign_on_the_new_keys_are_used() -> None:
    terminals = [{"terminal_id": "POS00001", "merchant_id": "HARBOR000000001"}]

    async def scenario() -> None:
        async with running(terminals=terminals) as run, run.terminal() as pos:
            assert (await pos.purchase(CARD, 1250, PIN)).code == "A0"  # no static keys
            assert (await pos.sign_on()).approved
            assert pos.epoch > 0
            reply = await pos.purchase(CARD, 1250, PIN)
            assert reply.approved
            assert reply.authentic
            assert run.node.requests[0].pin_block is not None

    play(scenario)


def test_a_repeat_gets_the_stored_answer_byte_for_byte() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            first = await pos.purchase(CARD, 1250, PIN)
            for _ in range(20):
                assert (await pos.resend(first)).response == first.response
            # The same key with other content.
            pos.stan = 0
            other = await pos.purchase(CARD, 1251, PIN)
            assert other.code == "94"
            assert '"event": "key_reused"' in run.log.getvalue()
            async with run.terminal() as elsewhere:  # the same terminal on another connection
                assert (await elsewhere.resend(first)).response == first.response

    play(scenario)


def test_a_frame_may_be_cut_at_every_byte() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            frame = pos.seal(pos.request("0200", PURCHASE, CARD, 1250, PIN))
            whole = await pos.send_frame(frame)
            for cut in range(1, len(frame)):
                await pos.send(frame[:cut])
                await asyncio.sleep(0.001)
                await pos.send(frame[cut:])
                reply = await pos.receive(frame)
                assert reply.response == whole.response
            assert await run.metric("frames_total") == len(frame)
            assert len(run.node.requests) == len(frame)

    play(scenario)


def test_many_frames_in_one_segment_are_all_answered_in_few_calls() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            messages = [pos.request("0200", PURCHASE, CARD, 100 + n) for n in range(100)]
            frames = [pos.seal(message) for message in messages]
            await pos.send(b"".join(frames))
            stans = set()
            for _ in frames:
                prefix = await pos._reader.readexactly(2)  # type: ignore[union-attr]
                content = await pos._reader.readexactly(int.from_bytes(prefix, "big"))  # type: ignore[union-attr]
                answer = decode(content[11:])
                assert answer.text[39] == "00"
                stans.add(answer.text[11])
            assert stans == {message.text[11] for message in messages}
            # Each but the last carries what is worth a call of its own (ADR 17).
            assert len(run.node.batches) <= ceil(len(frames) / dispatch._WORTH)

    play(scenario)


# Frames that are none


async def _closed_without_a_word(reader: asyncio.StreamReader, within_s: float = 5.0) -> float:
    started = asyncio.get_running_loop().time()
    async with asyncio.timeout(within_s):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    return asyncio.get_running_loop().time() - started


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\0", "frame_empty"),
        (b"\x05\xdd" + bytes(1501), "frame_over_maximum"),
        (b"\xff\xff", "frame_over_maximum"),
        (b"0123ABCD", "frame_over_maximum"),
        (b"GET / HTTP/1.1\r\n\r\n", "frame_over_maximum"),
        (b"\0\x05hello", "frame_too_short"),
        (b"\0\x0d" + bytes.fromhex("6100010002" + "010100000000" + "0200"), "frame_tpdu"),
        (b"\0\x0d" + bytes.fromhex("6000010002" + "020100000000" + "0200"), "frame_version"),
        (b"\0\x0d" + bytes.fromhex("6000010002" + "017700000000" + "0200"), "frame_suite"),
        (b"\0\x0d" + bytes.fromhex("6000010002" + "010100000000" + "0200"), "format_truncated"),
        (b"\0\x0d" + bytes.fromhex("6000010002" + "010100000000" + "02a0"), "format_mti"),
    ],
)
def test_garbage_closes_the_connection_and_is_counted(data: bytes, reason: str) -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as honest:
            reader, writer = await run.raw()
            writer.write(data)
            await _closed_without_a_word(reader)
            writer.close()
            assert await run.metric("closed_connections_total", reason=reason) == 1
            assert run.node.requests == []
            assert (await honest.echo()).approved

    play(scenario)


def test_good_frames_before_garbage_are_served() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            frame = pos.seal(pos._management("990001"))
            await pos.send(frame + b"\0\0" + frame)
            assert (await pos.receive(frame)).approved
            with pytest.raises(NoAnswer):
                await pos.receive(frame)
            assert await run.metric("frames_total") == 1

    play(scenario)


def test_a_truncated_frame_is_closed_and_counted() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            frame = pos.seal(pos.request("0200", PURCHASE, CARD, 1250, PIN))
            reader, writer = await run.raw()
            writer.write(frame[:-1])
            writer.write_eof()
            await _closed_without_a_word(reader)
            assert await run.metric("closed_connections_total", reason="frame_truncated") == 1
            assert run.node.requests == []

    play(scenario)


@pytest.mark.parametrize("trickle", [False, True])
def test_a_frame_that_takes_too_long_is_closed_and_counted(trickle: bool) -> None:
    async def scenario() -> None:
        async with running(frame_timeout_s=0.6) as run, run.terminal() as honest:
            frame = honest.seal(honest.request("0200", PURCHASE, CARD, 1250, PIN))
            reader, writer = await run.raw()
            writer.write(frame[:1])

            async def drip() -> None:
                for byte in frame[1:-1] if trickle else b"":
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.02)

            dripping = asyncio.create_task(drip())
            taken = await _closed_without_a_word(reader)
            assert 0.5 < taken < 3
            dripping.cancel()
            assert await run.metric("closed_connections_total", reason="frame_slow") == 1
            # A connection between two frames may take its time.
            await asyncio.sleep(0.7)
            assert (await honest.echo()).approved

    play(scenario)


def test_the_time_for_a_frame_is_five_seconds_by_default() -> None:
    settings = GatewaySettings.model_validate(document("http://127.0.0.1:1", NODE_KEY))
    assert settings.frame_timeout_s == 5.0
    assert settings.deadline_ms == 15_000
    assert settings.max_wait_ms == 500


def test_an_idle_connection_is_closed_in_the_end() -> None:
    async def scenario() -> None:
        async with running(idle_timeout_s=0.3) as run:
            reader, writer = await run.raw()
            await _closed_without_a_word(reader)
            writer.close()
            assert await run.metric("closed_connections_total", reason="idle") == 1

    play(scenario)


def test_no_more_connections_than_permitted() -> None:
    async def scenario() -> None:
        async with running(max_connections=2) as run:
            async with run.terminal() as first, run.terminal("POS00002") as second:
                assert (await first.echo()).approved
                assert (await second.echo()).approved
                reader, writer = await run.raw()
                await _closed_without_a_word(reader)
                writer.close()
                assert await run.metric("closed_connections_total", reason="too_many") == 1
            await asyncio.sleep(0.05)
            async with run.terminal() as again:
                assert (await again.echo()).approved

    play(scenario)


# Messages that the gateway refuses


def _with(pos: Terminal, number: int, value: str) -> Message:
    message = pos.request("0200", PURCHASE, CARD, 1250, PIN)
    message.text[number] = value
    return message


def _unknown_mti(pos: Terminal) -> Message:
    message = pos.request("0200", PURCHASE, CARD, 1250, PIN)
    message.mti = "0900"
    return message


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("mti", "12", "mti_unknown"),
        ("processing code", "12", "processing_code_unknown"),
        ("amount 0", "13", "amount"),
        ("amount over the maximum", "13", "amount"),
        ("currency", "13", "currency"),
        ("luhn", "14", "card_number"),
        ("terminal", "58", "terminal_unknown"),
        ("merchant", "03", "merchant_unknown"),
        ("missing element", "30", "element_missing"),
        ("date", "30", "format"),
    ],
)
def test_refusals_reach_the_terminal_and_not_the_node(name: str, code: str, reason: str) -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            if name == "mti":
                message = _unknown_mti(pos)
            elif name == "missing element":
                message = pos.request("0200", PURCHASE, CARD, 1250, PIN)
                del message.text[60]
            else:
                number, value = {
                    "processing code": (3, "770000"),
                    "amount 0": (4, "0" * 12),
                    "amount over the maximum": (4, "9" * 12),
                    "currency": (49, "840"),
                    "luhn": (2, luhn("622300100001234")[:-1] + "9"),
                    "terminal": (41, "POS99999"),
                    "merchant": (42, "HARBOR000000002"),
                    "date": (13, "0231"),
                }[name]
                message = _with(pos, number, value)
            reply = await pos.exchange(message)
            assert reply.code == code
            assert reply.fields[11] == message.text[11]
            assert await run.metric("refusals_total", reason=reason) == 1
            assert run.node.requests == []
            assert (await pos.purchase(CARD, 1, PIN)).approved  # and the link goes on

    play(scenario)


@pytest.mark.parametrize("fault", ["bad_mac", "no_mac"])
def test_a_bad_mac_changes_nothing_and_raises_the_alarm(fault: str) -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            setattr(pos, fault, True)
            reply = await pos.purchase(CARD, 1250, PIN)
            assert reply.code == "A0"
            assert not reply.authentic
            assert run.node.requests == []
            assert await run.metric("mac_failures_total") == 1
            logged = run.log.getvalue()
            assert '"event": "mac_refused"' in logged
            assert "POS00001" in logged
            assert CARD.pan not in logged

    play(scenario)


def test_what_is_malformed_is_answered_30_if_it_can_be() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            good = pos.seal(pos.request("0200", PURCHASE, CARD, 1250, PIN))
            trailing = (len(good) - 1).to_bytes(2, "big") + good[2:] + b"\0"
            reply = await pos.send_frame(trailing)
            assert (reply.mti, reply.code, reply.fields[41]) == ("0210", "30", "POS00001")
            charset = good[:13] + good[13:].replace(b"POS00001", b"POS00001").replace(
                b"HARBOR000000001", b"HARBOR\x0000000001"
            )
            assert (await pos.send_frame(charset)).code == "30"
            unknown = bytearray(good)
            unknown[15 + 45 // 8] |= 1 << (7 - 45 % 8)  # element 46
            assert (await pos.send_frame(bytes(unknown))).code == "30"
            assert run.node.requests == []
            address = good.replace(b"POS00001", b"POS0000\x01")
            with pytest.raises(NoAnswer):
                await pos.send_frame(address)
            assert await run.metric("closed_connections_total", reason="format_charset") == 1

    play(scenario)


def test_an_answer_that_nobody_asked_for_is_dropped_and_counted() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            message = pos.request("0200", PURCHASE, CARD, 1250, PIN)
            message.mti = "0210"
            await pos.send(pos.seal(message))
            reply = await pos.echo()  # the next thing heard is the answer to the next question
            assert reply.mti == "0810"
            assert await run.metric("dropped_messages_total", reason="answer_unasked") == 1
            assert run.node.requests == []

    play(scenario)


def test_the_nodes_refusals_become_response_codes() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:

            def decide(request: TerminalRequest) -> TerminalAnswer:
                outcome = list(Outcome)[request.amount - 1]
                return TerminalAnswer(outcome=outcome, rrn="0" * 12, currency="CNY")

            run.node.decide = decide
            codes = {o: (await pos.purchase(CARD, n)).code for n, o in enumerate(Outcome, 1)}
            assert codes[Outcome.INSUFFICIENT_FUNDS] == "51"
            assert codes[Outcome.PIN_WRONG] == "55"
            assert codes[Outcome.CARD_LOST] == "41"
            assert codes[Outcome.ISSUER_UNKNOWN] == "15"
            assert codes[Outcome.ISSUER_UNAVAILABLE] == "91"

    play(scenario)


def test_health_and_metrics() -> None:
    async def scenario() -> None:
        async with running() as run, run.terminal() as pos:
            await pos.purchase(CARD, 1250, PIN)
            status, text = await run.get("/health")
            assert status == 200
            assert '"status": "ok"' in text
            assert '"connections": 1' in text
            assert await run.metric("connections") == 1
            assert await run.metric("answers_total", mti="0210", code="00") == 1
            assert await run.metric("node_calls_total", result="answered") == 1
            assert (await run.get("/nosuch"))[0] == 404
            _, metrics = await run.get("/metrics")
            assert CARD.pan not in metrics

    play(scenario)


# Fuzz


def _fuzzed(rng: random.Random, pos: Terminal, card: Card, pin: str) -> bytes:
    """One seeded frame: any mixture of right and wrong, from noise to a genuine message."""
    kind = rng.randrange(6)
    if kind == 0:
        return rng.randbytes(rng.randint(1, 300))
    mti = rng.choice(["0200", "0200", "0400", "0800", "0210", "0420", "0100"])
    message = pos.request(mti, rng.choice([PURCHASE, BALANCE, "200000"]), card, 100, pin)
    if kind == 1:  # senseless values under a good MAC
        number = rng.choice([2, 3, 4, 12, 13, 14, 22, 37, 41, 42, 49, 60])
        message.text.pop(number, None)
        return pos.seal(message)
    raw = bytearray(pos.seal(message))
    if kind == 2:
        for _ in range(rng.randint(1, 6)):
            raw[rng.randrange(2, len(raw))] = rng.randrange(256)
    elif kind == 3:  # cut, the length put right
        raw = raw[: rng.randint(3, len(raw))]
        raw[:2] = (len(raw) - 2).to_bytes(2, "big")
    elif kind == 4:  # bits of the bitmap
        raw[15 + rng.randrange(8)] ^= 1 << rng.randrange(8)
    else:
        raw[rng.randrange(2)] ^= 1 << rng.randrange(8)  # the length itself
    return bytes(raw)


async def _throw(run: Running, frames: list[bytes]) -> int:
    """Send frames on connections of their own as long as each lives; answers that came."""
    answers = 0
    reader, writer = await run.raw()
    for frame in frames:
        if writer.is_closing():
            # The gateway has closed it meanwhile; uvloop calls writing to it a programming error.
            reader, writer = await run.raw()
        try:
            writer.write(frame)
            await writer.drain()
            async with asyncio.timeout(0.02):
                prefix = await reader.readexactly(2)
                content = await reader.readexactly(int.from_bytes(prefix, "big"))
            decode(content[11:])  # whatever is answered is a message
            answers += 1
        except TimeoutError:
            continue
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            reader, writer = await run.raw()
    writer.close()
    return answers


def test_two_thousand_fuzzed_frames_leave_the_gateway_well_and_the_log_clean() -> None:
    card, pin = Card(luhn("622300107919283"), "2812"), "904817"

    async def scenario() -> None:
        rng = random.Random(8583)
        # Few seconds for a frame, so that a wrong length doesn't stop a connection for long.
        async with running(frame_timeout_s=0.05) as run:
            pos = run.terminal()
            frames = [_fuzzed(rng, pos, card, pin) for _ in range(2000)]
            parts = [frames[start::20] for start in range(20)]
            answers = sum(await asyncio.gather(*(_throw(run, part) for part in parts)))
            assert answers > 100
            async with run.terminal("POS00002") as honest:
                assert (await honest.purchase(CARD, 1250, PIN)).approved
            logged = run.log.getvalue()
            status, metrics = await run.get("/metrics")
            assert status == 200
            assert "mac_refused" in logged  # the log was on
            block = pos._module.seal_pin("pin:0", pin, card.pan)
            for text in (logged, metrics):
                for secret_text in (card.pan, pin, block.hex(), block.hex().upper(), CARD.pan):
                    assert secret_text not in text
            assert await run.metric("closed_connections_total", reason="internal") == 0

    play(scenario)
