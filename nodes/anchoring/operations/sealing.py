"""Sealing: committed ledger rows become the next leaves of the log, with a signed checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy
import structlog

from nodes.anchoring import queries, store, tree
from nodes.anchoring.checkpoint import Checkpoint
from nodes.anchoring.model import Batch, LedgerRow, LogIdentity, Position
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.rules import batch_totals, moved_amounts, row_evidence
from nodes.clock import Clock
from nodes.crypto.merkle import EMPTY_ROOT

log = structlog.get_logger(__name__)

#: Rows a batch at most: about a second of work, and a transaction that holds nobody up.
SEAL_LIMIT = 4_000
#: Rows whose leaves go to PostgreSQL at once: it stores them while the next ones are made.
_SLICE = 128


class LogDamaged(Exception):
    """The stored tree contradicts the last batch: nothing may be built on it."""


def seal(
    engine: sqlalchemy.Engine,
    identity: LogIdentity,
    signer: NoteSigner,
    clock: Clock,
    *,
    limit: int = SEAL_LIMIT,
) -> Batch | None:
    """Seal the next committed rows, at most `limit`, in one transaction; None if there are none.

    Also None if another process is sealing at this moment. Raises RowUnsound for a row that
    contradicts its own commitment and LogDamaged; then nothing is sealed until someone looks.
    """
    with store.transaction(engine) as connection:
        if not store.try_lock(connection, "seal"):
            return None
        newest = queries.last_batch(connection)
        rows = queries.rows_to_seal(connection, queries.sealed_position(newest), limit)
        if not rows:
            return None
        edge = queries.frontier(connection, newest.size if newest else 0)
        if newest is not None and edge.root() != newest.root:
            raise LogDamaged(f"the stored tree has not the root of batch {newest.seq}")
        seq = newest.seq + 1 if newest else 1
        hashes = _insert_leaves(connection, identity.member_id, seq, edge.size, rows)
        store.insert_nodes(connection, edge.extend(hashes))
        batch = _batch(newest, rows, edge, identity, signer, clock)
        if newest is not None:
            proof = queries.consistency_proof(connection, newest.size, batch.size)
            batch = replace(batch, consistency=tuple(proof))
        store.insert_batch(connection, batch)
        store.roll_up_balances(connection, moved_amounts(rows))
    log.info("sealed", seq=batch.seq, leaves=batch.leaf_count, size=batch.size)
    return batch


def _insert_leaves(
    connection: store.Connection,
    member_id: str,
    seq: int,
    first_index: int,
    rows: Sequence[LedgerRow],
) -> list[bytes]:
    """The rows' leaves as those of batch `seq`; their hashes. RowUnsound as row_evidence."""
    hashes: list[bytes] = []
    with store.inserting_leaves(connection, seq, first_index) as insert:
        for start in range(0, len(rows), _SLICE):
            part = rows[start : start + _SLICE]
            evidence = [row_evidence(member_id, row) for row in part]
            insert(part, evidence)
            hashes += [entry.leaf_hash for entry in evidence]
    return hashes


def _batch(
    newest: Batch | None,
    rows: Sequence[LedgerRow],
    edge: tree.Frontier,
    identity: LogIdentity,
    signer: NoteSigner,
    clock: Clock,
) -> Batch:
    root, origin = edge.root(), identity.origin
    note = signer.sign(str(origin), Checkpoint(origin, edge.size, root).text())
    return Batch(
        seq=newest.seq + 1 if newest else 1,
        first_index=edge.size - len(rows),
        size=edge.size,
        prev_root=newest.root if newest else EMPTY_ROOT,
        root=root,
        note=note.encode(),
        consistency=(),
        position=position_of(rows[-1]),
        sealed_us=clock.now_ms() * 1000,
        totals=batch_totals(rows),
    )


def position_of(row: LedgerRow) -> Position:
    """A row's place in the order of sealing."""
    xact = row.values["xact"]
    if not isinstance(xact, int):
        raise TypeError("xact is a number")
    return Position(xact, row.transaction_id)
