"""What a row becomes in the log, pinned by vectors that other implementations can use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nodes.anchoring import rules
from nodes.anchoring.model import ROW_COLUMNS, LedgerRow, Value
from nodes.crypto.commitment import SharedField
from nodes.crypto.private_copy import private_marks
from tests.unit.anchoring import other_code

VECTORS = Path(__file__).parents[2] / "vectors" / "ledger_rows.json"
_BYTES = {
    "txid",
    "network_ref",
    "card_token",
    "original_txid",
    "salt_fin",
    "salt_pii",
    "card_token_leaf",
    "salt_private",
    "commitment",
}


def vectors() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(VECTORS.read_text())["vectors"]
    return found


def row_of(vector: dict[str, Any]) -> LedgerRow:
    values: dict[str, Value] = {
        column: bytes.fromhex(value) if column in _BYTES and value is not None else value
        for column, value in vector["row"].items()
    }
    return LedgerRow(values, tuple(vector["transfers"]))


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector["name"])
def test_the_published_rows_have_the_published_leaves(vector: dict[str, Any]) -> None:
    evidence = rules.row_evidence(vector["member_id"], row_of(vector))
    assert tuple(vector["row"]) == ROW_COLUMNS
    row = row_of(vector)
    assert evidence.encoded == other_code.leaf(vector["member_id"], row.values, row.transfers)
    assert evidence.leaf.commitment.hex() == vector["commitment"]
    assert evidence.leaf.private_commitment.hex() == vector["private_commitment"]
    assert evidence.encoded.hex() == vector["leaf"]
    assert evidence.leaf_hash.hex() == vector["leaf_hash"]


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector["name"])
@pytest.mark.parametrize("column", ROW_COLUMNS)
def test_each_column_alone_is_named_when_it_changes(vector: dict[str, Any], column: str) -> None:
    row = row_of(vector)
    evidence = rules.row_evidence(vector["member_id"], row)
    old = row.values[column]
    new: Value = b"\x07" * 32 if column in _BYTES else 7 if isinstance(old, int) else "changed"
    if column in ("network_ref", "card_token"):
        new = b"\x07" * 16
    altered = LedgerRow({**row.values, column: new}, row.transfers)
    shared, private = rules.words_of(evidence.shared_leaves), private_marks(evidence.private_copy)
    assert rules.changed_columns(row, evidence.leaf, shared, private) == []
    assert rules.changed_columns(altered, evidence.leaf, shared, private) == [column]


#: Not the token of an erased row: what stands in for it is C's, and P holds the column.
_PADDED = [
    pytest.param(vector, column, id=f"{vector['name']}-{column}")
    for vector in vectors()
    for column in ("original_txid", "card_token")
    if column == "original_txid" or vector["row"]["salt_pii"] is not None
]


@pytest.mark.parametrize(("vector", "column"), _PADDED)
def test_a_value_with_the_same_padded_word_is_another(vector: dict[str, Any], column: str) -> None:
    row = row_of(vector)
    evidence = rules.row_evidence(vector["member_id"], row)
    shared, private = rules.words_of(evidence.shared_leaves), private_marks(evidence.private_copy)
    old = row.values[column]
    for other in [old + b"\0"] if isinstance(old, bytes) else [bytes(16), bytes(32), b""]:
        altered = LedgerRow({**row.values, column: other}, row.transfers)
        assert rules.changed_columns(altered, evidence.leaf, shared, private) == [column]
        with pytest.raises(rules.RowUnsound) as caught:
            rules.row_evidence(vector["member_id"], altered)
        assert caught.value.column == column


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector["name"])
def test_the_copy_outlives_the_person(vector: dict[str, Any]) -> None:
    """Nothing of card token, salt_pii and masked number stands in it where there is a salt_pii."""
    row = row_of(vector)
    copy = rules.row_evidence(vector["member_id"], row).private_copy
    if row.values["salt_pii"] is not None:
        for column in ("card_token", "salt_pii", "pan_masked"):
            value = row.values[column]
            text = value.encode() if isinstance(value, str) else value
            assert text is None or text not in copy  # type: ignore[operator]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (SharedField.AMOUNT, -1),
        (SharedField.AMOUNT, "5"),
        (SharedField.CURRENCY, "元"),
        (SharedField.KIND, "gift"),
        (SharedField.OUTCOME, None),
        (SharedField.MERCHANT, "M" * 33),
        (SharedField.ORIGINAL, b"short"),
        (SharedField.CARD_TOKEN, b"t" * 17),
        (SharedField.ORIGINAL, bytes(32)),
        (SharedField.CARD_TOKEN, bytes(16)),
    ],
)
def test_what_c_cannot_hold_has_no_word(field: SharedField, value: Value) -> None:
    assert rules.shared_word(field, value) is None


def test_a_row_whose_lines_have_a_gap_is_not_sealed() -> None:
    row = row_of(vectors()[0])
    transfers = tuple({**transfer, "line": 2} for transfer in row.transfers)
    with pytest.raises(rules.RowUnsound, match="lines"):
        rules.row_evidence("aurora", LedgerRow(row.values, transfers))
