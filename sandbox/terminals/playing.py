"""Plays a scenario against a network, step by step, and says what held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.terminal import NoAnswer, NotAuthentic
from sandbox.terminals.scenario import Do, Fault, Scenario, Step
from sandbox.terminals.surroundings import NotThere, SimCard, Surroundings
from sandbox.terminals.till import Exchange, Till


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
        player = _Player(Till(terminal), cards)
        for step in scenario.steps:
            result = await player.do(step)
            results.append(result)
            on_step(result)
            if not result.held:
                break
    return results


class _Player:
    def __init__(self, till: Till, cards: dict[str, SimCard]) -> None:
        self._till = till
        self._cards = cards
        self._named: dict[str, Exchange] = {}

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
        terminal = self._till.terminal
        if step.do is Do.WAIT:
            await asyncio.sleep(step.seconds)
            return Result(step, True, f"waited {step.seconds:g} s")
        if step.do in (Do.SIGN_ON, Do.ECHO):
            signs_on = step.do is Do.SIGN_ON and terminal.module.signs_on
            reply = await (terminal.sign_on() if signs_on else terminal.echo())
            return Result(step, reply.code == step.expect.code, f"{reply.code}")
        if step.of:
            made = await self._till.follow(
                step.do, self._named[step.of], step.amount, more=step.more, fault=step.fault
            )
        else:
            made = await self._till.present(
                step.do,
                self._cards[step.card],
                step.amount,
                by=step.by,
                pin=step.pin,
                partial_ok=step.partial_ok,
                fault=step.fault,
            )
        if step.name:
            self._named[step.name] = made
        return _judged(step, made)


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
