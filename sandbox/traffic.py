"""A short business day, played by simulated terminals over real ISO 8583 connections.

Each exchange is judged at once: what was expected, what came. The day is a list of such steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from nodes.clearing.rules.closing import newest_closable
from nodes.clock import to_ms
from nodes.crypto.pan import luhn_digit, mask, random_pan
from nodes.money import Money
from nodes.settings import NodeSettings
from sandbox.network import CURRENCY, MERCHANTS, TPDU, Card, DemoDirectory, State
from sandbox.postgres import HOST
from sandbox.terminal import Card as TerminalCard
from sandbox.terminal import NoAnswer, NotAuthentic, Reply, Terminal

#: Trace numbers that one day may use at each terminal.
STANS_A_DAY = 100


def _last_day_that_is_over() -> timedelta:
    """From now to a moment of the newest business date that can be closed: the demo's terminals are
    set to it, so that their day ends with its close and its statements."""
    now = datetime.now(UTC)
    zone, grace_s = (NodeSettings.model_fields[n].default for n in _WHEN_CLOSED)
    day = newest_closable(to_ms(now), zone, grace_s)
    return timedelta(days=(day - now.astimezone(ZoneInfo(zone)).date()).days)


_WHEN_CLOSED = ("business_time_zone", "close_grace_s")


@dataclass(frozen=True)
class Step:
    """One thing that a terminal did. `note` says what came; `reply` where an answer came."""

    terminal_id: str
    label: str
    held: bool
    note: str
    kind: str = ""
    reply: Reply | None = None
    card: Card | None = None
    amount: int = 0


@dataclass
class Day:
    """What happened on one business day."""

    number: int
    batch: str
    steps: list[Step] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether every step went as expected."""
        return all(step.held for step in self.steps)

    def purchases(self) -> list[Step]:
        """The approved purchases."""
        return [step for step in self.steps if step.kind == "purchase" and step.reply is not None]


class BusinessDay:
    """Plays one day; `tell` hears of each step when it is done."""

    def __init__(
        self, directory: DemoDirectory, state: State, tell: Callable[[Step], None]
    ) -> None:
        self._state = state
        self._tell = tell
        self.day = Day(state.business_days + 1, f"{state.next_batch:06d}")
        self._first_stan = state.next_stan
        # Taken before they are used: a day that is broken off never repeats a trace number.
        state.business_days += 1
        state.next_batch = state.next_batch % 999_999 + 1
        state.next_stan = (state.next_stan + STANS_A_DAY - 1) % (999_999 - STANS_A_DAY) + 1
        directory.save(state)

    async def play(self) -> Day:
        """The whole day: a quiet morning one by one, then all terminals at the same time."""
        terminals = [
            Terminal(
                entry["terminal_id"],
                entry["merchant_id"],
                bytes.fromhex(entry["tmk"]),
                HOST,
                self._state.ports["gateway"],
                tpdu=bytes.fromhex(TPDU),
                batch=self.day.batch,
                first_stan=self._first_stan,
            )
            for entry in self._state.terminals
        ]
        try:
            for terminal in terminals:
                terminal.day_shift = _last_day_that_is_over()
                await terminal.connect()
                await self._code(terminal, "sign-on", terminal.sign_on(), "00")
                await self._code(terminal, "echo", terminal.echo(), "00")
            first, second, third = terminals
            await self._approvals(first)
            await self._wrong_pin(second)
            await self._insufficient_funds(second)
            await self._retry(first)
            await self._reversal(second)
            await self._refund(third)
            await self._refusals(third)
            await self._rush(terminals)
        finally:
            for terminal in terminals:
                with contextlib.suppress(OSError):
                    await terminal.close()
        return self.day

    # ------------------------------------------------------------- the day's scenes

    async def _approvals(self, terminal: Terminal) -> None:
        for member, amount in (("aurora", 1_250), ("borealis", 3_980)):
            card = self._cards(member)[0]
            await self._buy(terminal, card, amount)
            await self._buy(terminal, card, amount + 10, track2=True)

    async def _wrong_pin(self, terminal: Terminal) -> None:
        card = self._cards("aurora")[1]
        wrong = f"{(int(card['pin']) + 1) % 10_000:04d}"
        offered = terminal.purchase(_read(card), 2_000, wrong)
        await self._code(terminal, f"wrong PIN, {_name(card)}", offered, "55")
        await self._buy(terminal, card, 2_000)

    async def _insufficient_funds(self, terminal: Terminal) -> None:
        for member in ("aurora", "borealis"):
            card = self._cards(member)[-1]
            offered = terminal.purchase(_read(card), 90_000_000, card["pin"])
            label = f"{_money(90_000_000)} on a poor card, {_name(card)}"
            await self._code(terminal, label, offered, "51")

    async def _retry(self, terminal: Terminal) -> None:
        """The answer to the same message is the same, byte for byte, and nothing moves."""
        card = self._cards("borealis")[1]
        bought = await self._buy(terminal, card, 4_500)
        if bought is None:
            return
        before = await self._balance(terminal, card)
        again = await _answer(terminal.resend(bought))
        after = await self._balance(terminal, card)
        same = isinstance(again, Reply) and again.response == bought.response
        self._add(
            Step(
                terminal.terminal_id,
                "the same message again",
                same and before is not None and before == after,
                "the same answer, byte for byte" if same else f"another answer: {_said(again)}",
            )
        )

    async def _reversal(self, terminal: Terminal) -> None:
        card = self._cards("aurora")[2]
        before = await self._balance(terminal, card)
        offered = terminal.purchase(_read(card), 7_700, card["pin"])
        bought = await self._code(terminal, f"purchase of {_money(7_700)}", offered, "00")
        if bought is None:
            return
        await self._code(terminal, "its reversal", terminal.reversal(bought), "00")
        after = await self._balance(terminal, card)
        self._add(
            Step(
                terminal.terminal_id,
                "net effect of the reversed purchase",
                before is not None and before == after,
                "zero" if before == after else f"{before} before, {after} after",
            )
        )

    async def _refund(self, terminal: Terminal) -> None:
        card = self._cards("borealis")[0]
        before = await self._balance(terminal, card)
        bought = await self._buy(terminal, card, 6_000)
        if bought is None:
            return
        returned = terminal.refund(_read(card), 2_500, bought.rrn)
        await self._code(terminal, f"refund of {_money(2_500)}", returned, "00", kind="refund")
        after = await self._balance(terminal, card)
        held = before is not None and after == before - 6_000 + 2_500
        moved = f"{_money(6_000)} less, {_money(2_500)} back"
        note = moved if held else f"{before} before, {after} after"
        self._add(Step(terminal.terminal_id, "balance after purchase and refund", held, note))

    async def _refusals(self, terminal: Terminal) -> None:
        card = self._cards("aurora")[0]
        stranger = TerminalCard(_pan_of("990011"), "3112", "201", CURRENCY)
        await self._code(terminal, "a card of no member", terminal.purchase(stranger, 100), "15")
        unknown = TerminalCard(self._never_issued(), "3112", "201", CURRENCY)
        await self._code(terminal, "a card never issued", terminal.purchase(unknown, 100), "14")
        nothing = terminal.purchase(_read(card), 0, card["pin"])
        await self._code(terminal, "an amount of 0", nothing, "13")
        terminal.bad_mac = True
        offered = terminal.purchase(_read(card), 100, card["pin"])
        await self._code(terminal, "a wrong MAC", offered, "A0")
        terminal.bad_mac = False
        await self._garbage(terminal)

    async def _garbage(self, terminal: Terminal) -> None:
        """A frame that is none is not answered, and the next customer is served."""
        await terminal.connect()
        await terminal.send(b"\x00\x40" + secrets.token_bytes(64))
        answer = await _answer(terminal.receive(b""))
        await terminal.connect()
        held = isinstance(answer, NoAnswer)
        note = "connection closed" if held else f"answered: {_said(answer)}"
        self._add(Step(terminal.terminal_id, "a frame of garbage", held, note))
        await self._code(terminal, "echo afterwards", terminal.echo(), "00")

    async def _rush(self, terminals: list[Terminal]) -> None:
        """All terminals at once, cards of both issuers."""

        async def shift(terminal: Terminal, start: int) -> None:
            cards = self._cards("aurora")[:3] + self._cards("borealis")[:2]
            for turn in range(5):
                card = cards[(start + turn) % len(cards)]
                await self._buy(terminal, card, 500 + 37 * turn + start)

        async with asyncio.TaskGroup() as group:
            for start, terminal in enumerate(terminals):
                group.create_task(shift(terminal, start))

    # ------------------------------------------------------------- the means

    def _cards(self, member: str) -> list[Card]:
        return [card for card in self._state.cards if card["member"] == member]

    def _never_issued(self) -> str:
        numbers = {card["pan"] for card in self._state.cards}
        while (pan := random_pan("62230010")) in numbers:
            continue
        return pan

    async def _buy(
        self, terminal: Terminal, card: Card, amount: int, *, track2: bool = False
    ) -> Reply | None:
        label = f"purchase of {_money(amount)}, {_name(card)}" + (", stripe" if track2 else "")
        offered = terminal.purchase(_read(card), amount, card["pin"], track2=track2)
        return await self._code(
            terminal, label, offered, "00", kind="purchase", card=card, amount=amount
        )

    async def _balance(self, terminal: Terminal, card: Card) -> int | None:
        offered = terminal.balance(_read(card), card["pin"])
        reply = await self._code(terminal, f"balance inquiry, {_name(card)}", offered, "00")
        return None if reply is None else reply.balances.get("available")

    async def _code(
        self,
        terminal: Terminal,
        label: str,
        exchange: Coroutine[Any, Any, Reply],
        expected: str,
        *,
        kind: str = "",
        card: Card | None = None,
        amount: int = 0,
    ) -> Reply | None:
        """The reply, if its response code is the expected one."""
        answer = await _answer(exchange)
        held = isinstance(answer, Reply) and answer.code == expected
        note = _said(answer) if held else f"{_said(answer)} instead of {expected}"
        reply = answer if held and isinstance(answer, Reply) else None
        self._add(Step(terminal.terminal_id, label, held, note, kind, reply, card, amount))
        return reply

    def _add(self, step: Step) -> None:
        self.day.steps.append(step)
        self._tell(step)


async def _answer(exchange: Coroutine[Any, Any, Reply]) -> Reply | Exception:
    try:
        return await exchange
    except (NoAnswer, NotAuthentic, OSError) as error:
        return error


def _said(answer: Reply | Exception) -> str:
    if isinstance(answer, Reply):
        approval = answer.fields.get(38)
        return f"{answer.code}, approval {approval}" if approval else answer.code
    return f"{type(answer).__name__}: {answer}"


def _read(card: Card) -> TerminalCard:
    return TerminalCard(card["pan"], card["expiry"], card["service_code"], card["currency"])


def _name(card: Card) -> str:
    return f"{card['member']} {mask(card['pan'])}"


def _money(amount: int) -> str:
    return str(Money(amount, CURRENCY))


def _pan_of(bin_: str) -> str:
    body = bin_.ljust(15, "7")
    return body + luhn_digit(body)


def merchant_member(merchant_id: str) -> str | None:
    """The member that runs a merchant's own node, if one does."""
    for merchant in MERCHANTS:
        if merchant.merchant_id == merchant_id:
            return merchant.member_id
    return None
