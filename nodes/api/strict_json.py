"""JSON as a payment interface takes it: RFC 8259 without what two parsers could read differently.

Refused: anything but UTF-8, duplicate keys, NaN and infinities, nesting beyond a bound, numbers
beyond 64 bits, and text with control, bidirectional or unpaired surrogate characters (they make a
merchant's name look like another). Floats are for the schema to refuse: no field of the API is one.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

MAX_DEPTH = 16
_INT64 = range(-(1 << 63), 1 << 63)
#: Bidirectional controls and marks, separators of lines, byte order mark, noncharacters.
_REFUSED = re.compile(
    "[\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]"
)


#: A batch of 256 answers has up to 514; a parser's stack bears this depth many times over.
_HARMLESS_BRACKETS = 600
#: Strings (skipped) and brackets. Possessive, so that an open string isn't tried again and again.
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]')


class JsonRefused(Exception):
    """`kind` names the reason; `malformed`: it is no JSON at all (400), else 422."""

    def __init__(self, kind: str, *, malformed: bool = False) -> None:
        super().__init__(kind)
        self.kind = kind
        self.malformed = malformed


def is_too_deep(raw: bytes) -> bool:
    """Whether a document nests deeper than MAX_DEPTH: to be asked before anything parses it.

    Parsers recurse in C and rely on the interpreter's recursion limit, which py_ecc (a library
    below web3) raises to 100,000 on import: a few kilobytes of "[" then end the process.
    """
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _BRACKETS.finditer(raw):
        bracket = token[0]
        if bracket in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif bracket in b"]}":
            depth -= 1
    return False


def would_overflow(raw: bytes) -> bool:
    """Whether a parser that recurses could run out of stack on it. Costs a batch next to nothing:
    so few brackets as a batch has can't nest deep enough to matter.
    """
    return raw.count(b"[") + raw.count(b"{") > _HARMLESS_BRACKETS and is_too_deep(raw)


def loads(raw: bytes) -> Any:
    """Parse a document; JsonRefused says why not."""
    if is_too_deep(raw):
        raise JsonRefused("json-too-deep")
    try:
        text = raw.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise JsonRefused("json-malformed", malformed=True) from None
    _check_text(value)
    return value


def _check_text(value: Any) -> None:
    if isinstance(value, str):
        if not is_safe_text(value):
            raise JsonRefused("text-refused")
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_text(item)


def is_safe_text(text: str) -> bool:
    """Whether text may stand in a record: no control, bidirectional or surrogate characters."""
    if text.isprintable():
        return True
    return not _REFUSED.search(text) and not any(
        unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") for character in text
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise JsonRefused("json-duplicate-key")
    for key in made:
        if not is_safe_text(key):
            raise JsonRefused("text-refused")
    return made


def _constant(_: str) -> Any:
    raise JsonRefused("json-malformed", malformed=True)


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise JsonRefused("number-out-of-range")
    value = int(digits)
    if value not in _INT64:
        raise JsonRefused("number-out-of-range")
    return value


def _float(digits: str) -> float:
    if len(digits) > 40:
        raise JsonRefused("number-out-of-range")
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise JsonRefused("number-out-of-range")
    return value
