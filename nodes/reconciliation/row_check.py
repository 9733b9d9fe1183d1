"""Ledger rows against the log's entries: which row, and which of its columns, was changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nodes.anchoring import queries
from nodes.anchoring.events import ERASED_COLUMNS, is_erased
from nodes.anchoring.leaf import Leaf
from nodes.anchoring.model import TRANSFER_COLUMNS, LedgerRow, Value
from nodes.anchoring.rules import (
    FIRST_TRANSFER,
    RowUnsound,
    changed_columns,
    row_evidence,
    same_transfer,
)
from nodes.anchoring.store import Connection
from nodes.crypto.merkle import root_of
from nodes.crypto.private_copy import Mark, private_commitment
from nodes.reconciliation import reads
from nodes.reconciliation.findings import Change, Report
from nodes.reconciliation.log_check import LogEntry

_STRIDE = len(TRANSFER_COLUMNS)

#: What a shard follows from, and None: the row as a whole was changed.
_DECIDES_SHARD = frozenset({None, "transaction_id", "txid", "account_id"})


@dataclass(frozen=True, slots=True)
class _LostTransfer:
    """A transfer that the log has and its transaction hasn't; `place` counts from 0."""

    transaction_id: int
    place: int
    block: tuple[Mark, ...]


class RowCheck:
    """Compares rows and their transfers with log entries; `finish` says what is left over."""

    def __init__(self, connection: Connection, report: Report, member_id: str) -> None:
        self._connection = connection
        self._report = report
        self._member_id = member_id
        self._lost: list[_LostTransfer] = []
        self._extra: list[tuple[int, Mapping[str, Value]]] = []
        #: Numbers that rows had or got, and that are explained by a finding.
        self.explained: set[int] = set()
        self._erased = reads.erased_rows(connection, "transactions")
        self._erased_here: set[int] = set()

    def check(self, entries: Sequence[LogEntry]) -> dict[int, LedgerRow]:
        """Compare the rows behind log entries; those that are as they were, by transaction_id."""
        by_id = queries.rows_by_id(self._connection, [e.transaction_id for e in entries])
        odd = [
            e for e in entries if not _is_intact(self._member_id, by_id.get(e.transaction_id), e)
        ]
        by_txid: dict[bytes, list[LedgerRow]] = {}
        for row in queries.rows_by_txid(
            self._connection, [entry.leaf.txid for entry in odd if entry.leaf]
        ):
            by_txid.setdefault(_bytes(row.values["txid"]), []).append(row)
        for entry in odd:
            candidates = list(by_txid.get(entry.leaf.txid, ())) if entry.leaf else []
            numbered = by_id.get(entry.transaction_id)
            if numbered is not None and numbered not in candidates:
                candidates.append(numbered)
            self._check_one(entry, candidates)
        changed = {entry.transaction_id for entry in odd} - self._erased_here
        return {number: row for number, row in by_id.items() if number not in changed}

    def finish(self) -> None:
        """Transfers that stand under another transaction, are gone, or belong to none."""
        self._extra += [
            (number, transfer)
            for number, transfer in reads.orphaned_transfers(self._connection)
            if number not in self.explained
        ]
        for lost in self._lost:
            here = next((extra for extra in self._extra if _is_the(lost, extra[1])), None)
            if here is None:
                key = _key(lost.transaction_id, lost.place + 1)
                self._report.add("transfers", key, Change.MISSING)
                continue
            self._extra.remove(here)
            detail = f"it was of {lost.transaction_id}"
            key = _key(here[0], here[1]["line"])
            self._report.add("transfers", key, Change.ALTERED, "transaction_id", detail)
        for number, transfer in self._extra:
            self._report.add("transfers", _key(number, transfer["line"]), Change.INSERTED)
        self._check_shards()

    def _check_shards(self) -> None:
        """The shard follows from a row, so the log says nothing of it; from a row that was found to
        be another one, or another transaction's transfer, nothing follows."""
        found: dict[tuple[str, object], set[str | None]] = {}
        for finding in self._report.findings:
            found.setdefault((finding.table, finding.key), set()).add(finding.column)
        for number, line in reads.misplaced(self._connection):
            row, transfer = {"transaction_id": number}, _key(number, line)
            if _DECIDES_SHARD & found.get(("transactions", tuple(row.items())), set()):
                continue
            if line is None:
                self._report.add("transactions", row, Change.ALTERED, "shard")
            elif not _DECIDES_SHARD & found.get(("transfers", tuple(transfer.items())), set()):
                self._report.add("transfers", transfer, Change.ALTERED, "shard")

    def _check_one(self, entry: LogEntry, candidates: Sequence[LedgerRow]) -> None:
        leaf = entry.leaf
        readable = leaf is not None and _fields_hold(entry, leaf)
        if not candidates:
            key = {"transaction_id": entry.transaction_id}
            detail = f"log_index={entry.log_index}"
            self._report.add("transactions", key, Change.MISSING, None, detail)
            self.explained.add(entry.transaction_id)
        elif leaf is None:
            # The leaf's own bytes were altered (and named); its hash still judges the row.
            if not any(_evidence_hash(self._member_id, row) == entry.hash for row in candidates):
                key = {"transaction_id": entry.transaction_id}
                detail = "it does not lead to its leaf's hash"
                self._report.add("transactions", key, Change.ALTERED, None, detail)
        elif not readable:
            self._judge_by_roots(leaf, candidates[0])
        else:
            self._judge_by_fields(entry, leaf, candidates)

    def _judge_by_fields(
        self, entry: LogEntry, leaf: Leaf, candidates: Sequence[LedgerRow]
    ) -> None:
        judged = [(self._changed(r, entry, leaf), r) for r in candidates]
        columns, row = min(judged, key=lambda pair: len(pair[0]))
        key = {"transaction_id": row.transaction_id}
        if row.transaction_id != entry.transaction_id:
            self.explained |= {row.transaction_id, entry.transaction_id}
            if "transaction_id" in columns:
                transfers = queries.transfers_of(self._connection, entry.transaction_id)
                row = replace(row, transfers=(*row.transfers, *transfers))
            else:
                # The row kept its number, so the log's reference to it is what was changed.
                place = {"log_index": entry.log_index}
                self._report.add("log_leaves", place, Change.ALTERED, "transaction_id")
        for column in columns:
            self._report.add("transactions", key, Change.ALTERED, column)
        self._check_transfers(entry, row)

    def _changed(self, row: LedgerRow, entry: LogEntry, leaf: Leaf) -> list[str]:
        """The changed columns; what a recorded erasure took away is not among them."""
        columns = changed_columns(row, leaf, entry.shared, entry.private)
        if row.transaction_id in self._erased and is_erased(row.values, entry.shared):
            columns = [column for column in columns if column not in ERASED_COLUMNS]
            if not columns:
                self._erased_here.add(row.transaction_id)
                self._report.erased_rows += 1
        return columns

    def _judge_by_roots(self, leaf: Leaf, row: LedgerRow) -> None:
        """The log's field hashes were altered, not the leaf: C and P judge the row as a whole."""
        key = {"transaction_id": row.transaction_id}
        try:
            rebuilt = row_evidence(self._member_id, row).leaf
        except RowUnsound as unsound:
            self._report.add("transactions", key, Change.ALTERED, unsound.column)
            return
        for name in ("commitment", "txid", "pair_seq", "terminal_id", "terminal_seq"):
            if getattr(rebuilt, name) != getattr(leaf, name):
                self._report.add("transactions", key, Change.ALTERED, name)
        if rebuilt.private_commitment != leaf.private_commitment:
            detail = "a column or transfer under P"
            self._report.add("transactions", key, Change.ALTERED, None, detail)

    def _check_transfers(self, entry: LogEntry, row: LedgerRow) -> None:
        """Transfers by line against their values in the log's copy."""
        number, copy = row.transaction_id, entry.private
        count = (len(copy) - FIRST_TRANSFER) // _STRIDE
        live = {transfer["line"]: transfer for transfer in row.transfers}
        lost: list[_LostTransfer] = []
        for place in range(count):
            block = copy[FIRST_TRANSFER + place * _STRIDE :][:_STRIDE]
            transfer = live.pop(place + 1, None)
            if transfer is None:
                lost.append(_LostTransfer(number, place, block))
                continue
            key = {"transaction_id": number, "line": place + 1}
            for column in same_transfer(transfer, block):
                self._report.add("transfers", key, Change.ALTERED, column)
        for gone in lost:
            line = next((line for line, extra in live.items() if _is_the(gone, extra)), None)
            if line is None:
                self._lost.append(gone)
                continue
            del live[line]
            moved = {"transaction_id": number, "line": line}
            detail = f"it was {gone.place + 1}"
            self._report.add("transfers", moved, Change.ALTERED, "line", detail)
        self._extra += [(number, extra) for extra in live.values()]


def _key(transaction_id: int, line: Value) -> dict[str, object]:
    return {"transaction_id": transaction_id, "line": line}


def _is_the(lost: _LostTransfer, transfer: Mapping[str, Value]) -> bool:
    """Whether a transfer is the lost one, its line left aside."""
    return same_transfer(transfer, lost.block) in ([], ["line"])


def _bytes(value: Value) -> bytes:
    return value if isinstance(value, bytes) else b""


def _fields_hold(entry: LogEntry, leaf: Leaf) -> bool:
    """Whether the stored field hashes and copy lead to the leaf's C and P."""
    return (
        root_of(entry.shared) == leaf.commitment
        and private_commitment(entry.private_copy) == leaf.private_commitment
    )


def _evidence_hash(member_id: str, row: LedgerRow) -> bytes | None:
    try:
        return row_evidence(member_id, row).leaf_hash
    except (RowUnsound, ValueError):
        return None


def _is_intact(member_id: str, row: LedgerRow | None, entry: LogEntry) -> bool:
    """Whether the row, hashed anew, is exactly this entry, and the stored fields are its own."""
    if row is None or row.transaction_id != entry.transaction_id:
        return False
    return _evidence_hash(member_id, row) == entry.hash
