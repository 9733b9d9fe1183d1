"""The log's leaves and nodes against the chain, a batch at a time.

A batch is authentic when its leaves lead to the root on the chain. The stored copies of the same
facts (leaf and hash, fields and commitment, node and children) then tell which was altered.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nodes.anchoring import tree
from nodes.anchoring.leaf import Leaf, decode_leaf
from nodes.anchoring.rules import words_of
from nodes.anchoring.store import Connection
from nodes.crypto.merkle import leaf_hash, node_hash, root_of
from nodes.crypto.private_copy import Mark, private_commitment, private_marks
from nodes.reconciliation.findings import Change, Report

#: With more doubtful leaves than this in a batch, not every combination is tried.
_MAX_DOUBTS = 8
#: So many ways to fill the gaps of a batch with rows that have no leaf are tried.
_MAX_FILLINGS = 500


@dataclass(frozen=True, slots=True)
class StoredLeaf:
    """A row of log_leaves."""

    log_index: int
    batch_seq: int
    leaf_kind: int
    transaction_id: int
    txid: bytes
    leaf: bytes
    leaf_hash: bytes
    shared_leaves: bytes
    private_copy: bytes


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A log entry as far as it can be relied upon: `leaf` is None if its bytes were altered."""

    log_index: int
    transaction_id: int
    hash: bytes
    leaf: Leaf | None
    shared: tuple[bytes, ...]
    private_copy: bytes

    @property
    def private(self) -> tuple[Mark, ...]:
        """The marks of the copy."""
        return private_marks(self.private_copy)


class LogCheck:
    """Goes from batch to batch; keeps the right edge of the tree that the chain confirms."""

    def __init__(
        self,
        connection: Connection,
        report: Report,
        member_id: str,
        unlogged: Sequence[Sequence[tuple[int, bytes]]] = (),
    ) -> None:
        """`unlogged`: (transaction_id, leaf hash) of transactions and of events (theirs negative)
        without a leaf, each in log order; where leaves were deleted, they may be theirs."""
        self._connection = connection
        self._report = report
        self._member_id = member_id
        self._unlogged = [list(rows) for rows in unlogged]
        #: Rows whose leaves were deleted, and that are as they were: proven by the root.
        self.leafless: set[int] = set()
        self.size = 0
        #: None while the tree can't be rebuilt: a batch before was rewritten or cut out.
        self.frontier: tree.Frontier | None = tree.Frontier()
        #: Whether the leaves of the last batch, as they stand, lead to its trusted root.
        self.proven = True

    def check_batch(self, seq: int, size: int, root: bytes) -> list[LogEntry]:
        """Check the leaves up to `size` and the nodes over them against the trusted `root`."""
        stored = self._stored_leaves(self.size, size)
        entries, doubts = self._entries(seq, size, stored)
        self._settle_doubts(entries, doubts, root)
        edge, nodes = self._extended(self._filled(entries, root))
        self.proven = edge is not None and edge.root() == root
        if self.proven:
            self._check_nodes(nodes)
        else:
            edge = self._rebuilt(seq, size, root, entries, nodes)
        self.size, self.frontier = size, edge
        for entry in entries:
            if entry is not None:
                self._compare_copies(stored[entry.log_index], entry)
        return [entry for entry in entries if entry is not None]

    def check_ends(self) -> None:
        """Leaves and nodes that no batch has."""
        for (index,) in self._connection.execute(
            "SELECT log_index FROM log_leaves WHERE log_index >= %s OR log_index < 0", (self.size,)
        ):
            self._report.add("log_leaves", {"log_index": index}, Change.INSERTED)
        for level, index in self._connection.execute(
            "SELECT level, node_index FROM log_nodes WHERE level < 1 OR node_index < 0"
            " OR (node_index::numeric + 1) * power(2::numeric, level::numeric) > %s",
            (self.size,),
        ):
            self._report.add("log_nodes", {"level": level, "node_index": index}, Change.INSERTED)

    # -- leaves

    def _stored_leaves(self, first: int, end: int) -> dict[int, StoredLeaf]:
        rows = self._connection.execute(
            "SELECT log_index, batch_seq, leaf_kind, transaction_id, txid, leaf, leaf_hash,"
            " shared_leaves, private_copy FROM log_leaves WHERE log_index >= %s"
            " AND log_index < %s",
            (first, end),
        )
        return {row[0]: StoredLeaf(*row) for row in rows}

    def _entries(
        self, seq: int, size: int, stored: Mapping[int, StoredLeaf]
    ) -> tuple[list[LogEntry | None], list[StoredLeaf]]:
        """The entries by their stored hashes, and those whose leaf has another hash."""
        entries: list[LogEntry | None] = []
        doubts: list[StoredLeaf] = []
        for index in range(self.size, size):
            row = stored.get(index)
            if row is None:
                self._report.add("log_leaves", {"log_index": index}, Change.MISSING)
                entries.append(None)
                continue
            entries.append(_entry(row, row.leaf_hash))
            if row.batch_seq != seq:
                self._altered(row, "batch_seq")
            if leaf_hash(row.leaf) != row.leaf_hash:
                doubts.append(row)
        return entries, doubts

    def _settle_doubts(
        self, entries: list[LogEntry | None], doubts: Sequence[StoredLeaf], root: bytes
    ) -> None:
        """Where leaf and leaf_hash disagree: which of the two was altered?

        The one that doesn't lead to the trusted root; if neither does, the parent node and the
        fields that the leaf commits to decide.
        """
        first = self.size
        if 0 < len(doubts) <= _MAX_DOUBTS:
            for choice in itertools.product((False, True), repeat=len(doubts)):
                for row, by_leaf in zip(doubts, choice, strict=True):
                    own = leaf_hash(row.leaf) if by_leaf else row.leaf_hash
                    entries[row.log_index - first] = _entry(row, own)
                edge, _ = self._extended(entries)
                if edge is not None and edge.root() == root:
                    break
            else:
                self._guess(entries, doubts)
        elif doubts:
            self._guess(entries, doubts)
        for row in doubts:
            entry = entries[row.log_index - first]
            intact = entry is not None and entry.hash == row.leaf_hash
            self._altered(row, "leaf" if intact else "leaf_hash")

    def _filled(self, entries: Sequence[LogEntry | None], root: bytes) -> Sequence[LogEntry | None]:
        """The entries with their gaps filled by rows without a leaf, if that leads to the root."""
        gaps = [place for place, entry in enumerate(entries) if entry is None]
        if not gaps or self.frontier is None:
            return entries
        for rows in self._unlogged:
            ways = itertools.combinations(rows, len(gaps))
            for way in itertools.islice(ways, _MAX_FILLINGS):
                trial = list(entries)
                for place, (number, own) in zip(gaps, way, strict=True):
                    trial[place] = LogEntry(self.size + place, number, own, None, (), b"")
                edge, _ = self._extended(trial)
                if edge is not None and edge.root() == root:
                    self.leafless |= {number for number, _ in way}
                    rows[:] = [row for row in rows if row not in way]
                    return trial
        return entries

    def _guess(self, entries: list[LogEntry | None], doubts: Sequence[StoredLeaf]) -> None:
        first = self.size
        parents = self._stored_nodes([(1, row.log_index >> 1) for row in doubts])
        for row in doubts:
            own = leaf_hash(row.leaf) if _commits_to_its_fields(row) else row.leaf_hash
            place = (row.log_index ^ 1) - first
            sibling = entries[place] if 0 <= place < len(entries) else None
            parent = parents.get((1, row.log_index >> 1))
            for candidate in (leaf_hash(row.leaf), row.leaf_hash) if sibling and parent else ():
                assert sibling is not None
                pair = [candidate, sibling.hash]
                if row.log_index & 1:
                    pair.reverse()
                if node_hash(*pair) == parent:
                    own = candidate
            entries[row.log_index - first] = _entry(row, own)

    def _compare_copies(self, row: StoredLeaf, entry: LogEntry) -> None:
        """The columns of log_leaves that repeat what the leaf says."""
        leaf = entry.leaf
        if leaf is None:
            return
        copies = {
            "leaf_kind": row.leaf_kind == int(leaf.kind),
            "txid": row.txid == leaf.txid,
            "shared_leaves": root_of(entry.shared) == leaf.commitment,
            "private_copy": private_commitment(entry.private_copy) == leaf.private_commitment,
            "leaf": leaf.member_id == self._member_id,
        }
        for column, equal in copies.items():
            if not equal:
                self._altered(row, column)

    def _altered(self, row: StoredLeaf, column: str, detail: str = "") -> None:
        key = {"log_index": row.log_index}
        self._report.add("log_leaves", key, Change.ALTERED, column, detail)

    # -- the tree

    def _extended(
        self, entries: Sequence[LogEntry | None]
    ) -> tuple[tree.Frontier | None, list[tuple[int, int, bytes]]]:
        """The confirmed edge with these entries appended, and the nodes that they complete."""
        if self.frontier is None or any(entry is None for entry in entries):
            return None, []
        edge = tree.Frontier(self.frontier.size, list(self.frontier.hashes))
        return edge, edge.extend(entry.hash for entry in entries if entry is not None)

    def _check_nodes(self, nodes: Sequence[tuple[int, int, bytes]]) -> None:
        stored = self._stored_nodes([(level, index) for level, index, _ in nodes])
        for level, index, node in nodes:
            key = {"level": level, "node_index": index}
            if (level, index) not in stored:
                self._report.add("log_nodes", key, Change.MISSING)
            elif stored[level, index] != node:
                self._report.add("log_nodes", key, Change.ALTERED, "hash")

    def _rebuilt(
        self,
        seq: int,
        size: int,
        root: bytes,
        entries: Sequence[LogEntry | None],
        nodes: Sequence[tuple[int, int, bytes]],
    ) -> tree.Frontier | None:
        """The edge from the stored nodes, if they lead to the trusted root; then the altered leaves
        lie under the nodes that differ. Else the batch is named."""
        places = tree.peaks(size)
        stored = self._stored_nodes(places)
        if all(place in stored for place in places):
            edge = tree.Frontier(size, [stored[place] for place in places])
            if edge.root() == root:
                self._name_rewritten(nodes or self._pairs(entries))
                return edge
        if self.frontier is None or any(entry is None for entry in entries):
            self._report.unjudged.append(seq)
        else:
            self._report.add(
                "batches",
                {"seq": seq},
                Change.ALTERED,
                None,
                "its leaves do not lead to the anchored root: they were rewritten",
            )
        return None

    def _name_rewritten(self, nodes: Sequence[tuple[int, int, bytes]]) -> None:
        lowest = [(level, index, node) for level, index, node in nodes if level == 1]
        stored = self._stored_nodes([(level, index) for level, index, _ in lowest])
        for level, index, node in lowest:
            if stored.get((level, index)) != node:
                for log_index in (2 * index, 2 * index + 1):
                    self._report.add(
                        "log_leaves",
                        {"log_index": log_index},
                        Change.ALTERED,
                        "leaf",
                        f"this one or its sibling {log_index ^ 1} was rewritten with its hash",
                    )

    def _pairs(self, entries: Sequence[LogEntry | None]) -> list[tuple[int, int, bytes]]:
        """The lowest nodes that this batch's leaves make by themselves, where the edge before is
        unknown."""
        first = self.size
        known = {first + place: entry.hash for place, entry in enumerate(entries) if entry}
        return [
            (1, index >> 1, node_hash(known[index], known[index + 1]))
            for index in range(first + (first & 1), first + len(entries) - 1, 2)
            if index in known and index + 1 in known
        ]

    def _stored_nodes(self, places: Sequence[tree.Coordinate]) -> dict[tree.Coordinate, bytes]:
        """Stored hashes by coordinate, as far as they are there."""
        found: dict[tree.Coordinate, bytes] = {}
        leaves = [index for level, index in places if level == 0]
        if leaves:
            for index, node in self._connection.execute(
                "SELECT log_index, leaf_hash FROM log_leaves WHERE log_index = ANY(%s::bigint[])",
                (leaves,),
            ):
                found[0, index] = node
        inner = [place for place in places if place[0] > 0]
        if inner:
            for level, index, node in self._connection.execute(
                "SELECT level, node_index, hash FROM log_nodes JOIN"
                " unnest(%s::smallint[], %s::bigint[]) AS wanted (level, node_index)"
                " USING (level, node_index)",
                ([place[0] for place in inner], [place[1] for place in inner]),
            ):
                found[level, index] = node
        return found


def _entry(row: StoredLeaf, own_hash: bytes) -> LogEntry:
    return LogEntry(
        log_index=row.log_index,
        transaction_id=row.transaction_id,
        hash=own_hash,
        leaf=_decoded(row.leaf) if leaf_hash(row.leaf) == own_hash else None,
        shared=tuple(words_of(row.shared_leaves)),
        private_copy=row.private_copy,
    )


def _decoded(raw: bytes) -> Leaf | None:
    try:
        return decode_leaf(raw)
    except ValueError:
        return None


def _commits_to_its_fields(row: StoredLeaf) -> bool:
    leaf = _decoded(row.leaf)
    return (
        leaf is not None
        and root_of(words_of(row.shared_leaves)) == leaf.commitment
        and private_commitment(row.private_copy) == leaf.private_commitment
    )
