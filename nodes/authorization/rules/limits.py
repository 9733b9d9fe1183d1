"""Rules that limit spending: what they are about, what their windows have counted."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from nodes.authorization.controls import Conditions, Limit, Measure, Rule, Window
from nodes.authorization.entry_modes import ENTRY_MODES
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.rules.draft import Draft
from nodes.authorization.rules.purses import mcc_in
from nodes.authorization.state import Counted, Counter, Moment, Original, Reason

#: What a rule is about that names no kinds.
DEFAULT_KINDS = (Kind.PURCHASE.value, Kind.AUTHORIZATION.value)
#: An advice is a purchase, an increment is more of an authorization: rules see them as that too.
_SEEN_AS = {Kind.ADVICE: Kind.PURCHASE.value, Kind.INCREMENT: Kind.AUTHORIZATION.value}
_PRECEDENCE = (Outcome.RULE_DECLINED, Outcome.AMOUNT_LIMIT, Outcome.COUNT_LIMIT)


class Spend(NamedTuple):
    """What a rule may look at of one request. `amount` in minor units."""

    kind: Kind
    amount: int
    mcc: str = ""
    merchant_id: str = ""
    country: str = ""
    channel: str = "pos"
    entry_mode: str = ""
    #: Authorized before, where this is more of the same: one transaction in the eyes of a limit.
    before: int = 0


class Verdict(NamedTuple):
    """What the rules say to a request: `outcome` None lets it pass."""

    outcome: Outcome | None = None
    reason: Reason | None = None
    #: Rules in shadow mode that would have declined.
    shadow: tuple[Reason, ...] = ()
    #: The limits it counts for, once it is approved.
    counting: tuple[tuple[str, Limit], ...] = ()


NO_RULES = Verdict()


def period(window: Window, local: datetime) -> int:
    """The number of the window that a local time lies in; a later one has a higher number."""
    if window is Window.DAY:
        return local.toordinal()
    if window is Window.WEEK:
        return (local.toordinal() - 1) // 7  # 0001-01-01 was a Monday
    if window is Window.MONTH:
        return local.year * 12 + local.month - 1
    return 0


def channel_of(channel: str, entry_mode: str) -> str:
    """The channel in a finer word: at a POS, how the card was read (contactless, chip, ...)."""
    return ENTRY_MODES.get(entry_mode[:2], channel) if channel == "pos" else channel


def concerns(rule: Rule, spend: Spend, local: datetime) -> bool:
    """Whether a rule is about a request: its kind, and the conditions (or not these: `unless`)."""
    kinds = rule.when.kinds or DEFAULT_KINDS
    if spend.kind.value not in kinds and _SEEN_AS.get(spend.kind) not in kinds:
        return False
    return _matches(rule.when, spend, local) is not rule.unless


def _matches(when: Conditions, spend: Spend, local: datetime) -> bool:
    return (
        (not when.mccs or mcc_in(spend.mcc, when.mccs))
        and (not when.merchants or spend.merchant_id in when.merchants)
        and (not when.countries or spend.country in when.countries)
        and (not when.weekdays or local.isoweekday() in when.weekdays)
        and (not when.entry_modes or spend.entry_mode[:2] in when.entry_modes)
        and (
            not when.channels
            or spend.channel in when.channels
            or channel_of(spend.channel, spend.entry_mode) in when.channels
        )
        and _in_hours(when, local.hour * 60 + local.minute)
    )


def _in_hours(when: Conditions, minute: int) -> bool:
    start, end = when.from_minute or 0, 1440 if when.to_minute is None else when.to_minute
    if start <= end:
        return start <= minute < end
    return minute >= start or minute < end


def in_force(rule: Rule, now_ms: int) -> bool:
    return rule.effective_from_ms <= now_ms and (
        rule.effective_to_ms is None or now_ms < rule.effective_to_ms
    )


def used_in(counter: Counter | None, number: int) -> Counter:
    """What was counted in the window of this number: nothing, if the counter is an earlier one's.

    A clock that has gone back doesn't empty a window: the later one goes on.
    """
    return counter if counter is not None and counter.period >= number else Counter(number)


def objection(
    rule: Rule, spend: Spend, local: datetime, counters: dict[str, Counter]
) -> tuple[Outcome, Reason] | None:
    """Why a rule that concerns the request declines it; None if it doesn't."""
    limit = rule.limit
    if limit is None:
        return Outcome.RULE_DECLINED, _reason(rule, Outcome.RULE_DECLINED, _facts_of(spend, local))
    used = used_in(counters.get(rule.rule_id), period(limit.window, local))
    if limit.measure is Measure.AMOUNT:
        before = spend.before if limit.window is Window.TRANSACTION else used.amount
        this, outcome = spend.amount, Outcome.AMOUNT_LIMIT
    else:
        before, this, outcome = used.count, _count_of(spend.kind), Outcome.COUNT_LIMIT
    if not this or before + this <= limit.maximum:
        return None
    values: dict[str, int | str] = {
        "limit": limit.maximum,
        "used": before,
        "amount": spend.amount,
        "window": limit.window.value,
    }
    return outcome, _reason(rule, outcome, values)


def evaluate(
    rules: tuple[Rule, ...], spend: Spend, counters: dict[str, Counter], moment: Moment
) -> Verdict:
    """All rules over one request. Of several objections the upper outcome is answered."""
    objections: list[tuple[Outcome, Reason]] = []
    shadow: list[Reason] = []
    counting: list[tuple[str, Limit]] = []
    for rule in rules:
        if not in_force(rule, moment.now_ms) or not concerns(rule, spend, moment.local):
            continue
        found = objection(rule, spend, moment.local, counters)
        if found is not None and rule.shadow:
            shadow.append(found[1])
        elif found is not None:
            objections.append(found)
        if rule.limit is not None and rule.limit.window is not Window.TRANSACTION:
            counting.append((rule.rule_id, rule.limit))
    outcome, reason = None, None
    if objections:
        outcome, reason = min(objections, key=lambda pair: _PRECEDENCE.index(pair[0]))
    return Verdict(outcome, reason, tuple(shadow), tuple(counting))


def count(
    draft: Draft, verdict: Verdict, kind: Kind, amount: int, local: datetime
) -> tuple[Counted, ...]:
    """Add an approval to the windows; what is to be kept, so that a reversal finds them again."""
    counted = []
    for rule_id, limit in verdict.counting:
        spend = Spend(kind, amount)
        counter = counted_on(limit, draft.counters.get(rule_id), spend, local)
        draft.set_counter(rule_id, counter)
        counted.append(Counted(rule_id, counter.period))
    return tuple(counted)


def counted_on(limit: Limit, counter: Counter | None, spend: Spend, local: datetime) -> Counter:
    """The counter after one approval more."""
    used = used_in(counter, period(limit.window, local))
    return Counter(used.period, used.amount + spend.amount, used.count + _count_of(spend.kind))


def give_back(draft: Draft, original: Original, amount: int, whole: bool) -> None:
    """Take an amount (and if the whole is undone, the transaction) off the windows it counted in.

    A window that is over keeps what it had: its number tells.
    """
    times = _count_of(original.kind) if whole else 0
    for counted in original.counted:
        counter = draft.counters.get(counted.rule_id)
        if counter is not None and counter.period == counted.period:
            left = Counter(counted.period, counter.amount - amount, counter.count - times)
            draft.set_counter(counted.rule_id, left)


def _count_of(kind: Kind) -> int:
    return 0 if kind is Kind.INCREMENT else 1


def _facts_of(spend: Spend, local: datetime) -> dict[str, int | str]:
    return {
        "amount": spend.amount,
        "mcc": spend.mcc,
        "merchant": spend.merchant_id,
        "country": spend.country,
        "channel": channel_of(spend.channel, spend.entry_mode),
        "entry_mode": spend.entry_mode[:2],
        "time": f"{local.hour:02d}:{local.minute:02d}",
        "weekday": local.isoweekday(),
    }


def _reason(rule: Rule, outcome: Outcome, values: dict[str, int | str]) -> Reason:
    return Reason(outcome.value, rule.rule_id, rule.name, values)
