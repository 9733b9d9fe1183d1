"""Events against the log's entries: which one, and which of its columns, was changed."""

from __future__ import annotations

from collections.abc import Sequence, Set

from nodes.anchoring import event_store
from nodes.anchoring.events import EventRow, changed_columns, event_evidence, is_erased
from nodes.anchoring.leaf import EventKind
from nodes.anchoring.rules import RowUnsound
from nodes.anchoring.store import Connection
from nodes.crypto.commitment import shared_root
from nodes.crypto.private_copy import private_commitment
from nodes.reconciliation import reads
from nodes.reconciliation.findings import Change, Report
from nodes.reconciliation.log_check import LogEntry


def is_event(entry: LogEntry) -> bool:
    """Whether an entry is an event's: by its leaf, else by its number's sign."""
    if entry.leaf is not None:
        return isinstance(entry.leaf.kind, EventKind)
    return entry.transaction_id < 0


class EventCheck:
    """Compares events with log entries."""

    def __init__(self, connection: Connection, report: Report, member_id: str) -> None:
        self._connection = connection
        self._report = report
        self._member_id = member_id
        self._erased = reads.erased_rows(connection, "events")
        #: Events whose leaves are there, under another number.
        self._misnumbered: set[int] = set()

    def check(self, entries: Sequence[LogEntry]) -> None:
        """Name the events behind these entries that were changed or taken out."""
        numbers = [_number(entry) for entry in entries]
        rows = event_store.events_by_id(self._connection, numbers)
        for entry, number in zip(entries, numbers, strict=True):
            if entry.transaction_id != -number:
                # The leaf says whose it is, and the root proves the leaf.
                place = {"log_index": entry.log_index}
                self._report.add("log_leaves", place, Change.ALTERED, "transaction_id")
                self._misnumbered.add(number)
            row = rows.get(number)
            key: dict[str, object] = {"event_id": number}
            if row is None:
                self._report.add("events", key, Change.MISSING)
            elif not self._is_intact(row, entry):
                self._name(row, entry, key)

    def finish(self, leafless: Set[int]) -> None:
        """Name the events that were put in behind sealing's back; `leafless`: those (negative)
        that only lost their leaves."""
        for number in reads.unlogged_events(self._connection):
            if -number in leafless or number in self._misnumbered:
                continue
            detail = "it is older than the last sealed event and in no batch"
            self._report.add("events", {"event_id": number}, Change.INSERTED, None, detail)

    def _is_intact(self, row: EventRow, entry: LogEntry) -> bool:
        if row["card_token_leaf"] is not None:
            # Only an erasure puts it there, and takes away what C and P were made of.
            return False
        try:
            return event_evidence(self._member_id, row).leaf_hash == entry.hash
        except (RowUnsound, ValueError, KeyError):
            return False

    def _name(self, row: EventRow, entry: LogEntry, key: dict[str, object]) -> None:
        leaf = entry.leaf
        readable = (
            leaf is not None
            and len(entry.shared) == 8
            and shared_root(entry.shared) == leaf.commitment
            and private_commitment(entry.private_copy) == leaf.private_commitment
        )
        if leaf is None or not readable:
            detail = "it does not lead to its leaf"
            self._report.add("events", key, Change.ALTERED, None, detail)
            return
        columns = changed_columns(row, leaf.txid, entry.shared, entry.private)
        if is_erased(row, entry.shared) and row["event_id"] not in self._erased:
            columns.append("card_token")
        elif not columns:
            self._report.erased_rows += 1
        for column in columns:
            self._report.add("events", key, Change.ALTERED, column)


def _number(entry: LogEntry) -> int:
    return entry.leaf.terminal_seq if entry.leaf is not None else -entry.transaction_id
