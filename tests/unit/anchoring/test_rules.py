"""What a row becomes in the log, pinned by vectors that other implementations can use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.anchoring import rules
from nodes.anchoring.model import ROW_COLUMNS, LedgerRow, Value
from nodes.crypto.commitment import SharedField, private_field_leaf
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
    shared, private = (
        rules.words_of(joined) for joined in (evidence.shared_leaves, evidence.private_leaves)
    )
    assert rules.changed_columns(row, evidence.leaf, shared, private) == []
    assert rules.changed_columns(altered, evidence.leaf, shared, private) == [column]


values = st.one_of(st.none(), st.integers(), st.text(max_size=8), st.binary(max_size=8))


@given(values, values)
def test_two_values_are_written_alike_only_if_they_are_one(first: Value, second: Value) -> None:
    same = type(first) is type(second) and first == second
    assert (rules.value_bytes(first) == rules.value_bytes(second)) == same


@given(st.lists(values, min_size=len(rules.PRIVATE_COLUMNS), max_size=len(rules.PRIVATE_COLUMNS)))
def test_sealing_writes_values_like_value_bytes(drawn: list[Value]) -> None:
    row = row_of(vectors()[0])
    mixed = dict(row.values) | dict(zip(rules.PRIVATE_COLUMNS, drawn, strict=True))
    salt, txid = row.values["salt_private"], row.values["txid"]
    assert isinstance(salt, bytes)
    assert isinstance(txid, bytes)
    fields = rules.private_fields(LedgerRow(mixed, row.transfers), txid)
    for number, value in enumerate(drawn, start=1):
        own = private_field_leaf(txid, salt, number, rules.value_bytes(value))
        assert fields[number - 1] == own
    joined = rules.transfer_fields(row.transfers[0], 0, salt, txid)
    assert fields[rules.TRANSFER_COUNT_FIELD :] == joined


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
    ],
)
def test_what_c_cannot_hold_has_no_word(field: SharedField, value: Value) -> None:
    assert rules.shared_word(field, value) is None


def test_a_row_whose_lines_have_a_gap_is_not_sealed() -> None:
    row = row_of(vectors()[0])
    transfers = tuple({**transfer, "line": 2} for transfer in row.transfers)
    with pytest.raises(rules.RowUnsound, match="lines"):
        rules.row_evidence("aurora", LedgerRow(row.values, transfers))


def test_transfers_end_where_field_numbers_end() -> None:
    row = row_of(vectors()[0])
    many = tuple({**row.transfers[0], "line": n} for n in range(1, rules.MAX_TRANSFERS + 2))
    assert rules.row_evidence("aurora", LedgerRow(row.values, many[:-1]))
    with pytest.raises(rules.RowUnsound, match="more than"):
        rules.row_evidence("aurora", LedgerRow(row.values, many))
