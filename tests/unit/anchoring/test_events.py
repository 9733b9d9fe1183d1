"""Leaves of events: what they commit to, and what erasing a person leaves of them."""

from __future__ import annotations

import hashlib

import pytest

from nodes.anchoring.events import (
    EVENT_COLUMNS,
    PRIVATE_COLUMNS,
    changed_columns,
    event_evidence,
    is_erased,
)
from nodes.anchoring.leaf import EventKind, decode_leaf, event_ref
from nodes.anchoring.model import Value
from nodes.anchoring.rules import RowUnsound, words_of
from nodes.crypto.private_copy import private_marks
from tests.unit.anchoring.other_code import field_salt, private_hash, root, sha256, word

ROW: dict[str, Value] = {
    "event_id": 7,
    "kind": "card",
    "action": "card.issued",
    "subject": "",
    "actor": "otto",
    "detail": "first card",
    "occurred_ms": 1_790_000_000_000,
    "card_token": bytes(range(16)),
    "salt_fin": b"f" * 32,
    "salt_pii": b"p" * 32,
    "card_token_leaf": None,
    "salt_private": b"s" * 32,
    "xact": 900,
}


def other_code(row: dict[str, Value]) -> tuple[bytes, list[bytes]]:
    """The leaf from its definition alone (docs/evidence.md), and C's field hashes."""
    reference = sha256(b"countersign/event/1", word("aurora"), (7).to_bytes(8, "big"))
    values = [4, "card.issued", 1_790_000_000_000]
    words = [word(value) for value in values]  # type: ignore[arg-type]
    words += [sha256(text.encode()) for text in ("", "otto", "first card")]
    words.append(bytes(32))
    fields = [
        sha256(b"\0", word(n), field_salt(b"f" * 32, reference, n), value)
        for n, value in enumerate(words, start=1)
    ]
    own = field_salt(b"p" * 32, reference, 8)
    fields.append(sha256(b"\0", word(8), own, word(bytes(range(16)))))
    marks = {column: row[column] for column in PRIVATE_COLUMNS}
    marks["card_token"] = None
    marks["salt_pii"] = sha256(b"countersign/salt-pii/1", b"p" * 32)
    private = private_hash([*marks.values()])
    head = word(1) + word(4) + word("aurora") + reference + root(fields) + private
    leaf = head + bytes(32) + word(0) + bytes(32) + word(7)
    return leaf, fields


def test_the_leaf_is_as_its_definition_says() -> None:
    evidence = event_evidence("aurora", ROW)
    leaf, fields = other_code(ROW)
    assert evidence.encoded == leaf
    assert words_of(evidence.shared_leaves) == fields
    decoded = decode_leaf(evidence.encoded)
    assert decoded.kind is EventKind.CARD
    assert (decoded.txid, decoded.terminal_seq) == (event_ref("aurora", 7), 7)
    assert evidence.leaf_hash == hashlib.sha256(b"\0" + leaf).digest()


@pytest.mark.parametrize("column", [c for c in EVENT_COLUMNS if c != "salt_private"])
def test_a_changed_column_is_named(column: str) -> None:
    evidence = event_evidence("aurora", ROW)
    stored = words_of(evidence.shared_leaves), private_marks(evidence.private_copy)
    value = ROW[column]
    other: Value
    if isinstance(value, int):
        other = value + 1
    elif isinstance(value, str):
        other = "merchant" if column == "kind" else value + "x"
    else:
        other = b"\x01" * 32 if value is None else bytes([value[0] ^ 1]) + value[1:]
    assert changed_columns(ROW, evidence.leaf.txid, *stored) == []
    changed = changed_columns(ROW | {column: other}, evidence.leaf.txid, *stored)
    assert changed == [column]


@pytest.mark.parametrize(
    ("token", "other"),
    [
        (bytes(range(16)), bytes(range(16)) + b"\0"),
        (bytes(range(1, 16)) + b"\0", bytes(range(1, 16))),
        (None, bytes(16)),
        (None, b""),
    ],
)
def test_a_token_that_pads_to_the_same_word_is_another(
    token: bytes | None, other: bytes | None
) -> None:
    evidence = event_evidence("aurora", ROW | {"card_token": token})
    stored = words_of(evidence.shared_leaves), private_marks(evidence.private_copy)
    changed = changed_columns(ROW | {"card_token": other}, evidence.leaf.txid, *stored)
    assert changed == ["card_token"]


def test_a_changed_private_salt_is_named_alone() -> None:
    evidence = event_evidence("aurora", ROW)
    stored = words_of(evidence.shared_leaves), private_marks(evidence.private_copy)
    for salt in (b"t" * 32, None):
        changed = changed_columns(ROW | {"salt_private": salt}, evidence.leaf.txid, *stored)
        assert changed == ["salt_private"]


def test_an_erased_event_keeps_its_commitment() -> None:
    evidence = event_evidence("aurora", ROW)
    shared, private = words_of(evidence.shared_leaves), private_marks(evidence.private_copy)
    erased = ROW | {"card_token": None, "salt_pii": None, "card_token_leaf": shared[7]}
    assert is_erased(erased, shared)
    assert changed_columns(erased, evidence.leaf.txid, shared, private) == []
    assert event_evidence("aurora", erased).leaf.commitment == evidence.leaf.commitment
    assert not is_erased(erased | {"card_token_leaf": bytes(32)}, shared)
    assert not is_erased(ROW, shared)


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"kind": "purchase"}, "kind"),
        ({"salt_fin": b"short"}, "salt_fin"),
        ({"action": "x" * 33}, "action"),
        ({"salt_pii": None}, "card_token_leaf"),
        ({"card_token": bytes(range(16)) + b"\0"}, "card_token"),
        ({"card_token": bytes(16)}, "card_token"),
    ],
)
def test_what_can_not_be_a_leaf_is_named(change: dict[str, Value], column: str) -> None:
    with pytest.raises(RowUnsound) as caught:
        event_evidence("aurora", ROW | change)
    assert caught.value.column == column
