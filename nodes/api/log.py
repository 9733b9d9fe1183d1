"""`/v1/log`: checkpoint, entries and Merkle proofs, for monitors and counterparties."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from nodes.anchoring import queries as anchoring
from nodes.api.auth import reader_or_member
from nodes.api.dependencies import TheNode
from nodes.api.problems import Problem
from nodes.api.reads import snapshot
from nodes.api.schemas import ConsistencyProof, InclusionProof, LogEntries, LogEntry

router = APIRouter(prefix="/v1/log", tags=["log"], dependencies=[Depends(reader_or_member)])

#: Entries in one answer.
MAX_ENTRIES = 1_000

Place = Annotated[int, Query(ge=0, lt=1 << 62)]
Size = Annotated[int, Query(ge=1, lt=1 << 62)]


@router.get(
    "/checkpoint",
    response_class=Response,
    responses={
        200: {
            "description": "C2SP signed note",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
def get_checkpoint(node: TheNode) -> Response:
    """The signed checkpoint of the newest batch whose anchor is final."""
    with snapshot(node.engine) as connection:
        note = anchoring.latest_checkpoint(connection)
    if note is None:
        raise Problem(404, "nothing-anchored", "Nothing is anchored yet.")
    return Response(note, media_type="text/plain")


@router.get("/entries")
def get_entries(node: TheNode, start: Place, end: Place) -> LogEntries:
    """The sealed leaves [start, end), at most 1,000; `size` tells how many there are in all."""
    if end < start:
        raise Problem(422, "range-wrong", "start must not be behind end.")
    with snapshot(node.engine) as connection:
        size = anchoring.log_size(connection)
        rows = anchoring.log_entries(connection, start, min(end, start + MAX_ENTRIES))
    return LogEntries(
        entries=[
            LogEntry(log_index=index, leaf=leaf.hex(), leaf_hash=leaf_hash.hex(), batch_seq=seq)
            for index, leaf, leaf_hash, seq in rows
        ],
        size=size,
    )


@router.get("/consistency")
def get_consistency(node: TheNode, first: Size, second: Size) -> ConsistencyProof:
    """The RFC 9162 proof that the log of `second` leaves extends that of `first`."""
    with snapshot(node.engine) as connection:
        if not first <= second <= anchoring.log_size(connection):
            raise Problem(404, "size-unknown", "The log never had such a size.")
        proof = anchoring.consistency_proof(connection, first, second)
    return ConsistencyProof(first=first, second=second, proof=[node_.hex() for node_ in proof])


@router.get("/inclusion")
def get_inclusion(node: TheNode, index: Place, size: Size) -> InclusionProof:
    """The RFC 9162 proof that leaf `index` is in the log of `size` leaves."""
    with snapshot(node.engine) as connection:
        if not index < size <= anchoring.log_size(connection):
            raise Problem(404, "size-unknown", "The log has no such leaf or never had such a size.")
        leaf_hash, proof = anchoring.leaf_and_proof(connection, index, size)
    return InclusionProof(
        index=index,
        size=size,
        leaf_hash=leaf_hash.hex(),
        proof=[node_.hex() for node_ in proof],
    )
