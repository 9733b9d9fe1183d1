"""What the windows of rules have counted on an account, and when they begin anew. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from nodes import clock
from nodes.authorization.controls import Limit, Measure, Rule, Window
from nodes.authorization.rules import limits
from nodes.authorization.state import Account


class WindowUsed(msgspec.Struct, frozen=True):
    """A rule's present window on an account; `used` in the limit's measure."""

    rule: Rule
    limit: Limit
    used: int
    #: None: never (a lifetime).
    resets_at: datetime | None


def windows_used(
    rules: Iterable[Rule], account: Account, now_ms: int, time_zone: str
) -> list[WindowUsed]:
    """The windows of the rules that are in force now and count over more than one transaction."""
    local = clock.to_datetime(now_ms).astimezone(ZoneInfo(time_zone))
    return [
        WindowUsed(
            rule,
            rule.limit,
            used_of(rule, rule.limit, account, local),
            window_end(rule.limit.window, local),
        )
        for rule in rules
        if rule.limit is not None
        and rule.limit.window is not Window.TRANSACTION
        and limits.in_force(rule, now_ms)
    ]


def used_of(rule: Rule, limit: Limit, account: Account, local: datetime) -> int:
    """What a rule's present window has counted on an account, in the limit's measure."""
    if limit.window is Window.TRANSACTION:
        return 0
    number = limits.period(limit.window, local)
    used = limits.used_in(account.counters.get(rule.rule_id), number)
    return used.amount if limit.measure is Measure.AMOUNT else used.count


def window_end(window: Window, local: datetime) -> datetime | None:
    """When a calendar window that `local` lies in is over, in UTC; None: it isn't one."""
    day = local.date()
    if window is Window.DAY:
        following = day + timedelta(days=1)
    elif window is Window.WEEK:
        following = day + timedelta(days=8 - day.isoweekday())
    elif window is Window.MONTH:
        following = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    else:
        return None
    midnight = datetime(following.year, following.month, following.day, tzinfo=local.tzinfo)
    return midnight.astimezone(UTC)
