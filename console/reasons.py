"""Why a payment was declined, as people read it: a sentence, and the values that were compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from console import presentation, wording

#: Values that are amounts of minor units; of a limit on counts, `limit` and `used` are not.
_AMOUNTS = frozenset(
    {
        *("amount", "available", "balance", "held", "limit", "used", "max_balance", "original"),
        "disputed",
        *("authorized", "captured", "refunded", "reversed", "receivable", "shortfall"),
    }
)
_OF_COUNTS = {"count_limit": frozenset({"limit", "used"}), "uses_exhausted": _AMOUNTS}


@dataclass(frozen=True)
class Explained:
    """A reason ready to be shown. `rows`: name and value of what was compared."""

    sentence: str
    rule_name: str | None
    rule_id: str | None
    rows: list[tuple[str, str]]


class _Known(dict[str, str]):
    """A value that a reason doesn't carry shows as a dash."""

    def __missing__(self, name: str) -> str:
        return "–"


def explained(reason: Mapping[str, Any], currency: str) -> Explained:
    """A ReasonItem of the node API with its amounts in `currency`."""
    code, values = reason["code"], reason["values"]
    kind = _sentence_of(code, values)
    shown = _Known(
        {
            name: _value(code, name, value, currency)
            for name, value in values.items()
            if not (kind == "transaction_limit" and name == "used")
        }
    )
    rows = [(wording.words(wording.VALUES, name), text) for name, text in shown.items() if text]
    template = wording.REASONS.get(kind)
    rule = reason["rule_name"]
    # A code that this console doesn't know is told in the node's own words.
    sentence = template.format_map(_with_rule(shown, rule)) if template else reason["text"]
    return Explained(sentence, rule, reason["rule_id"], rows)


def limit_text(limit: Mapping[str, Any], currency: str) -> str:
    """ "500.00 CNY a day", "3 payments a week"."""
    window = wording.words(wording.WINDOWS, limit["window"])
    return f"{measured(limit['maximum'], limit['measure'], currency, unit=True)} {window}"


def conditions(rule: Mapping[str, Any]) -> list[str]:
    """What a rule is about, in words; empty: every payment."""
    when = rule["when"]
    found = [
        f"{words} {', '.join(when[name])}"
        for name, words in wording.CONDITIONS.items()
        if when[name]
    ]
    if when["weekdays"]:
        found.append(", ".join(wording.WEEKDAYS[day - 1] for day in when["weekdays"]))
    start, end = when["from_minute"], when["to_minute"]
    if start is not None or end is not None:
        found.append(f"{_minute(start or 0)} to {_minute(1440 if end is None else end)}")
    return found


def _minute(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def measured(value: int | None, measure: str, currency: str, *, unit: bool = False) -> str:
    """A value in a limit's measure: an amount of `currency`, or a count of payments."""
    if measure == "amount":
        return presentation.amount(value, currency) + (f" {currency}" if unit else "")
    if not unit:
        return presentation.number(value)
    return f"{presentation.number(value)} {'payment' if value == 1 else 'payments'}"


def share(used: int | None, maximum: int) -> int:
    """How much of a limit is used, in whole per cent, at most 100."""
    if not used:
        return 0
    return min(100, used * 100 // maximum) if maximum > 0 else 100


def _sentence_of(code: str, values: Mapping[str, Any]) -> str:
    if code == "amount_limit" and "max_balance" in values:
        return "max_balance"
    if code == "amount_limit" and values.get("window") == "transaction" and not values.get("used"):
        return "transaction_limit"
    if code == "card_expired" and "asked" in values:
        return ""
    return str(code)


def _with_rule(shown: _Known, rule: str | None) -> _Known:
    return _Known(shown | {"rule": rule or "–"})


def _value(code: str, name: str, value: int | str, currency: str) -> str:
    if name == "window":
        return wording.words(wording.WINDOWS, value)
    if name == "weekday" and isinstance(value, int) and 1 <= value <= 7:
        return wording.WEEKDAYS[value - 1]
    if name == "entry_mode":
        return f"{wording.words(wording.ENTRY_MODES, value)} ({value})" if value else ""
    counts = _OF_COUNTS.get(code, frozenset())
    if isinstance(value, int) and name in _AMOUNTS and name not in counts:
        return f"{presentation.amount(value, currency)} {currency}"
    return presentation.number(value) if isinstance(value, int) else str(value)
