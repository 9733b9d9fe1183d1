"""JSON that two parsers could read differently is refused; all other JSON is read as ever."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.api.strict_json import (
    MAX_DEPTH,
    JsonRefused,
    is_safe_text,
    is_too_deep,
    loads,
    would_overflow,
)

TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Co", "Cn"])).filter(is_safe_text)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_sound_documents_are_read_as_the_standard_library_reads_them(value: Any) -> None:
    for raw in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        if not is_too_deep(raw.encode()):
            assert loads(raw.encode()) == value


NEARLY_JSON = st.text(alphabet='{}[]",:\\u0dNaNe1-. ', max_size=40).map(str.encode)


@given(st.binary(max_size=60) | NEARLY_JSON)
def test_whatever_comes_is_read_or_refused_and_nothing_else(raw: bytes) -> None:
    with contextlib.suppress(JsonRefused):
        loads(raw)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"a":1,"a":1}', "json-duplicate-key"),
        (b'[{"b":{"a":1,"\\u0061":2}}]', "json-duplicate-key"),
        (b"NaN", "json-malformed"),
        (b"[-Infinity]", "json-malformed"),
        (b"9223372036854775808", "number-out-of-range"),
        (b"-9223372036854775809", "number-out-of-range"),
        (b"1" * 5_000, "number-out-of-range"),
        (b"1e999", "number-out-of-range"),
        (b'"\\u0000"', "text-refused"),
        (b'"\\ud800"', "text-refused"),
        ('"\u202e"'.encode(), "text-refused"),
        ('{"\u2066":1}'.encode(), "text-refused"),
        (b'"\xff"', "json-malformed"),
        (b"\xef\xbb\xbf1", "json-malformed"),
        (b"", "json-malformed"),
        (b"1 2", "json-malformed"),
    ],
)
def test_what_is_refused_and_by_which_name(raw: bytes, kind: str) -> None:
    with pytest.raises(JsonRefused) as refusal:
        loads(raw)
    assert refusal.value.kind == kind


def test_depth_is_counted_outside_of_texts() -> None:
    at_most = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert loads(at_most)
    assert is_too_deep(b"[" + at_most + b"]")
    assert not is_too_deep(b'"' + b"[" * 100 + b'"')
    assert not is_too_deep(b'["\\"' + b"{" * 100 + b'"]')
    assert not is_too_deep(b"[" + b"[]," * 1_000 + b"1]")
    assert is_too_deep(b'"unclosed' + b"[" * 100)


def test_a_raised_recursion_limit_does_not_make_deep_json_fatal() -> None:
    # py_ecc, below web3, sets it to 100,000: the C parser then runs out of stack, not of limit.
    limit = sys.getrecursionlimit()
    refused: list[str] = []

    def parse() -> None:
        for raw in (b"[" * 500_000, b'{"a":' * 100_000):
            assert would_overflow(raw)
            try:
                loads(raw)
            except JsonRefused as refusal:
                refused.append(refusal.kind)

    sys.setrecursionlimit(100_000)
    try:
        thread = threading.Thread(target=parse)
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(limit)
    assert refused == ["json-too-deep", "json-too-deep"]


def test_names_of_all_scripts_are_safe_and_disguises_are_not() -> None:
    for name in ("Harbor 港", "متجر", "Café", "ความ", "a\u3000b", "👍🏽"):
        assert is_safe_text(name), name
    for name in ("a\tb", "a\nb", "a\x7f", "\u200fabc", "abc\u2069", "\ufeffx", "\ue000"):
        assert not is_safe_text(name), repr(name)
