"""Plays a scenario against a network, step by step, and says what held."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

from sandbox.terminal import NoAnswer, NotAuthentic, Terminal
from sandbox.terminals.counter import Counter
from sandbox.terminals.scenario import Do, Fault, Scenario, Step
from sandbox.terminals.surroundings import NotThere, SimCard, Surroundings
from sandbox.terminals.till import Exchange


@dataclass(frozen=True, slots=True)
class Result:
    """How a step ended. `told`: in words, what came and what should have."""

    step: Step
    held: bool
    told: str
    exchange: Exchange | None = None


async def play(
    scenario: Scenario,
    surroundings: Surroundings,
    on_step: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Play all steps; after one that doesn't hold, no further ones. NotThere."""
    cards = {
        name: await asyncio.to_thread(surroundings.new_card, name, plan, scenario.currency)
        for name, plan in scenario.cards.items()
    }
    terminal = await asyncio.to_thread(surroundings.new_terminal, scenario.terminal)
    results: list[Result] = []
    async with terminal:
        await surroundings.ready(terminal)
        player = _Player(surroundings, terminal, cards)
        try:
            for step in scenario.steps:
                result = await player.do(step)
                results.append(result)
                on_step(result)
                if not result.held:
                    break
        finally:
            await player.close()
    return results


class _Player:
    def __init__(
        self, surroundings: Surroundings, terminal: Terminal, cards: dict[str, SimCard]
    ) -> None:
        self._at = Counter.at(surroundings, terminal)
        self._cards = cards
        self._named: dict[str, Exchange] = {}

    async def close(self) -> None:
        await self._at.shop.close()

    async def do(self, step: Step) -> Result:
        try:
            return await self._done(step)
        except NotThere as lack:
            return Result(step, False, str(lack))
        except NoAnswer as silence:
            held = step.expect.code == "none"
            return Result(step, held, f"no answer: {silence}")
        except NotAuthentic as forged:
            return Result(step, False, str(forged))

    async def _done(self, step: Step) -> Result:
        if step.do in _ALONE:
            return await self._alone(step)
        of = self._named[step.of] if step.of else None
        if step.do is Do.FORGET and of is not None:
            self._at.batch.forget(of)
            return Result(step, True, f"{step.of} is forgotten")
        if step.do is Do.PAY_ORDER and of is not None:
            made = await self._at.shop.pay(of, self._cards[step.card])
        elif of is not None:
            made = await self._at.till.follow(
                step.do, of, step.amount, more=step.more, fault=step.fault
            )
        elif step.do is Do.PAY_OFFLINE:
            made = self._at.desk.pay(self._cards[step.card], step.amount, step.by)
        elif step.do is Do.ORDER:
            made = await self._at.shop.order(step.amount, self._currency)
        else:
            made = await self._at.till.present(
                step.do,
                self._cards[step.card],
                step.amount,
                by=step.by,
                pin=step.pin,
                partial_ok=step.partial_ok,
                signed=step.signed,
                fault=step.fault,
            )
        self._at.batch.note(made, of)
        if step.name:
            self._named[step.name] = made
        return _judged(step, made)

    @property
    def _currency(self) -> str:
        return next((card.currency for card in self._cards.values()), "CNY")

    async def _alone(self, step: Step) -> Result:
        """Steps that present no card and follow nothing up."""
        pos = self._at.terminal
        match step.do:
            case Do.WAIT:
                await asyncio.sleep(step.seconds)
                return Result(step, True, f"waited {step.seconds:g} s")
            case Do.COPY:
                copied = copy.deepcopy(self._cards[step.card].chip)
                self._cards[step.to] = replace(self._cards[step.card], name=step.to, chip=copied)
                return Result(step, True, f"{step.to} is a copy of {step.card}")
            case Do.DOWNLOAD:
                if step.until_listed:
                    card = self._cards[step.until_listed]
                    return Result(step, True, await self._at.desk.download_until(card))
                return Result(step, True, await self._at.desk.download())
            case Do.UPLOAD:
                sent = await self._at.desk.upload(skip=step.skip, fault=step.fault)
                for made in sent:
                    self._at.batch.note(made)
                same = step.fault is not Fault.SEND_TWICE or all(m.same_answer for m in sent)
                result = _judged_all(step, [made.code for made in sent])
                return result if same else Result(step, False, "another answer to a repeat")
            case Do.UPLOAD_BATCH:
                return _judged_all(step, [reply.code for reply in await self._at.batch.upload()])
            case Do.CLOSE_BATCH:
                reply = await self._at.batch.close()
            case _:
                signs_on = step.do is Do.SIGN_ON and pos.module.signs_on
                reply = await (pos.sign_on() if signs_on else pos.echo())
        return Result(step, reply.code == step.expect.code, reply.code)


_ALONE = frozenset(
    {
        *(Do.SIGN_ON, Do.ECHO, Do.WAIT, Do.COPY, Do.DOWNLOAD, Do.UPLOAD),
        *(Do.UPLOAD_BATCH, Do.CLOSE_BATCH),
    }
)


def _judged_all(step: Step, codes: list[str]) -> Result:
    """Compare the answers to several messages with what was expected of each."""
    wanted = step.expect.codes
    if wanted is None:
        wanted = (step.expect.code or "00",) * len(codes)
    told = ", ".join(codes) or "nothing was sent"
    if tuple(codes) != wanted:
        return Result(step, False, f"{told}; expected {', '.join(wanted)}")
    return Result(step, bool(codes), told)


def _judged(step: Step, made: Exchange) -> Result:
    """Compare what came with what was expected, and with what the step's fault must lead to."""
    expected, told, wrong = step.expect, [made.code], list[str]()
    code = made.reversed_by.code if step.fault is Fault.LOSE_ANSWER and made.reversed_by else None
    if step.fault is Fault.LOSE_ANSWER:
        told = [f"answer lost, reversal {code or 'never answered'}"]
        if code != (expected.code or "00"):
            wrong.append(f"the reversal's answer should be {expected.code or '00'}")
    elif expected.code is not None and made.code != expected.code:
        wrong.append(f"expected {expected.code}")
    if made.why:
        told.append(made.words or made.why)
    if expected.why is not None and made.why != expected.why:
        wrong.append(f"expected {expected.why}")
    if step.fault is Fault.SEND_TWICE or expected.same_answer:
        told.append("the same answer again" if made.same_answer else "another answer")
        if not made.same_answer:
            wrong.append("expected the same answer, byte for byte")
    if expected.balance is not None:
        found = made.reply.balances.get("available") if made.reply is not None else None
        told.append(f"available {found}")
        if found != expected.balance:
            wrong.append(f"expected {expected.balance}")
    if made.chip is not None:
        told.append(f"chip: {made.chip.outcome.value}")
    if expected.chip is not None:
        outcome = made.chip.outcome.value if made.chip is not None else "no chip"
        if outcome != expected.chip:
            wrong.append(f"expected the chip to say {expected.chip}")
    return Result(step, not wrong, "; ".join([*told, *wrong]), made)
