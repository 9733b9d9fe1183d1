"""Another value for a cell, by the column's type alone: nothing here knows what a column means."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from typing import Any

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .-港"


class NoOtherValue(Exception):
    """The type is none that a campaign edits."""


def other_value(source: random.Random, kind: str, old: Any) -> Any:
    """A value of PostgreSQL's type `kind` that isn't `old`."""
    for _ in range(20):
        new = _draw(source, kind, old)
        if new != old:
            return new
    raise NoOtherValue(kind)


def _draw(source: random.Random, kind: str, old: Any) -> Any:
    match kind:
        case "int8" | "int4" | "int2":
            return _number(source, int(old or 0), 2**15 - 1 if kind == "int2" else 2**31 - 1)
        case "text" | "varchar":
            return _text(source, old or "")
        case "bpchar":
            return "".join(source.choice(_LETTERS[:26]) for _ in range(len(old or "CNY")))
        case "bytea":
            return _bytes(source, bytes(old or b""))
        case "date":
            return (old or date(2026, 1, 1)) + timedelta(days=source.choice([-365, -1, 1, 31]))
        case "timestamptz":
            moment: datetime = old
            return moment + timedelta(microseconds=source.choice([-1, 1, 10**6, 86_400 * 10**6]))
        case "xid8":
            return str(max(3, int(old or 3) + source.choice([-3, -1, 1, 7, 10**9])))
        case "bool":
            return not old
    raise NoOtherValue(kind)


def _number(source: random.Random, old: int, limit: int) -> int:
    drawn = source.choice(
        [
            old + 1,
            old - 1,
            old + source.randrange(2, 10_000),
            -old,
            0,
            old ^ 1 << source.randrange(14),
        ]
    )
    return max(-limit, min(limit, drawn))


def _text(source: random.Random, old: str) -> str:
    place = source.randrange(len(old)) if old else 0
    letter = source.choice(_LETTERS)
    return source.choice(
        [
            old[:place] + letter + old[place + 1 :],
            old[:place] + letter + old[place:],
            old[:place] + old[place + 1 :],
            old.swapcase(),
            old + letter,
            "",
        ]
    )


def _bytes(source: random.Random, old: bytes) -> bytes:
    if not old:
        return source.randbytes(source.choice([1, 16, 32]))
    place = source.randrange(len(old))
    flipped = bytearray(old)
    flipped[place] ^= 1 << source.randrange(8)
    return source.choice(
        [bytes(flipped), bytes(flipped), source.randbytes(len(old)), old[:-1], old + b"\0"]
    )
