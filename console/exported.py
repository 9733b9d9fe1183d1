"""Transactions as CSV (RFC 4180, UTF-8): for other programs, so in codes and plain numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from console.institutions import Json
from console.presentation import exponent

#: The columns in their order, named as the node API names them. `amount` is in the currency's unit.
COLUMNS = (
    *("decided_at", "txid", "side", "kind", "outcome", "amount", "currency", "pan_masked"),
    *("approval_code", "merchant_id", "merchant_name", "mcc", "country", "terminal_id"),
    *("acquirer", "issuer", "stan", "rrn", "batch", "business_date", "entry_mode"),
    *("original_txid", "card_token", "commitment", "log_index", "batch_seq", "anchor_state"),
)
#: What a spreadsheet would take for a formula at the beginning of a text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def heading() -> str:
    """The first line."""
    return _lines([COLUMNS])


def rows(items: Iterable[Json]) -> str:
    """Transactions of the node API as lines."""
    return _lines([_cell(item, name) for name in COLUMNS] for item in items)


def _cell(item: Json, name: str) -> str:
    value = item[name]
    if value is None:
        return ""
    if name == "amount":
        return decimal(value, item["currency"])
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def decimal(minor: int, currency: str) -> str:
    """Minor units as programs read them: 1234.50, no separators."""
    digits = exponent(currency)
    whole, rest = divmod(abs(minor), 10**digits)
    sign = "-" if minor < 0 else ""
    return f"{sign}{whole}.{rest:0{digits}d}" if digits else f"{sign}{whole}"


def _lines(table: Iterable[Iterable[str]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(table)
    return out.getvalue()
