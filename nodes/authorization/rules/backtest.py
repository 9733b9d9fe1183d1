"""What a rule would have declined, had it been in force: past approvals replayed through it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec

from nodes.authorization.controls import Rule
from nodes.authorization.model import Kind
from nodes.authorization.rules import limits
from nodes.authorization.state import Counter, Reason


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """An approval of the past. `stream` is the account's id: windows count by account."""

    at_ms: int
    stream: int
    txid: bytes
    kind: Kind
    amount: int  # approved, minor units
    mcc: str
    merchant_id: str
    country: str
    channel: str = "pos"
    entry_mode: str = ""


class Declined(msgspec.Struct, frozen=True):
    """One that the rule would have declined, and why."""

    past: Past
    reason: Reason


class BacktestResult(msgspec.Struct, frozen=True):
    """Counts and amounts (minor units) over the history; `declined` are the first of them."""

    examined: int
    concerned: int
    declined_count: int
    declined_amount: int
    declined: tuple[Declined, ...]


def backtest(
    rule: Rule,
    history: Iterable[Past],
    time_zone: str = "Asia/Shanghai",
    *,
    keep: int = 1_000,
) -> BacktestResult:
    """Replay a history, the oldest first, through a rule as if it had declined.

    What it would have declined counts in no window. Whether the rule is in shadow mode, and from
    when it is in force, makes no difference. `time_zone` is the program's.
    """
    zone = ZoneInfo(time_zone)
    counters: dict[int, Counter] = {}
    examined = concerned = declined_count = declined_amount = 0
    declined: list[Declined] = []
    for past in history:
        examined += 1
        local = datetime.fromtimestamp(past.at_ms / 1000, UTC).astimezone(zone)
        spend = limits.Spend(
            past.kind,
            past.amount,
            past.mcc,
            past.merchant_id,
            past.country,
            past.channel,
            past.entry_mode,
        )
        if not limits.concerns(rule, spend, local):
            continue
        concerned += 1
        before = counters.get(past.stream)
        known = {} if before is None else {rule.rule_id: before}
        found = limits.objection(rule, spend, local, known)
        if found is None:
            if rule.limit is not None:
                counters[past.stream] = limits.counted_on(rule.limit, before, spend, local)
            continue
        declined_count += 1
        declined_amount += past.amount
        if len(declined) < keep:
            declined.append(Declined(past, found[1]))
    return BacktestResult(examined, concerned, declined_count, declined_amount, tuple(declined))
