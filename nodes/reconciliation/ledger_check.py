"""The deep check of a ledger: every anchored row of a database hashed anew, against the chain.

What is trusted: the chain's anchors and the member's note keys in the chain's registry. Nothing in
the database is. Each difference is named by table, row and column. What stands in the database
and isn't anchored yet is held against the signed checkpoints of its own log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Protocol

import sqlalchemy
from eth_hash.auto import keccak

from nodes.anchoring import event_store, queries
from nodes.anchoring.checkpoint import (
    CheckpointInvalid,
    Origin,
    Totals,
    meta_hash,
    parse_checkpoint,
    totals_hash,
)
from nodes.anchoring.events import event_evidence
from nodes.anchoring.model import AnchorState, Batch, LedgerRow, Position
from nodes.anchoring.note import NoteInvalid, SignedNote, parse_note, signature_holds
from nodes.anchoring.operations.sealing import position_of
from nodes.anchoring.rules import RowUnsound, batch_totals, row_evidence
from nodes.anchoring.store import Connection, transaction
from nodes.chain.anchors import Anchored, AnchorHead
from nodes.chain.directory import KeyPeriod
from nodes.crypto.merkle import EMPTY_ROOT, verify_consistency
from nodes.reconciliation import reads
from nodes.reconciliation.answer_check import MessageKeys, check_answers
from nodes.reconciliation.event_check import EventCheck, is_event
from nodes.reconciliation.findings import Change, Report
from nodes.reconciliation.log_check import LogCheck, LogEntry
from nodes.reconciliation.row_check import RowCheck

Progress = Callable[[int, int], None]
_PAGE = 200


class AnchorSource(Protocol):
    """The anchors on the chain (nodes.chain.anchors.AnchorRegistry is one)."""

    def head(self, member_id: str) -> AnchorHead | None: ...
    def anchors_since(
        self, from_block: int, to_block: int | None = None, member_id: str | None = None
    ) -> Iterator[Anchored]: ...


def check_ledger(
    engine: sqlalchemy.Engine,
    origin: Origin,
    source: AnchorSource,
    note_keys: Sequence[KeyPeriod],
    progress: Progress = lambda done, total: None,
    message_keys: MessageKeys | None = None,
    predecessors: Sequence[str] = (),
) -> Report:
    """Check a member's whole database; raises the errors of nodes.chain.errors.

    `note_keys`: the member's, by the chain, oldest first. `progress(done, total)` counts log
    entries. `message_keys`: issuers' keys by the chain; without them what issuers have signed
    of their answers isn't looked at. `predecessors`: the versions before the origin's anchor
    contract, in lower case; checkpoints may name any of them.
    """
    # The chain first: what is anchored later than this look is not missed in the database.
    anchors = read_anchors(source, origin.member_id)
    with transaction(engine, "REPEATABLE READ") as connection:
        connection.execute("SET TRANSACTION READ ONLY")
        report = check_tables(connection, origin, anchors, note_keys, progress, predecessors)
        if message_keys is not None:
            check_answers(connection, message_keys, report)
        return report


def read_anchors(source: AnchorSource, member_id: str) -> dict[int, Anchored]:
    """All anchors of a member, by number."""
    head = source.head(member_id)
    if head is None:
        return {}
    found = source.anchors_since(0, None, member_id)
    return {anchor.seq: anchor for anchor in found if anchor.seq <= head.seq}


def check_tables(
    connection: Connection,
    origin: Origin,
    anchors: Mapping[int, Anchored],
    note_keys: Sequence[KeyPeriod],
    progress: Progress = lambda done, total: None,
    predecessors: Sequence[str] = (),
) -> Report:
    """Check what a connection's transaction sees, against anchors that were read before it."""
    return _LedgerCheck(connection, origin, anchors, note_keys, progress, predecessors).run()


def _signed_by(note: SignedNote, keys: Sequence[KeyPeriod], block: int | None) -> KeyPeriod | None:
    """The period of the key that signed a checkpoint anchored at `block` (None: not yet).

    The newest that had begun by then; None if the member never had that key before.
    """
    begun = [period for period in keys if block is None or period.first <= block]
    return next((p for p in reversed(begun) if signature_holds(note, p.key)), None)


def _over(period: KeyPeriod, block: int | None) -> bool:
    """Whether a period had ended by a block (None: now)."""
    return period.last is not None and (block is None or period.last < block)


def _binds(batch: Batch, totals: tuple[Totals, ...], anchor: Anchored) -> bool:
    """Whether the anchor's metaHash is of this checkpoint, this moment and these totals."""
    try:
        digest = totals_hash(totals)
        return meta_hash(batch.note, batch.sealed_us, digest) == anchor.meta_hash
    except (ValueError, OverflowError):
        return False


class _LedgerCheck:
    def __init__(
        self,
        connection: Connection,
        origin: Origin,
        anchors: Mapping[int, Anchored],
        note_keys: Sequence[KeyPeriod],
        progress: Progress,
        predecessors: Sequence[str],
    ) -> None:
        self._connection = connection
        self._origin = origin
        self._contracts = (origin.anchor_registry, *predecessors)
        self._origins = [replace(origin, anchor_registry=each) for each in self._contracts]
        self._anchors = anchors
        self._note_keys = note_keys
        # The block from which on the key of the newest sound checkpoint was valid.
        self._key_since = 0
        self._progress = progress
        self._report = Report(anchored_seq=max(anchors, default=0))
        self._log = LogCheck(
            connection, self._report, origin.member_id, (self._unlogged(), self._unlogged_events())
        )
        self._rows = RowCheck(connection, self._report, origin.member_id)
        self._events = EventCheck(connection, self._report, origin.member_id)
        self._previous_root = EMPTY_ROOT
        self._position = Position(0, 0)
        self._log_end = 0
        self._stored: Set[int] = frozenset()

    def run(self) -> Report:
        stored = {batch.seq: batch for batch in self._batches()}
        self._stored = stored.keys()
        total = self._log_end = reads.log_end(self._connection)
        total = max([total, *(anchor.size for anchor in self._anchors.values())])
        last = 0
        for seq in sorted(stored.keys() | self._anchors.keys()):
            if seq not in self._anchors and seq != last + 1:
                detail = "it follows no other batch"
                self._report.add("batches", {"seq": seq}, Change.ALTERED, "seq", detail)
                continue
            self._check_batch(seq, stored.get(seq), self._anchors.get(seq))
            self._progress(self._log.size, total)
            last = seq
        self._log.check_ends()
        self._check_outside(stored.keys() | self._anchors.keys())
        self._check_unsealed()
        self._rows.finish()
        self._events.finish(self._log.leafless)
        self._check_submissions()
        self._check_binding()
        self._report.sealed_rows = self._log.size
        return self._report

    def _unlogged(self) -> list[tuple[int, bytes]]:
        """Old rows without a leaf, with the hash of the leaf that they would have, in log order."""
        newest = queries.last_batch(self._connection)
        _, numbers = reads.unlogged_rows(self._connection, queries.sealed_position(newest))
        numbers = [n for n in reads.displaced(self._connection, _PAGE) if n > 0] + numbers
        rows = queries.rows_by_id(self._connection, numbers[:_PAGE]).values()
        found: list[tuple[Position, int, bytes]] = []
        for row in rows:
            try:
                own = row_evidence(self._origin.member_id, row).leaf_hash
            except RowUnsound:
                continue
            found.append((position_of(row), row.transaction_id, own))
        found.sort(key=lambda entry: (entry[0].xact, entry[0].transaction_id))
        return [(number, own) for _, number, own in found]

    def _unlogged_events(self) -> list[tuple[int, bytes]]:
        """The same of events, their numbers negative as in the log."""
        moved = [-number for number in reads.displaced(self._connection, _PAGE) if number < 0]
        numbers = [*moved, *reads.events_without_leaf(self._connection, _PAGE)]
        rows = event_store.events_by_id(self._connection, numbers)
        found: list[tuple[int, bytes]] = []
        for number in numbers:
            try:
                own = event_evidence(self._origin.member_id, rows[number]).leaf_hash
            except (RowUnsound, ValueError, KeyError):
                continue
            found.append((-number, own))
        return found

    def _batches(self) -> Iterator[Batch]:
        seq = -(2**62)
        while page := queries.batches(self._connection, seq, _PAGE):
            yield from page
            seq = page[-1].seq + 1

    def _check_batch(self, seq: int, batch: Batch | None, anchor: Anchored | None) -> None:
        if batch is None:
            self._report.add("batches", {"seq": seq}, Change.MISSING, None, "it is anchored")
        first = self._log.size
        # An unanchored size is the database's own word: not to be counted up to unseen.
        # Nor back down to: what was confirmed before stays.
        stated = min(batch.size, self._log_end) if batch else first
        size = anchor.size if anchor else max(first, stated)
        root = anchor.root if anchor else batch.root if batch else self._previous_root
        if batch is None and not queries.log_entries(self._connection, first, size):
            self._log.size, self._log.frontier = size, None
        else:
            entries = self._log.check_batch(seq, size, root)
            self._events.check([entry for entry in entries if is_event(entry)])
            rows = [entry for entry in entries if not is_event(entry)]
            intact = self._rows.check(rows)
            if batch is not None:
                self._check_columns(batch, anchor, first, entries, intact, len(rows))
            # How far sealing had come is what its rows say; the batch's own word only counts
            # where they can't be relied upon.
            sure = (self._log.proven and len(entries) == size - first) or batch is None
            if sure:
                self._come_to(position_of(row) for row in intact.values())
            if batch is not None and not (sure and len(intact) == len(rows)):
                self._come_to([batch.position])
        if anchor is not None:
            self._report.anchored_rows = size
        self._previous_root = root

    def _come_to(self, positions: Iterable[Position]) -> None:
        """Note how far sealing had come."""
        self._position = max(
            [self._position, *positions], key=lambda place: (place.xact, place.transaction_id)
        )

    def _check_columns(
        self,
        batch: Batch,
        anchor: Anchored | None,
        first: int,
        entries: list[LogEntry],
        intact: dict[int, LedgerRow],
        row_count: int,
    ) -> None:
        """The batch's own row: each column is either on the chain or follows from the leaves."""
        size = anchor.size if anchor else batch.size
        root = anchor.root if anchor else batch.root
        stored_count = reads.stored_leaf_count(self._connection, batch.seq)
        proof_holds = (
            not batch.consistency
            if first == 0
            else verify_consistency(first, size, self._previous_root, root, batch.consistency)
        )
        newest = intact.get(entries[-1].transaction_id) if entries else None
        sound = {
            "first_index": batch.first_index == first,
            "size": batch.size == size,
            "leaf_count": stored_count == size - first,
            "prev_root": batch.prev_root == self._previous_root,
            "root": batch.root == root,
            "consistency": proof_holds,
        }
        if not self._log.proven:
            # Whose leaves they are isn't certain.
            newest = None
        elif newest is not None and entries[-1].log_index == size - 1:
            sound["last_xact"] = batch.position.xact == newest.values["xact"]
            sound["last_transaction_id"] = batch.position.transaction_id == newest.transaction_id
        elif entries and row_count == 0:
            # A batch of events leaves sealing's place among the transactions where it was.
            sound["last_xact"] = batch.position.xact == self._position.xact
            sound["last_transaction_id"] = (
                batch.position.transaction_id == self._position.transaction_id
            )
        for column, holds in sound.items():
            if not holds:
                self._report.add("batches", {"seq": batch.seq}, Change.ALTERED, column)
        note_holds = self._check_note(batch, anchor, size, root)
        totals = batch_totals(list(intact.values()))
        self._check_meta(batch, anchor, totals, note_holds, len(intact) == row_count)

    def _check_note(self, batch: Batch, anchor: Anchored | None, size: int, root: bytes) -> bool:
        detail = ""
        try:
            note = parse_note(batch.note)
            checkpoint = parse_checkpoint(note.text)
        except (NoteInvalid, CheckpointInvalid):
            holds = False
        else:
            holds = (
                (checkpoint.size, checkpoint.root) == (size, root)
                and checkpoint.origin in self._origins
                and note.key_name == str(checkpoint.origin)
            )
            if holds:
                block = anchor.block_number if anchor else None
                detail = self._check_key(note, batch.seq, block)
                holds = not detail
        if not holds:
            self._report.add("batches", {"seq": batch.seq}, Change.ALTERED, "checkpoint", detail)
        return holds

    def _check_key(self, note: SignedNote, seq: int, block: int | None) -> str:
        """What is wrong with the key that signed what was anchored at a block; empty: nothing.

        A checkpoint that was signed before a rotation and anchored after it proves nothing
        (proofs take a later anchor, proof_queries), but is as it was: it is reported, and no
        change. No other signature will do. That metaHash binds the note is the word of the
        operator's key alone, and a node that has the new note key never takes the old one again.
        """
        period = _signed_by(note, self._note_keys, block)
        if period is None:
            return "not signed by a note key of the member"
        if _over(period, block):
            if period.first < self._key_since:
                return "signed by an earlier key than the checkpoint before it"
            self._report.retired_key.append(seq)
        self._key_since = max(self._key_since, period.first)
        return ""

    def _check_meta(
        self,
        batch: Batch,
        anchor: Anchored | None,
        totals: tuple[Totals, ...],
        note_holds: bool,
        rows_intact: bool,
    ) -> None:
        """The moment of sealing and the totals: the anchor's metaHash binds them.

        `totals` are those of the rows as they are now, which tells something only if
        `rows_intact`.
        """
        if anchor is None:
            if rows_intact:
                self._name_totals(batch, totals)
            return

        if _binds(batch, batch.totals, anchor) or not note_holds:
            return
        if rows_intact and batch.totals != totals:
            self._name_totals(batch, totals)
            if _binds(batch, totals, anchor):
                return
        detail = "" if rows_intact else "or the batch's totals"
        self._report.add("batches", {"seq": batch.seq}, Change.ALTERED, "sealed_at", detail)

    def _name_totals(self, batch: Batch, totals: tuple[Totals, ...]) -> None:
        stored = {row.currency: row for row in batch.totals}
        wanted = {row.currency: row for row in totals}
        for currency in sorted(stored.keys() | wanted.keys()):
            key = {"seq": batch.seq, "currency": currency}
            if currency not in stored:
                self._report.add("batch_totals", key, Change.MISSING)
            elif currency not in wanted:
                self._report.add("batch_totals", key, Change.INSERTED)
            else:
                for column in ("approved_count", "approved_amount", "declined_count"):
                    if getattr(stored[currency], column) != getattr(wanted[currency], column):
                        self._report.add("batch_totals", key, Change.ALTERED, column)

    def _check_outside(self, seqs: Set[int]) -> None:
        """Rows that no batch has, though they should have been sealed, and totals of no batch."""
        for seq, currency in reads.totals_keys(self._connection):
            if seq not in seqs:
                key = {"seq": seq, "currency": currency}
                self._report.add("batch_totals", key, Change.INSERTED)
        unsealed, inserted = reads.unlogged_rows(self._connection, self._position)
        self._report.unsealed_rows = unsealed
        for number in inserted:
            if number not in self._rows.explained | self._log.leafless:
                key = {"transaction_id": number}
                detail = "it is older than the last sealing and in no batch"
                self._report.add("transactions", key, Change.INSERTED, None, detail)

    def _check_unsealed(self) -> None:
        """Rows that wait for sealing must lead to their own C: else they were tampered with."""
        after = self._position
        while rows := queries.rows_after(self._connection, after, _PAGE):
            for row in rows:
                try:
                    row_evidence(self._origin.member_id, row)
                except RowUnsound as unsound:
                    key = {"transaction_id": row.transaction_id}
                    detail = "not sealed yet; it contradicts itself"
                    self._report.add("transactions", key, Change.ALTERED, unsound.column, detail)
            after = position_of(rows[-1])

    def _check_submissions(self) -> None:
        """What the database says about its anchors, against the chain."""
        for seq in sorted(self._anchors.keys() & self._stored - reads.submitted(self._connection)):
            self._report.add("anchor_submissions", {"seq": seq}, Change.MISSING)
        for sent in queries.submissions(self._connection, AnchorState.ANCHORED, 1 << 40):
            key, anchor = {"seq": sent.seq}, self._anchors.get(sent.seq)
            if anchor is None:
                self._report.add("anchor_submissions", key, Change.ALTERED, "state")
                continue
            for column in ("block_number", "block_hash", "tx_hash"):
                if getattr(sent, column) != getattr(anchor, column):
                    self._report.add("anchor_submissions", key, Change.ALTERED, column)
        for sent in queries.submissions(self._connection, AnchorState.SUBMITTED, 1 << 40):
            if keccak(sent.raw) != sent.tx_hash:
                self._report.add("anchor_submissions", {"seq": sent.seq}, Change.ALTERED, "raw_tx")

    def _check_binding(self) -> None:
        bound = queries.chain_binding(self._connection)
        if bound is None:
            return
        wanted = {
            "chain_id": self._origin.chain_id,
            "member_id": self._origin.member_id,
        }
        altered = [column for column, value in wanted.items() if bound[column] != value]
        if bound["anchor_registry"] not in self._contracts:
            altered.append("anchor_registry")
        for column in altered:
            self._report.add("chain_binding", {"only_row": True}, Change.ALTERED, column)
