"""Transactions as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from console.exported import COLUMNS, decimal, heading, rows


def item(**changes: Any) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {"amount": 0, "currency": "CNY"} | changes


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(heading() + text)))


@pytest.mark.parametrize(
    ("minor", "currency", "shown"),
    [(123450, "CNY", "1234.50"), (5, "CNY", "0.05"), (-5, "CNY", "-0.05"), (1200, "JPY", "1200")],
)
def test_amounts_are_plain_numbers(minor: int, currency: str, shown: str) -> None:
    assert decimal(minor, currency) == shown
    assert read(rows([item(amount=minor, currency=currency)]))[0]["amount"] == shown


def test_a_name_with_commas_quotes_and_lines_stays_one_cell() -> None:
    name = 'Harbor "Stores", Pier 3\nTill 7'
    [row] = read(rows([item(merchant_name=name)]))
    assert row["merchant_name"] == name


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_name_becomes_a_formula(name: str) -> None:
    assert read(rows([item(merchant_name=name)]))[0]["merchant_name"] == f"'{name}"


def test_what_is_missing_is_an_empty_cell() -> None:
    assert read(rows([item()]))[0]["original_txid"] == ""
