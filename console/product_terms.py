"""A product's terms as people read and type them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from console import presentation
from console.institutions import Json

#: Terms name no currency; amounts are typed and shown with this one's digits.
CURRENCY = "CNY"
#: Most cases of a product's own rules: what stands there if nobody says otherwise.
UNLIMITED = "no limit"
_UNITS = {"day": 86_400, "hour": 3_600, "minute": 60, "second": 1}
_LASTS = re.compile(r"([0-9]{1,8}) ?(day|hour|minute|second)s?\Z")
_PERCENT = re.compile(r"([0-9]{4}(?:-[0-9]{4})?)[ :]+([0-9]{1,3}) ?%?\Z")
#: Amounts and counts of `entry`, by the field's name, with what they are called.
ENTRY_AMOUNTS = {
    "quick_pay_amount": "Quick Pay without a PIN, at most",
    "quick_pay_total": "Quick Pay in all before a PIN",
    "signature_amount": "Contactless with a signature, at most",
    "fallback_amount": "Chip card by its stripe, at most",
}
ENTRY_COUNTS = {
    "quick_pay_count": "Quick Pay payments before a PIN",
    "fallback_count": "Payments by stripe before the chip",
}
#: Where the node says what is wrong, the field that shows it.
_FIELD_OF = {"hold_seconds": "holds", "over_capture_percent": "over_capture"}


def rows(terms: Json) -> list[tuple[str, str]]:
    """What terms say: name and value of each."""
    return [(label, shown(terms)) for label, shown in _ROWS] + [
        (f"Purse {purse['name']}", _purse(purse)) for purse in terms["purses"]
    ]


def changes(before: Json, after: Json) -> list[tuple[str, str, str]]:
    """Name, value before and value after, of what differs."""
    known = dict(rows(before))
    return [
        (label, known.get(label, "–"), value)
        for label, value in rows(after)
        if known.get(label) != value
    ]


def texts_of(terms: Json) -> dict[str, str]:
    """The form's fields, filled with what terms say."""
    entry = terms["entry"]
    texts = {
        "reloadable": "yes" if terms["reloadable"] else "",
        "partial_approval": "yes" if terms["partial_approval"] else "",
        "transfers": "yes" if terms["transfers"] else "",
        "manual": "yes" if entry["manual"] else "",
        "uses": "" if terms["uses"] is None else str(terms["uses"]),
        "merchants": ", ".join(terms["merchants"]),
        "max_balance": _typed(terms["max_balance"]),
        "holds": _lasts(terms["hold_seconds"]),
        "over_capture": _over_capture(terms),
        "effective_from": "",
        "reason": "",
    }
    texts |= {name: _typed(entry[name]) for name in ENTRY_AMOUNTS}
    texts |= {name: str(entry[name]) for name in ENTRY_COUNTS}
    for number, purse in enumerate(terms["purses"]):
        texts[f"mccs_{number}"] = ", ".join(purse["mccs"])
        texts[f"fallback_{number}"] = ", ".join(purse["fallback"])
    return texts


def for_node(base: Json, typed: Mapping[str, str]) -> tuple[Json, dict[str, str]]:
    """Terms as the node API takes them, and what is wrong by field.

    `base`: the terms in force; purses' names and the time zone stay as they are there.
    """
    wrong: dict[str, str] = {}
    entry = dict(base["entry"]) | {"manual": bool(typed.get("manual"))}
    for name in ENTRY_AMOUNTS:
        entry[name] = _amount(typed, name, wrong)
    for name in ENTRY_COUNTS:
        entry[name] = _count(typed, name, wrong)
    purses = [
        dict(purse)
        | {"mccs": _list(typed, f"mccs_{number}"), "fallback": _list(typed, f"fallback_{number}")}
        for number, purse in enumerate(base["purses"])
    ]
    lasts = _LASTS.match(typed.get("holds", ""))
    if lasts is None:
        wrong["holds"] = "How long, such as 7 days or 36 hours."
    terms = dict(base) | {
        "reloadable": bool(typed.get("reloadable")),
        "partial_approval": bool(typed.get("partial_approval")),
        "transfers": bool(typed.get("transfers")),
        "uses": _count(typed, "uses", wrong) if typed.get("uses") else None,
        "merchants": _list(typed, "merchants"),
        "max_balance": _amount(typed, "max_balance", wrong) if typed.get("max_balance") else None,
        "hold_seconds": int(lasts[1]) * _UNITS[lasts[2]] if lasts else 0,
        "over_capture_percent": _percents(typed, wrong),
        "purses": purses,
        "entry": entry,
    }
    return terms, wrong


def fields_of(places: Mapping[str, str], base: Json) -> dict[str, str]:
    """What the node found wrong, by the form's fields; "form": what has no field of its own."""
    known = texts_of(base)
    wrong: dict[str, str] = {}
    for place, message in places.items():
        name = place.removeprefix("body.").removeprefix("terms.").removeprefix("entry.")
        name = _FIELD_OF.get(name.partition(".")[0], name)
        if name in ("purses.mccs", "purses.fallback"):
            name = f"{name.removeprefix('purses.')}_0"
        if name not in known:
            name, message = "form", f"{place}: {message}"
        wrong[name] = f"{wrong[name]} {message}" if name in wrong else message
    return wrong


def _purse(purse: Json) -> str:
    takes = f"MCC {', '.join(purse['mccs'])}" if purse["mccs"] else "every purchase"
    rest = f"; then {', '.join(purse['fallback'])}" if purse["fallback"] else ""
    return f"{takes}{rest}"


def _yes(terms: Json, name: str) -> str:
    return "yes" if terms[name] else "no"


def _money(minor: int | None) -> str:
    return UNLIMITED if minor is None else f"{presentation.amount(minor, CURRENCY)} {CURRENCY}"


def _typed(minor: int | None) -> str:
    return "" if minor is None else presentation.amount(minor, CURRENCY)


def _lasts(seconds: int) -> str:
    unit, size = next((u, s) for u, s in _UNITS.items() if seconds % s == 0)
    count = seconds // size
    return f"{count} {unit}" + ("" if count == 1 else "s")


def _over_capture(terms: Json) -> str:
    found = sorted(terms["over_capture_percent"].items())
    return ", ".join(f"{mccs} {percent} %" for mccs, percent in found)


def _entry_row(name: str, money: bool) -> Callable[[Json], str]:
    def shown(terms: Json) -> str:
        value = terms["entry"][name]
        return _money(value) if money else presentation.number(value)

    return shown


_ROWS: list[tuple[str, Callable[[Json], str]]] = [
    ("Can be loaded again", lambda terms: _yes(terms, "reloadable")),
    (
        "Approved uses",
        lambda terms: UNLIMITED if terms["uses"] is None else presentation.number(terms["uses"]),
    ),
    ("Merchants", lambda terms: ", ".join(terms["merchants"]) or "all"),
    ("Highest balance", lambda terms: _money(terms["max_balance"])),
    ("Partial approval", lambda terms: _yes(terms, "partial_approval")),
    ("Transfers from card to card", lambda terms: _yes(terms, "transfers")),
    ("Holds last", lambda terms: _lasts(terms["hold_seconds"])),
    ("Captures above the hold", lambda terms: _over_capture(terms) or "no"),
    ("Time zone", lambda terms: str(terms["time_zone"])),
    ("Keyed in at a terminal", lambda terms: _yes(terms["entry"], "manual")),
    *((label, _entry_row(name, True)) for name, label in ENTRY_AMOUNTS.items()),
    *((label, _entry_row(name, False)) for name, label in ENTRY_COUNTS.items()),
]


def _list(typed: Mapping[str, str], name: str) -> list[str]:
    return [part.strip() for part in typed.get(name, "").split(",") if part.strip()]


def _amount(typed: Mapping[str, str], name: str, wrong: dict[str, str]) -> int:
    minor = presentation.minor_units(typed.get(name, ""), CURRENCY)
    if minor is None:
        wrong[name] = "An amount, such as 300.00."
    return minor or 0


def _count(typed: Mapping[str, str], name: str, wrong: dict[str, str]) -> int:
    text = typed.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 7):
        wrong[name] = "A whole number, such as 5."
        return 0
    return int(text)


def _percents(typed: Mapping[str, str], wrong: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in _list(typed, "over_capture"):
        match = _PERCENT.match(part)
        if match is None:
            wrong["over_capture"] = "MCCs with their tolerance, such as 5812 20 %, 7011 15 %."
            break
        found[match[1]] = int(match[2])
    return found
