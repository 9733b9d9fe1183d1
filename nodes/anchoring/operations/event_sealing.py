"""Sealing events: they become batches of their own in the member's one log."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy
import structlog

from nodes.anchoring import event_store, queries, store
from nodes.anchoring.checkpoint import Checkpoint
from nodes.anchoring.events import event_evidence
from nodes.anchoring.model import START, Batch, LogIdentity
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.operations.sealing import LogDamaged
from nodes.clock import Clock
from nodes.crypto.merkle import EMPTY_ROOT

log = structlog.get_logger(__name__)

#: Events a batch at most.
EVENT_LIMIT = 2_000


def seal_events(
    engine: sqlalchemy.Engine,
    identity: LogIdentity,
    signer: NoteSigner,
    clock: Clock,
    *,
    limit: int = EVENT_LIMIT,
) -> Batch | None:
    """Seal the next committed events in one transaction; None if there are none, or if another
    process is sealing at this moment. Under the same lock as `seal`, and with the same faults.

    The batch has no totals and leaves sealing's place among the transactions where it is.
    """
    with store.transaction(engine) as connection:
        if not store.try_lock(connection, "seal"):
            return None
        rows = event_store.events_to_seal(connection, limit)
        if not rows:
            return None
        newest = queries.last_batch(connection)
        evidence = [event_evidence(identity.member_id, row) for row in rows]
        edge = queries.frontier(connection, newest.size if newest else 0)
        if newest is not None and edge.root() != newest.root:
            raise LogDamaged(f"the stored tree has not the root of batch {newest.seq}")
        nodes = edge.extend(entry.leaf_hash for entry in evidence)
        root, origin = edge.root(), identity.origin
        note = signer.sign(str(origin), Checkpoint(origin, edge.size, root).text())
        batch = Batch(
            seq=newest.seq + 1 if newest else 1,
            first_index=edge.size - len(evidence),
            size=edge.size,
            prev_root=newest.root if newest else EMPTY_ROOT,
            root=root,
            note=note.encode(),
            consistency=(),
            position=newest.position if newest else START,
            sealed_us=clock.now_ms() * 1000,
        )
        event_store.insert_event_leaves(connection, batch, rows, evidence)
        store.insert_nodes(connection, nodes)
        if newest is not None:
            proof = queries.consistency_proof(connection, newest.size, batch.size)
            batch = replace(batch, consistency=tuple(proof))
        store.insert_batch(connection, batch)
    log.info("events sealed", seq=batch.seq, leaves=batch.leaf_count, size=batch.size)
    return batch
