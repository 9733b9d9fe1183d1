"""What is kept beside transactions: what chips said, and what was asked for where less was paid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nodes.db.writes import Writes, append_rows
from nodes.emv.chip_data import ChipData, ChipSlip

_TYPES = {
    "txid": "bytea",
    "card_token": "bytea",
    "atc": "bigint",
    "kind": "smallint",
    "cryptogram": "bytea",
    "covered": "bytea",
    "cvm_results": "bytea",
    "genuine": "boolean",
    "answer": "bytea",
}


class ChipRecord(NamedTuple):
    """One request's chip data, and what the card was answered (DE55)."""

    txid: bytes
    card_token: bytes | None
    data: ChipData
    genuine: bool
    answer: bytes | None


def append_chip_records(writes: Writes, records: Sequence[ChipRecord]) -> None:
    """Append with what else the commit writes; no card number is among it."""
    append_rows(
        writes,
        "chip_records",
        _TYPES,
        [
            (
                one.txid,
                one.card_token,
                one.data.atc,
                int(one.data.kind),
                one.data.cryptogram,
                one.data.covered,
                one.data.cvm_results,
                one.genuine,
                one.answer,
            )
            for one in records
        ],
    )


_SLIP_TYPES = {
    "txid": "bytea",
    "aid": "bytea",
    "label": "text",
    "kind": "smallint",
    "cryptogram": "bytea",
    "atc": "bigint",
    "cvm_results": "bytea",
}


def append_chip_slips(writes: Writes, slips: Sequence[tuple[bytes, ChipSlip]]) -> None:
    """The acquirer's: by txid what receipts tell of a chip."""
    append_rows(
        writes,
        "chip_slips",
        _SLIP_TYPES,
        [
            (txid, one.aid, one.label, int(one.kind), one.cryptogram, one.atc, one.cvm_results)
            for txid, one in slips
        ],
    )


_PARTIAL_TYPES = {"txid": "bytea", "requested": "bigint"}


def append_partial_approvals(writes: Writes, rows: Sequence[tuple[bytes, int]]) -> None:
    """The acquirer's: by txid what was asked for (minor units), where less was approved."""
    append_rows(writes, "partial_approvals", _PARTIAL_TYPES, rows)
